//! The timeline of a call's media path, in the words of records, metrics and operators: made here, where somebody reads them, and
//! nowhere before.

use std::borrow::Cow;

use seam::path::{Entry, Gap, IceStep, Mapping, PathEntry, PathRecord, PathWords, Way};
use seam::{Endpoint, Side};

/// What a record says of a path, in words.
pub fn words_of(record: &PathRecord) -> Cow<'_, PathWords> {
    match record {
        PathRecord::Entry(entry) => Cow::Owned(words(entry)),
        PathRecord::Words(words) => Cow::Borrowed(words),
    }
}

fn words(PathEntry { after, entry, parties }: &PathEntry) -> PathWords {
    let (what, why) = entry.words();
    let party = about(entry).map(|side| side.its(parties).party);
    let evidence = evidence(entry, parties);
    PathWords { after: *after, what: what.into(), why: why.into(), party, evidence: evidence.into() }
}

/// Which of the two parties an entry is about.
fn about(entry: &Entry) -> Option<Side> {
    match *entry {
        Entry::Ice(
            IceStep::Asked { party } | IceStep::KeptCredentials { party } | IceStep::Nominated { party },
        )
        | Entry::Mapping { party, .. }
        | Entry::Lie { party, .. }
        | Entry::Unsaid { party, .. } => Some(party),
        Entry::Evidence { from, .. } | Entry::Trial { from, .. } | Entry::Gap { from, .. } => Some(from),
        Entry::State { .. }
        | Entry::Handoff { .. }
        | Entry::Way(_)
        | Entry::Stays(_)
        | Entry::Ice(IceStep::Introduced) => None,
    }
}

/// What was seen, for a reader.
fn evidence(entry: &Entry, parties: &[Endpoint; 2]) -> String {
    match entry {
        Entry::Way(Way::Observed([one, other])) => format!("{one} and {other}, as they were observed"),
        Entry::Way(Way::Local([one, other])) => format!("{one} and {other}, their local addresses"),
        Entry::Way(Way::Learn(whom)) => {
            let learnt = Side::BOTH.into_iter().filter(|side| *side.its(whom));
            let whom: Vec<String> = learnt.map(|side| format!("party {}", side.its(parties).party)).collect();
            format!("the NAT of {} is learnt first", whom.join(" and "))
        }
        Entry::Ice(IceStep::Introduced) => "each has the other's candidates, and the relay".to_owned(),
        Entry::Mapping { mapping: Mapping::EndpointIndependent, .. } => {
            "the same port at both addresses".to_owned()
        }
        Entry::Mapping { mapping: Mapping::Dependent { step }, .. } => format!("another port, by {step}"),
        Entry::Evidence { evidence, .. } => format!(
            "a report {} packets past the last that was known of, when {} must have been sent",
            evidence.ahead, evidence.due
        ),
        Entry::Trial { outcome, .. } => format!(
            "of {} packets of the trial {} are missing",
            outcome.sent,
            outcome.lost.clamp(0, i32::from(outcome.sent))
        ),
        Entry::Unsaid { contradicts: true, .. } => {
            "it says that it sends to the relay, and no packet has come".to_owned()
        }
        Entry::Unsaid { contradicts: false, .. } => {
            "it does not say where it sends, and no packet has come".to_owned()
        }
        Entry::Gap { gap: Gap::Measured(length), .. } => format!("{} ms", length.as_millis()),
        Entry::Gap { gap: Gap::Missing { packets, length }, .. } => {
            format!("{} ms at most: {packets} packets are missing between two reports", length.as_millis())
        }
        Entry::Gap { gap: Gap::Unknown, .. } => "its receiver has begun to count anew".to_owned(),
        Entry::State { .. }
        | Entry::Handoff { .. }
        | Entry::Stays(_)
        | Entry::Ice(_)
        | Entry::Mapping { .. }
        | Entry::Lie { .. } => String::new(),
    }
}
