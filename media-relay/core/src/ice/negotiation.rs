//! Which legs speak ICE, as offers and answers go through: our own agent on each, or the phones with each other.

use std::net::SocketAddr;
use std::time::Duration;

use media_wire::rtcp::next_port;
use media_wire::sdp::Place;
use media_wire::sdp::ice::{self as lines, Lines, Spoken};
use seam::{Endpoint, Side};
use smallvec::SmallVec;

use crate::ice::Introduction;
use crate::ice::{Agent, Seed};
use crate::legs::{Leg, Session};
use crate::policy::Ice;
use crate::ports::StreamId;
use crate::settings::Settings;
use crate::stream::Streams;

/// What is known here of the author of ICE lines that pass.
#[derive(Debug)]
pub(crate) struct Seen {
    /// Where its RTP comes from, by m-line.
    observed: SmallVec<[Option<SocketAddr>; 2]>,
    /// Addresses of the relay that it may have seen in checks.
    ours: SmallVec<[SocketAddr; 4]>,
}

/// A session's ICE, while an offer or an answer goes through.
pub(crate) struct Passage<'a> {
    pub(crate) id: u64,
    pub(crate) session: &'a mut Session,
    /// If its phones know each other.
    pub(crate) introduction: Option<&'a mut Introduction>,
    pub(crate) settings: &'a Settings,
}

impl Passage<'_> {
    fn policy(&self, endpoint: Endpoint) -> Ice {
        let policy = self.session.leg(endpoint).zip(self.settings.release.as_ref());
        policy.map_or(Ice::Off, |(leg, policy)| policy.ice(leg.party.realm.0))
    }

    fn agent(&self, party: u16, is_controlling: bool) -> Box<Agent> {
        let seed = Seed { secret: self.settings.secret, session: self.id, party };
        Box::new(Agent::new(seed, is_controlling))
    }

    /// Before `to` is offered what `from` has offered: true if it gets the ICE lines of `from` themselves.
    pub(crate) fn offer(&mut self, (from, spoken): (Endpoint, &Spoken), to: Endpoint, now: Duration) -> bool {
        let introduction = self.introduction.as_deref_mut();
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
        let agent = self.agent(to.party, true);
        let may = self.policy(to) == Ice::Offer && spoken.is_spoken();
        let Some(leg) = self.session.leg_mut(to) else { return false };
        match &mut leg.ice {
            // The phones know each other, and one leaves ICE: the other comes back to us.
            Some(agent) if passes => agent.restart(true),
            None if may => leg.ice = Some(agent),
            _ => {}
        }
        false
    }

    /// Before the offerer `to` gets the answer of `from`, `was_passed` if that one had its own lines: true if so has `to`.
    pub(crate) fn answer(
        &mut self,
        (to, offered): (Endpoint, &Spoken),
        (from, answered): (Endpoint, &Spoken),
        was_passed: bool,
    ) -> bool {
        let is_passed = was_passed && answered.is_spoken();
        if let Some(introduction) = &mut self.introduction {
            introduction.has_passed = is_passed;
        }
        if is_passed {
            return true;
        }
        let may = self.policy(to) >= Ice::Answer && offered.is_spoken();
        let fresh = self.agent(to.party, false);
        if let Some(leg) = self.session.leg_mut(from) {
            match &mut leg.ice {
                Some(agent) if answered.is_spoken() => agent.agree(answered.credentials()),
                ice => *ice = None,
            }
        }
        if let Some(leg) = self.session.leg_mut(to) {
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
}

impl Session {
    /// What the relay sees of a description's author.
    pub(crate) fn seen(&self, endpoint: Endpoint, streams: &Streams) -> Seen {
        let stream = |stream: &Option<StreamId>| streams.get((*stream)?);
        let own = self.leg(endpoint).into_iter().flat_map(|leg| &leg.streams);
        let observed = own.map(|own| Some(stream(own)?.rtp.heard()?.0)).collect();
        Seen { observed, ours: self.relay_addresses(streams) }
    }

    /// Each of its RTP and RTCP ports.
    pub(crate) fn relay_addresses(&self, streams: &Streams) -> SmallVec<[SocketAddr; 4]> {
        self.streams(streams)
            .map(|stream| stream.ports.address)
            .flat_map(|rtp| [rtp, next_port(rtp)])
            .collect()
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
