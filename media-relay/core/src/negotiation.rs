//! Offers and answers (RFC 3264, 6337): ports are opened, addresses learnt, streams joined, descriptions written.

use std::net::IpAddr;
use std::time::Duration;

use bytes::Bytes;
use media_wire::sdp::ice::Spoken;
use media_wire::sdp::{Description, Direction, Media, Place};
use seam::{Described, Endpoint, ExchangeId, Party, Refusal, StreamSummary, Summary};
use smallvec::SmallVec;

use crate::consumers::Consumers;
use crate::handoff::Side;
use crate::ice::Passage;
use crate::latch::Latch;
use crate::legs::{Answer, Exchange, Leg, Life, Offer, Session};
use crate::ours::Judge;
use crate::path::place::is_local;
use crate::ports::{Ports, StreamId, Turn};
use crate::statistics::Reception;
use crate::stream::{Owner, Standing, Stream};
use crate::transport::Mux;
use crate::worker::Worker;

/// Pairs of ports of one party; what it offers beyond that is refused with port 0. Audio, main and second video, a floor and a chat leave
/// room, and nobody takes the ports of others with one INVITE.
const MOST_STREAMS: usize = 8;

/// What somebody says of m-lines.
#[derive(Debug, Clone, Copy)]
struct Words<'a> {
    endpoint: Endpoint,
    media: &'a [Media],
}

/// When a description counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Counts {
    /// At once where nothing was agreed before, else not yet.
    IfFirst,
    /// It has been answered, or is the answer.
    Always,
}

/// How a description is written for a leg.
struct Wording<'a> {
    /// Of each m-line, whether we say `a=rtcp-mux`.
    muxed: SmallVec<[bool; 4]>,
    /// Whose ICE lines pass.
    author: Option<(Endpoint, &'a Spoken)>,
    is_offer: bool,
}

/// Streams that are opened for an offer, and where ports come from.
struct Opening<'a> {
    ports: &'a mut dyn Ports,
    opened: SmallVec<[StreamId; 2]>,
}

impl Worker {
    pub(crate) fn offer(&mut self, id: u64, offer: Offer, turn: &mut Turn<'_>) -> Result<Described, Refusal> {
        let Offer { exchange, from, to, sdp } = offer;
        let now = turn.now;
        let mut description = self.judge().read(id, (from.0, from.1.realm.0), sdp)?;
        // A passive end behind a NAT would wait for a hello that cannot reach it, before it has sent anything itself: where only the
        // offerer is behind one, it begins.
        let answerer_is_hidden = to.1.contact.is_some_and(|contact| is_hidden(contact.ip(), &to.1));
        for media in &mut description.media {
            let is_hidden = media.rtp.is_some_and(|rtp| is_hidden(rtp.ip(), &from.1));
            media.begins = media.is_secure && !media.has_ice && is_hidden && !answerer_is_hidden;
        }
        let ufrag = description.support.take().map(|support| support.ufrag.into());
        let ice = self.judge().spoken(&mut description, from.1.realm.0);
        // None at all is legal (RFC 3264 §5): media may come later.
        let is_served = |media: &Media| media.port == 0 || media.is_datagram();
        if !description.media.is_empty() && !description.media.iter().any(is_served) {
            return Err(Refusal::NotAcceptable);
        }
        let is_new = !self.sessions.contains_key(&id);
        let session = self.sessions.entry(id).or_insert_with(|| Session {
            life: Life { heard: now, ..Life::default() },
            ..Session::default()
        });
        for (endpoint, party) in [&from, &to] {
            session.ensure_leg(id, *endpoint, party);
        }
        let mut opening = Opening { ports: turn.ports, opened: SmallVec::new() };
        let result = [from.0, to.0]
            .into_iter()
            .try_for_each(|end| self.ensure_streams(id, end, &description.media, &mut opening));
        let mut opened = opening.opened;
        if let Err(refusal) = result {
            self.forget(id, &opened, turn.ports);
            if is_new {
                self.sessions.remove(&id);
            }
            return Err(refusal);
        }
        // A first description counts at once, so that early media finds its way; a later one when it is answered.
        if let Some(leg) = self.sessions.get_mut(&id).and_then(|session| session.leg_mut(from.0)) {
            leg.is_joined = description.is_joined;
        }
        let said = Words { endpoint: from.0, media: &description.media };
        self.apply(id, said, Counts::IfFirst, now);
        self.expect_early(id, from.0, to.0, now);
        if let Some(session) = self.sessions.get_mut(&id) {
            session.write_support(id, [to.0, from.0], ufrag.is_some(), &self.settings);
        }
        let passage = self.passage(id);
        let is_passed = passage.is_some_and(|mut passage| passage.offer((from.0, &ice), to.0, now));
        let author = is_passed.then_some((from.0, &ice));
        let muxed = description.media.iter().map(|media| media.rtcp_mux).collect();
        let sdp = self.describe(id, to.0, &description, Wording { muxed, author, is_offer: true })?;
        let summary = summarise(&description.media);
        let session = self.sessions.get_mut(&id).ok_or(Refusal::Unknown)?;
        if let Some(leg) = session.leg_mut(to.0) {
            leg.offered = Some(sdp.clone());
        }
        if let Some(before) = session.exchanges.iter().position(|known| known.id == exchange) {
            opened.extend(session.exchanges.remove(before).opened);
        }
        let (offerer, media) = (from.0, description.media);
        session.exchanges.push(Exchange { id: exchange, offerer, media, ice, is_passed, opened, ufrag });
        Ok(Described { sdp, summary })
    }

    pub(crate) fn answer(
        &mut self,
        id: u64,
        answer: Answer,
        turn: &mut Turn<'_>,
    ) -> Result<Described, Refusal> {
        let Answer { exchange, from: (from, from_party), to, sdp } = answer;
        let now = turn.now;
        let mut description = self.judge().read(id, (from, from_party.realm.0), sdp)?;
        let answered_ufrag = description.support.take().map(|support| support.ufrag.into());
        let ice = self.judge().spoken(&mut description, from_party.realm.0);
        let session = self.sessions.get_mut(&id).ok_or(Refusal::Unknown)?;
        let position = session
            .exchanges
            .iter()
            .position(|known| known.id == exchange && known.offerer == to)
            .ok_or(Refusal::Unknown)?;
        let open = session.exchanges.get(position).ok_or(Refusal::Unknown)?;
        let (offered_ufrag, offered) = (open.ufrag.clone(), &open.media);
        let (spoken, was_passed) = (open.ice.clone(), open.is_passed);
        description = description.fit_to(offered).map_err(|_| Refusal::Malformed)?;
        for (offered, answered) in offered.iter().zip(&mut description.media) {
            // Who holds by the unspecified address answers as if nothing had been held already.
            if answered.is_parked && !offered.direction.receives() {
                answered.direction = Direction::Inactive;
            }
        }
        // RFC 3264 §6: as many m-lines, in the same order, of the same kinds.
        let fits = offered.len() == description.media.len()
            && offered
                .iter()
                .zip(&description.media)
                .all(|(offered, answered)| offered.kind.eq_ignore_ascii_case(&answered.kind));
        if !fits {
            return Err(Refusal::NotAcceptable);
        }
        let is_quiet =
            |media: &Media| media.port != 0 && (media.direction != Direction::SendRecv || media.is_parked);
        session.is_held = offered.iter().chain(&description.media).any(is_quiet);
        let is_last = exchange != ExchangeId::INITIAL || session.selected == Some(from);
        let offered = if is_last { session.exchanges.remove(position).media } else { offered.clone() };
        self.ensure_branch(id, from);
        if let Some(leg) = self.sessions.get_mut(&id).and_then(|session| session.leg_mut(from)) {
            (leg.party, leg.is_joined) = (from_party, description.is_joined);
        }
        let offer = Words { endpoint: to, media: &offered };
        let answer = Words { endpoint: from, media: &description.media };
        self.apply(id, offer, Counts::Always, now);
        self.apply(id, answer, Counts::Always, now);
        self.agree(id, offer, answer);
        if let Some(session) = self.sessions.get_mut(&id) {
            session.agree_support(id, (to, offered_ufrag), (from, answered_ufrag), &self.settings);
        }
        self.connect_agreed(id, from, to);
        if is_last {
            self.close_refused(id, turn.ports);
        }
        let passage = self.passage(id);
        let is_passed =
            passage.is_some_and(|mut passage| passage.answer((to, &spoken), (from, &ice), was_passed));
        // Each leg is answered on its own: whoever offered multiplexing gets it.
        let muxed = offered.iter().map(|offered| offered.rtcp_mux).collect();
        let author = is_passed.then_some((from, &ice));
        let sdp = self.describe(id, to, &description, Wording { muxed, author, is_offer: false })?;
        if let Some(session) = self.sessions.get_mut(&id) {
            if let Some(leg) = session.leg_mut(from) {
                leg.agreed = leg.offered.clone();
            }
            if let Some(leg) = session.leg_mut(to) {
                leg.agreed = Some(sdp.clone());
            }
        }
        self.agreed(id, now);
        self.schedule_checks(id);
        Ok(Described { sdp, summary: summarise(&description.media) })
    }

    pub(crate) fn judge(&self) -> Judge<'_> {
        Judge { sessions: &self.sessions, streams: &self.streams, settings: &self.settings }
    }

    fn passage(&mut self, id: u64) -> Option<Passage<'_>> {
        let session = self.sessions.get_mut(&id)?;
        let introduction = self.motions.introduction_mut(id);
        Some(Passage { id, session, introduction, settings: &self.settings })
    }

    /// The offer is void: the last agreed state stands, and ports that were only for it go back.
    pub(crate) fn cancel(&mut self, id: u64, exchange: ExchangeId, turn: &mut Turn<'_>) {
        let Some(session) = self.sessions.get_mut(&id) else { return };
        // Other branches may still answer the initial one.
        let Some(position) = session
            .exchanges
            .iter()
            .position(|known| known.id == exchange && exchange != ExchangeId::INITIAL)
        else {
            return;
        };
        let opened = session.exchanges.remove(position).opened;
        self.attend(id, turn.now);
        let unused: SmallVec<[StreamId; 2]> = opened
            .into_iter()
            .filter(|stream| self.streams.get(*stream).is_some_and(|stream| !stream.standing.is_agreed()))
            .collect();
        self.forget(id, &unused, turn.ports);
    }

    /// A refused initial offer ends its party with all branches; a later one is void.
    pub(crate) fn reject(&mut self, id: u64, exchange: ExchangeId, from: Endpoint, turn: &mut Turn<'_>) {
        if exchange == ExchangeId::INITIAL {
            self.drop_legs(id, |leg| leg.party != 0 && leg.party == from.party, turn);
        } else {
            self.cancel(id, exchange, turn);
        }
    }

    /// Takes streams out of their legs and closes them.
    fn forget(&mut self, id: u64, streams: &[StreamId], ports: &mut dyn Ports) {
        let Some(session) = self.sessions.get_mut(&id) else { return };
        for place in session.legs.iter_mut().flat_map(|(_, leg)| leg.streams.iter_mut()) {
            if place.is_some_and(|stream| streams.contains(&stream)) {
                *place = None;
            }
        }
        self.close(id, streams, ports);
    }

    /// What both sides of an m-line agreed to leave out needs no ports.
    pub(crate) fn close_refused(&mut self, id: u64, ports: &mut dyn Ports) {
        let Some(session) = self.sessions.get(&id) else { return };
        let refused: SmallVec<[StreamId; 2]> = session
            .legs
            .iter()
            .flat_map(|(_, leg)| leg.streams.iter().flatten().copied())
            .filter(|stream| {
                self.streams.get(*stream).is_some_and(|stream| stream.standing == Standing::Refused)
            })
            .collect();
        self.forget(id, &refused, ports);
    }

    /// Opens what a description needs and the leg has not.
    fn ensure_streams(
        &mut self,
        id: u64,
        endpoint: Endpoint,
        media: &[Media],
        opening: &mut Opening<'_>,
    ) -> Result<(), Refusal> {
        let realm = self.sessions.get(&id).and_then(|session| Some(session.leg(endpoint)?.party.realm.0));
        let manner = self.settings.manner(realm.ok_or(Refusal::Unknown)?);
        let session = self.sessions.get_mut(&id).ok_or(Refusal::Unknown)?;
        let consumers = Consumers::of(session.listeners.as_slice());
        let leg = session.leg_mut(endpoint).ok_or(Refusal::Unknown)?;
        if leg.streams.len() < media.len() {
            leg.streams.resize(media.len(), None);
        }
        let mut served = leg.streams.iter().flatten().count();
        for (index, (place, media)) in leg.streams.iter_mut().zip(media).enumerate() {
            if place.is_some() || media.port == 0 || !media.is_datagram() || served >= MOST_STREAMS {
                continue;
            }
            served = served.saturating_add(1);
            let pair = opening
                .ports
                .open(leg.party.realm.0, is_ipv6(leg.party.signalling.ip()))
                .ok_or(Refusal::NoPorts)?;
            let latch = Latch::new(leg.party.signalling.ip(), manner);
            let owner = Owner { session: id, endpoint, index: index as u16, origin: leg.origin };
            let stream = Stream::new(owner, pair, [latch.clone(), latch], consumers.clone());
            let stream = self.streams.insert(stream);
            *place = Some(stream);
            opening.opened.push(stream);
        }
        Ok(())
    }

    /// A further branch of a party has the ports that the party's INVITE named, and everything else for itself.
    pub(crate) fn ensure_branch(&mut self, id: u64, endpoint: Endpoint) {
        let Some(session) = self.sessions.get(&id) else { return };
        if session.leg(endpoint).is_some() {
            return;
        }
        let first = session.legs.iter().find(|(known, _)| known.party == endpoint.party);
        let Some((_, first)) = first else { return };
        let manner = self.settings.manner(first.party.realm.0);
        let consumers = Consumers::of(session.listeners.as_slice());
        let mut leg = Leg {
            party: first.party.clone(),
            streams: SmallVec::new(),
            origin: first.origin,
            version: first.version,
            last: first.last,
            address: first.address,
            offered: first.offered.clone(),
            agreed: None,
            handoff: first.handoff.of_branch(),
            is_joined: false,
            ice: first.ice.as_ref().map(|agent| Box::new(agent.of_branch())),
        };
        let latch = Latch::new(leg.party.signalling.ip(), manner);
        for (index, place) in first.streams.iter().enumerate() {
            let pair = place.and_then(|stream| self.streams.get(stream)).map(|stream| stream.ports);
            let owner = Owner { session: id, endpoint, index: index as u16, origin: leg.origin };
            let new = |pair| Stream::new(owner, pair, [latch.clone(), latch.clone()], consumers.clone());
            leg.streams.push(pair.map(|pair| self.streams.insert(new(pair))));
        }
        if let Some(session) = self.sessions.get_mut(&id) {
            session.legs.push((endpoint, leg));
        }
    }

    /// Takes the addresses and codecs of a description.
    fn apply(&mut self, id: u64, Words { endpoint, media }: Words<'_>, counts: Counts, now: Duration) {
        let Some(session) = self.sessions.get_mut(&id) else { return };
        let ours = session.relay_addresses(&self.streams);
        session.catch_up(&self.streams);
        let found = session.legs.iter().find(|known| known.0 == endpoint);
        let Some((_, leg)) = found else { return };
        let signalling = leg.party.signalling.ip();
        for (media, place) in media.iter().zip(&leg.streams) {
            let Some(stream) = place.and_then(|stream| self.streams.get_mut(stream)) else { continue };
            if counts == Counts::IfFirst && !stream.terms.kind.is_empty() {
                continue;
            }
            // Speech that becomes a fax (T.38) is counted apart.
            if !stream.terms.kind.is_empty()
                && *stream.terms.kind != *media.kind
                && stream.reception.packets > 0
            {
                session.past.push(stream.statistics(None, session.life.heard));
                stream.reception = Reception::default();
                stream.strangers = 0;
            }
            stream.describe(media);
            stream.signal(media, &ours, signalling, now);
        }
    }

    /// What follows of two descriptions together.
    fn agree(&mut self, id: u64, offer: Words<'_>, answer: Words<'_>) {
        let Some(session) = self.sessions.get(&id) else { return };
        for (own, other) in [(offer, answer), (answer, offer)] {
            let Some(leg) = session.leg(own.endpoint) else { continue };
            for ((place, media), other) in leg.streams.iter().zip(own.media).zip(other.media) {
                let Some(stream) = place.and_then(|stream| self.streams.get_mut(stream)) else { continue };
                // We offered it to the answerer exactly if the offerer had.
                let does_mux = media.rtcp_mux && offer.media.iter().any(|offered| offered.rtcp_mux);
                stream.mux = Mux::of(media.rtcp_mux, does_mux);
                stream.terms.far_formats = other.codecs.iter().map(|codec| codec.0).collect();
                let is_refused = media.port == 0 || other.port == 0;
                stream.standing = if is_refused { Standing::Refused } else { Standing::Agreed };
            }
        }
    }

    /// A party that was offered something may send before its answer has come (RFC 3264 §5.1), if nobody else feeds the
    /// offerer.
    fn expect_early(&mut self, id: u64, offerer: Endpoint, other: Endpoint, now: Duration) {
        for (near, far) in self.pairs(id, offerer, other) {
            let is_fed = self.feeders(id, near).next().is_some();
            let Some(stream) =
                self.streams.get_mut(far).filter(|stream| stream.terms.kind.is_empty() && !is_fed)
            else {
                continue;
            };
            let signalling = stream.rtp.signalling();
            stream.rtp.signal(None, signalling, now);
            stream.rtcp.signal(None, signalling, now);
            stream.consumers.feed(near);
            // What it was offered is what it sends.
            let Some((carried, formats)) =
                self.streams.get(near).map(|near| (near.carried, near.terms.formats.clone()))
            else {
                continue;
            };
            if let Some(stream) = self.streams.get_mut(far) {
                (stream.carried, stream.terms.formats) = (carried, formats);
            }
        }
    }

    /// Two legs' streams feed each other, m-line by m-line. A stream is fed by one: whoever agreed last.
    pub(crate) fn connect_agreed(&mut self, id: u64, one: Endpoint, other: Endpoint) {
        for (left, right) in self.pairs(id, one, other) {
            for (from, to) in [(left, right), (right, left)] {
                let before: SmallVec<[StreamId; 2]> = self.feeders(id, to).collect();
                for feeder in before {
                    if let Some(feeder) = self.streams.get_mut(feeder) {
                        feeder.consumers.starve(|peer| peer == to);
                    }
                }
                if let Some(stream) = self.streams.get_mut(from) {
                    stream.consumers.starve(|_| true);
                    if stream.standing != Standing::Refused {
                        stream.consumers.feed(to);
                    }
                }
            }
        }
    }

    fn pairs(&self, id: u64, one: Endpoint, other: Endpoint) -> SmallVec<[(StreamId, StreamId); 2]> {
        let Some(session) = self.sessions.get(&id) else { return SmallVec::new() };
        let (Some(one), Some(other)) = (session.leg(one), session.leg(other)) else { return SmallVec::new() };
        one.streams.iter().zip(&other.streams).filter_map(|(one, other)| Some(((*one)?, (*other)?))).collect()
    }

    /// The streams whose packets go out of this one.
    fn feeders(&self, id: u64, stream: StreamId) -> impl Iterator<Item = StreamId> {
        self.sessions
            .get(&id)
            .into_iter()
            .flat_map(|session| session.legs.iter())
            .flat_map(|(_, leg)| leg.streams.iter().flatten().copied())
            .filter(move |feeder| {
                self.streams.get(*feeder).is_some_and(|feeder| feeder.consumers.feeds(stream))
            })
    }

    fn describe(
        &mut self,
        id: u64,
        endpoint: Endpoint,
        description: &Description,
        Wording { muxed, author, is_offer }: Wording<'_>,
    ) -> Result<Bytes, Refusal> {
        let session = self.sessions.get_mut(&id).ok_or(Refusal::Unknown)?;
        let seen = author.map(|(author, _)| session.seen(author, &self.streams));
        let leg = session.leg_mut(endpoint).ok_or(Refusal::Unknown)?;
        let rtp = |stream: StreamId| Some(self.streams.get(stream)?.ports.address);
        let places: SmallVec<[Option<Place>; 2]> = description
            .media
            .iter()
            .enumerate()
            .map(|(index, media)| {
                let stream = leg.streams.get(index).copied().flatten()?;
                let rtcp_mux = media.is_rtp() && muxed.get(index).is_some_and(|muxed| *muxed);
                (media.port != 0).then_some(Place { rtcp_mux, ..Place::at(rtp(stream)?) })
            })
            .collect();
        if leg.address.is_none() {
            let first = places.iter().flatten().next().map(|place| place.rtp);
            let address = first.or_else(|| rtp(*leg.streams.iter().flatten().next()?));
            leg.address = address.map(|address| address.ip());
        }
        let ice = leg.ice_lines(&places, author.map(|author| author.1).zip(seen.as_ref()), is_offer);
        Ok(leg.write(description, &places, &ice, &self.cname))
    }
}

impl Session {
    fn ensure_leg(&mut self, id: u64, endpoint: Endpoint, party: &Party) {
        if let Some(leg) = self.leg_mut(endpoint) {
            leg.party = party.clone();
            return;
        }
        let leg = Leg {
            party: party.clone(),
            streams: SmallVec::new(),
            // Says nothing but that it is ours, and differs per leg.
            origin: (id ^ u64::from(endpoint.party).wrapping_mul(0x9E37_79B9_7F4A_7C15)) >> 16,
            version: 0,
            last: None,
            address: None,
            offered: None,
            agreed: None,
            handoff: Side::default(),
            is_joined: false,
            ice: None,
        };
        self.legs.push((endpoint, leg));
    }
}

/// Whether an address that a party names lies behind a NAT, as seen from us.
fn is_hidden(address: IpAddr, party: &Party) -> bool {
    is_local(address) && address != party.signalling.ip().to_canonical()
}

/// The address family to choose for who speaks from there.
fn is_ipv6(address: IpAddr) -> bool {
    matches!(address.to_canonical(), IpAddr::V6(_))
}

/// What signalling is told of a description.
fn summarise(media: &[Media]) -> Summary {
    let streams = media
        .iter()
        .map(|media| StreamSummary {
            kind: media.kind.as_str().into(),
            codecs: media
                .codecs
                .iter()
                .filter(|codec| !codec.1.is_empty())
                .map(|codec| codec.1.as_str().into())
                .collect(),
            direction: direction_of(media.direction),
            profile: media.profile.as_str().into(),
            refused: media.port == 0,
        })
        .collect();
    Summary { streams }
}

fn direction_of(attribute: Direction) -> seam::Direction {
    match attribute {
        Direction::SendRecv => seam::Direction::SendRecv,
        Direction::SendOnly => seam::Direction::SendOnly,
        Direction::RecvOnly => seam::Direction::RecvOnly,
        Direction::Inactive => seam::Direction::Inactive,
    }
}
