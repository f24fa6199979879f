//! Offers and answers (RFC 3264, 6337): ports are opened, addresses learnt, streams joined, descriptions written.

use std::net::IpAddr;
use std::time::Duration;

use bytes::Bytes;
use media_wire::sdp::ice::Spoken;
use media_wire::sdp::{Description, Direction, Media, Place};
use seam::{Described, Endpoint, ExchangeId, Party, Refusal, StreamSummary, Summary};
use smallvec::SmallVec;

use crate::consumers::Consumers;
use crate::ice::{Introduction, Passage};
use crate::latch::Latch;
use crate::legs::{Answer, Exchange, Offer, Session};
use crate::ours::Judge;
use crate::path::place::is_local;
use crate::ports::{Ports, StreamId, Turn};
use crate::settings::Settings;
use crate::statistics::Reception;
use crate::stream::{Owner, Standing, Stream, Streams};
use crate::transport::Mux;

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

/// An offer or an answer, as it was read.
pub(crate) struct Heard {
    description: Description,
    /// What it says of ICE.
    ice: Spoken,
    /// The ufrag of its `a=crush`.
    ufrag: Option<Box<str>>,
}

impl Heard {
    /// What a party says in an offer to another.
    pub(crate) fn offer(judge: Judge<'_>, id: u64, offer: &Offer) -> Result<Self, Refusal> {
        let Offer { from, to, .. } = offer;
        let mut heard = Self::read(judge, id, from, &offer.sdp)?;
        let description = &mut heard.description;
        // A passive end behind a NAT would wait for a hello that cannot reach it, before it has sent anything itself: where only the
        // offerer is behind one, it begins.
        let answerer_is_hidden = to.1.contact.is_some_and(|contact| is_hidden(contact.ip(), &to.1));
        for media in &mut description.media {
            let is_hidden = media.rtp.is_some_and(|rtp| is_hidden(rtp.ip(), &from.1));
            media.begins = media.is_secure && !media.has_ice && is_hidden && !answerer_is_hidden;
        }
        // None at all is legal (RFC 3264 §5): media may come later.
        let is_served = |media: &Media| media.port == 0 || media.is_datagram();
        if !description.media.is_empty() && !description.media.iter().any(is_served) {
            return Err(Refusal::NotAcceptable);
        }
        Ok(heard)
    }

    /// What a party says.
    pub(crate) fn read(
        judge: Judge<'_>,
        id: u64,
        (author, party): &(Endpoint, Party),
        sdp: &Bytes,
    ) -> Result<Self, Refusal> {
        let mut description = judge.read(id, (*author, party.realm.0), sdp.clone())?;
        let ufrag = description.support.take().map(|support| support.ufrag.into());
        let ice = judge.spoken(&mut description, party.realm.0);
        Ok(Self { description, ice, ufrag })
    }
}

/// One session, while an offer or an answer goes through.
pub(crate) struct Negotiation<'a> {
    pub(crate) id: u64,
    pub(crate) session: &'a mut Session,
    pub(crate) streams: &'a mut Streams,
    /// If its phones know each other.
    pub(crate) introduction: Option<&'a mut Introduction>,
    pub(crate) settings: &'a Settings,
    pub(crate) cname: &'a str,
}

impl Negotiation<'_> {
    /// Opens what an offer needs of both of its ends; nothing, if there is not enough.
    pub(crate) fn open(
        &mut self,
        Offer { from, to, .. }: &Offer,
        heard: &Heard,
        ports: &mut dyn Ports,
    ) -> Result<SmallVec<[StreamId; 2]>, Refusal> {
        for (endpoint, party) in [from, to] {
            self.session.ensure_leg(self.id, *endpoint, party);
        }
        let mut opened = SmallVec::new();
        for end in [from.0, to.0] {
            if let Err(refusal) = self.ensure_streams(end, &heard.description.media, ports, &mut opened) {
                self.session.forget(&opened, self.streams, ports);
                return Err(refusal);
            }
        }
        Ok(opened)
    }

    /// What the other end is to be offered.
    pub(crate) fn offer(
        &mut self,
        offer: Offer,
        heard: Heard,
        mut opened: SmallVec<[StreamId; 2]>,
        now: Duration,
    ) -> Result<Described, Refusal> {
        let Offer { exchange, from: (offerer, _), to: (other, _), .. } = offer;
        let Heard { description, ice, ufrag } = heard;
        // A first description counts at once, so that early media finds its way; a later one when it is answered.
        if let Some(leg) = self.session.leg_mut(offerer) {
            leg.is_joined = description.is_joined;
        }
        self.apply(Words { endpoint: offerer, media: &description.media }, Counts::IfFirst, now);
        self.expect_early(offerer, other, now);
        self.session.write_support(self.id, [other, offerer], ufrag.is_some(), self.settings);
        let is_passed = self.passage().offer((offerer, &ice), other, now);
        let author = is_passed.then_some((offerer, &ice));
        let muxed = description.media.iter().map(|media| media.rtcp_mux).collect();
        let sdp = self.describe(other, &description, Wording { muxed, author, is_offer: true })?;
        let summary = summarise(&description.media);
        if let Some(leg) = self.session.leg_mut(other) {
            leg.offered = Some(sdp.clone());
        }
        let exchanges = &mut self.session.exchanges;
        if let Some(before) = exchanges.iter().position(|known| known.id == exchange) {
            opened.extend(exchanges.remove(before).opened);
        }
        let media = description.media;
        exchanges.push(Exchange { id: exchange, offerer, media, ice, is_passed, opened, ufrag });
        Ok(Described { sdp, summary })
    }

    /// What the offerer is to be answered.
    pub(crate) fn answer(
        &mut self,
        Answer { exchange, from: (from, from_party), to, .. }: Answer,
        heard: Heard,
        turn: &mut Turn<'_>,
    ) -> Result<Described, Refusal> {
        let now = turn.now;
        let Heard { mut description, ice, ufrag: answered_ufrag } = heard;
        let session = &mut *self.session;
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
        self.ensure_branch(from);
        if let Some(leg) = self.session.leg_mut(from) {
            (leg.party, leg.is_joined) = (from_party, description.is_joined);
        }
        let offer = Words { endpoint: to, media: &offered };
        let answer = Words { endpoint: from, media: &description.media };
        self.apply(offer, Counts::Always, now);
        self.apply(answer, Counts::Always, now);
        self.agree(offer, answer);
        self.session.agree_support(self.id, (to, offered_ufrag), (from, answered_ufrag), self.settings);
        self.connect_agreed(from, to);
        if is_last {
            self.close_refused(turn.ports);
        }
        let is_passed = self.passage().answer((to, &spoken), (from, &ice), was_passed);
        // Each leg is answered on its own: whoever offered multiplexing gets it.
        let muxed = offered.iter().map(|offered| offered.rtcp_mux).collect();
        let author = is_passed.then_some((from, &ice));
        let sdp = self.describe(to, &description, Wording { muxed, author, is_offer: false })?;
        if let Some(leg) = self.session.leg_mut(from) {
            leg.agreed = leg.offered.clone();
        }
        if let Some(leg) = self.session.leg_mut(to) {
            leg.agreed = Some(sdp.clone());
        }
        Ok(Described { sdp, summary: summarise(&description.media) })
    }

    fn passage(&mut self) -> Passage<'_> {
        let introduction = self.introduction.as_deref_mut();
        Passage { id: self.id, session: self.session, introduction, settings: self.settings }
    }

    /// The offer is void: the last agreed state stands, and ports that were only for it go back. False if there was none.
    pub(crate) fn cancel(&mut self, exchange: ExchangeId, ports: &mut dyn Ports) -> bool {
        // Other branches may still answer the initial one.
        let is_its = |known: &Exchange| known.id == exchange && exchange != ExchangeId::INITIAL;
        let Some(position) = self.session.exchanges.iter().position(is_its) else { return false };
        let opened = self.session.exchanges.remove(position).opened;
        let unused: SmallVec<[StreamId; 2]> = opened
            .into_iter()
            .filter(|stream| self.streams.get(*stream).is_some_and(|stream| !stream.standing.is_agreed()))
            .collect();
        self.session.forget(&unused, self.streams, ports);
        true
    }

    /// What both sides of an m-line agreed to leave out needs no ports.
    pub(crate) fn close_refused(&mut self, ports: &mut dyn Ports) {
        let refused: SmallVec<[StreamId; 2]> = self
            .session
            .stream_ids()
            .filter(|stream| {
                self.streams.get(*stream).is_some_and(|stream| stream.standing == Standing::Refused)
            })
            .collect();
        self.session.forget(&refused, self.streams, ports);
    }

    /// Opens what a description needs and the leg has not.
    fn ensure_streams(
        &mut self,
        endpoint: Endpoint,
        media: &[Media],
        ports: &mut dyn Ports,
        opened: &mut SmallVec<[StreamId; 2]>,
    ) -> Result<(), Refusal> {
        let consumers = Consumers::of(self.session.listeners.as_slice());
        let leg = self.session.leg_mut(endpoint).ok_or(Refusal::Unknown)?;
        let manner = self.settings.manner(leg.party.realm.0);
        if leg.streams.len() < media.len() {
            leg.streams.resize(media.len(), None);
        }
        let mut served = leg.streams.iter().flatten().count();
        for (index, (place, media)) in leg.streams.iter_mut().zip(media).enumerate() {
            if place.is_some() || media.port == 0 || !media.is_datagram() || served >= MOST_STREAMS {
                continue;
            }
            served = served.saturating_add(1);
            let pair =
                ports.open(leg.party.realm.0, is_ipv6(leg.party.signalling.ip())).ok_or(Refusal::NoPorts)?;
            let latch = Latch::new(leg.party.signalling.ip(), manner);
            let owner = Owner { session: self.id, endpoint, index: index as u16, origin: leg.origin };
            let stream = Stream::new(owner, pair, [latch.clone(), latch], consumers.clone());
            let stream = self.streams.insert(stream);
            *place = Some(stream);
            opened.push(stream);
        }
        Ok(())
    }

    /// A further branch of a party has the ports that the party's INVITE named, and everything else for itself.
    pub(crate) fn ensure_branch(&mut self, endpoint: Endpoint) {
        if self.session.leg(endpoint).is_some() {
            return;
        }
        let first = self.session.legs.iter().find(|(known, _)| known.party == endpoint.party);
        let Some((_, first)) = first else { return };
        let manner = self.settings.manner(first.party.realm.0);
        let consumers = Consumers::of(self.session.listeners.as_slice());
        let mut leg = first.of_branch();
        let latch = Latch::new(leg.party.signalling.ip(), manner);
        for (index, place) in first.streams.iter().enumerate() {
            let pair = place.and_then(|stream| self.streams.get(stream)).map(|stream| stream.ports);
            let owner = Owner { session: self.id, endpoint, index: index as u16, origin: leg.origin };
            let new = |pair| Stream::new(owner, pair, [latch.clone(), latch.clone()], consumers.clone());
            leg.streams.push(pair.map(|pair| self.streams.insert(new(pair))));
        }
        self.session.legs.push((endpoint, leg));
    }

    /// Takes the addresses and codecs of a description.
    fn apply(&mut self, Words { endpoint, media }: Words<'_>, counts: Counts, now: Duration) {
        let session = &mut *self.session;
        let ours = session.relay_addresses(self.streams);
        session.catch_up(self.streams);
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
    fn agree(&mut self, offer: Words<'_>, answer: Words<'_>) {
        for (own, other) in [(offer, answer), (answer, offer)] {
            let Some(leg) = self.session.leg(own.endpoint) else { continue };
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
    fn expect_early(&mut self, offerer: Endpoint, other: Endpoint, now: Duration) {
        for (near, far) in self.pairs(offerer, other) {
            let is_fed = self.feeders(near).next().is_some();
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
    pub(crate) fn connect_agreed(&mut self, one: Endpoint, other: Endpoint) {
        for (left, right) in self.pairs(one, other) {
            for (from, to) in [(left, right), (right, left)] {
                let before: SmallVec<[StreamId; 2]> = self.feeders(to).collect();
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

    fn pairs(&self, one: Endpoint, other: Endpoint) -> SmallVec<[(StreamId, StreamId); 2]> {
        let legs = self.session.leg(one).zip(self.session.leg(other));
        let Some((one, other)) = legs else { return SmallVec::new() };
        one.streams.iter().zip(&other.streams).filter_map(|(one, other)| (*one).zip(*other)).collect()
    }

    /// The streams whose packets go out of this one.
    fn feeders(&self, stream: StreamId) -> impl Iterator<Item = StreamId> {
        self.session.stream_ids().filter(move |feeder| {
            self.streams.get(*feeder).is_some_and(|feeder| feeder.consumers.feeds(stream))
        })
    }

    fn describe(
        &mut self,
        endpoint: Endpoint,
        description: &Description,
        Wording { muxed, author, is_offer }: Wording<'_>,
    ) -> Result<Bytes, Refusal> {
        let seen = author.map(|(author, _)| self.session.seen(author, self.streams));
        let leg = self.session.leg_mut(endpoint).ok_or(Refusal::Unknown)?;
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
        Ok(leg.write(description, &places, &ice, self.cname))
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
