//! Which legs speak ICE, as offers and answers go through: our own agent on each, or the phones with each other.

use std::net::SocketAddr;
use std::time::Duration;

use media_wire::rtcp::next_port;
use media_wire::sdp::Place;
use media_wire::sdp::ice::{self as lines, Lines, Spoken};
use seam::{Endpoint, Side};
use smallvec::SmallVec;

use crate::ice::{Agent, Seed};
use crate::legs::Leg;
use crate::policy::Ice;
use crate::ports::StreamId;
use crate::worker::Worker;

/// What is known here of the author of ICE lines that pass.
#[derive(Debug)]
pub(crate) struct Seen {
    /// Where its RTP comes from, by m-line.
    observed: SmallVec<[Option<SocketAddr>; 2]>,
    /// Addresses of the relay that it may have seen in checks.
    ours: SmallVec<[SocketAddr; 4]>,
}

impl Worker {
    fn ice_with(&self, id: u64, endpoint: Endpoint) -> Ice {
        let leg = self.sessions.get(&id).and_then(|session| session.leg(endpoint));
        let policy = leg.zip(self.settings.release.as_ref());
        policy.map_or(Ice::Off, |(leg, policy)| policy.ice(leg.party.realm.0))
    }

    pub(crate) fn agent(&self, id: u64, party: u16, is_controlling: bool) -> Box<Agent> {
        let seed = Seed { secret: self.settings.secret, session: id, party };
        Box::new(Agent::new(seed, is_controlling))
    }

    /// Before `to` is offered what `from` has offered: true if it gets the ICE lines of `from` themselves.
    pub(crate) fn offer_ice(
        &mut self,
        id: u64,
        (from, spoken): (Endpoint, &Spoken),
        to: Endpoint,
        now: Duration,
    ) -> bool {
        let introduction = self.motions.introduction_mut(id);
        let passes = introduction.as_ref().is_some_and(|introduction| introduction.passes());
        if let (Some(introduction), true) = (introduction, passes && spoken.is_spoken()) {
            let ends = introduction.endpoints();
            let party = Side::BOTH.into_iter().zip(ends).find(|(_, end)| *end == from);
            let has_chosen = spoken.0.iter().flatten().any(|line| line.chosen.is_some());
            if let (Some((party, _)), true) = (party, has_chosen) {
                introduction.machine.nominated(party, now);
            }
            return true;
        }
        let agent = self.agent(id, to.party, true);
        let may = self.ice_with(id, to) == Ice::Offer && spoken.is_spoken();
        let session = self.sessions.get_mut(&id);
        let Some(leg) = session.and_then(|session| session.leg_mut(to)) else { return false };
        match &mut leg.ice {
            // The phones know each other, and one leaves ICE: the other comes back to us.
            Some(agent) if passes => agent.restart(true),
            None if may => leg.ice = Some(agent),
            _ => {}
        }
        false
    }

    /// Before the offerer `to` gets the answer of `from`, `was_passed` if that one had its own lines: true if so has `to`.
    pub(crate) fn answer_ice(
        &mut self,
        id: u64,
        (to, offered): (Endpoint, &Spoken),
        (from, answered): (Endpoint, &Spoken),
        was_passed: bool,
    ) -> bool {
        let is_passed = was_passed && answered.is_spoken();
        let introduction = self.motions.introduction_mut(id);
        if let Some(introduction) = introduction {
            introduction.has_passed = is_passed;
        }
        if is_passed {
            return true;
        }
        let may = self.ice_with(id, to) >= Ice::Answer && offered.is_spoken();
        let fresh = self.agent(id, to.party, false);
        let Some(session) = self.sessions.get_mut(&id) else { return false };
        if let Some(leg) = session.leg_mut(from) {
            match &mut leg.ice {
                Some(agent) if answered.is_spoken() => agent.agree(answered.credentials()),
                ice => *ice = None,
            }
        }
        if let Some(leg) = session.leg_mut(to) {
            if !may {
                leg.ice = None;
                return false;
            }
            let theirs = offered.credentials();
            let agent = leg.ice.get_or_insert(fresh);
            // RFC 8839 §4.4.2: who is offered a restart restarts.
            if was_passed || agent.is_restart(&theirs) {
                agent.restart(false);
            }
            agent.agree(theirs);
        }
        false
    }

    /// What the relay sees of a description's author.
    pub(crate) fn seen(&self, id: u64, endpoint: Endpoint) -> Seen {
        let session = self.sessions.get(&id);
        let stream = |stream: &Option<StreamId>| self.streams.get((*stream)?);
        let own = session.and_then(|session| session.leg(endpoint)).into_iter().flat_map(|leg| &leg.streams);
        let observed = own.map(|own| Some(stream(own)?.rtp.heard()?.0)).collect();
        Seen { observed, ours: self.relay_addresses(id) }
    }

    /// Each RTP and RTCP port of a session.
    pub(crate) fn relay_addresses(&self, id: u64) -> SmallVec<[SocketAddr; 4]> {
        let legs = self.sessions.get(&id).into_iter().flat_map(|session| &session.legs);
        let streams = legs.flat_map(|(_, leg)| leg.streams.iter().flatten());
        let ports = streams.filter_map(|stream| Some(self.streams.get(*stream)?.ports.address));
        ports.flat_map(|rtp| [rtp, next_port(rtp)]).collect()
    }
}

impl Leg {
    /// What each m-line of a description for this leg says of ICE: our agent's, or those of a far phone, seen there.
    pub(crate) fn ice_lines(
        &self,
        places: &[Option<Place>],
        author: Option<(&Spoken, &Seen)>,
        is_offer: bool,
    ) -> Lines {
        let lines = places.iter().enumerate().map(|(index, place)| {
            let place = (*place)?;
            match author {
                Some((spoken, seen)) => {
                    let observed = seen.observed.get(index).copied().flatten();
                    Some(spoken.line(index)?.passed(observed, place.rtp, &seen.ours))
                }
                None => Some(lines::own(self.ice.as_ref()?.ours(), place.rtp, place.rtcp_mux && !is_offer)),
            }
        });
        lines.map(Option::unwrap_or_default).collect()
    }
}
