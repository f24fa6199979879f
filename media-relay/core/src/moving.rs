//! A session's media on the move: what its [`Release`] sees of the streams (`moving/seen.rs`), and how what it asks becomes
//! descriptions (`moving/asked.rs`).
//!
//! Each party has a place where its media is and one where it is to be; whatever differs is wished for, once the wish before
//! was answered and no offer of a party is open.

pub(crate) mod asked;
pub(crate) mod cover;
pub(crate) mod seen;

use std::time::Duration;

use smallvec::SmallVec;

use crate::legs::Session;
use crate::moving::cover::Cover;
use crate::moving::seen::{pair_of, remember};
use crate::path::memory::Pair;
use crate::path::phone::Temperament;
use crate::path::place::Stay;
use crate::path::proof::Reception;
use crate::path::timeline::{Entry, Timeline};
use crate::path::{Constraint, Release};
use crate::policy::ReleasePolicy;
use crate::rtcp::{self, Report};
use crate::session::{Endpoint, Event, Outcome};
use crate::stream::{Carried, StreamId, Streams};
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

impl Whereabouts {
    /// Or nowhere.
    fn is_elsewhere(self) -> bool {
        matches!(self, Self::Held | Self::Away { .. })
    }
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
    /// Offers of its own that have crossed ours while its NAT was learnt.
    crossings: u8,
}

impl Mover {
    /// Counts an offer that has crossed ours; false once there were too many for chance.
    fn may_cross(&mut self) -> bool {
        self.crossings = self.crossings.saturating_add(1);
        self.crossings <= CROSSINGS
    }
}

/// A phone whose offers have crossed ours more often than this never takes ours.
const CROSSINGS: u8 = 3;

/// A phone that refuses to come home is asked so often, and with so much time between.
const HOMEWARD: (u8, Duration) = (5, Duration::from_secs(2));
/// Packets that reach nobody call for a look, but not each of them.
const GLANCE: Duration = Duration::from_millis(20);
/// After a wish that could not be sent.
const BUSY: Duration = Duration::from_millis(250);

/// The number of each m-line that carries RTP, and what the parties send in it.
pub(crate) type Lines = SmallVec<[(usize, [StreamId; 2]); 1]>;

/// The moves of one session, between two parties.
#[derive(Debug)]
pub(crate) struct Moving {
    pub(crate) release: Release,
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

/// The two parties of a session, if there are just two, and the m-lines that could move: those with rtcp-mux only where
/// `may_mux` says that nothing needs to be proven.
pub(crate) fn eligible(
    session: &Session,
    streams: &Streams,
    may_mux: bool,
) -> Option<([Endpoint; 2], Lines)> {
    session.selected?;
    let [(one, first), (other, second)] = session.legs.as_slice() else { return None };
    first.agreed.as_ref().and(second.agreed.as_ref())?;
    let mut lines = SmallVec::new();
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
    (!lines.is_empty()).then_some(([*one, *other], lines))
}

impl Worker {
    /// After an answer, or the choice of a branch: what is agreed may be released, or has come home by this.
    pub(crate) fn agreed(&mut self, id: u64, now: Duration) {
        if self.hands_off(id, now) || self.introduce(id, now) {
            return;
        }
        let Some(session) = self.sessions.get_mut(&id) else { return };
        let is_certain = self.settings.release.as_ref().is_some_and(|policy| is_certain(session, policy));
        let found = eligible(session, &self.streams, is_certain);
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
        let is_muxed = |stream: &StreamId| self.streams.get(*stream).is_some_and(|stream| stream.is_muxed);
        if lines.iter().any(|(_, pair)| pair.iter().any(is_muxed)) {
            release.mux_reports();
        }
        let cover = Cover::of(id, policy.settings.cover_percent);
        if one.is_private || other.is_private {
            release.keep(Stay::Privacy, now);
        } else if cover == Cover::Stays {
            release.keep(Stay::Policy, now);
        }
        let cover = if let Cover::ComesBack(after) = cover { Some(now.saturating_add(after)) } else { None };
        let movers = ends.map(|endpoint| Mover {
            endpoint,
            at: Whereabouts::Home,
            want: Whereabouts::Home,
            asked: None,
            retry: Duration::ZERO,
            refusals: 0,
            crossings: 0,
        });
        session.moving =
            Some(Box::new(Moving { release, movers, lines, wishes, told, pair: None, cover, due: now }));
        self.attend(id, now);
    }

    /// The two parties are no more what they were; what happened stays told.
    pub(crate) fn settle(&mut self, id: u64, now: Duration) {
        self.end_handoff(id, now);
        self.part(id, now);
        let Some(session) = self.sessions.get_mut(&id) else { return };
        let Some(mut moving) = session.moving.take() else { return };
        moving.release.finish(now);
        moving.tell(id, &mut self.events, now);
        for stream in moving.lines.iter().flat_map(|(_, streams)| streams) {
            if let Some(stream) = self.streams.get_mut(*stream) {
                stream.set_released(false);
                stream.reception.come_back();
            }
        }
        session.is_away = false;
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
        if let Some(introduction) = &mut session.introduction {
            introduction.machine.constrain(constraint, now);
            return self.attend(id, now);
        }
        match &mut session.moving {
            Some(moving) => {
                moving.release.constrain(constraint, now);
                self.attend(id, now);
            }
            None => self.agreed(id, now),
        }
    }

    /// What policy had to say about one session it says no more: its realms decide again.
    pub(crate) fn unconstrain(&mut self, id: u64, now: Duration) {
        let Some(session) = self.sessions.get_mut(&id) else { return };
        session.constraint = None;
        if self.constrain_handoff(id, now) {
            return;
        }
        let Some(session) = self.sessions.get_mut(&id) else { return };
        let ends = session.moving.as_ref().map(|moving| moving.endpoints());
        let ends = ends.or(session.introduction.as_ref().map(|introduction| introduction.ends));
        let said = ends
            .zip(self.settings.release.as_ref())
            .and_then(|(ends, policy)| constraint(session, ends, policy));
        let said = said.unwrap_or(Constraint::MustAnchor);
        if let Some(introduction) = &mut session.introduction {
            introduction.machine.constrain(said, now);
        } else if let Some(moving) = &mut session.moving {
            moving.release.constrain(said, now);
        }
        self.attend(id, now);
    }

    /// What became of a wish at one of its legs.
    pub(crate) fn renegotiated(
        &mut self,
        id: u64,
        wish: u32,
        endpoint: Endpoint,
        outcome: Outcome,
        now: Duration,
        ports: &mut dyn Ports,
    ) {
        let outcome = match outcome {
            Outcome::Accepted(sdp) if self.is_astray(id, endpoint, &sdp) => Outcome::Refused(488),
            outcome => outcome,
        };
        if self.told_policy(id, wish, endpoint, &outcome, now) {
            return;
        }
        let Some(outcome) = self.acquaint(id, wish, endpoint, outcome, now, ports) else { return };
        let Some(session) = self.sessions.get_mut(&id) else { return };
        let Some(mut moving) = session.moving.take() else { return };
        moving.answered(wish, endpoint, outcome, session, &mut self.streams, now);
        session.moving = Some(moving);
        self.attend(id, now);
    }

    /// It is to be looked at now.
    pub(crate) fn attend(&mut self, id: u64, now: Duration) {
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
        let due = self.sessions.get(&id).and_then(|session| Some(session.moving.as_ref()?.due));
        if due.is_some_and(|due| due > now.saturating_add(GLANCE)) {
            self.attend(id, now);
        }
    }

    /// Looks at a session whose time has come.
    pub(crate) fn look(&mut self, id: u64, now: Duration, ports: &mut dyn Ports) {
        let Some(session) = self.sessions.get_mut(&id) else { return };
        let Some(mut moving) = session.moving.take() else { return };
        moving.see(session, &mut self.streams, (ports, &self.settings.addresses), now);
        let span = self.settings.release.as_ref().map_or(Duration::ZERO, |policy| policy.settings.remember);
        if moving.pair.is_none() {
            moving.pair = pair_of(moving.endpoints(), &moving.lines, session, &self.streams);
            if moving.pair.as_ref().is_some_and(|pair| self.memory.shuns(pair, now)) {
                moving.release.keep(Stay::Remembered, now);
            }
        }
        if moving.cover.is_some_and(|at| now >= at) {
            moving.cover = None;
            moving.release.constrain(Constraint::MustAnchor, now);
        }
        moving.account(session, &mut self.streams, now);
        moving.release.handle_timeout(now);
        moving.obey(session, &mut self.streams, ports, now);
        moving.ask(id, session, &self.streams, &self.cname, &mut self.events, now);
        remember(moving.pair.as_ref(), moving.news(), &mut self.memory, span, now);
        moving.tell(id, &mut self.events, now);
        moving.due = moving.next_look(now);
        self.looks.push(std::cmp::Reverse((moving.due, id)));
        session.moving = Some(moving);
    }

    /// A party's RTCP, whose source was checked.
    #[cold]
    pub(crate) fn hear_reports(&mut self, id: StreamId, reports: &[Report], now: Duration) {
        let Some(stream) = self.streams.get(id) else { return };
        let session = stream.session;
        if self.hear_of_each_other(session, id, reports, now) {
            return;
        }
        let Some(moving) = self.sessions.get_mut(&session).and_then(|session| session.moving.as_mut()) else {
            return;
        };
        let Some((line, party)) = seen::place_of(id, &moving.lines) else { return };
        moving.sights(&self.streams, now);
        for report in reports {
            match report {
                Report::Sender { ssrc, packets, .. } => {
                    moving.release.sender_report(line, party, *ssrc, *packets, now);
                }
                Report::Receiver { ssrc } => moving.release.rests(line, party, *ssrc, now),
                Report::Reception { ssrc, lost, highest, jitter, .. } => {
                    let report = Reception { ssrc: *ssrc, highest: *highest, lost: *lost, jitter: *jitter };
                    moving.release.reception(line, party, &report, now);
                }
            }
        }
        if rtcp::is_about_nobody(reports) {
            moving.release.hears_nobody(line, party, now);
        }
        self.attend(session, now);
    }
}

/// Whether what is found between its two parties is certain by configuration.
fn is_certain(session: &Session, policy: &ReleasePolicy) -> bool {
    let [(_, first), (_, second)] = session.legs.as_slice() else { return false };
    policy.networks(first.party.realm, second.party.realm).certain
}

/// What policy says of a session; `None` if it is never to move.
pub(crate) fn constraint(
    session: &Session,
    ends: [Endpoint; 2],
    policy: &ReleasePolicy,
) -> Option<Constraint> {
    let realms = ends.map(|end| session.leg(end).map(|leg| leg.party.realm));
    let [Some(one), Some(other)] = realms else { return None };
    session.constraint.or_else(|| policy.between(one, other))
}

impl Moving {
    pub(crate) fn endpoints(&self) -> [Endpoint; 2] {
        self.movers.each_ref().map(|mover| mover.endpoint)
    }

    /// Whether it is off the relay, and the relay hears nothing of it.
    pub(crate) fn is_unheard(&self) -> bool {
        self.release.is_on_trust()
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
        retry.map_or(next, |retry| retry.min(next)).max(now.saturating_add(Duration::from_millis(1)))
    }

    /// What of the timeline was not told yet.
    fn news(&self) -> &[(Duration, Entry)] {
        self.release.timeline().entries().get(self.told..).unwrap_or_default()
    }

    fn tell(&mut self, id: u64, events: &mut std::collections::VecDeque<(u64, Event)>, now: Duration) {
        events.extend(self.release.new_reading(now).map(|reading| (id, Event::metered(reading))));
        for (after, entry) in self.news() {
            events.push_back((id, Event::Path { after: *after, entry: *entry, parties: self.endpoints() }));
        }
        self.told = self.release.timeline().entries().len();
    }
}
