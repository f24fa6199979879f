//! A session's media on the move: what its [`Release`] sees of the streams, and how what it asks becomes descriptions.
//!
//! Each party has a place where its media is and one where it is to be; whatever differs is wished for, once the wish before
//! was answered and no offer of a party is open.

use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use smallvec::SmallVec;

use crate::legs::{INITIAL, Leg, Session};
use crate::path::memory::{Memory, Pair};
use crate::path::phone::Temperament;
use crate::path::place::Stay;
use crate::path::proof::Reception;
use crate::path::timeline::{Entry, PathState, Timeline};
use crate::path::{Constraint, Moved, Output, Release, Sight};
use crate::policy::ReleasePolicy;
use crate::rtcp::Report;
use crate::sdp::{Description, Direction, Media, Place};
use crate::session::{Endpoint, Event, Outcome};
use crate::stream::{Carried, Stream, StreamId, Streams};
use crate::worker::{Ports, Worker};

/// Where a party's media is, or is to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Whereabouts {
    /// At the relay.
    Home,
    /// At the relay's second address.
    Second,
    /// At the relay, inactive.
    Held,
    /// Where the far party was observed, or its local address.
    Away { is_local: bool },
}

/// One party of it.
#[derive(Debug, Clone)]
struct Mover {
    endpoint: Endpoint,
    at: Whereabouts,
    want: Whereabouts,
    /// The wish that is open, and what for.
    asked: Option<(u32, Whereabouts)>,
    /// A way home that was refused is asked for again then.
    retry: Duration,
    refusals: u8,
}

/// A phone that refuses to come home is asked so often, and with so much time between.
const HOMEWARD: (u8, Duration) = (5, Duration::from_secs(2));
/// Packets that reach nobody call for a look, but not each of them.
const GLANCE: Duration = Duration::from_millis(20);
/// After a wish that could not be sent.
const BUSY: Duration = Duration::from_millis(250);

/// The number of each m-line that carries RTP, and what the parties send in it.
type Lines = SmallVec<[(usize, [StreamId; 2]); 1]>;

/// The moves of one session, between two parties.
#[derive(Debug)]
pub(crate) struct Moving {
    release: Release,
    movers: [Mover; 2],
    lines: Lines,
    wishes: u32,
    /// Entries of the timeline that were told.
    told: usize,
    /// Under which its outcome is remembered, once both were heard.
    pair: Option<Pair>,
    /// When it comes back for no reason.
    cover: Option<Duration>,
    /// When it is looked at next.
    pub(crate) due: Duration,
}

/// What a session leaves of its moves.
#[derive(Debug, Clone, Default)]
pub(crate) struct Past {
    pub(crate) timeline: Timeline,
    pub(crate) wishes: u32,
    pub(crate) told: usize,
}

/// The two parties of a session, if there are just two, and the m-lines that could move.
fn eligible(session: &Session, streams: &Streams) -> Option<([Endpoint; 2], Lines)> {
    session.selected?;
    let [(one, first), (other, second)] = session.legs.as_slice() else { return None };
    first.agreed.as_ref().and(second.agreed.as_ref())?;
    let mut lines = SmallVec::new();
    for (index, pair) in first.streams.iter().zip(&second.streams).enumerate() {
        let (Some(left), Some(right)) = pair else { continue };
        // Fax, keys that only the ends have, one port for all: nothing that reports could prove.
        for stream in [left, right].map(|stream| streams.get(*stream)) {
            stream.filter(|stream| {
                stream.carried == Carried::Clear && !stream.is_muxed && stream.is_agreed && !stream.is_refused
            })?;
        }
        lines.push((index, [*left, *right]));
    }
    (!lines.is_empty()).then_some(([*one, *other], lines))
}

/// So that an anchored call tells its parties nothing, some are anchored for no reason.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Cover {
    None,
    Stays,
    /// So long after its answer.
    ComesBack(Duration),
}

impl Cover {
    /// Nobody outside can tell which: it is drawn from the session's number, which nobody outside knows.
    fn of(id: u64, percent: u32) -> Self {
        let drawn = ahash::RandomState::with_seeds(5, 6, 7, 8).hash_one(id);
        let is_drawn = |number: u64| number % 100 < u64::from(percent);
        if is_drawn(drawn) {
            Self::Stays
        } else if is_drawn(drawn >> 16) {
            Self::ComesBack(Duration::from_secs(10 + (drawn >> 32) % 600))
        } else {
            Self::None
        }
    }
}

impl Worker {
    /// After an answer, or the choice of a branch: what is agreed may be released, or has come home by this.
    pub(crate) fn agreed(&mut self, id: u64, now: Duration) {
        if self.hands_off(id, now) {
            return;
        }
        let Some(session) = self.sessions.get_mut(&id) else { return };
        let found = eligible(session, &self.streams);
        if let Some(moving) = &mut session.moving {
            let is_same = found
                .as_ref()
                .is_some_and(|(ends, lines)| *ends == moving.endpoints() && *lines == moving.lines);
            if is_same {
                moving.come_back(!session.is_held, now);
                return self.attend(id, now);
            }
            self.settle(id, now);
        }
        let Some(session) = self.sessions.get_mut(&id) else { return };
        let (Some((ends, lines)), Some(policy)) = (found, &self.settings.release) else { return };
        let Some(constraint) = constraint(session, ends, policy) else { return };
        let parties = ends.map(|end| session.leg(end).map(|leg| leg.party.clone()));
        let [Some(one), Some(other)] = parties else { return };
        let temperaments = [&one, &other].map(|party| Temperament::of(&party.product));
        let networks = policy.networks(one.realm, other.realm);
        let past = session.past_moves.take();
        let (wishes, told) = past.as_ref().map_or((0, 0), |past| (past.wishes, past.told));
        let mut release = Release::new(
            policy.settings,
            networks,
            constraint,
            temperaments,
            lines.len(),
            past.map(|past| past.timeline),
            now,
        );
        let cover = Cover::of(id, policy.settings.cover_percent);
        if one.is_private || other.is_private {
            release.keep(Stay::Privacy, now);
        } else if cover == Cover::Stays {
            release.keep(Stay::Policy, now);
        }
        let cover = if let Cover::ComesBack(after) = cover { Some(now + after) } else { None };
        let movers = ends.map(|endpoint| Mover {
            endpoint,
            at: Whereabouts::Home,
            want: Whereabouts::Home,
            asked: None,
            retry: Duration::ZERO,
            refusals: 0,
        });
        session.moving =
            Some(Box::new(Moving { release, movers, lines, wishes, told, pair: None, cover, due: now }));
        self.attend(id, now);
    }

    /// The two parties are no more what they were; what happened stays told.
    pub(crate) fn settle(&mut self, id: u64, now: Duration) {
        self.end_handoff(id, now);
        let Some(session) = self.sessions.get_mut(&id) else { return };
        let Some(mut moving) = session.moving.take() else { return };
        moving.release.finish(now);
        moving.tell(id, &mut self.events);
        for (line, (_, streams)) in moving.lines.iter().enumerate() {
            for (from, stream) in streams.iter().enumerate() {
                if let Some(stream) = self.streams.get_mut(*stream) {
                    stream.set_released(false);
                    stream.direct = moving.release.tally(line, from).or(stream.direct);
                }
            }
        }
        session.past_moves =
            Some(Past { timeline: moving.release.into_timeline(), wishes: moving.wishes, told: moving.told });
    }

    /// Policy has something to say about one session.
    pub(crate) fn constrain(&mut self, id: u64, constraint: Constraint, now: Duration) {
        let Some(session) = self.sessions.get_mut(&id) else { return };
        session.constraint = Some(constraint);
        if self.constrain_handoff(id, now) {
            return;
        }
        let Some(session) = self.sessions.get_mut(&id) else { return };
        match &mut session.moving {
            Some(moving) => {
                moving.release.constrain(constraint, now);
                self.attend(id, now);
            }
            None => self.agreed(id, now),
        }
    }

    /// What became of a wish at one of its legs.
    pub(crate) fn renegotiated(
        &mut self,
        id: u64,
        wish: u32,
        endpoint: Endpoint,
        outcome: Outcome,
        now: Duration,
    ) {
        if self.told_policy(id, wish, endpoint, &outcome, now) {
            return;
        }
        let Some(session) = self.sessions.get_mut(&id) else { return };
        let Some(mut moving) = session.moving.take() else { return };
        moving.answered(wish, endpoint, outcome, session, &mut self.streams, now);
        session.moving = Some(moving);
        self.attend(id, now);
    }

    /// It is to be looked at now.
    pub(crate) fn attend(&mut self, id: u64, now: Duration) {
        if let Some(moving) = self.sessions.get_mut(&id).and_then(|session| session.moving.as_mut()) {
            moving.due = now;
            self.looks.push(std::cmp::Reverse((now, id)));
        }
    }

    /// It is looked at soon: what comes to the relay now reaches nobody.
    #[cold]
    pub(crate) fn glance(&mut self, id: u64, now: Duration) {
        let due = self.sessions.get(&id).and_then(|session| Some(session.moving.as_ref()?.due));
        if due.is_some_and(|due| due > now + GLANCE) {
            self.attend(id, now);
        }
    }

    /// Looks at a session whose time has come.
    pub(crate) fn look(&mut self, id: u64, now: Duration, ports: &mut dyn Ports) {
        let Some(session) = self.sessions.get_mut(&id) else { return };
        let Some(mut moving) = session.moving.take() else { return };
        moving.see(session, &mut self.streams, ports, now);
        let span = self.settings.release.as_ref().map_or(Duration::ZERO, |policy| policy.settings.remember);
        if moving.pair.is_none() {
            moving.pair = moving.pair(session, &self.streams);
            if moving.pair.as_ref().is_some_and(|pair| self.memory.shuns(pair, span, now)) {
                moving.release.keep(Stay::Remembered, now);
            }
        }
        if moving.cover.is_some_and(|at| now >= at) {
            moving.cover = None;
            moving.release.constrain(Constraint::MustAnchor, now);
        }
        moving.release.handle_timeout(now);
        moving.obey(session, &mut self.streams, ports, now);
        moving.ask(id, session, &self.streams, &self.cname, &mut self.events, now);
        moving.remember(&mut self.memory, span, now);
        moving.tell(id, &mut self.events);
        moving.due = moving.next_look(now);
        self.looks.push(std::cmp::Reverse((moving.due, id)));
        session.moving = Some(moving);
    }

    /// A party's RTCP, whose source was checked.
    #[cold]
    pub(crate) fn hear_reports(&mut self, id: StreamId, reports: &[Report], now: Duration) {
        let Some(stream) = self.streams.get(id) else { return };
        let session = stream.session;
        let Some(moving) = self.sessions.get_mut(&session).and_then(|session| session.moving.as_mut()) else {
            return;
        };
        let place = moving.lines.iter().enumerate().find_map(|(line, (_, streams))| {
            streams.iter().position(|stream| *stream == id).map(|party| (line, party))
        });
        let Some((line, party)) = place else { return };
        moving.sights(&self.streams, now);
        for report in reports {
            match report {
                Report::Sender { ssrc, packets, .. } => {
                    moving.release.sender_report(line, party, *ssrc, *packets, now);
                }
                Report::Reception { ssrc, lost, highest, jitter, .. } => {
                    let report = Reception { ssrc: *ssrc, highest: *highest, lost: *lost, jitter: *jitter };
                    moving.release.reception(line, party, &report, now);
                }
            }
        }
        self.attend(session, now);
    }
}

/// What policy says of a session; `None` if it is never to move.
fn constraint(session: &Session, ends: [Endpoint; 2], policy: &ReleasePolicy) -> Option<Constraint> {
    let realms = ends.map(|end| session.leg(end).map(|leg| leg.party.realm));
    let [Some(one), Some(other)] = realms else { return None };
    session.constraint.or_else(|| policy.between(one, other))
}

impl Moving {
    pub(crate) fn endpoints(&self) -> [Endpoint; 2] {
        self.movers.each_ref().map(|mover| mover.endpoint)
    }

    /// An exchange of the parties' own has told both to come home.
    fn come_back(&mut self, should_flow: bool, now: Duration) {
        for mover in &mut self.movers {
            (mover.at, mover.want, mover.refusals) = (Whereabouts::Home, Whereabouts::Home, 0);
        }
        self.release.renegotiated(should_flow, now);
    }

    fn next_look(&self, now: Duration) -> Duration {
        let retry = self
            .movers
            .iter()
            .filter(|mover| mover.asked.is_none() && mover.want != mover.at && mover.retry > now)
            .map(|mover| mover.retry)
            .min();
        let next = self.release.poll_timeout(now);
        retry.map_or(next, |retry| retry.min(next)).max(now + Duration::from_millis(1))
    }

    /// Whom a later call would have to be between to fare like this one.
    fn pair(&self, session: &Session, streams: &Streams) -> Option<Pair> {
        let (_, pair) = self.lines.first()?;
        let end = |party: usize| {
            let product = &*session.leg(self.movers[party].endpoint)?.party.product;
            let rtp = &streams.get(pair[party])?.rtp;
            let (observed, _) = rtp.heard()?;
            Some((product, observed.ip(), rtp.signalled() != Some(observed)))
        };
        Some(Pair::new([end(0)?, end(1)?]))
    }

    /// What is new in the timeline, for calls to come.
    fn remember(&self, memory: &mut Memory, span: Duration, now: Duration) {
        let Some(pair) = &self.pair else { return };
        for (_, entry) in self.release.timeline().entries().get(self.told..).unwrap_or_default() {
            match entry {
                Entry::Stays(Stay::Failed | Stay::Refused) => memory.failed(pair.clone(), span, now),
                Entry::State { to: PathState::Direct, .. } => memory.worked(pair),
                _ => {}
            }
        }
    }

    /// Tells what is new in the timeline.
    fn tell(&mut self, id: u64, events: &mut std::collections::VecDeque<(u64, Event)>) {
        let entries = self.release.timeline().entries();
        for (after, entry) in entries.get(self.told..).unwrap_or_default() {
            events.push_back((id, Event::Path { after: *after, entry: *entry, parties: self.endpoints() }));
        }
        self.told = entries.len();
    }

    fn sights(&mut self, streams: &Streams, now: Duration) {
        for (line, (_, pair)) in self.lines.iter().enumerate() {
            for (from, stream) in pair.iter().enumerate() {
                if let Some(sight) = streams.get(*stream).and_then(sight_of) {
                    self.release.sight(line, from, sight, now);
                }
            }
        }
    }

    /// Shows the machine where the parties are.
    fn see(&mut self, session: &Session, streams: &mut Streams, ports: &mut dyn Ports, now: Duration) {
        self.sights(streams, now);
        for party in 0..2 {
            for (line, (_, pair)) in self.lines.iter().enumerate() {
                let taken = streams.get_mut(pair[party]).and_then(|stream| stream.taken.take());
                let Some(observed) = taken else { continue };
                if line == 0 {
                    self.release.learnt(party, observed, now);
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
        let Some((_, pair)) = self.lines.first() else { return };
        for (party, stream) in pair.iter().enumerate() {
            let Some(stream) = streams.get(*stream) else { continue };
            let contact = session.leg(self.movers[party].endpoint).and_then(|leg| leg.party.contact);
            if let Some((observed, _)) = stream.rtp.heard() {
                self.release.placed(party, observed, stream.rtp.signalled(), contact);
            }
        }
    }

    /// Does what the machine asks.
    fn obey(&mut self, session: &Session, streams: &mut Streams, ports: &mut dyn Ports, now: Duration) {
        while let Some(output) = self.release.poll_output() {
            match output {
                Output::Learn(whom) => self.learn(whom, session, streams, ports, now),
                Output::Move(targets) => {
                    let pair = self.lines.first().map(|(_, pair)| *pair);
                    let observed = pair.and_then(|pair| streams.get(pair[1])?.rtp.destination());
                    let is_local = observed != Some(targets[0]);
                    self.send([true; 2], Whereabouts::Away { is_local }, now);
                }
                Output::Hold(whom) => self.send(whom, Whereabouts::Held, now),
                Output::Home(whom) => {
                    for (party, _) in whom.iter().enumerate().filter(|whom| *whom.1) {
                        for (_, pair) in &self.lines {
                            if let Some(stream) = streams.get_mut(pair[party]) {
                                stream.reception.interrupt();
                            }
                        }
                    }
                    self.send(whom, Whereabouts::Home, now);
                }
                Output::Relaying { to, is_on } => {
                    for (_, pair) in &self.lines {
                        if let Some(stream) = streams.get_mut(pair[to & 1]) {
                            stream.set_released(!is_on);
                        }
                    }
                }
            }
        }
    }

    fn send(&mut self, whom: [bool; 2], want: Whereabouts, now: Duration) {
        for (party, _) in whom.iter().enumerate().filter(|whom| *whom.1) {
            let mover = &mut self.movers[party];
            (mover.want, mover.retry, mover.refusals) = (want, Duration::ZERO, 0);
            if mover.asked.is_none() && mover.at == want {
                self.release.moved(party, Moved::Accepted, now);
            }
        }
    }

    /// Opens ports at the second address for these parties.
    fn learn(
        &mut self,
        whom: [bool; 2],
        session: &Session,
        streams: &mut Streams,
        ports: &mut dyn Ports,
        now: Duration,
    ) {
        for (party, _) in whom.iter().enumerate().filter(|whom| *whom.1) {
            let realm = session.leg(self.movers[party].endpoint).map(|leg| leg.party.realm);
            let is_open = self
                .lines
                .iter()
                .all(|(_, pair)| realm.is_some_and(|realm| streams.open_spare(pair[party], realm, ports)));
            if !is_open {
                self.lines.iter().for_each(|(_, pair)| {
                    pair.iter().for_each(|stream| streams.close_spare(*stream, ports));
                });
                self.movers.iter_mut().for_each(|mover| mover.want = mover.at);
                return self.release.keep(Stay::UnknownMapping, now);
            }
            self.movers[party].want = Whereabouts::Second;
        }
    }

    /// Wishes for whatever is not as it is to be.
    fn ask(
        &mut self,
        id: u64,
        session: &mut Session,
        streams: &Streams,
        cname: &str,
        events: &mut std::collections::VecDeque<(u64, Event)>,
        now: Duration,
    ) {
        // The answer to an offer of a party brings everything home; until then nobody else may offer (RFC 3264 §4).
        if session.exchanges.iter().any(|exchange| exchange.id != INITIAL) {
            return;
        }
        let mut legs: Vec<(Endpoint, Bytes)> = Vec::new();
        let mut failed = None;
        for party in 0..2 {
            let mover = &self.movers[party];
            if mover.asked.is_some() || mover.want == mover.at || now < mover.retry {
                continue;
            }
            let (endpoint, want) = (mover.endpoint, mover.want);
            match self.description(party, want, session, streams, cname) {
                Some(sdp) => legs.push((endpoint, sdp)),
                None => failed = Some(party),
            }
        }
        if let Some(party) = failed {
            // An address that was never observed is not used.
            self.movers.iter_mut().for_each(|mover| mover.want = mover.at);
            return self.release.moved(party, Moved::Refused, now);
        }
        // A move is one wish, since one leg alone is no path; on the way home nobody waits for the other.
        let is_together = self.movers.iter().all(|mover| matches!(mover.want, Whereabouts::Away { .. }));
        let wishes: Vec<Vec<(Endpoint, Bytes)>> =
            if is_together { vec![legs] } else { legs.into_iter().map(|leg| vec![leg]).collect() };
        for legs in wishes.into_iter().filter(|legs| !legs.is_empty()) {
            self.wishes += 1;
            let wish = self.wishes;
            for mover in &mut self.movers {
                if legs.iter().any(|leg| leg.0 == mover.endpoint) {
                    mover.asked = Some((wish, mover.want));
                }
            }
            events.push_back((id, Event::Renegotiate { wish, legs }));
        }
    }

    /// What a party is to be offered, so that its media goes there.
    fn description(
        &self,
        party: usize,
        want: Whereabouts,
        session: &mut Session,
        streams: &Streams,
        cname: &str,
    ) -> Option<Bytes> {
        let leg = session.leg_mut(self.movers[party].endpoint)?;
        let description = Description::parse(leg.agreed.clone()?).ok()?;
        let mut places: SmallVec<[Option<Place>; 2]> = leg
            .streams
            .iter()
            .zip(&description.media)
            .map(|(stream, media)| {
                let stream = streams.get((*stream)?)?;
                (media.port != 0).then_some(Place::at(stream.ports.address))
            })
            .collect();
        for (index, pair) in &self.lines {
            let (own, far) = (streams.get(pair[party])?, streams.get(pair[1 - party])?);
            let place = places.get_mut(*index)?.as_mut()?;
            match want {
                Whereabouts::Home => {}
                Whereabouts::Held => place.direction = Some(Direction::Inactive),
                Whereabouts::Second => place.rtp = own.spare?.address,
                Whereabouts::Away { is_local } => {
                    let rtcp = own.ports.address;
                    place.rtcp = Some(SocketAddr::new(rtcp.ip(), rtcp.port() + 1));
                    place.rtp = if is_local { far.rtp.signalled()? } else { far.rtp.heard()?.0 };
                }
            }
        }
        Some(leg.write(&description, &places, cname))
    }

    /// A phone has answered a wish, or has not.
    fn answered(
        &mut self,
        wish: u32,
        endpoint: Endpoint,
        outcome: Outcome,
        session: &Session,
        streams: &mut Streams,
        now: Duration,
    ) {
        let found = self.movers.iter().position(|mover| mover.endpoint == endpoint);
        let Some(party) = found else { return };
        let Some((_, aim)) = self.movers[party].asked.take_if(|asked| asked.0 == wish) else { return };
        let is_wanted = self.movers[party].want == aim;
        let moved = match outcome {
            Outcome::Accepted(sdp) => {
                self.movers[party].at = aim;
                let leg = session.leg(endpoint);
                let is_good = leg.is_some_and(|leg| self.took(party, aim, leg, sdp, streams, now));
                if is_good { Moved::Accepted } else { Moved::Refused }
            }
            Outcome::Refused(_) => Moved::Refused,
            Outcome::Superseded => Moved::Superseded,
        };
        if !is_wanted {
            return;
        }
        let mover = &mut self.movers[party];
        match (aim, moved) {
            (_, Moved::Accepted) => {}
            // It stays where it is, and the call with it; only home is worth another try.
            (Whereabouts::Home, Moved::Superseded) => mover.retry = now + BUSY,
            (Whereabouts::Home, Moved::Refused) => {
                mover.refusals += 1;
                mover.retry = now + HOMEWARD.1;
                if mover.refusals >= HOMEWARD.0 {
                    mover.want = mover.at;
                }
            }
            (Whereabouts::Held, Moved::Superseded) => {
                mover.retry = now + BUSY;
                return;
            }
            _ => mover.want = mover.at,
        }
        if aim == Whereabouts::Home && moved == Moved::Superseded {
            return;
        }
        self.release.moved(party, moved, now);
    }

    /// Checks the answer of a phone and takes its addresses (RFC 3264 §6).
    fn took(
        &self,
        party: usize,
        aim: Whereabouts,
        leg: &Leg,
        sdp: Bytes,
        streams: &mut Streams,
        now: Duration,
    ) -> bool {
        let Some(offered) = leg.agreed.clone().and_then(|sdp| Description::parse(sdp).ok()) else {
            return false;
        };
        let Ok(answer) = Description::parse(sdp) else { return false };
        if !fits(&offered.media, &answer.media) {
            return false;
        }
        let signalling = leg.party.signalling.ip();
        self.lines.iter().all(|(index, pair)| {
            let Some(media) = answer.media.get(*index) else { return false };
            let spoken = streams.get(pair[1 - party]).and_then(|far| far.reception.payload_type);
            let knows = spoken.is_none_or(|spoken| media.codecs.iter().any(|codec| codec.0 == spoken));
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
        })
    }
}

/// As many m-lines, of the same kinds, and none that was not offered.
fn fits(offered: &[Media], answered: &[Media]) -> bool {
    offered.len() == answered.len()
        && offered.iter().zip(answered).all(|(offered, answered)| {
            offered.kind == answered.kind && (offered.port != 0 || answered.port == 0)
        })
}

fn sight_of(stream: &Stream) -> Option<Sight> {
    let (ssrc, sequence) = stream.reception.last()?;
    let (_, heard) = stream.rtp.heard()?;
    let clock_rate = stream.format(stream.reception.payload_type).map_or(8000, |format| format.rate);
    Some(Sight { ssrc, clock_rate, packets: stream.reception.packets, sequence, heard })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn as_many_calls_cover_others_as_policy_says() {
        let drawn: Vec<Cover> = (0..10_000).map(|id| Cover::of(id, 10)).collect();
        let stay = drawn.iter().filter(|cover| **cover == Cover::Stays).count();
        let come_back = drawn.iter().filter(|cover| matches!(cover, Cover::ComesBack(_))).count();
        assert!((850..1_150).contains(&stay) && (750..1_050).contains(&come_back), "{stay} {come_back}");
        assert!((0..1_000).all(|id| Cover::of(id, 0) == Cover::None));
    }
}
