//! The timeline of a call's media path, in the words of records, metrics and operators.

use std::time::Duration;

use media_core::Side;
use media_core::path::Gap;
use media_core::path::place::{Mapping, Stay, Way};
use media_core::path::proof::Lie;
use media_core::path::timeline::{Entry, IceStep, PathState, Reason};
use media_core::session::Endpoint;
use media_wire::handoff::Reason as Cause;
use sip_engine::media::PathEntry;

/// One entry; `parties` are those that it counts as the first and the second.
pub fn entry(after: Duration, entry: Entry, parties: [Endpoint; 2]) -> PathEntry {
    let party_of = |side: Side| Some(parties[side].party);
    let (what, why, party, evidence) = match entry {
        Entry::State { to, why } => (state(to), reason(why), None, String::new()),
        Entry::Handoff { to, why } => (state(to), cause(why), None, String::new()),
        Entry::Way(Way::Observed([one, other])) => {
            ("way", "observed", None, format!("{one} and {other}, as they were observed"))
        }
        Entry::Way(Way::Local([one, other])) => {
            ("way", "local", None, format!("{one} and {other}, their local addresses"))
        }
        Entry::Way(Way::Learn(whom)) => {
            let learnt = Side::BOTH.into_iter().filter(|side| whom[*side]);
            let whom: Vec<String> = learnt.map(|side| format!("party {}", parties[side].party)).collect();
            ("way", "learn", None, format!("the NAT of {} is learnt first", whom.join(" and ")))
        }
        Entry::Stays(why) => ("stays", stay(why), None, String::new()),
        Entry::Ice(IceStep::Asked { party }) => ("ice", "asked", party_of(party), String::new()),
        Entry::Ice(IceStep::Introduced) => {
            ("ice", "introduced", None, "each has the other's candidates, and the relay".to_owned())
        }
        Entry::Ice(IceStep::KeptCredentials { party }) => {
            ("ice", "kept_credentials", party_of(party), String::new())
        }
        Entry::Ice(IceStep::Nominated { party }) => ("ice", "nominated", party_of(party), String::new()),
        Entry::Mapping { party, mapping } => {
            let (why, evidence) = match mapping {
                Mapping::None => ("none", String::new()),
                Mapping::EndpointIndependent => {
                    ("endpoint_independent", "the same port at both addresses".to_owned())
                }
                Mapping::Dependent { step } => ("dependent", format!("another port, by {step}")),
                Mapping::Unknown => ("unknown", String::new()),
            };
            ("mapping", why, party_of(party), evidence)
        }
        Entry::Evidence { from, is_confirmed, evidence } => (
            "proof",
            if is_confirmed { "confirmed" } else { "refuted" },
            party_of(from),
            format!(
                "a report {} packets past the last that was known of, when {} must have been sent",
                evidence.ahead, evidence.due
            ),
        ),
        Entry::Trial { from, outcome } => (
            "proof",
            if outcome.is_proof() { "confirmed" } else { "refuted" },
            party_of(from),
            format!(
                "of {} packets of the trial {} are missing",
                outcome.sent,
                outcome.lost.clamp(0, i32::from(outcome.sent))
            ),
        ),
        Entry::Lie { party, lie } => {
            let why = match lie {
                Lie::Source => "source",
                Lie::Backwards => "backwards",
                Lie::TooMany => "too_many",
                Lie::Jitter => "jitter",
            };
            ("lie", why, party_of(party), String::new())
        }
        Entry::Unsaid { party, contradicts } => (
            "claim",
            if contradicts { "contradicts" } else { "silent" },
            party_of(party),
            if contradicts {
                "it says that it sends to the relay, and no packet has come"
            } else {
                "it does not say where it sends, and no packet has come"
            }
            .to_owned(),
        ),
        Entry::Gap { from, gap: Gap::Measured(length) } => {
            ("gap", "measured", party_of(from), format!("{} ms", length.as_millis()))
        }
        Entry::Gap { from, gap: Gap::Missing { packets, length } } => (
            "gap",
            "estimated",
            party_of(from),
            format!("{} ms at most: {packets} packets are missing between two reports", length.as_millis()),
        ),
        Entry::Gap { from, gap: Gap::Unknown } => {
            ("gap", "unknown", party_of(from), "its receiver has begun to count anew".to_owned())
        }
    };
    PathEntry { after, what: what.into(), why: why.into(), party, evidence: evidence.into() }
}

fn state(state: PathState) -> &'static str {
    match state {
        PathState::Anchored => "anchored",
        PathState::Probing => "probing",
        PathState::Synchronising => "synchronising",
        PathState::Direct => "direct",
        PathState::Returning => "returning",
    }
}

fn reason(reason: Reason) -> &'static str {
    match reason {
        Reason::Answered => "answered",
        Reason::Try => "try",
        Reason::Trial => "trial",
        Reason::Proven => "proven",
        Reason::Certain => "certain",
        Reason::Refuted => "refuted",
        Reason::Unproven => "unproven",
        Reason::CameBack => "came_back",
        Reason::Refused => "refused",
        Reason::ReportsStopped => "reports_stopped",
        Reason::Quality => "quality",
        Reason::Renegotiated => "renegotiated",
        Reason::Clung => "clung",
        Reason::Policy => "policy",
        Reason::Heard => "heard",
        Reason::Counted => "counted",
    }
}

/// Why CRUSH endpoints move their media (docs/crush.md §7.1).
fn cause(reason: Cause) -> &'static str {
    match reason {
        Cause::Synchronised => "synchronised",
        Cause::Missing => "missing",
        Cause::Quality => "quality",
        Cause::Policy => "policy",
        Cause::Network => "network_switch",
        Cause::Consent => "consent_lost",
        Cause::Comparison => "comparison",
        Cause::Application => "application",
    }
}

fn stay(stay: Stay) -> &'static str {
    match stay {
        Stay::Policy => "policy",
        Stay::Privacy => "privacy",
        Stay::Family => "family",
        Stay::DependentMapping => "dependent_mapping",
        Stay::SharedAddress => "shared_address",
        Stay::UnknownMapping => "unknown_mapping",
        Stay::NoReports => "no_reports",
        Stay::Inconclusive => "inconclusive",
        Stay::Remembered => "remembered",
        Stay::Unfit => "unfit_address",
        Stay::Unroutable => "unroutable",
        Stay::Refused => "refused",
        Stay::Unmoved => "unmoved",
        Stay::Ice => "ice",
        Stay::Failed => "failed",
        Stay::NotRtp => "not_rtp",
        Stay::Srtp => "srtp",
        Stay::Muxed => "rtcp_mux",
        Stay::Unlike => "unlike_halves",
        Stay::NoMedia => "no_media",
    }
}
