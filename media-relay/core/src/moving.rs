//! A session's media on the move: what its [`Release`] sees of the streams (`moving/seen.rs`), and how what it asks becomes
//! descriptions (`moving/asked.rs`). A call that a proxy behind us has led back to us is more than one session (`moving/chain.rs`):
//! one of them, the host, has the moves of all.
//!
//! Each party has a place where its media is and one where it is to be; whatever differs is wished for, once the wish before
//! was answered and no offer of a party is open.

pub(crate) mod asked;
pub(crate) mod chain;
pub(crate) mod cover;
pub(crate) mod kept;
mod mover;
pub(crate) mod seen;

use std::time::Duration;

use media_wire::rtcp::{self, Report};
use seam::path::{Constraint, Entry, PathEntry, Stay};
use seam::{Endpoint, Event, Renegotiated, Side};
use smallvec::{SmallVec, smallvec};

use crate::legs::{Leg, Session};
use crate::moving::chain::{Chain, Found, Guest, Link};
use crate::moving::cover::Cover;
use crate::moving::mover::{Mover, Whereabouts};
use crate::moving::seen::{pair_of, remember};
use crate::path::Outset;
use crate::path::Release;
use crate::path::memory::Pair;
use crate::path::phone::Temperament;
use crate::path::proof::Reception;
use crate::path::timeline::{Reading, Timeline};
use crate::policy::ReleasePolicy;
use crate::stream::{Carried, StreamId, Streams};
use crate::worker::{Ports, Worker};

/// A phone that refuses to come home is asked so often, and with so much time between.
const HOMEWARD: (u8, Duration) = (5, Duration::from_secs(2));
/// A phone that rings over a re-INVITE does not move in time.
pub(crate) const LONGEST_RINGING: Duration = Duration::from_secs(4);
/// Packets that reach nobody call for a look, but not each of them.
const GLANCE: Duration = Duration::from_millis(20);
/// After a wish that could not be sent.
const BUSY: Duration = Duration::from_millis(250);
/// By so much one of two is asked later at most, so that both move together.
const MOST_AHEAD: Duration = Duration::from_millis(300);
/// When one half of a call has ended, its end is on its way to the other, whose party is not asked home before.
const PARTING: Duration = Duration::from_millis(400);

/// The number of each m-line that carries RTP, and what the parties send in it.
pub(crate) type Lines = SmallVec<[(usize, [StreamId; 2]); 1]>;

/// The moves of one call, between two parties.
#[derive(Debug)]
pub(crate) struct Moving {
    pub(crate) release: Release,
    movers: [Mover; 2],
    /// The sessions between them, mostly one.
    chain: Chain,
    /// What the sessions of a longer chain have behind them, each for itself.
    pasts: Vec<Option<Past>>,
    lines: Lines,
    carriers: Vec<[SmallVec<[StreamId; 1]>; 2]>,
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

/// The m-lines between two legs that could move: those with rtcp-mux only where `may_mux` says that nothing needs to be proven.
pub(crate) fn lines_between(legs: [&Leg; 2], streams: &Streams, may_mux: bool) -> Option<Lines> {
    let mut lines = SmallVec::new();
    let [first, second] = legs;
    for (index, pair) in first.streams.iter().zip(&second.streams).enumerate() {
        let (Some(left), Some(right)) = pair else { continue };
        // Fax, keys that only the ends have, one port for all: nothing that reports could prove.
        for stream in [left, right].map(|stream| streams.get(*stream)) {
            stream.filter(|stream| {
                stream.carried == Carried::Clear
                    && (may_mux || !stream.is_muxed)
                    && stream.is_agreed
                    && !stream.is_refused
            })?;
        }
        lines.push((index, [*left, *right]));
    }
    (!lines.is_empty()).then_some(lines)
}

impl Worker {
    /// After an answer, or the choice of a branch: what is agreed may be released, or has come home by this.
    pub(crate) fn agreed(&mut self, id: u64, now: Duration) {
        if self.hands_off(id, now) || self.introduce(id, now) {
            return;
        }
        let chain = self.chain(id);
        let is_certain = chain.as_ref().is_some_and(|chain| self.is_certain(chain));
        let found = chain.and_then(|chain| self.eligible(chain, is_certain));
        let host = self.host_of(id);
        if let Some(moving) = self.sessions.get(&host).and_then(|session| session.moving.as_ref()) {
            let is_same = found
                .as_ref()
                .is_some_and(|found| found.chain == moving.chain && found.lines == moving.lines);
            if is_same {
                return self.come_back(id, host, now);
            }
            self.settle(id, now);
        }
        if let Some(found) = found {
            self.set_moving(found, now);
        }
        self.tell_kept(id, now);
    }

    /// An exchange of the parties' own has told those of one session to come home. In another session of the chain the same exchange
    /// is still on its way, or nobody there is told by itself.
    fn come_back(&mut self, id: u64, host: u64, now: Duration) {
        let Some(mut moving) = self.sessions.get_mut(&host).and_then(|session| session.moving.take()) else {
            return;
        };
        // What was direct until now, in all halves, is counted by what the parties were told until now.
        moving.account(&mut self.sessions, &mut self.streams, now);
        let is_held = |link: &Link| self.sessions.get(&link.session).is_some_and(|session| session.is_held);
        let should_flow = !moving.chain.iter().any(is_held);
        moving.come_back(id, should_flow, now);
        if let Some(session) = self.sessions.get_mut(&host) {
            session.moving = Some(moving);
        }
        self.attend(host, now);
    }

    /// What is found may be released from now on.
    fn set_moving(&mut self, found: Found, now: Duration) {
        // What a half of it has done alone is over.
        for link in &found.chain {
            self.settle(link.session, now);
        }
        let Some(policy) = self.settings.release.clone() else { return };
        let Some(constraint) = chain::constraint(&self.sessions, &found.chain, &policy) else { return };
        let Some(outer) = chain::outer(&self.sessions, &found.chain) else { return };
        let temperaments = outer.map(|leg| Temperament::of(&leg.party.product));
        let [one, other] = outer.map(|leg| leg.party.realm.0);
        let networks = policy.networks(one, other);
        let legs = found.chain.iter().flat_map(|link| link.ends.map(|end| (link.session, end)));
        let is_private = legs
            .filter_map(|(session, end)| chain::leg(&self.sessions, session, end))
            .any(|leg| leg.party.is_private);
        let Found { chain, lines, carriers } = found;
        let (Some(first), Some(last)) = (chain.first().copied(), chain.last().copied()) else { return };
        let mut pasts: Vec<Option<Past>> = chain
            .iter()
            .map(|link| self.sessions.get_mut(&link.session).and_then(|session| session.past_moves.take()))
            .collect();
        let wishes = pasts.iter().flatten().map(|past| past.wishes).max().unwrap_or_default();
        // Of one session alone the past goes on; of several each has its own.
        let past = if chain.len() == 1 { pasts.pop().flatten() } else { None };
        let told = past.as_ref().map_or(0, |past| past.told);
        let past = past.map(|past| past.timeline);
        let outset = Outset { settings: policy.settings, constraint, lines: lines.len(), past };
        let mut release = Release::new(outset, networks, temperaments, now);
        let is_muxed = |stream: &StreamId| self.streams.get(*stream).is_some_and(|stream| stream.is_muxed);
        if lines.iter().any(|(_, pair)| pair.iter().any(is_muxed)) {
            release.mux_reports();
        }
        let number = chain.iter().map(|link| link.session).min().unwrap_or(first.session);
        let cover = Cover::of(number, policy.settings.cover_percent);
        if is_private {
            release.keep(Stay::Privacy, now);
        } else if cover == Cover::Stays {
            release.keep(Stay::Policy, now);
        }
        let cover = if let Cover::ComesBack(after) = cover { Some(now.saturating_add(after)) } else { None };
        for link in chain.iter().skip(1) {
            if let Some(session) = self.sessions.get_mut(&link.session) {
                session.guest = Some(Guest { host: first.session, ends: link.ends });
            }
        }
        let Some(session) = self.sessions.get_mut(&first.session) else { return };
        session.moving = Some(Box::new(Moving {
            release,
            movers: [
                Mover::new(first.session, first.ends[Side::First]),
                Mover::new(last.session, last.ends[Side::Second]),
            ],
            chain,
            pasts,
            lines,
            carriers,
            wishes,
            told,
            pair: None,
            cover,
            due: now,
        }));
        self.attend(first.session, now);
    }

    /// Whether what is found between its two parties is certain by configuration.
    fn is_certain(&self, chain: &[Link]) -> bool {
        let realms = chain::outer(&self.sessions, chain).map(|legs| legs.map(|leg| leg.party.realm.0));
        let policy = self.settings.release.as_ref();
        policy.zip(realms).is_some_and(|(policy, [one, other])| policy.networks(one, other).certain)
    }

    /// The two parties are no more what they were; what happened stays told.
    pub(crate) fn settle(&mut self, id: u64, now: Duration) {
        self.settle_and_ask(id, now, now);
    }

    /// A party has left. The end of the other halves of its call, if it has any, is on its way.
    pub(crate) fn end_moves(&mut self, id: u64, now: Duration) {
        self.settle_and_ask(id, now.saturating_add(PARTING), now);
    }

    /// Who is left in another half is asked home at `homeward`.
    fn settle_and_ask(&mut self, id: u64, homeward: Duration, now: Duration) {
        self.end_handoff(id, now);
        self.part(id, now);
        let host = self.host_of(id);
        let Some(mut moving) = self.sessions.get_mut(&host).and_then(|session| session.moving.take()) else {
            return;
        };
        moving.account(&mut self.sessions, &mut self.streams, now);
        moving.release.finish(now);
        moving.tell(&mut self.events, now);
        for stream in moving.streams() {
            if let Some(stream) = self.streams.get_mut(stream) {
                stream.set_released(false);
                stream.reception.come_back();
            }
        }
        let Moving { release, movers, chain, mut pasts, wishes, told, .. } = *moving;
        let timeline = release.into_timeline();
        for (index, link) in chain.iter().enumerate() {
            let Some(session) = self.sessions.get_mut(&link.session) else { continue };
            (session.guest, session.is_away) = (None, false);
            let past = pasts.get_mut(index).and_then(Option::take).map_or_else(
                || Past { timeline: timeline.clone(), wishes, told },
                |past| past.followed_by(&timeline, wishes),
            );
            session.past_moves = Some(past);
        }
        if chain.len() > 1 {
            // Who is told by nobody else that he is alone is told by us.
            for mover in movers.into_iter().filter(|mover| mover.session != id && mover.may_be_away()) {
                self.bring_home(mover, homeward, now);
            }
        }
    }

    /// The other half of its call is gone, or is another's: it comes home, to where its own session is.
    fn bring_home(&mut self, mover: Mover, homeward: Duration, now: Duration) {
        let Some(ends) = self.sessions.get(&mover.session).and_then(chain::parties) else { return };
        let link = Link { session: mover.session, ends };
        let Some(found) = self.eligible(smallvec![link], true) else { return };
        self.set_moving(found, now);
        let Some(moving) = self.sessions.get_mut(&mover.session).and_then(|session| session.moving.as_mut())
        else {
            return;
        };
        moving.release.keep(Stay::Unfit, now);
        if let Some(own) = moving.movers.iter_mut().find(|own| own.endpoint == mover.endpoint) {
            *own = Mover { want: Whereabouts::Home, retry: homeward, refusals: 0, ..mover };
        }
    }

    /// Policy has something to say about one session.
    pub(crate) fn constrain(&mut self, id: u64, constraint: Constraint, now: Duration) {
        let Some(session) = self.sessions.get_mut(&id) else { return };
        session.told_constraint = Some(constraint);
        if !self.heed_policy(id, now) {
            self.agreed(id, now);
        }
    }

    /// Tells the moves of a session what policy says of all of their call now; false if there are none.
    fn heed(&mut self, id: u64, now: Duration) -> bool {
        let host = self.host_of(id);
        let Some(mut moving) = self.sessions.get_mut(&host).and_then(|session| session.moving.take()) else {
            return false;
        };
        let policy = self.settings.release.as_ref();
        let said = policy.and_then(|policy| chain::constraint(&self.sessions, &moving.chain, policy));
        moving.release.constrain(said.unwrap_or(Constraint::MustAnchor), now);
        if let Some(session) = self.sessions.get_mut(&host) {
            session.moving = Some(moving);
        }
        self.attend(host, now);
        true
    }

    /// What policy had to say about one session it says no more: its realms decide again.
    pub(crate) fn unconstrain(&mut self, id: u64, now: Duration) {
        let Some(session) = self.sessions.get_mut(&id) else { return };
        session.told_constraint = None;
        self.heed_policy(id, now);
    }

    /// Tells whoever moves a session's media what is said of it now; false if nobody does.
    pub(crate) fn heed_policy(&mut self, id: u64, now: Duration) -> bool {
        if self.constrain_handoff(id, now) {
            return true;
        }
        let Some(session) = self.sessions.get_mut(&id) else { return true };
        if let Some(introduction) = &mut session.introduction {
            let ends = introduction.ends;
            let policy = self.settings.release.as_ref();
            let said = policy.and_then(|policy| constraint(session, ends, policy));
            if let Some(introduction) = &mut session.introduction {
                introduction.machine.constrain(said.unwrap_or(Constraint::MustAnchor), now);
            }
            self.attend(id, now);
            return true;
        }
        self.heed(id, now)
    }

    /// What became of a wish at one of its legs.
    pub(crate) fn renegotiated(
        &mut self,
        id: u64,
        wish: u32,
        endpoint: Endpoint,
        outcome: Renegotiated,
        now: Duration,
        ports: &mut dyn Ports,
    ) {
        let outcome = match outcome {
            Renegotiated::Accepted(sdp) if self.is_astray(id, endpoint, &sdp) => Renegotiated::Refused(488),
            outcome => outcome,
        };
        if self.told_policy(id, wish, endpoint, &outcome, now) {
            return;
        }
        let Some(outcome) = self.acquaint(id, wish, endpoint, outcome, now, ports) else { return };
        let host = self.host_of(id);
        let Some(mut moving) = self.sessions.get_mut(&host).and_then(|session| session.moving.take()) else {
            return;
        };
        moving.answered(wish, (id, endpoint), outcome, &self.sessions, &mut self.streams, now);
        if let Some(session) = self.sessions.get_mut(&host) {
            session.moving = Some(moving);
        }
        self.attend(host, now);
    }

    /// It is to be looked at now.
    pub(crate) fn attend(&mut self, id: u64, now: Duration) {
        let id = self.host_of(id);
        let Some(session) = self.sessions.get_mut(&id) else { return };
        let moving = session.moving.as_mut().map(|moving| &mut moving.due);
        if let Some(due) = moving.or(session.introduction.as_mut().map(|introduction| &mut introduction.due))
        {
            *due = now;
            self.looks.push(std::cmp::Reverse((now, id)));
        }
    }

    /// It is looked at soon: what comes to the relay now reaches nobody.
    #[cold]
    pub(crate) fn glance(&mut self, id: u64, now: Duration) {
        let id = self.host_of(id);
        let due = self.sessions.get(&id).and_then(|session| Some(session.moving.as_ref()?.due));
        if due.is_some_and(|due| due > now.saturating_add(GLANCE)) {
            self.attend(id, now);
        }
    }

    /// Looks at a session whose time has come.
    pub(crate) fn look(&mut self, id: u64, now: Duration, ports: &mut dyn Ports) {
        let Some(mut moving) = self.sessions.get_mut(&id).and_then(|session| session.moving.take()) else {
            return;
        };
        moving.see(&self.sessions, &mut self.streams, (ports, &self.settings.addresses), now);
        let span = self.settings.release.as_ref().map_or(Duration::ZERO, |policy| policy.settings.remember);
        if moving.pair.is_none() {
            let legs = chain::outer(&self.sessions, &moving.chain);
            moving.pair = legs.and_then(|legs| pair_of(legs, &moving.lines, &self.streams));
            if moving.pair.as_ref().is_some_and(|pair| self.memory.shuns(pair, now)) {
                moving.release.keep(Stay::Remembered, now);
            }
        }
        if moving.cover.is_some_and(|at| now >= at) {
            moving.cover = None;
            moving.release.constrain(Constraint::MustAnchor, now);
        }
        moving.account(&mut self.sessions, &mut self.streams, now);
        moving.release.handle_timeout(now);
        moving.obey(&self.sessions, &mut self.streams, ports, now);
        moving.ask(&mut self.sessions, &self.streams, &self.cname, &mut self.events, now);
        remember(moving.pair.as_ref(), moving.news(), &mut self.memory, span, now);
        moving.tell(&mut self.events, now);
        moving.due = moving.next_look(now);
        self.looks.push(std::cmp::Reverse((moving.due, id)));
        if let Some(session) = self.sessions.get_mut(&id) {
            session.moving = Some(moving);
        }
    }

    /// A party's RTCP, whose source was checked.
    #[cold]
    pub(crate) fn hear_reports(&mut self, id: StreamId, reports: &[Report], now: Duration) {
        let Some(stream) = self.streams.get(id) else { return };
        let session = stream.session;
        if self.hear_of_each_other(session, id, reports, now) {
            return;
        }
        let session = self.host_of(session);
        let Some(moving) = self.sessions.get_mut(&session).and_then(|session| session.moving.as_mut()) else {
            return;
        };
        let Some(track) = seen::track_of(id, &moving.lines) else { return };
        moving.sights(&self.streams, now);
        for report in reports {
            match report {
                Report::Sender { ssrc, packets, .. } => {
                    moving.release.sender_report(track, *ssrc, *packets, now);
                }
                Report::Receiver { ssrc } => moving.release.rests(track, *ssrc, now),
                Report::Reception { ssrc, lost, highest, jitter, .. } => {
                    let report = Reception { ssrc: *ssrc, highest: *highest, lost: *lost, jitter: *jitter };
                    moving.release.reception(track, &report, now);
                }
            }
        }
        if rtcp::is_about_nobody(reports) {
            moving.release.hears_nobody(track, now);
        }
        self.attend(session, now);
    }
}

/// What policy says of a session; `None` if it is never to move.
pub(crate) fn constraint(
    session: &Session,
    ends: [Endpoint; 2],
    policy: &ReleasePolicy,
) -> Option<Constraint> {
    let realms = ends.map(|end| session.leg(end).map(|leg| leg.party.realm.0));
    let [Some(one), Some(other)] = realms else { return None };
    session.constraint().map(Constraint::of_all_media).or_else(|| policy.between(one, other))
}

impl Moving {
    /// The ends of the session that has it.
    pub(crate) fn endpoints(&self) -> Option<[Endpoint; 2]> {
        self.chain.first().map(|link| link.ends)
    }

    /// Whether it is off the relay, and the relay hears nothing of it.
    pub(crate) fn is_unheard(&self) -> bool {
        self.release.is_on_trust()
    }

    /// An exchange of the parties' own has told those of this session to come home. One of another session is asked, unless the exchange
    /// reaches him first: while it is open nobody else offers.
    fn come_back(&mut self, session: u64, should_flow: bool, now: Duration) {
        for mover in &mut self.movers {
            (mover.want, mover.refusals) = (Whereabouts::Home, 0);
            if mover.session == session {
                mover.at = Whereabouts::Home;
            }
        }
        self.release.renegotiated(should_flow, now);
    }

    /// What the two send, at every port of ours that hears it.
    fn streams(&self) -> impl Iterator<Item = StreamId> + '_ {
        let carriers = self.carriers.iter().flatten().flatten().copied();
        self.lines.iter().flat_map(|(_, pair)| *pair).chain(carriers)
    }

    fn next_look(&self, now: Duration) -> Duration {
        let retry = self
            .movers
            .iter()
            .filter(|mover| mover.asked.is_none() && mover.want != mover.at && mover.retry > now)
            .map(|mover| mover.retry)
            .min();
        let next = self.release.poll_timeout(now);
        retry.map_or(next, |retry| retry.min(next)).max(now.saturating_add(Duration::from_millis(1)))
    }

    /// What of the timeline was not told yet.
    fn news(&self) -> &[(Duration, Entry)] {
        self.release.timeline().entries().get(self.told..).unwrap_or_default()
    }

    /// Every session of the chain hears it, as of its own ends and its own answer.
    fn tell(&mut self, events: &mut std::collections::VecDeque<(u64, Event)>, now: Duration) {
        let reading = self.release.new_reading(now);
        let begun = self.release.timeline().answered();
        for (index, link) in self.chain.iter().enumerate() {
            let past = self.pasts.get(index).and_then(Option::as_ref).map(|past| &past.timeline);
            let shift = past.map_or(Duration::ZERO, |past| begun.saturating_sub(past.answered()));
            let before = past.map_or(Duration::ZERO, |past| past.spans(now).1);
            events.extend(reading.map(|reading| {
                let direct = reading.direct.saturating_add(before);
                (link.session, Reading { direct, ..reading }.into())
            }));
            // Of its answer it was told before.
            let is_known = usize::from(past.is_some() && self.told == 0);
            for (after, entry) in self.news().iter().skip(is_known) {
                let after = after.saturating_add(shift);
                events.push_back((
                    link.session,
                    Event::Path(PathEntry { after, entry: *entry, parties: link.ends }),
                ));
            }
        }
        self.told = self.release.timeline().entries().len();
    }
}

impl Past {
    /// With what happened since, as part of a longer chain.
    fn followed_by(mut self, later: &Timeline, wishes: u32) -> Self {
        self.timeline.append(later);
        Self { wishes, told: self.timeline.entries().len(), timeline: self.timeline }
    }
}
