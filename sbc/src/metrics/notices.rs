//! Log lines that strangers can cause: a few of each kind, the rest counted, so that a flood does not fill the disk.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use sip_engine::io::Notice;

/// Lines of one kind between two summaries.
const LINES: u64 = 5;

/// What was logged and what was not since the last summary, by kind.
#[derive(Debug, Default)]
pub struct Notices {
    kinds: Mutex<HashMap<&'static str, u64>>,
}

impl Notices {
    /// Logs a notice, if few of its kind have come.
    pub fn write(&self, notice: &Notice) {
        if self.admits(notice.kind) {
            let remote = notice.remote.map(|remote| remote.to_string()).unwrap_or_default();
            tracing::warn!(kind = notice.kind, remote, "{}", notice.detail);
        }
    }

    /// Logs one line for each kind of which some were not logged.
    pub fn summarise(&self) {
        for (kind, suppressed) in self.suppressed() {
            tracing::warn!(kind, suppressed, "more of these were counted and not logged (sbc_notices_total)");
        }
    }

    fn admits(&self, kind: &'static str) -> bool {
        let mut kinds = self.kinds.lock().unwrap_or_else(PoisonError::into_inner);
        let count = kinds.entry(kind).or_default();
        *count = count.saturating_add(1);
        *count <= LINES
    }

    fn suppressed(&self) -> Vec<(&'static str, u64)> {
        let mut kinds = self.kinds.lock().unwrap_or_else(PoisonError::into_inner);
        let counted = kinds.drain().map(|(kind, count)| (kind, count.saturating_sub(LINES)));
        counted.filter(|(_, suppressed)| *suppressed > 0).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_leaves_a_few_lines_and_one_summary_and_other_kinds_are_still_heard() {
        let notices = Notices::default();
        let logged = (0..100_000).filter(|_| notices.admits("message_refused")).count();
        assert_eq!(logged, 5);
        assert!(notices.admits("unknown_source"));
        assert_eq!(notices.suppressed(), [("message_refused", 99_995)]);
        assert!(notices.suppressed().is_empty(), "told once");
        assert!(notices.admits("message_refused"), "and heard again afterwards");
    }
}
