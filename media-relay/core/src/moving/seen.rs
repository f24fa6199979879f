//! What a session's release machine is shown of its streams, and whom it is remembered for.

use std::net::SocketAddr;
use std::time::Duration;

use media_wire::rtcp::{self, Report};
use seam::Side;
use seam::path::{Mapping, Stay};

use crate::account::mark;
use crate::legs::Leg;
use crate::motion::scene::Scene;
use crate::moving::chain::outer;
use crate::moving::scene::Lines;
use crate::moving::{Moving, Whereabouts};
use crate::path::Sight;
use crate::path::memory::Pair;
use crate::path::phone::Temperament;
use crate::path::place::Place;
use crate::path::proof::Reception;
use crate::ports::{Ports, StreamId};
use crate::reported::Restart;
use crate::side::Track;
use crate::stream::{Stream, Streams};

/// Whom a later call would have to be between to fare like this one; `None` until both were heard.
pub(crate) fn pair_of(legs: [&Leg; 2], lines: &Lines, streams: &Streams) -> Option<Pair> {
    let (_, pair) = lines.first()?;
    let end = |party: Side| {
        let product = &*legs[party].party.product;
        let rtp = &streams.get(pair[party])?.rtp;
        let (observed, _) = rtp.heard()?;
        Some((product, observed.ip(), rtp.signalled() != Some(observed)))
    };
    Some(Pair::new([end(Side::First)?, end(Side::Second)?]))
}

impl Moving {
    /// What of this moment is direct, and what is missing of whose packets. All sessions of the call hear the same.
    pub(crate) fn account(&mut self, Scene { sessions, streams, now, .. }: &mut Scene<'_>) {
        let now = *now;
        let is_out = |mover: &super::Mover| {
            let asked = mover.asked.map(|asked| asked.1);
            [Some(mover.at), asked].into_iter().flatten().any(|place| place.is_elsewhere())
        };
        // One that follows what it hears leaves with the other.
        let are_elsewhere = self.release.are_elsewhere();
        let may_be_elsewhere = are_elsewhere || self.movers.iter().any(is_out);
        mark(streams, self.streams(), may_be_elsewhere);
        let mut since = Some(Duration::ZERO);
        for link in &self.chain {
            let Some(session) = sessions.get_mut(&link.session) else { continue };
            let own = session.reckon(are_elsewhere, streams, now);
            since = since.zip(own).map(|(one, other)| one.max(other));
        }
        self.release.account(since, now);
        for (line, (_, pair)) in self.lines.iter().enumerate() {
            for (from, id) in Side::BOTH.into_iter().zip(pair) {
                let Some(stream) = streams.get_mut(*id) else { continue };
                if let Some(fate) = self.release.fate(Track { line, party: from }) {
                    stream.said.reported.fate = fate;
                }
                // Whoever offered: a hold is one as well, and while nothing moves.
                stream.said.reported.is_forgetful = self.release.may_count_anew_with_offers(!from);
                let packets = stream.reception.packets.saturating_add(stream.reception.lost());
                let (at, is_home) = self.release.restarted(!from);
                stream.said.reported.restarts(Restart { at, packets, is_home });
            }
        }
    }

    /// See [`Release::counts_anew`](crate::path::Release::counts_anew).
    pub(crate) fn counts_anew(&mut self, id: StreamId) {
        if let Some(track) = track_of(id, &self.lines) {
            self.release.counts_anew(track);
        }
    }

    /// A party's reports of a stream; false if it is none of its.
    pub(crate) fn hear(
        &mut self,
        id: StreamId,
        reports: &[Report],
        streams: &Streams,
        now: Duration,
    ) -> bool {
        let Some(track) = track_of(id, &self.lines) else { return false };
        self.sights(streams, now);
        for report in reports {
            match report {
                Report::Sender { ssrc, packets, .. } => {
                    self.release.sender_report(track, *ssrc, *packets, now);
                }
                Report::Receiver { ssrc } => self.release.rests(track, *ssrc, now),
                Report::Goodbye { .. } | Report::Unheard { .. } => {}
                Report::Reception { ssrc, lost, highest, jitter, .. } => {
                    let report = Reception { ssrc: *ssrc, highest: *highest, lost: *lost, jitter: *jitter };
                    self.release.reception(track, &report, now);
                }
            }
        }
        if let Some(silence) = rtcp::silence(reports) {
            self.release.hears_nobody(track, silence, now);
        }
        true
    }

    pub(crate) fn sights(&mut self, streams: &Streams, now: Duration) {
        for (line, (_, pair)) in self.lines.iter().enumerate() {
            for (from, stream) in Side::BOTH.into_iter().zip(pair) {
                if let Some(sight) = streams.get(*stream).and_then(sight_of) {
                    self.release.sight(Track { line, party: from }, sight, now);
                }
            }
        }
    }

    /// Shows the machine where the parties are.
    pub(crate) fn see(
        &mut self,
        Scene { sessions, streams, settings, now, .. }: &mut Scene<'_>,
        ports: &mut dyn Ports,
    ) {
        let now = *now;
        self.sights(streams, now);
        for party in Side::BOTH {
            for (line, (_, pair)) in self.lines.iter().enumerate() {
                let taken = streams.get_mut(pair[party]).and_then(|stream| stream.second.taken.take());
                let Some(observed) = taken else { continue };
                if line == 0 {
                    self.release.learnt(party, observed, now);
                    let mover = &mut self.movers[party];
                    mover.reach = Some(now.saturating_sub(mover.asked_at));
                }
                streams.close_spare(pair[party], ports);
            }
            let mover = &mut self.movers[party];
            if mover.asked.is_none() && mover.at == Whereabouts::Home && mover.want == Whereabouts::Home {
                self.lines.iter().for_each(|(_, pair)| streams.close_spare(pair[party], ports));
            }
            if mover.at == Whereabouts::Second
                && self.lines.iter().all(|(_, pair)| !streams.has_spare(pair[party]))
            {
                // From now on this is where the relay is for it.
                mover.at = Whereabouts::Home;
                if mover.want == Whereabouts::Second {
                    mover.want = Whereabouts::Home;
                }
            }
        }
        if !self.release.is_at_home() {
            return;
        }
        let (Some([one, other]), Some((_, pair))) = (outer(sessions, &self.chain), self.lines.first()) else {
            return;
        };
        for (party, (leg, far)) in Side::BOTH.into_iter().zip([(one, other), (other, one)]) {
            // It goes on with ICE, whatever an offer without it says.
            if leg.ice.is_some() && !Temperament::of(&leg.party.product).leaves_ice {
                self.release.keep(Stay::Ice, now);
            }
            let Some(rtp) = streams.get(pair[party]).map(|stream| &stream.rtp) else { continue };
            let Some((observed, _)) = rtp.heard() else { continue };
            // The far party is told of it as if it had named it itself.
            let is_fit = |address: &SocketAddr| settings.addresses.judge(far.party.realm.0, *address).is_ok();
            self.release.placed(
                party,
                Place {
                    observed,
                    signalled: rtp.signalled().filter(|at| *at == observed || is_fit(at)),
                    contact: leg.party.contact.map(|contact| contact.ip()),
                    mapping: Mapping::Unknown,
                    realm: leg.party.realm.0,
                    is_unfit: !is_fit(&observed),
                },
            );
        }
    }
}

/// The m-line and the party of a stream.
pub(crate) fn track_of(stream: StreamId, lines: &Lines) -> Option<Track> {
    lines.iter().enumerate().find_map(|(line, (_, pair))| {
        let party = Side::BOTH.into_iter().find(|side| pair[*side] == stream)?;
        Some(Track { line, party })
    })
}

pub(crate) fn sight_of(stream: &Stream) -> Option<Sight> {
    let (ssrc, sequence) = stream.reception.last()?;
    // Not when its source was last heard: a phone on hold keeps its NAT's hole open with what is no packet of the stream, which may have gone
    // on elsewhere since.
    let heard = stream.reception.heard;
    let clock_rate = stream.format(stream.reception.payload_type).map_or(8000, |format| format.rate);
    let (packets, silence) = (stream.reception.packets, stream.reception.silence);
    Some(Sight { ssrc, clock_rate, packets, sequence, heard, silence })
}
