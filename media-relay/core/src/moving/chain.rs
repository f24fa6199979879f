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
use smallvec::{SmallVec, smallvec};

use super::{Lines, lines_between};
use crate::legs::{Leg, Session};
use crate::ours::Facing;
use crate::policy::ReleasePolicy;
use crate::stream::StreamId;
use crate::worker::Worker;

/// More sessions than these are a configuration that leads calls in circles.
const MOST: usize = 8;

/// A session of a call, and its ends: the one towards the first party and the one towards the second.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Link {
    pub(crate) session: u64,
    pub(crate) ends: [Endpoint; 2],
}

/// In order, from the first party to the second. The first one's session has the moves.
pub(crate) type Chain = SmallVec<[Link; 1]>;

/// That a session's moves are with another's.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Guest {
    pub(crate) host: u64,
    pub(crate) ends: [Endpoint; 2],
}

/// What a chain could move.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Found {
    pub(super) chain: Chain,
    pub(super) lines: Lines,
    /// Of each of these lines the streams between the parties that carry what the first and what the second one sends.
    pub(super) carriers: Vec<[SmallVec<[StreamId; 1]>; 2]>,
}

/// What is beyond a leg.
enum Beyond {
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

pub(super) fn leg(sessions: &AHashMap<u64, Session>, session: u64, end: Endpoint) -> Option<&Leg> {
    sessions.get(&session)?.leg(end)
}

/// The two outer legs.
pub(super) fn outer<'a>(sessions: &'a AHashMap<u64, Session>, chain: &[Link]) -> Option<[&'a Leg; 2]> {
    let (first, last) = (chain.first()?, chain.last()?);
    Some([
        leg(sessions, first.session, first.ends[Side::First])?,
        leg(sessions, last.session, last.ends[Side::Second])?,
    ])
}

/// What policy says of all of it; `None` if it is never to move. Each session's own word counts, and what the realms of its two
/// parties allow; between the outer parties, who will hear each other, their realms too. The strictest wins.
pub(super) fn constraint(
    sessions: &AHashMap<u64, Session>,
    chain: &[Link],
    policy: &ReleasePolicy,
) -> Option<Constraint> {
    let mut strictest = Constraint::PreferRelease;
    let mut is_told = true;
    for link in chain {
        let session = sessions.get(&link.session)?;
        is_told &= session.constraint().is_some();
        strictest = strictest.min(super::constraint(session, link.ends, policy)?);
    }
    if chain.len() > 1 && !is_told {
        let [one, other] = outer(sessions, chain)?;
        strictest = strictest.min(policy.between(one.party.realm.0, other.party.realm.0)?);
    }
    Some(strictest)
}

impl Worker {
    /// The session that has the moves of this one.
    pub(crate) fn host_of(&self, id: u64) -> u64 {
        self.sessions.get(&id).and_then(|session| session.guest).map_or(id, |guest| guest.host)
    }

    fn link(&self, id: u64) -> Option<Link> {
        let session = self.sessions.get(&id).filter(|session| session.handoff.is_none())?;
        Some(Link { session: id, ends: parties(session)? })
    }

    /// The chain that a session is part of, if nothing but itself.
    pub(super) fn chain(&self, id: u64) -> Option<Chain> {
        let own = self.link(id)?;
        Some(self.follow(own).unwrap_or(smallvec![own]))
    }

    /// Both ways, until somebody else comes; `None` if that is not to be found out.
    fn follow(&self, own: Link) -> Option<Chain> {
        let mut chain: Chain = smallvec![own];
        for side in [Side::Second, Side::First] {
            loop {
                let tail = if side == Side::Second { chain.last()? } else { chain.first()? };
                let (session, near) = match self.beyond(tail.session, tail.ends[side]) {
                    Beyond::Party => break,
                    Beyond::Us(session, near) => (session, near),
                    Beyond::Nobody => return None,
                };
                let mut next = self.link(session)?;
                if next.ends[!side] != near {
                    next.ends.reverse();
                }
                let is_known = chain.iter().any(|link| link.session == session);
                if is_known || chain.len() >= MOST || next.ends[!side] != near {
                    return None;
                }
                chain.insert(if side == Side::Second { chain.len() } else { 0 }, next);
            }
        }
        // Whichever session it was found from, it is the same: the caller first, as everywhere.
        let callers =
            [chain.first()?.ends[Side::First].party == 0, chain.last()?.ends[Side::Second].party == 0];
        let is_backwards = match callers {
            [true, false] => false,
            [false, true] => true,
            _ => chain.last()?.session < chain.first()?.session,
        };
        if is_backwards && chain.len() > 1 {
            chain.reverse();
            chain.iter_mut().for_each(|link| link.ends.reverse());
        }
        Some(chain)
    }

    /// Who is on the other side of a leg's ports.
    fn beyond(&self, id: u64, end: Endpoint) -> Beyond {
        let Some(leg) = leg(&self.sessions, id, end) else { return Beyond::Nobody };
        if !leg.is_joined {
            return Beyond::Party;
        }
        self.other_side(leg).map_or(Beyond::Nobody, |(session, end)| Beyond::Us(session, end))
    }

    /// The leg that all of these ports face, if it faces them.
    fn other_side(&self, leg: &Leg) -> Option<(u64, Endpoint)> {
        let mut found = None;
        for (index, stream) in leg.streams.iter().enumerate() {
            let Some(own) = stream.and_then(|stream| self.streams.get(stream)) else { continue };
            if own.is_refused {
                continue;
            }
            let port = own.rtp.signalled()?;
            let Facing { session, party, .. } = self.streams.open.facing(port)?;
            let link = self.link(session)?;
            let end = link.ends.into_iter().find(|end| end.party == party)?;
            let far = self::leg(&self.sessions, session, end).filter(|far| far.is_joined)?;
            let facing = far.streams.get(index).copied().flatten().and_then(|far| self.streams.get(far))?;
            let is_mutual = facing.ports.address == port && facing.rtp.signalled() == Some(own.ports.address);
            if !is_mutual || *found.get_or_insert((session, end)) != (session, end) {
                return None;
            }
        }
        found
    }

    /// What of a chain could move: those with rtcp-mux at a party only where `may_mux` says that nothing needs to be proven.
    pub(super) fn eligible(&self, chain: Chain, may_mux: bool) -> Option<Found> {
        let lines = lines_between(outer(&self.sessions, &chain)?, &self.streams, may_mux)?;
        let mut carriers = vec![<[SmallVec<[StreamId; 1]>; 2]>::default(); lines.len()];
        for (index, link) in chain.iter().enumerate() {
            let [near, far] = link.ends.map(|end| leg(&self.sessions, link.session, end));
            let within = lines_between([near?, far?], &self.streams, true)?;
            let is_same = within.iter().map(|line| line.0).eq(lines.iter().map(|line| line.0));
            if !is_same {
                return None;
            }
            for (carriers, (_, [near, far])) in carriers.iter_mut().zip(&within) {
                let [first, second] = carriers;
                if index > 0 {
                    first.push(*near);
                }
                if index.saturating_add(1) < chain.len() {
                    second.push(*far);
                }
            }
        }
        Some(Found { chain, lines, carriers })
    }
}
