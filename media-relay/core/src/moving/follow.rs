//! How the sessions that one call runs through are found: from port to port.

use ahash::AHashMap;
use seam::{Endpoint, Side};
use smallvec::{SmallVec, smallvec};

use crate::legs::{Leg, Session};
use crate::motion::Motions;
use crate::moving::chain;
use crate::moving::chain::{Beyond, Chain, Found, Link, MOST, leg, outer, parties};
use crate::moving::scene::lines_between;
use crate::open_ports::Facing;
use crate::ports::StreamId;
use crate::stream::{Standing, Streams};

/// What chains are found in.
#[derive(Clone, Copy)]
pub(crate) struct Chains<'a> {
    pub(crate) sessions: &'a AHashMap<u64, Session>,
    pub(crate) motions: &'a Motions,
    pub(crate) streams: &'a Streams,
}

impl Chains<'_> {
    fn link(self, id: u64) -> Option<Link> {
        let session = self.sessions.get(&id).filter(|_| self.motions.handoff(id).is_none())?;
        Some(Link { session: id, ends: parties(session)? })
    }

    /// The chain that a session is part of, if nothing but itself.
    pub(crate) fn chain(self, id: u64) -> Option<Chain> {
        let own = self.link(id)?;
        Some(self.follow(own).unwrap_or(smallvec![own]))
    }

    /// Both ways, until somebody else comes; `None` if that is not to be found out.
    fn follow(self, own: Link) -> Option<Chain> {
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
    fn beyond(self, id: u64, end: Endpoint) -> Beyond {
        let Some(leg) = leg(self.sessions, id, end) else { return Beyond::Nobody };
        if !leg.is_joined {
            return Beyond::Party;
        }
        self.other_side(leg).map_or(Beyond::Nobody, |(session, end)| Beyond::Us(session, end))
    }

    /// The leg that all of these ports face, if it faces them.
    fn other_side(self, leg: &Leg) -> Option<(u64, Endpoint)> {
        let mut found = None;
        for (index, stream) in leg.streams.iter().enumerate() {
            let Some(own) = stream.and_then(|stream| self.streams.get(stream)) else { continue };
            if own.standing == Standing::Refused {
                continue;
            }
            let port = own.rtp.signalled()?;
            let Facing { session, party, .. } = self.streams.open.facing(port)?;
            let link = self.link(session)?;
            let end = link.ends.into_iter().find(|end| end.party == party)?;
            let far = chain::leg(self.sessions, session, end).filter(|far| far.is_joined)?;
            let facing = far.streams.get(index).copied().flatten().and_then(|far| self.streams.get(far))?;
            let is_mutual = facing.ports.address == port && facing.rtp.signalled() == Some(own.ports.address);
            if !is_mutual || *found.get_or_insert((session, end)) != (session, end) {
                return None;
            }
        }
        found
    }

    /// What of a chain could move: those with rtcp-mux at a party only where `may_mux` says that nothing needs to be proven.
    pub(crate) fn eligible(self, chain: Chain, may_mux: bool) -> Option<Found> {
        let lines = lines_between(outer(self.sessions, &chain)?, self.streams, may_mux)?;
        let mut carriers = vec![<[SmallVec<[StreamId; 1]>; 2]>::default(); lines.len()];
        for (index, link) in chain.iter().enumerate() {
            let [near, far] = link.ends.map(|end| leg(self.sessions, link.session, end));
            let within = lines_between([near?, far?], self.streams, true)?;
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
