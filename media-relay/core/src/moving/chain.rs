//! The sessions that one call runs through.
//!
//! A registrar or proxy behind us leads a call between two phones of ours back to us: then it is two calls of ours, or more, and the
//! media goes from one of our ports to another. `ours.rs` knows such a description by its o= line and its port, both ours. Here the
//! halves are put together again: from a session's leg whose peer is a port of ours to the leg that this port faces, as long as each
//! names the other, until a party is reached that is none of us. What is found is released as one call, between the two outer
//! parties; the legs between stay as they are, and are where everybody comes home to.
//!
//! Whoever anchors media in between (a B2BUA with descriptions of its own, rtpengine) ends the chain, and so does what lives on another
//! worker: such a half has a party of ours beyond it, to whom nobody is ever moved.

use ahash::AHashMap;
use seam::path::Constraint;
use seam::{Endpoint, Side};
use serde::{Deserialize, Serialize};
use smallvec::SmallVec;

use crate::legs::{Leg, Session};
use crate::moving::scene;
use crate::moving::scene::Lines;
use crate::policy::ReleasePolicy;
use crate::ports::StreamId;

/// More sessions than these are a configuration that leads calls in circles.
pub(crate) const MOST: usize = 8;

/// A session of a call, and its ends: the one towards the first party and the one towards the second.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Link {
    pub(crate) session: u64,
    pub(crate) ends: [Endpoint; 2],
}

/// In order, from the first party to the second. The first one's session has the moves.
pub(crate) type Chain = SmallVec<[Link; 1]>;

/// That a session's moves are with another's.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub(crate) struct Guest {
    pub(crate) host: u64,
    pub(crate) ends: [Endpoint; 2],
}

/// What a chain could move.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Found {
    pub(crate) chain: Chain,
    pub(crate) lines: Lines,
    /// Of each of these lines the streams between the parties that carry what the first and what the second one sends.
    pub(crate) carriers: Vec<[SmallVec<[StreamId; 1]>; 2]>,
}

/// What is beyond a leg.
pub(crate) enum Beyond {
    /// A party that is none of us.
    Party,
    /// This end of a session.
    Us(u64, Endpoint),
    /// A port of ours that does not name this one, or nobody knows it here.
    Nobody,
}

/// The two parties of a session, if there are just two that have agreed.
pub(crate) fn parties(session: &Session) -> Option<[Endpoint; 2]> {
    session.selected?;
    let [(one, first), (other, second)] = session.legs.as_slice() else { return None };
    first.agreed.as_ref().and(second.agreed.as_ref())?;
    Some([*one, *other])
}

pub(crate) fn leg(sessions: &AHashMap<u64, Session>, session: u64, end: Endpoint) -> Option<&Leg> {
    sessions.get(&session)?.leg(end)
}

/// The two outer legs.
pub(crate) fn outer<'a>(sessions: &'a AHashMap<u64, Session>, chain: &[Link]) -> Option<[&'a Leg; 2]> {
    let (first, last) = (chain.first()?, chain.last()?);
    Some([
        leg(sessions, first.session, first.ends[Side::First])?,
        leg(sessions, last.session, last.ends[Side::Second])?,
    ])
}

/// What policy says of all of it; `None` if it is never to move. Each session's own word counts, and what the realms of its two
/// parties allow; between the outer parties, who will hear each other, their realms too. The strictest wins.
pub(crate) fn constraint(
    sessions: &AHashMap<u64, Session>,
    chain: &[Link],
    policy: &ReleasePolicy,
) -> Option<Constraint> {
    let mut strictest = Constraint::PreferRelease;
    let mut is_told = true;
    for link in chain {
        let session = sessions.get(&link.session)?;
        is_told &= session.constraint().is_some();
        strictest = strictest.min(scene::constraint(session, link.ends, policy)?);
    }
    if chain.len() > 1 && !is_told {
        let [one, other] = outer(sessions, chain)?;
        strictest = strictest.min(policy.between(one.party.realm.0, other.party.realm.0)?);
    }
    Some(strictest)
}
