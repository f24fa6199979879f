//! What moves a session's media, as a part of a [`StoredSession`](crate::state::StoredSession).

use std::sync::Arc;

use smallvec::SmallVec;

use crate::legs::Session;
use crate::motion::Motion;
use crate::path::place::Networks;
use crate::ports::StreamId;
use crate::settings::Settings;

impl Motion {
    pub(crate) fn name(&self) -> &'static str {
        match self {
            Self::Reinvite(_) => "re-INVITE",
            Self::Guest(_) => "another session",
            Self::Ice(_) => "ICE",
            Self::Crush(_) => "CRUSH",
        }
    }

    /// Whether a party has not answered yet what we wished of it.
    pub(crate) fn has_asked(&self) -> bool {
        match self {
            Self::Reinvite(moving) => moving.has_asked(),
            Self::Guest(_) => false,
            Self::Ice(introduction) => introduction.has_asked(),
            Self::Crush(handoff) => handoff.has_asked(),
        }
    }

    /// Those that it names.
    pub(crate) fn streams(&self) -> SmallVec<[StreamId; 4]> {
        match self {
            Self::Reinvite(moving) => moving.streams().collect(),
            Self::Ice(introduction) => introduction.lines().iter().flat_map(|(_, pair)| *pair).collect(),
            Self::Guest(_) | Self::Crush(_) => SmallVec::new(),
        }
    }

    /// They have other names.
    pub(crate) fn rename(&mut self, name: impl Fn(StreamId) -> Option<StreamId>) {
        let rename = |stream: &mut StreamId| *stream = name(*stream).unwrap_or(*stream);
        let (lines, carriers) = match self {
            Self::Reinvite(moving) => (&mut moving.lines, moving.carriers.as_mut_slice()),
            Self::Ice(introduction) => (introduction.lines_mut(), [].as_mut_slice()),
            Self::Guest(_) | Self::Crush(_) => return,
        };
        lines.iter_mut().flat_map(|(_, pair)| pair).for_each(rename);
        carriers.iter_mut().flatten().flatten().for_each(rename);
    }

    /// In another process its session has another number, and operators have their word on networks.
    pub(crate) fn settle_in(&mut self, before: u64, now: u64, session: &Session, settings: &Settings) {
        let Self::Reinvite(moving) = self else { return };
        let numbers = moving.movers.iter_mut().map(|mover| &mut mover.session);
        let numbers = numbers.chain(moving.chain.iter_mut().map(|link| &mut link.session));
        numbers.filter(|number| **number == before).for_each(|number| *number = now);
        let [one, other] = moving.movers.each_ref().map(|mover| session.leg(mover.endpoint));
        let networks = settings.release.as_ref().zip(one.zip(other));
        let networks =
            networks.map(|(policy, (one, other))| policy.networks(one.party.realm.0, other.party.realm.0));
        moving.release.settle_in(networks.unwrap_or_else(|| Arc::new(Networks::default())));
    }
}
