//! Who moves a session's media, if anybody does. There are three, of whom a session has one at most; here is what they have in common: how they
//! number what they wish, what of their timeline was told, whom they are remembered for, how often they ask who refuses.

pub(crate) mod scene;
pub(crate) mod shell;
mod stored;

use std::time::Duration;

use ahash::AHashMap;
use seam::Endpoint;
use serde::{Deserialize, Serialize};

use crate::clock::{Shift, Timed};
use crate::handoff::Handoff;
use crate::ice::Introduction;
use crate::moving::Moving;
use crate::moving::chain::Guest;

/// See the module.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Motion {
    /// We, by re-INVITEs of two ordinary phones.
    Reinvite(Box<Moving>),
    /// The same, where this is a part of a call that another session has.
    Guest(Guest),
    /// Two phones that speak ICE, once they are introduced to each other.
    Ice(Box<Introduction>),
    /// Two endpoints of CRUSH, themselves.
    Crush(Box<Handoff>),
}

impl Timed for Motion {
    fn shift(&mut self, by: Shift) {
        match self {
            Self::Reinvite(moving) => moving.shift(by),
            Self::Guest(_) => {}
            Self::Ice(introduction) => introduction.shift(by),
            Self::Crush(handoff) => handoff.shift(by),
        }
    }
}

impl Motion {
    /// Between whom.
    fn ends(&self) -> Option<[Endpoint; 2]> {
        match self {
            Self::Reinvite(moving) => moving.endpoints(),
            Self::Guest(guest) => Some(guest.ends),
            Self::Ice(introduction) => Some(introduction.endpoints()),
            Self::Crush(handoff) => Some(handoff.endpoints()),
        }
    }

    /// When it is looked at next.
    pub(crate) fn due(&self) -> Option<Duration> {
        match self {
            Self::Guest(_) => None,
            Self::Reinvite(moving) => Some(moving.shell.due),
            Self::Ice(introduction) => Some(introduction.shell.due),
            Self::Crush(handoff) => Some(handoff.shell.due),
        }
    }

    /// It is to be looked at then; false of a guest, which its host looks at.
    pub(crate) fn look_at(&mut self, due: Duration) -> bool {
        match self {
            Self::Guest(_) => return false,
            Self::Reinvite(moving) => moving.shell.due = due,
            Self::Ice(introduction) => introduction.shell.due = due,
            Self::Crush(handoff) => handoff.shell.due = due,
        }
        true
    }
}

/// Those of all sessions of a worker that have any.
#[derive(Debug)]
pub(crate) struct Motions(AHashMap<u64, Motion>);

impl Motions {
    /// None yet.
    pub(crate) fn new() -> Self {
        Self(AHashMap::new())
    }

    pub(crate) fn get(&self, session: u64) -> Option<&Motion> {
        self.0.get(&session)
    }

    pub(crate) fn get_mut(&mut self, session: u64) -> Option<&mut Motion> {
        self.0.get_mut(&session)
    }

    /// It takes the place of another.
    pub(crate) fn put(&mut self, session: u64, motion: Motion) {
        self.0.insert(session, motion);
    }

    pub(crate) fn take(&mut self, session: u64) -> Option<Motion> {
        self.0.remove(&session)
    }

    pub(crate) fn end(&mut self, session: u64) {
        self.0.remove(&session);
    }

    /// Between whom a session's media may move.
    pub(crate) fn ends(&self, session: u64) -> Option<[Endpoint; 2]> {
        self.get(session)?.ends()
    }

    /// Sessions that are off the relay, which hears nothing of them.
    pub(crate) fn unheard(&self) -> impl Iterator<Item = u64> {
        let is_unheard = |motion: &Motion| matches!(motion, Motion::Reinvite(moving) if moving.is_unheard());
        self.0.iter().filter(move |(_, motion)| is_unheard(motion)).map(|(session, _)| *session)
    }

    pub(crate) fn moving(&self, session: u64) -> Option<&Moving> {
        if let Some(Motion::Reinvite(moving)) = self.get(session) { Some(moving) } else { None }
    }

    pub(crate) fn moving_mut(&mut self, session: u64) -> Option<&mut Moving> {
        if let Some(Motion::Reinvite(moving)) = self.get_mut(session) { Some(moving) } else { None }
    }

    /// Its moves are over.
    pub(crate) fn take_moving(&mut self, session: u64) -> Option<Box<Moving>> {
        self.moving(session)?;
        if let Some(Motion::Reinvite(moving)) = self.0.remove(&session) { Some(moving) } else { None }
    }

    /// The session that has the moves of this one.
    pub(crate) fn host_of(&self, session: u64) -> u64 {
        self.guest(session).map_or(session, |guest| guest.host)
    }

    pub(crate) fn guest(&self, session: u64) -> Option<Guest> {
        if let Some(Motion::Guest(guest)) = self.get(session) { Some(*guest) } else { None }
    }

    pub(crate) fn introduction(&self, session: u64) -> Option<&Introduction> {
        if let Some(Motion::Ice(introduction)) = self.get(session) { Some(introduction) } else { None }
    }

    pub(crate) fn introduction_mut(&mut self, session: u64) -> Option<&mut Introduction> {
        if let Some(Motion::Ice(introduction)) = self.get_mut(session) { Some(introduction) } else { None }
    }

    /// See [`take_moving`](Self::take_moving).
    pub(crate) fn take_introduction(&mut self, session: u64) -> Option<Box<Introduction>> {
        self.introduction(session)?;
        if let Some(Motion::Ice(found)) = self.0.remove(&session) { Some(found) } else { None }
    }

    pub(crate) fn handoff(&self, session: u64) -> Option<&Handoff> {
        if let Some(Motion::Crush(handoff)) = self.get(session) { Some(handoff) } else { None }
    }

    pub(crate) fn handoff_mut(&mut self, session: u64) -> Option<&mut Handoff> {
        if let Some(Motion::Crush(handoff)) = self.get_mut(session) { Some(handoff) } else { None }
    }

    /// See [`take_moving`](Self::take_moving).
    pub(crate) fn take_handoff(&mut self, session: u64) -> Option<Box<Handoff>> {
        self.handoff(session)?;
        if let Some(Motion::Crush(handoff)) = self.0.remove(&session) { Some(handoff) } else { None }
    }
}
