//! The memory that the program may have, and what it refuses for want of it.
//!
//! Beyond what its control group allows the kernel ends the process, and all calls with it. Before that what is new is
//! refused, and running calls go on.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

/// How often it looks: at 1 Gbit/s of strangers' octets these are 30 MB.
const LOOK: Duration = Duration::from_millis(250);
/// Share of the limit from which on what is new is refused, in percent; and where it is lifted.
const HIGH: u64 = 85;
const LOW: u64 = 80;
/// An allocator does not give all of it back. Once use has not grown for so long it is as high as it will be, and new calls
/// are taken again until it grows on.
const SETTLED: Duration = Duration::from_secs(30);
/// By how much it may then grow before they are refused anew, and how far this can go, in percent.
const STEP: u64 = 3;
const HIGHEST: u64 = 97;

/// What is known of it, for shards and metrics.
#[derive(Debug, Default)]
pub struct Memory {
    /// What is new is refused.
    pub is_short: Arc<AtomicBool>,
    /// Octets in use.
    pub used: AtomicU64,
    /// Octets allowed; 0: no limit is known.
    pub limit: AtomicU64,
}

/// Follows the use of memory until the program ends. `configured` in octets; 0 leaves it to the control group.
pub async fn follow(memory: Arc<Memory>, configured: u64) {
    let group = Group::own();
    let mut gauge = Gauge::default();
    let mut ticks = tokio::time::interval(LOOK);
    loop {
        vitals::round();
        ticks.tick().await;
        let allowed = [configured, group.as_ref().map_or(0, Group::limit)];
        let Some(limit) = allowed.into_iter().filter(|limit| *limit > 0).min() else { continue };
        let used = group.as_ref().and_then(Group::used).or_else(resident).unwrap_or(0);
        memory.used.store(used, Ordering::Relaxed);
        memory.limit.store(limit, Ordering::Relaxed);
        let is_short = gauge.judge(used, limit, LOOK);
        if memory.is_short.swap(is_short, Ordering::Relaxed) != is_short {
            let (used_mib, limit_mib) = (used >> 20, limit >> 20);
            if is_short {
                tracing::error!(
                    used_mib,
                    limit_mib,
                    "memory is short: what is new is refused with 503 until it is not. Allow more (MemoryMax of the unit, limits.memory_mib), lower limits.*, or look for a flood (sbc_notices_total)"
                );
            } else {
                tracing::warn!(used_mib, limit_mib, "new calls are taken again");
            }
        }
    }
}

/// Whether memory is short.
#[derive(Debug, Default)]
struct Gauge {
    is_short: bool,
    /// Percent; 0 stands for [`HIGH`].
    bar: u64,
    highest: u64,
    /// Without growth, while it is short.
    settled: Duration,
}

impl Gauge {
    fn judge(&mut self, used: u64, limit: u64, elapsed: Duration) -> bool {
        let percent = used.saturating_mul(100).checked_div(limit).unwrap_or_default();
        if percent < LOW {
            *self = Self::default();
        } else if percent >= self.bar.max(HIGH) {
            self.is_short = true;
            if percent > self.highest {
                (self.highest, self.settled) = (percent, Duration::ZERO);
            } else {
                self.settled = self.settled.saturating_add(elapsed);
            }
            if self.settled >= SETTLED {
                *self = Self { bar: percent.saturating_add(STEP).min(HIGHEST), ..Self::default() };
            }
        }
        self.is_short
    }
}

/// A control group of version 2, and those that it is in.
#[derive(Debug)]
struct Group(Vec<PathBuf>);

impl Group {
    fn own() -> Option<Self> {
        let groups = std::fs::read_to_string("/proc/self/cgroup").ok()?;
        let own = groups.lines().find_map(|line| line.strip_prefix("0::/"))?;
        let root = Path::new("/sys/fs/cgroup");
        let path = root.join(own);
        let within = path.ancestors().take_while(|path| path.starts_with(root) && *path != root);
        let group = Self(within.map(Path::to_owned).collect());
        group.used().map(|_| group)
    }

    /// The least of theirs; 0: none.
    fn limit(&self) -> u64 {
        let limits = self.0.iter().filter_map(|path| std::fs::read_to_string(path.join("memory.max")).ok());
        limits.filter_map(|limit| limit.trim().parse().ok()).min().unwrap_or(0)
    }

    /// What can't be reclaimed: pages of files are no want of memory.
    fn used(&self) -> Option<u64> {
        let own = self.0.first()?;
        let all: u64 = std::fs::read_to_string(own.join("memory.current")).ok()?.trim().parse().ok()?;
        let parts = std::fs::read_to_string(own.join("memory.stat")).ok()?;
        let files = parts.lines().filter_map(|line| line.split_once(' '));
        let files = files.filter(|(name, _)| matches!(*name, "active_file" | "inactive_file"));
        let files = files.filter_map(|(_, octets)| octets.parse::<u64>().ok()).fold(0, u64::saturating_add);
        Some(all.saturating_sub(files))
    }
}

/// What the process has of its own, where there is no group to ask.
fn resident() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:"))?;
    let kib: u64 = line.trim().trim_end_matches(" kB").trim().parse().ok()?;
    Some(kib.saturating_mul(1024))
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn what_is_new_is_refused_while_use_grows_near_the_limit_and_not_below() {
        let mut gauge = Gauge::default();
        let mut at = |percent| gauge.judge(percent, 100, SECOND);
        assert_eq!(
            [at(50), at(84), at(85), at(83), at(79), at(84)],
            [false, false, true, true, false, false]
        );
    }

    #[test]
    fn what_an_allocator_keeps_shuts_nobody_out_for_ever() {
        let mut gauge = Gauge::default();
        assert!(gauge.judge(90, 100, SECOND));
        let refused = (0..60).filter(|_| gauge.judge(90, 100, SECOND)).count();
        assert!((28..=30).contains(&refused), "{refused}");
        assert!(!gauge.judge(92, 100, SECOND), "what was given back inside is used again");
        assert!(gauge.judge(93, 100, SECOND), "but not more");
        assert!(gauge.judge(98, 100, SECOND));
    }

    #[test]
    fn this_process_has_some() {
        assert!(resident().unwrap() > 100_000);
    }
}
