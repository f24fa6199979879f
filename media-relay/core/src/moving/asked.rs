//! What a session's release machine asks, as descriptions for its parties, and how they take them.

use std::time::Duration;

use bytes::Bytes;
use media_wire::rtcp::next_port;
use media_wire::sdp::{Description, Direction, Media, Place};
use seam::path::Stay;
use seam::{Endpoint, Event, Renegotiated, Side};
use smallvec::SmallVec;

use crate::legs::{Answered, Leg};
use crate::motion::scene::Scene;
use crate::motion::shell::{AGAIN, BUSY, Refusals};
use crate::moving::chain::leg;
use crate::moving::{LONGEST_RINGING, MOST_AHEAD, Moving, Whereabouts};
use crate::path::{Moved, Output};
use crate::ports::Ports;
use crate::stream::Streams;
use crate::transport::Mux;

/// What legs of one session are to be offered.
struct Wish {
    session: u64,
    legs: Vec<(Endpoint, Option<Bytes>)>,
}

impl Moving {
    /// Does what the machine asks.
    pub(crate) fn obey(&mut self, scene: &mut Scene<'_>, ports: &mut dyn Ports) {
        let now = scene.now;
        while let Some(output) = self.release.poll_output() {
            match output {
                Output::Learn(whom) => self.learn(whom, scene, ports),
                Output::Move(targets) => {
                    let pair = self.lines.first().map(|(_, pair)| *pair);
                    let observed =
                        pair.and_then(|pair| scene.streams.get(pair[Side::Second])?.rtp.destination());
                    let is_local = observed != Some(targets[Side::First]);
                    self.send([true; 2], Whereabouts::Away { is_local }, now);
                    self.meet(now);
                }
                Output::Hold(whom) => self.send(whom, Whereabouts::Held, now),
                Output::Home(whom) => self.send(whom, Whereabouts::Home, now),
                Output::Relaying { to, is_on } => {
                    for (_, pair) in &self.lines {
                        if let Some(stream) = scene.streams.get_mut(pair[to]) {
                            stream.gate.is_released = !is_on;
                        }
                    }
                }
            }
        }
    }

    fn send(&mut self, whom: [bool; 2], want: Whereabouts, now: Duration) {
        for party in Side::BOTH.into_iter().filter(|party| whom[*party]) {
            let mover = &mut self.movers[party];
            (mover.want, mover.retry, mover.refusals) = (want, Duration::ZERO, Refusals::default());
            if mover.asked.is_none() && mover.at == want {
                self.release.moved(party, Moved::Accepted, now);
            }
        }
    }

    /// A NAT that filters by address and port (RFC 4787 §5) lets nothing in from the far phone before its own has sent there: what the
    /// sooner one sends until then is lost. How long each takes to move was seen when its NAT was learnt, so the sooner one is asked
    /// later, and both move together. One that follows what it hears is not to wait: nothing is relayed to it meanwhile.
    fn meet(&mut self, now: Duration) {
        let [Some(one), Some(other)] = self.movers.each_ref().map(|mover| mover.reach) else { return };
        if self.release.follows() {
            return;
        }
        let sooner = if other < one { Side::Second } else { Side::First };
        self.movers[sooner].retry = now.saturating_add(one.abs_diff(other).min(MOST_AHEAD));
    }

    /// Opens ports at the second address for these parties.
    fn learn(
        &mut self,
        whom: [bool; 2],
        Scene { sessions, streams, now, .. }: &mut Scene<'_>,
        ports: &mut dyn Ports,
    ) {
        for party in Side::BOTH.into_iter().filter(|party| whom[*party]) {
            let mover = &self.movers[party];
            let realm = leg(sessions, mover.session, mover.endpoint).map(|leg| leg.party.realm.0);
            let is_open = self
                .lines
                .iter()
                .all(|(_, pair)| realm.is_some_and(|realm| streams.open_spare(pair[party], realm, ports)));
            if !is_open {
                self.lines.iter().for_each(|(_, pair)| {
                    pair.iter().for_each(|stream| streams.close_spare(*stream, ports));
                });
                self.movers.iter_mut().for_each(|mover| mover.want = mover.at);
                return self.release.keep(Stay::UnknownMapping, *now);
            }
            self.movers[party].want = Whereabouts::Second;
        }
    }

    /// Wishes for whatever is not as it is to be.
    pub(crate) fn ask(&mut self, scene: &mut Scene<'_>) {
        // The answer to an offer of a party brings everything home; until then nobody else may offer (RFC 3264 §4).
        if self.chain.iter().any(|link| scene.is_open(link.session)) {
            return;
        }
        let Scene { sessions, streams, cname, events, now, .. } = scene;
        let now = *now;
        let mut legs: Vec<(u64, (Endpoint, Option<Bytes>))> = Vec::new();
        let mut failed = None;
        for party in Side::BOTH {
            let mover = &self.movers[party];
            if mover.asked.is_some() || mover.want == mover.at || now < mover.retry {
                continue;
            }
            let (id, endpoint) = (mover.session, mover.endpoint);
            let leg = sessions.get_mut(&id).and_then(|session| session.leg_mut(endpoint));
            match leg.and_then(|leg| self.description(party, leg, streams, cname)) {
                Some(sdp) => legs.push((id, (endpoint, Some(sdp)))),
                None => failed = Some(party),
            }
        }
        if let Some(party) = failed {
            // An address that was never observed is not used.
            self.movers.iter_mut().for_each(|mover| mover.want = mover.at);
            return self.release.moved(party, Moved::Refused, now);
        }
        // A move is one wish, since one leg alone is no path, unless one is asked later; on the way home nobody waits for the other.
        let is_together = self.movers.iter().all(|mover| matches!(mover.want, Whereabouts::Away { .. }));
        let is_one_session = self.chain.len() == 1;
        let mut wishes: Vec<Wish> = Vec::new();
        for (session, leg) in legs {
            match wishes.last_mut() {
                Some(wish) if is_together && is_one_session => wish.legs.push(leg),
                _ => wishes.push(Wish { session, legs: vec![leg] }),
            }
        }
        for Wish { session, legs } in wishes {
            let wish = self.shell.wish();
            for mover in self.movers.iter_mut().filter(|mover| mover.session == session) {
                if legs.iter().any(|leg| leg.0 == mover.endpoint) {
                    (mover.asked, mover.asked_at) = (Some((wish, mover.want)), now);
                }
            }
            events.push_back((session, Event::Renegotiate { wish, legs, deadline: LONGEST_RINGING }));
        }
    }

    /// What a party is to be offered, so that its media goes where it is to be.
    fn description(&self, party: Side, leg: &mut Leg, streams: &Streams, cname: &str) -> Option<Bytes> {
        let description = Description::parse(leg.agreed.clone()?).ok()?;
        let mut places: SmallVec<[Option<Place>; 2]> = leg
            .streams
            .iter()
            .zip(&description.media)
            .map(|(stream, media)| {
                let stream = streams.get((*stream)?)?;
                let place = Place { rtcp_mux: stream.mux == Mux::Yes, ..Place::at(stream.ports.address) };
                (media.port != 0).then_some(place)
            })
            .collect();
        for (index, pair) in &self.lines {
            let (own, far) = (streams.get(pair[party])?, streams.get(pair[!party])?);
            let place = places.get_mut(*index)?.as_mut()?;
            match self.movers[party].want {
                Whereabouts::Home => {}
                Whereabouts::Held => place.direction = Some(Direction::Inactive),
                Whereabouts::Second => place.rtp = own.second.spare?.address,
                Whereabouts::Away { is_local } => {
                    let rtcp = own.ports.address;
                    place.rtcp = Some(next_port(rtcp));
                    place.rtp = if is_local { far.rtp.signalled()? } else { far.rtp.heard()?.0 };
                }
            }
        }
        // One that is moved as an ordinary phone has no use for ICE any more: it goes where it is told.
        leg.ice = None;
        Some(leg.write(&description, &places, &SmallVec::new(), cname))
    }

    /// A phone has answered a wish, or has not.
    pub(crate) fn answered(
        &mut self,
        session: u64,
        Answered { wish, endpoint, outcome }: Answered,
        scene: &mut Scene<'_>,
    ) {
        let now = scene.now;
        let is_its = |party: &Side| {
            let mover = &self.movers[*party];
            (mover.session, mover.endpoint) == (session, endpoint)
        };
        let Some(party) = Side::BOTH.into_iter().find(is_its) else { return };
        let Some((_, aim)) = self.movers[party].asked.take_if(|asked| asked.0 == wish) else { return };
        let is_wanted = self.movers[party].want == aim;
        let moved = match outcome {
            Renegotiated::Accepted(sdp) => {
                self.movers[party].at = aim;
                if self.took(party, aim, sdp, scene).is_some() { Moved::Accepted } else { Moved::Refused }
            }
            // To learn its NAT harms nothing: one whose own offer crosses ours (RFC 3261 §14.1) is asked again.
            Renegotiated::Refused(491) if aim == Whereabouts::Second && self.movers[party].may_cross() => {
                Moved::Superseded
            }
            Renegotiated::Refused(_) | Renegotiated::Offered { .. } => Moved::Refused,
            Renegotiated::Superseded => Moved::Superseded,
        };
        if !is_wanted {
            return;
        }
        let mover = &mut self.movers[party];
        match (aim, moved) {
            (_, Moved::Accepted) => {}
            // It stays where it is, and the call with it; only home is worth another try.
            (Whereabouts::Home, Moved::Superseded) => mover.retry = now.saturating_add(BUSY),
            (Whereabouts::Home, Moved::Refused) => {
                mover.refusals = mover.refusals.and_another();
                mover.retry = now.saturating_add(AGAIN);
                if mover.refusals.are_enough() {
                    mover.want = mover.at;
                }
            }
            (Whereabouts::Held, Moved::Superseded) => {
                mover.retry = now.saturating_add(BUSY);
                return;
            }
            _ => mover.want = mover.at,
        }
        if aim == Whereabouts::Home && moved == Moved::Superseded {
            return;
        }
        self.release.moved(party, moved, now);
    }

    /// Checks the answer of a phone and takes its addresses (RFC 3264 §6); `None`: it is no good.
    fn took(&self, party: Side, aim: Whereabouts, sdp: Bytes, scene: &mut Scene<'_>) -> Option<()> {
        let (mover, streams, now) = (&self.movers[party], &mut *scene.streams, scene.now);
        let leg = leg(scene.sessions, mover.session, mover.endpoint)?;
        let offered = Description::parse(leg.agreed.clone()?).ok()?;
        let answer = Description::parse(sdp).ok()?;
        if !fits(&offered.media, &answer.media) {
            return None;
        }
        let signalling = leg.party.signalling.ip();
        let is_good = self.lines.iter().all(|(index, pair)| {
            let Some(media) = answer.media.get(*index) else { return false };
            let spoken = streams.get(pair[!party]).and_then(|far| far.reception.payload_type);
            // Comfort noise (RFC 3389; 19 before RFC 3551) is sent by some who have not said so, and does without an answer.
            let knows = spoken.is_none_or(|spoken| {
                matches!(spoken, 13 | 19) || media.codecs.iter().any(|codec| codec.0 == spoken)
            });
            let Some(stream) = streams.get_mut(pair[party]) else { return false };
            if media.port == 0 || !media.is_rtp() || media.is_secure || !knows {
                return false;
            }
            if let Whereabouts::Away { .. } = aim {
                // Elsewhere than it was: what the far phone was told is wrong.
                return media.rtp == stream.rtp.signalled()
                    && media.direction == Direction::SendRecv
                    && !media.is_parked;
            }
            stream.rtp.signal(media.rtp, signalling, now);
            stream.rtcp.signal(media.rtcp, signalling, now);
            stream.rtp.doubt(now);
            stream.rtcp.doubt(now);
            true
        });
        is_good.then_some(())
    }
}

/// As many m-lines, of the same kinds, and none that was not offered.
pub(crate) fn fits(offered: &[Media], answered: &[Media]) -> bool {
    offered.len() == answered.len()
        && offered.iter().zip(answered).all(|(offered, answered)| {
            offered.kind == answered.kind && (offered.port != 0 || answered.port == 0)
        })
}
