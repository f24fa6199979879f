//! What the journal holds of a path: the entry itself, or the words that versions before wrote instead.

use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::PathEntry;

/// As the journal holds it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum PathRecord {
    /// Typed.
    Entry(PathEntry),
    /// In words, by a version that made them before it wrote: read, and never written.
    Words(PathWords),
}

/// An entry in words: as the database shows it, and as the journal held it once.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PathWords {
    /// How long after the answer.
    pub after: Duration,
    /// A state (`anchored`, `probing`, `synchronising`, `direct`, `returning`), or `way`, `stays`, `ice`, `mapping`, `proof`, `lie`,
    /// `claim`, `gap`.
    pub what: Arc<str>,
    /// The reason of a state; of the others what it was.
    pub why: Arc<str>,
    /// The party that it is about, if it is about one.
    pub party: Option<u16>,
    /// What was seen, for a reader; empty where nothing more is to say.
    pub evidence: Arc<str>,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Endpoint;
    use crate::path::{Entry, HandoffReason, PathState, Reason, Stay, Way};

    #[test]
    fn what_is_written_is_read_back_and_bears_the_words_of_records() {
        let parties = [0, 1].map(|party| Endpoint { party, branch: 0 });
        let addresses = [4000, 4002].map(|port| ([192, 0, 2, 1], port).into());
        for (entry, words) in [
            (Entry::State { to: PathState::Direct, why: Reason::CameBack }, ["direct", "came_back"]),
            (
                Entry::Handoff { to: PathState::Anchored, why: HandoffReason::Network },
                ["anchored", "network_switch"],
            ),
            (Entry::Stays(Stay::Unlike), ["stays", "unlike_halves"]),
            (Entry::Way(Way::Observed(addresses)), ["way", "observed"]),
        ] {
            let record = PathRecord::Entry(PathEntry { after: Duration::from_millis(1500), entry, parties });
            let line = serde_json::to_string(&record).unwrap();
            assert!(words.iter().all(|word| line.contains(&format!("\"{word}\""))), "{line}");
            assert_eq!(serde_json::from_str::<PathRecord>(&line).unwrap(), record, "{line}");
        }
    }

    #[test]
    fn what_the_version_before_wrote_is_read_as_it_stands() {
        let line = r#"{"after":{"secs":9,"nanos":1},"what":"proof","why":"confirmed","party":1,"evidence":"a report"}"#;
        let PathRecord::Words(words) = serde_json::from_str(line).unwrap() else { panic!("{line}") };
        assert_eq!((&*words.what, &*words.why, words.party), ("proof", "confirmed", Some(1)));
        assert_eq!(serde_json::to_string(&words).unwrap(), line);
    }

    #[test]
    fn each_word_leads_back_to_its_variant() {
        assert!(Reason::ALL.iter().all(|reason| Reason::of(reason.word()) == Some(*reason)));
        assert!(Stay::ALL.iter().all(|stay| Stay::of(stay.word()) == Some(*stay)));
        assert_eq!(Stay::of("whatever"), None);
    }
}
