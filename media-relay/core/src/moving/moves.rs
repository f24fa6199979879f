//! The moves of a worker's sessions: when they begin, what they are told, and how they end.

use std::time::Duration;

use media_wire::rtcp::Report;
use seam::path::{Constraint, Entry, PathEntry, Stay};
use seam::{Event, Renegotiated, Side};
use smallvec::smallvec;

use crate::legs::Answered;
use crate::motion::Motion;
use crate::motion::shell::{Past, Refusals, Shell};
use crate::moving::chain::{Found, Guest, Link};
use crate::moving::cover::Cover;
use crate::moving::follow::Chains;
use crate::moving::mover::{Mover, Whereabouts};
use crate::moving::scene::{Scene, constraint};
use crate::moving::seen::pair_of;
use crate::moving::{GLANCE, Moving, PARTING, chain};
use crate::path::phone::Temperament;
use crate::path::{Outset, Release};
use crate::ports::{StreamId, Turn};
use crate::transport::Mux;
use crate::worker::Worker;

impl Worker {
    /// After an answer, or the choice of a branch: what is agreed may be released, or has come home by this.
    pub(crate) fn agreed(&mut self, id: u64, now: Duration) {
        if self.hands_off(id, now) || self.introduce(id, now) {
            return;
        }
        let chain = self.chains().chain(id);
        let is_certain = chain.as_ref().is_some_and(|chain| self.is_certain(chain));
        let found = chain.and_then(|chain| self.chains().eligible(chain, is_certain));
        let host = self.motions.host_of(id);
        if let Some(moving) = self.motions.moving(host) {
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

    fn chains(&self) -> Chains<'_> {
        Chains { sessions: &self.sessions, motions: &self.motions, streams: &self.streams }
    }

    /// After an answer: **every call that policy lets go has a reason in its record**, again when it has changed. One without any is kept
    /// by what its realms, or their pair, say of `release`.
    fn tell_kept(&mut self, id: u64, now: Duration) {
        let policy = self.settings.release.as_ref();
        let why = policy.and_then(|policy| self.chains().why_kept(id, policy));
        let Some(((stay, parties), session)) = why.zip(self.sessions.get_mut(&id)) else { return };
        let told = session.stays(stay, now);
        let entry = Entry::Stays(stay);
        self.events.extend(told.map(|after| (id, Event::Path(PathEntry { after, entry, parties }))));
    }

    /// An exchange of the parties' own has told those of one session to come home. In another session of the chain the same exchange
    /// is still on its way, or nobody there is told by itself.
    fn come_back(&mut self, id: u64, host: u64, now: Duration) {
        let Some(mut moving) = self.motions.take_moving(host) else {
            return;
        };
        // What was direct until now, in all halves, is counted by what the parties were told until now.
        moving.account(&mut Scene { sessions: &mut self.sessions, streams: &mut self.streams, now });
        let is_held = |link: &Link| self.sessions.get(&link.session).is_some_and(|session| session.is_held);
        let should_flow = !moving.chain.iter().any(is_held);
        moving.come_back(id, should_flow, now);
        self.motions.put(host, Motion::Reinvite(moving));
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
        let is_muxed =
            |stream: &StreamId| self.streams.get(*stream).is_some_and(|stream| stream.mux == Mux::Yes);
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
            self.motions.put(link.session, Motion::Guest(Guest { host: first.session, ends: link.ends }));
        }
        let moving = Moving {
            release,
            movers: [
                Mover::new(first.session, first.ends[Side::First]),
                Mover::new(last.session, last.ends[Side::Second]),
            ],
            chain,
            pasts,
            lines,
            carriers,
            shell: Shell::after(wishes, told, now).covered(cover),
        };
        self.motions.put(first.session, Motion::Reinvite(Box::new(moving)));
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
        let host = self.motions.host_of(id);
        let Some(mut moving) = self.motions.take_moving(host) else {
            return;
        };
        moving.account(&mut Scene { sessions: &mut self.sessions, streams: &mut self.streams, now });
        moving.release.finish(now);
        moving.tell(&mut self.events, now);
        for stream in moving.streams() {
            if let Some(stream) = self.streams.get_mut(stream) {
                stream.gate.is_released = false;
                stream.reception.come_back();
            }
        }
        let Moving { release, movers, chain, mut pasts, shell, .. } = *moving;
        let timeline = release.into_timeline();
        for (index, link) in chain.iter().enumerate() {
            let Some(session) = self.sessions.get_mut(&link.session) else { continue };
            if self.motions.guest(link.session).is_some() {
                self.motions.end(link.session);
            }
            session.away.is_away = false;
            let past = pasts.get_mut(index).and_then(Option::take).map_or_else(
                || shell.past(timeline.clone()),
                |past| past.followed_by(&timeline, shell.wishes()),
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
        let Some(found) = self.chains().eligible(smallvec![link], true) else { return };
        self.set_moving(found, now);
        let Some(moving) = self.motions.moving_mut(mover.session) else {
            return;
        };
        moving.release.keep(Stay::Unfit, now);
        if let Some(own) = moving.movers.iter_mut().find(|own| own.endpoint == mover.endpoint) {
            *own = Mover { want: Whereabouts::Home, retry: homeward, refusals: Refusals::default(), ..mover };
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
        let host = self.motions.host_of(id);
        let Some(mut moving) = self.motions.take_moving(host) else {
            return false;
        };
        let policy = self.settings.release.as_ref();
        let said = policy.and_then(|policy| chain::constraint(&self.sessions, &moving.chain, policy));
        moving.release.constrain(said.unwrap_or(Constraint::MustAnchor), now);
        self.motions.put(host, Motion::Reinvite(moving));
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
        if let Some(introduction) = self.motions.introduction(id) {
            let ends = introduction.ends;
            let policy = self.settings.release.as_ref();
            let session = self.sessions.get(&id);
            let said = policy.and_then(|policy| constraint(session?, ends, policy));
            if let Some(introduction) = self.motions.introduction_mut(id) {
                introduction.machine.constrain(said.unwrap_or(Constraint::MustAnchor), now);
            }
            self.attend(id, now);
            return true;
        }
        self.heed(id, now)
    }

    /// What became of a wish at one of its legs.
    pub(crate) fn renegotiated(&mut self, id: u64, mut answered: Answered, turn: &mut Turn<'_>) {
        let now = turn.now;
        if let Renegotiated::Accepted(sdp) = &answered.outcome
            && self.judge().is_astray(id, answered.endpoint, sdp)
        {
            answered.outcome = Renegotiated::Refused(488);
        }
        if self.told_policy(id, &answered, now) {
            return;
        }
        let Some(answered) = self.acquaint(id, answered, turn) else { return };
        let host = self.motions.host_of(id);
        let Some(mut moving) = self.motions.take_moving(host) else {
            return;
        };
        let scene = &mut Scene { sessions: &mut self.sessions, streams: &mut self.streams, now };
        moving.answered(id, answered, scene);
        self.motions.put(host, Motion::Reinvite(moving));
        self.attend(host, now);
    }

    /// It is to be looked at now.
    pub(crate) fn attend(&mut self, id: u64, now: Duration) {
        let id = self.motions.host_of(id);
        let shell = match self.motions.get_mut(id) {
            Some(Motion::Reinvite(moving)) => Some(&mut moving.shell),
            Some(Motion::Ice(introduction)) => Some(&mut introduction.shell),
            None | Some(Motion::Guest(_) | Motion::Crush(_)) => None,
        };
        if let Some(shell) = shell {
            shell.due = now;
            self.looks.push(std::cmp::Reverse((now, id)));
        }
    }

    /// It is looked at soon: what comes to the relay now reaches nobody.
    #[cold]
    pub(crate) fn glance(&mut self, id: u64, now: Duration) {
        let id = self.motions.host_of(id);
        let due = self.motions.moving(id).map(|moving| moving.shell.due);
        if due.is_some_and(|due| due > now.saturating_add(GLANCE)) {
            self.attend(id, now);
        }
    }

    /// Looks at a session whose time has come.
    pub(crate) fn look(&mut self, id: u64, turn: &mut Turn<'_>) {
        let now = turn.now;
        let Some(mut moving) = self.motions.take_moving(id) else {
            return;
        };
        let scene = &mut Scene { sessions: &mut self.sessions, streams: &mut self.streams, now };
        moving.see(scene, turn.ports, &self.settings.addresses);
        let span = self.settings.release.as_ref().map_or(Duration::ZERO, |policy| policy.settings.remember);
        let legs = chain::outer(&self.sessions, &moving.chain);
        let pair = || pair_of(legs?, &moving.lines, &self.streams);
        if moving.shell.meets(pair, &self.memory, now) {
            moving.release.keep(Stay::Remembered, now);
        }
        if moving.shell.is_cover_due(now) {
            moving.release.constrain(Constraint::MustAnchor, now);
        }
        let scene = &mut Scene { sessions: &mut self.sessions, streams: &mut self.streams, now };
        moving.account(scene);
        moving.release.handle_timeout(now);
        moving.obey(scene, turn.ports);
        moving.ask(scene, &self.cname, &mut self.events);
        moving.shell.remember(moving.release.timeline(), &mut self.memory, span, now);
        moving.tell(&mut self.events, now);
        moving.shell.due = moving.next_look(now);
        self.looks.push(std::cmp::Reverse((moving.shell.due, id)));
        self.motions.put(id, Motion::Reinvite(moving));
    }

    /// A party's RTCP, whose source was checked.
    #[cold]
    pub(crate) fn hear_reports(&mut self, id: StreamId, reports: &[Report], now: Duration) {
        let Some(stream) = self.streams.get(id) else { return };
        let session = stream.owner.session;
        let session = self.motions.host_of(session);
        let is_heard = match self.motions.get_mut(session) {
            Some(Motion::Reinvite(moving)) => moving.hear(id, reports, &self.streams, now),
            Some(Motion::Ice(introduction)) => introduction.hear(id, reports, &self.streams, now),
            None | Some(Motion::Guest(_) | Motion::Crush(_)) => false,
        };
        if is_heard {
            self.attend(session, now);
        }
    }
}
