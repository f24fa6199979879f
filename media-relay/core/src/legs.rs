//! A session's legs and what is being negotiated between them.

use std::net::IpAddr;
use std::time::Duration;

use bytes::Bytes;
use media_wire::sdp::ice::{Lines, Spoken};
use media_wire::sdp::{Description, Edition, Media, Place, with_version};
use seam::path::Constraint;
use seam::{Endpoint, ExchangeId, Party, Renegotiated, StreamStatistics};
use serde::{Deserialize, Serialize};
use smallvec::SmallVec;

use crate::clock::timed;
use crate::consumers::Listeners;
use crate::handoff::Side;
use crate::ice::Agent;
use crate::motion::shell::{Kept, Past};
use crate::ports::{Ports, StreamId};
use crate::settings::Settings;
use crate::stream::Streams;

/// An offer without its last answer.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Exchange {
    pub(crate) id: ExchangeId,
    pub(crate) offerer: Endpoint,
    pub(crate) media: Vec<Media>,
    /// What the offer says of ICE, and whether it went to the far phone as it was.
    pub(crate) ice: Spoken,
    pub(crate) is_passed: bool,
    /// What was opened for it, to be closed if it comes to nothing.
    pub(crate) opened: SmallVec<[StreamId; 2]>,
    /// The ufrag of its `a=crush`.
    pub(crate) ufrag: Option<Box<str>>,
}

/// An offer, its author, and who is to be offered it.
#[derive(Debug)]
pub(crate) struct Offer {
    pub(crate) exchange: ExchangeId,
    pub(crate) from: (Endpoint, Party),
    pub(crate) to: (Endpoint, Party),
    pub(crate) sdp: Bytes,
}

/// An answer, its author, and who had offered.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) exchange: ExchangeId,
    pub(crate) from: (Endpoint, Party),
    pub(crate) to: Endpoint,
    pub(crate) sdp: Bytes,
}

/// What became of a wish at one of its legs.
#[derive(Debug)]
pub(crate) struct Answered {
    pub(crate) wish: u32,
    pub(crate) endpoint: Endpoint,
    pub(crate) outcome: Renegotiated,
}

/// An endpoint, as one side of offers and answers.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Leg {
    pub(crate) party: Party,
    /// By m-line.
    pub(crate) streams: SmallVec<[Option<StreamId>; 2]>,
    /// o= of the descriptions it gets: id and version.
    pub(crate) origin: u64,
    pub(crate) version: u64,
    /// Of the last one, without its version.
    pub(crate) last: Option<u64>,
    /// The address in o=: it stays, whatever else changes (RFC 3264 §8).
    pub(crate) address: Option<IpAddr>,
    /// What it was offered last, and the description that it and we agreed on last, as it was told.
    pub(crate) offered: Option<Bytes>,
    pub(crate) agreed: Option<Bytes>,
    /// Its part in CRUSH.
    pub(crate) handoff: Side,
    /// Its last description was one of ours that came back (`ours.rs`).
    pub(crate) is_joined: bool,
    /// Ours towards it, if it speaks ICE or may.
    pub(crate) ice: Option<Box<Agent>>,
}

timed!(Leg { handoff, ice; party, streams, origin, version, last, address, offered, agreed, is_joined });

/// When something came to a session, and whom that was told.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(crate) struct Life {
    /// Anything that is its own.
    pub(crate) heard: Duration,
    /// RTP, as far as it was caught up with: each stream knows of itself.
    pub(crate) media: Duration,
    /// That it is silent was told.
    pub(crate) is_told: bool,
    /// Since when it has not been asked, while it is direct and unheard, whether its parties are there.
    pub(crate) asked: Option<Duration>,
}

timed!(Life { heard, media, asked; is_told });

/// Whether media goes past the relay.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(crate) struct Away {
    /// It is known to: RTP at the relay is news.
    pub(crate) is_away: bool,
    /// Its parties were told, or say, that it does.
    pub(crate) is_told: bool,
}

/// One call's media.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(crate) struct Session {
    /// Few; looked through from the start.
    pub(crate) legs: SmallVec<[(Endpoint, Leg); 2]>,
    pub(crate) exchanges: SmallVec<[Exchange; 1]>,
    pub(crate) selected: Option<Endpoint>,
    /// When ports that an early answer left unused are given back.
    pub(crate) closing: Option<Duration>,
    /// Of streams that are gone.
    pub(crate) past: Vec<StreamStatistics>,
    pub(crate) life: Life,
    pub(crate) away: Away,
    pub(crate) is_held: bool,
    /// What policy said of this session alone; see [`constraint`](Self::constraint).
    pub(crate) told_constraint: Option<Constraint>,
    /// Who hears it beside its parties.
    pub(crate) listeners: Listeners,
    /// Why nothing moves, as it was told.
    pub(crate) kept: Option<Kept>,
    /// Both speak ICE, but cannot be introduced to each other.
    pub(crate) are_strangers: bool,
    /// When a check of ours is to be repeated.
    pub(crate) checks_due: Option<Duration>,
    /// Of parties that are gone.
    pub(crate) past_moves: Option<Past>,
}

timed!(Session { legs, closing, life, kept, checks_due, past_moves; exchanges, selected, past, away, is_held, told_constraint, listeners, are_strangers });

impl Session {
    pub(crate) fn leg(&self, endpoint: Endpoint) -> Option<&Leg> {
        self.legs.iter().find(|known| known.0 == endpoint).map(|known| &known.1)
    }

    /// What is said of this session alone: what somebody listens to stays, else what policy said.
    pub(crate) fn constraint(&self) -> Option<Constraint> {
        if self.listeners.is_empty() { self.told_constraint } else { Some(Constraint::MustAnchor) }
    }

    /// Media came then.
    pub(crate) fn note_media(&mut self, at: Duration) {
        self.life.media = self.life.media.max(at);
        self.life.heard = self.life.heard.max(at);
    }

    /// Knows when media came to any of its streams.
    pub(crate) fn catch_up(&mut self, streams: &Streams) {
        let heard = self.streams(streams).map(|stream| stream.reception.heard).max();
        self.note_media(heard.unwrap_or_default());
    }

    pub(crate) fn leg_mut(&mut self, endpoint: Endpoint) -> Option<&mut Leg> {
        self.legs.iter_mut().find(|known| known.0 == endpoint).map(|known| &mut known.1)
    }

    /// In the session of this number an endpoint has a leg from now on, and what is said of it is true.
    pub(crate) fn ensure_leg(&mut self, id: u64, endpoint: Endpoint, party: &Party) {
        match self.leg_mut(endpoint) {
            Some(leg) => leg.party = party.clone(),
            None => self.legs.push((endpoint, Leg::new(id, endpoint, party.clone()))),
        }
    }

    /// Takes streams out of their legs and closes them.
    pub(crate) fn forget(&mut self, gone: &[StreamId], streams: &mut Streams, ports: &mut dyn Ports) {
        for place in self.legs.iter_mut().flat_map(|(_, leg)| leg.streams.iter_mut()) {
            if place.is_some_and(|stream| gone.contains(&stream)) {
                *place = None;
            }
        }
        self.close(gone, streams, ports);
    }

    /// Closes streams that no leg names any more, and counts what they heard.
    pub(crate) fn close(&mut self, gone: &[StreamId], streams: &mut Streams, ports: &mut dyn Ports) {
        if gone.is_empty() {
            return;
        }
        for left in self.stream_ids() {
            if let Some(stream) = streams.get_mut(left) {
                stream.consumers.starve(|peer| gone.contains(&peer));
            }
        }
        self.catch_up(streams);
        let heard = gone.iter().filter_map(|stream| Some(streams.get(*stream)?.reception.heard)).max();
        self.note_media(heard.unwrap_or_default());
        for stream in gone {
            let Some(stream) = streams.remove(*stream, ports) else { continue };
            if stream.reception.packets > 0 || stream.strangers > 0 {
                self.past.push(stream.statistics(None, self.life.heard));
            }
        }
    }

    /// Its streams have other names; what has none is gone.
    pub(crate) fn rename(&mut self, name: impl Fn(StreamId) -> Option<StreamId>) {
        for stream in self.legs.iter_mut().flat_map(|(_, leg)| &mut leg.streams) {
            *stream = stream.and_then(&name);
        }
        for exchange in &mut self.exchanges {
            exchange.opened = exchange.opened.iter().copied().filter_map(&name).collect();
        }
    }

    /// What it had of the process before it has of this one.
    pub(crate) fn settle_in(&mut self, streams: &Streams, settings: &Settings) {
        for (_, leg) in &mut self.legs {
            let Some(agent) = &mut leg.ice else { continue };
            let ports = |line: u16| {
                let stream = leg.streams.get(usize::from(line)).copied().flatten()?;
                Some(streams.get(stream)?.ports)
            };
            agent.settle_in(settings.secret, ports);
        }
    }

    /// Whether it is a part of a longer call, whose other parts are not known yet.
    pub(crate) fn may_be_longer(&self) -> bool {
        self.legs.iter().any(|(_, leg)| leg.is_joined)
    }
}

impl Leg {
    /// A new one of a session.
    fn new(session: u64, endpoint: Endpoint, party: Party) -> Self {
        Self {
            party,
            streams: SmallVec::new(),
            // Says nothing but that it is ours, and differs per leg.
            origin: (session ^ u64::from(endpoint.party).wrapping_mul(0x9E37_79B9_7F4A_7C15)) >> 16,
            version: 0,
            last: None,
            address: None,
            offered: None,
            agreed: None,
            handoff: Side::default(),
            is_joined: false,
            ice: None,
        }
    }

    /// For another branch of the same INVITE; its streams are to come.
    pub(crate) fn of_branch(&self) -> Self {
        Self {
            party: self.party.clone(),
            streams: SmallVec::new(),
            origin: self.origin,
            version: self.version,
            last: self.last,
            address: self.address,
            offered: self.offered.clone(),
            agreed: None,
            handoff: self.handoff.of_branch(),
            is_joined: false,
            ice: self.ice.as_ref().map(|agent| Box::new(agent.of_branch())),
        }
    }

    /// A description for it: like `description`, with its m-lines at `places`, and what they say of ICE.
    pub(crate) fn write(
        &mut self,
        description: &Description,
        places: &[Option<Place>],
        ice: &Lines,
        cname: &str,
    ) -> Bytes {
        let first = places.iter().flatten().next().map(|place| place.rtp.ip());
        let family = match self.address.or(first) {
            Some(IpAddr::V6(ip)) => format!("IN IP6 {ip}"),
            Some(IpAddr::V4(ip)) => format!("IN IP4 {ip}"),
            None => "IN IP4 0.0.0.0".to_owned(),
        };
        let id = self.origin;
        let line = self.handoff.line.as_deref();
        let origin = format!("- {id} 0 {family}");
        let edition = Edition { support: line, ice, ..Edition::new(&origin, places, cname) };
        let sdp = description.rewrite(&edition);
        // RFC 3264 §8: the version grows by one if, and only if, the description changed.
        let sum = ahash::RandomState::with_seeds(1, 2, 3, 4).hash_one(&sdp);
        let version = self.version.wrapping_add(u64::from(self.last != Some(sum)));
        let sdp = with_version(&sdp, version);
        (self.last, self.version) = (Some(sum), version);
        sdp
    }
}
