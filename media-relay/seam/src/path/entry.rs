//! The entries of a path's timeline.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::{Evidence, Gap, HandoffReason, Lie, Mapping, PathState, Reason, Stay, TrialOutcome, Way};
use crate::{Endpoint, Side};

/// An entry of the timeline of a call's media path.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PathEntry {
    /// How long after the answer.
    pub after: Duration,
    /// What happened.
    pub entry: Entry,
    /// Whom its first and its second party are.
    pub parties: [Endpoint; 2],
}

/// A step of two phones that are introduced to each other to check paths themselves (ICE).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum IceStep {
    /// A party was asked for an offer.
    Asked {
        /// Who.
        party: Side,
    },
    /// Each has the other's credentials and candidates.
    Introduced,
    /// A party has not restarted ICE: what it uses with us cannot be the other's.
    KeptCredentials {
        /// Who.
        party: Side,
    },
    /// The party that controls has named the pair that both use.
    Nominated {
        /// Who.
        party: Side,
    },
}

/// One entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Entry {
    /// Another state.
    State {
        /// The new one.
        to: PathState,
        /// Why.
        why: Reason,
    },
    /// Another state, by what CRUSH endpoints say.
    Handoff {
        /// The new one.
        to: PathState,
        /// Why, in their words.
        why: HandoffReason,
    },
    /// A way is tried.
    Way(Way),
    /// It stays on the relay, and why.
    Stays(Stay),
    /// A step of ICE between the parties.
    Ice(IceStep),
    /// How a party's NAT maps, seen at the second address.
    Mapping {
        /// Whose.
        party: Side,
        /// What was seen.
        mapping: Mapping,
    },
    /// The report that proved a direction, or refuted it.
    Evidence {
        /// Its sender.
        from: Side,
        /// Or refuted.
        is_confirmed: bool,
        /// What it said.
        evidence: Evidence,
    },
    /// What a receiver has missed of a trial's packets.
    Trial {
        /// Their sender.
        from: Side,
        /// How many there were, and how many did not arrive.
        outcome: TrialOutcome,
    },
    /// A report of a party that can't be true; counted once per kind here.
    Lie {
        /// Who said it.
        party: Side,
        /// What.
        lie: Lie,
    },
    /// The call is direct, and a party does not say so.
    Unsaid {
        /// Who.
        party: Side,
        /// It says that it sends to the relay, instead of nothing.
        contradicts: bool,
    },
    /// A direction's audio gap in a move.
    Gap {
        /// Its sender.
        from: Side,
        /// How long, and how that is known.
        gap: Gap,
    },
}

impl Entry {
    /// The kind of an entry and its reason, as `call_path` and metrics name them.
    pub fn words(&self) -> (&'static str, &'static str) {
        match self {
            Entry::State { to, why } => (to.word(), why.word()),
            Entry::Handoff { to, why } => (to.word(), why.word()),
            Entry::Way(Way::Observed(_)) => ("way", "observed"),
            Entry::Way(Way::Local(_)) => ("way", "local"),
            Entry::Way(Way::Learn(_)) => ("way", "learn"),
            Entry::Stays(why) => ("stays", why.word()),
            Entry::Ice(IceStep::Asked { .. }) => ("ice", "asked"),
            Entry::Ice(IceStep::Introduced) => ("ice", "introduced"),
            Entry::Ice(IceStep::KeptCredentials { .. }) => ("ice", "kept_credentials"),
            Entry::Ice(IceStep::Nominated { .. }) => ("ice", "nominated"),
            Entry::Mapping { mapping: Mapping::None, .. } => ("mapping", "none"),
            Entry::Mapping { mapping: Mapping::EndpointIndependent, .. } => {
                ("mapping", "endpoint_independent")
            }
            Entry::Mapping { mapping: Mapping::Dependent { .. }, .. } => ("mapping", "dependent"),
            Entry::Mapping { mapping: Mapping::Unknown, .. } => ("mapping", "unknown"),
            Entry::Evidence { is_confirmed, .. } => ("proof", verdict(*is_confirmed)),
            Entry::Trial { outcome, .. } => ("proof", verdict(outcome.is_proof())),
            Entry::Lie { lie, .. } => ("lie", lie.word()),
            Entry::Unsaid { contradicts: true, .. } => ("claim", "contradicts"),
            Entry::Unsaid { contradicts: false, .. } => ("claim", "silent"),
            Entry::Gap { gap: Gap::Measured(_), .. } => ("gap", "measured"),
            Entry::Gap { gap: Gap::Missing { .. }, .. } => ("gap", "estimated"),
            Entry::Gap { gap: Gap::Unknown, .. } => ("gap", "unknown"),
        }
    }
}

fn verdict(is_confirmed: bool) -> &'static str {
    if is_confirmed { "confirmed" } else { "refuted" }
}
