//! Who moves the media of a worker's sessions, if anybody does: the one place where the three who may take turns, and where what they
//! need of the rest of the worker is carried out.

use std::cmp::Reverse;
use std::time::Duration;

use bytes::Bytes;
use media_wire::rtcp::Report;
use seam::path::{Constraint, Entry, PathEntry};
use seam::{Endpoint, Event, Renegotiated};
use smallvec::smallvec;

use crate::handoff::{Claim, Handoff, Trickled, Trickling};
use crate::ice::{Acquaintance, Introduction, Next, Outlook};
use crate::legs::Answered;
use crate::motion::scene::Scene;
use crate::motion::shell::Kept;
use crate::motion::{Motion, Motions};
use crate::moving::chain::{self, Found, Guest, Link};
use crate::moving::follow::Chains;
use crate::moving::mover::Mover;
use crate::moving::{GLANCE, Moving, PARTING};
use crate::path::end_to_end::Asked;
use crate::ports::{StreamId, Turn};
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
                let (motions, mut scene) = self.scene(now);
                if let Some(moving) = motions.moving_mut(host) {
                    moving.renegotiated(id, &mut scene);
                }
                return self.look_at(host, now);
            }
            self.settle(id, now);
        }
        if let Some(found) = found {
            self.begin_moves(found, now);
        }
        self.tell_kept(id, now);
    }

    /// Whether the two parties of a session take part in CRUSH: then their media is theirs to move.
    fn hands_off(&mut self, id: u64, now: Duration) -> bool {
        let ends = self.sessions.get(&id).and_then(Handoff::ends_of);
        if let Some(session) = self.sessions.get(&id)
            && let Some(handoff) = self.motions.handoff_mut(id)
            && ends == Some(handoff.endpoints())
        {
            handoff.renegotiated(session);
            self.look_at(id, now);
            return true;
        }
        let Some(ends) = ends else {
            self.end_handoff(id, now);
            return false;
        };
        self.settle(id, now);
        let Some(session) = self.sessions.get_mut(&id) else { return false };
        self.motions.put(id, Motion::Crush(Box::new(Handoff::begin(session, ends, now))));
        self.look_at(id, now);
        true
    }

    /// Whether ICE is how the two parties of a session may leave the relay.
    fn introduce(&mut self, id: u64, now: Duration) -> bool {
        let Some(session) = self.sessions.get_mut(&id) else { return false };
        let found = Acquaintance::of(session, &self.streams);
        if let Some(introduction) = self.motions.introduction_mut(id) {
            if found.as_ref().is_some_and(|found| introduction.is_of(found)) {
                introduction.renegotiated(session, &mut self.streams, now);
                self.look_at(id, now);
                return true;
            }
            self.part(id, now);
        }
        let Some(session) = self.sessions.get_mut(&id).filter(|_| self.motions.moving(id).is_none()) else {
            return false;
        };
        let (Some(found), Some(policy)) = (found, &self.settings.release) else { return false };
        let Some(introduction) = Introduction::begin(id, found, session, policy, now) else { return false };
        self.motions.put(id, Motion::Ice(Box::new(introduction)));
        self.look_at(id, now);
        true
    }

    /// What is found may be released from now on.
    fn begin_moves(&mut self, found: Found, now: Duration) {
        // What a half of it has done alone is over.
        for link in &found.chain {
            self.settle(link.session, now);
        }
        let Some(moving) = Moving::begin(found, &mut self.scene(now).1) else { return };
        let Some(host) = moving.chain.first().map(|first| first.session) else { return };
        for link in moving.chain.iter().skip(1) {
            self.motions.put(link.session, Motion::Guest(Guest { host, ends: link.ends }));
        }
        self.motions.put(host, Motion::Reinvite(Box::new(moving)));
        self.look_at(host, now);
    }

    fn chains(&self) -> Chains<'_> {
        Chains { sessions: &self.sessions, motions: &self.motions, streams: &self.streams }
    }

    /// Whether what is found between its two parties is certain by configuration.
    fn is_certain(&self, chain: &[Link]) -> bool {
        let realms = chain::outer(&self.sessions, chain).map(|legs| legs.map(|leg| leg.party.realm.0));
        let policy = self.settings.release.as_ref();
        policy.zip(realms).is_some_and(|(policy, [one, other])| policy.networks(one, other).certain)
    }

    /// After an answer: **every call that policy lets go has a reason in its record**, again when it has changed. One without any is kept
    /// by what its realms, or their pair, say of `release`.
    fn tell_kept(&mut self, id: u64, now: Duration) {
        let policy = self.settings.release.as_ref();
        let why = policy.and_then(|policy| self.chains().why_kept(id, policy));
        let Some(((stay, parties), session)) = why.zip(self.sessions.get_mut(&id)) else { return };
        let told = Kept::tell(&mut session.kept, stay, now);
        let entry = Entry::Stays(stay);
        self.events.extend(told.map(|after| (id, Event::Path(PathEntry { after, entry, parties }))));
    }

    /// The two parties are no more what they were; what happened stays told.
    pub(crate) fn settle(&mut self, id: u64, now: Duration) {
        self.settle_and_ask(id, now, now);
    }

    /// A party has left. The end of the other halves of its call, if it has any, is on its way.
    pub(crate) fn end_moves(&mut self, id: u64, now: Duration) {
        self.settle_and_ask(id, now.saturating_add(PARTING), now);
    }

    /// Before a half of a longer call is taken out its moves end, if all of it is at home; else it is called home, and this is false.
    pub(crate) fn part_halves(&mut self, id: u64, now: Duration) -> bool {
        let host = self.motions.host_of(id);
        let Some(moving) = self.motions.moving_mut(host).filter(|moving| moving.chain.len() > 1) else {
            return true;
        };
        let rests = moving.rests();
        if rests {
            self.settle(id, now);
        } else {
            moving.release.constrain(Constraint::MustAnchor, now);
            self.look_at(host, now);
        }
        rests
    }

    /// Who is left in another half is asked home at `homeward`.
    fn settle_and_ask(&mut self, id: u64, homeward: Duration, now: Duration) {
        self.end_handoff(id, now);
        self.part(id, now);
        let host = self.motions.host_of(id);
        let Some(moving) = self.motions.take_moving(host) else { return };
        let parted = moving.end(&mut self.scene(now).1);
        for link in &parted.chain {
            if self.motions.guest(link.session).is_some() {
                self.motions.end(link.session);
            }
        }
        for mover in parted.stranded(id) {
            self.bring_home(mover, homeward, now);
        }
    }

    fn end_handoff(&mut self, id: u64, now: Duration) {
        let (motions, mut scene) = self.scene(now);
        if let Some(handoff) = motions.take_handoff(id) {
            handoff.end(id, &mut scene);
        }
    }

    fn part(&mut self, id: u64, now: Duration) {
        let (motions, mut scene) = self.scene(now);
        if let Some(introduction) = motions.take_introduction(id) {
            introduction.part(id, &mut scene);
        }
    }

    /// The other half of its call is gone, or is another's: it comes home, to where its own session is.
    fn bring_home(&mut self, mover: Mover, homeward: Duration, now: Duration) {
        let session = mover.session;
        let Some(ends) = self.sessions.get(&session).and_then(chain::parties) else { return };
        let Some(found) = self.chains().eligible(smallvec![Link { session, ends }], true) else { return };
        self.begin_moves(found, now);
        if let Some(moving) = self.motions.moving_mut(session) {
            moving.strand(mover, homeward, now);
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

    /// What policy had to say about one session it says no more: its realms decide again.
    pub(crate) fn unconstrain(&mut self, id: u64, now: Duration) {
        let Some(session) = self.sessions.get_mut(&id) else { return };
        session.told_constraint = None;
        self.heed_policy(id, now);
    }

    /// Tells whoever moves a session's media what is said of it, or of all of its call, now; false if nobody does.
    pub(crate) fn heed_policy(&mut self, id: u64, now: Duration) -> bool {
        let host = self.motions.host_of(id);
        let (motions, scene) = self.scene(now);
        match motions.get_mut(host) {
            Some(Motion::Crush(handoff)) => handoff.heed(now),
            Some(Motion::Ice(introduction)) => {
                introduction.heed(scene.sessions.get(&id), scene.settings.release.as_deref(), now);
            }
            Some(Motion::Reinvite(moving)) => moving.heed(&scene),
            None | Some(Motion::Guest(_)) => return false,
        }
        self.look_at(host, now);
        true
    }

    /// What became of a wish at one of its legs.
    pub(crate) fn renegotiated(&mut self, id: u64, mut answered: Answered, turn: &mut Turn<'_>) {
        let now = turn.now;
        if let Renegotiated::Accepted(sdp) = &answered.outcome
            && self.judge().is_astray(id, answered.endpoint, sdp)
        {
            answered.outcome = Renegotiated::Refused(488);
        }
        let host = self.motions.host_of(id);
        let (motions, mut scene) = self.scene(now);
        match motions.get_mut(host) {
            Some(Motion::Crush(handoff)) => {
                let Some(session) = scene.sessions.get_mut(&id) else { return };
                if !handoff.answered(session, &answered, now) {
                    return;
                }
            }
            Some(Motion::Ice(introduction)) => {
                let next = introduction.answered(id, answered, &mut scene);
                self.acquaint(id, next, turn);
                self.schedule_checks(id);
                return self.attend(id, now);
            }
            Some(Motion::Reinvite(moving)) => moving.answered(id, answered, &mut scene),
            None | Some(Motion::Guest(_)) => return,
        }
        self.look_at(host, now);
    }

    /// Takes an introduction a step further.
    fn acquaint(&mut self, id: u64, next: Next, turn: &mut Turn<'_>) {
        let (handover, why) = match next {
            Next::Nothing => return,
            Next::Alone(handover, why) => (handover, why),
            Next::Offer(handover, offer) => match self.offer(id, offer, turn) {
                Ok(described) => {
                    let introduction = self.motions.introduction(id);
                    let event = introduction.and_then(|known| known.hand(&handover, described));
                    return self.events.extend(event.map(|event| (id, event)));
                }
                Err(_) => (handover, Asked::Refused),
            },
            Next::Answer(handover, answer) => match self.answer(id, answer, turn) {
                Ok(described) => {
                    self.events.push_back((id, handover.answer(Ok(described))));
                    if let Some(introduction) = self.motions.introduction_mut(id) {
                        introduction.introduced(&self.streams, turn.now);
                    }
                    return;
                }
                Err(_) => (handover, Asked::Refused),
            },
        };
        self.cancel(id, handover.exchange(), turn);
        let (motions, mut scene) = self.scene(turn.now);
        if let Some(introduction) = motions.introduction_mut(id) {
            introduction.answer_alone(id, &handover, why, &mut scene);
        }
    }

    /// The fragment for the other end; `None`: it is told nothing.
    pub(crate) fn trickle(
        &mut self,
        id: u64,
        [from, to]: [Endpoint; 2],
        fragment: &Bytes,
        now: Duration,
    ) -> Option<Bytes> {
        let session = self.sessions.get_mut(&id)?;
        let mut trickling = Trickling { session, streams: &self.streams, settings: &self.settings };
        let trickled = trickling.pass([from, to], fragment, now);
        let handoff = self.motions.handoff_mut(id);
        match trickled {
            Trickled::Nothing => None,
            Trickled::Kept => {
                handoff?.kept_fragment(from);
                None
            }
            Trickled::Shown(fragment) => {
                if let Some(handoff) = handoff {
                    handoff.trickled(from, now);
                    self.look_at(id, now);
                }
                Some(fragment)
            }
        }
    }

    /// An endpoint says where the packets of one m-line go.
    pub(crate) fn claim(&mut self, id: u64, from: Endpoint, claim: Claim, now: Duration) {
        let Some(session) = self.sessions.get_mut(&id) else { return };
        let Some(why) = session.leg_mut(from).and_then(|leg| leg.claims(claim)) else { return };
        let Some(handoff) = self.motions.handoff_mut(id) else { return };
        handoff.claimed(session, &self.streams, why, now);
        self.look_at(id, now);
    }

    /// RTP came to the relay after a while without, of a session that hands itself off.
    #[cold]
    pub(crate) fn handoff_is_back(&mut self, id: u64, before: Duration, now: Duration) {
        let Some(session) = self.sessions.get(&id) else { return };
        let Some(handoff) = self.motions.handoff_mut(id) else { return };
        let due = handoff.is_back(session, &self.streams, before, now);
        self.look_at(id, due);
    }

    /// Whoever moves its media by us is to look at it now.
    pub(crate) fn attend(&mut self, id: u64, now: Duration) {
        let host = self.motions.host_of(id);
        if !matches!(self.motions.get(host), Some(Motion::Crush(_))) {
            self.look_at(host, now);
        }
    }

    fn look_at(&mut self, id: u64, due: Duration) {
        if self.motions.get_mut(id).is_some_and(|motion| motion.look_at(due)) {
            self.looks.push(Reverse((due, id)));
        }
    }

    /// It is looked at soon: what comes to the relay now reaches nobody.
    #[cold]
    pub(crate) fn glance(&mut self, id: u64, now: Duration) {
        let id = self.motions.host_of(id);
        let due = self.motions.moving(id).map(|moving| moving.shell.due);
        if due.is_some_and(|due| due > now.saturating_add(GLANCE)) {
            self.look_at(id, now);
        }
    }

    /// Looks at a session whose time has come.
    pub(crate) fn look(&mut self, id: u64, turn: &mut Turn<'_>) {
        let now = turn.now;
        let (motions, mut scene) = self.scene(now);
        let mut outlook = Outlook::GoesOn;
        let due = match motions.get_mut(id) {
            None | Some(Motion::Guest(_)) => return,
            Some(Motion::Reinvite(moving)) => {
                moving.look(&mut scene, turn.ports);
                moving.shell.due
            }
            Some(Motion::Ice(introduction)) => {
                outlook = introduction.look(id, &mut scene);
                introduction.shell.due
            }
            Some(Motion::Crush(handoff)) => match handoff.look(id, &mut scene) {
                Some(due) => due,
                None => return,
            },
        };
        self.look_at(id, due);
        if outlook == Outlook::GivenUp {
            self.part(id, now);
            if let Some(session) = self.sessions.get_mut(&id) {
                session.are_strangers = true;
            }
            self.agreed(id, now);
        }
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
            self.look_at(session, now);
        }
    }

    fn scene(&mut self, now: Duration) -> (&mut Motions, Scene<'_>) {
        let scene = Scene {
            sessions: &mut self.sessions,
            streams: &mut self.streams,
            settings: &self.settings,
            cname: &self.cname,
            memory: &mut self.memory,
            events: &mut self.events,
            now,
        };
        (&mut self.motions, scene)
    }
}
