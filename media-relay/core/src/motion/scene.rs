//! What whoever moves media sees and touches of a worker.

use std::collections::VecDeque;
use std::time::Duration;

use ahash::AHashMap;
use seam::{Event, ExchangeId};

use crate::legs::Session;
use crate::path::memory::Memory;
use crate::settings::Settings;
use crate::stream::Streams;

/// See the module.
pub(crate) struct Scene<'a> {
    pub(crate) sessions: &'a mut AHashMap<u64, Session>,
    pub(crate) streams: &'a mut Streams,
    pub(crate) settings: &'a Settings,
    pub(crate) cname: &'a str,
    pub(crate) memory: &'a mut Memory,
    pub(crate) events: &'a mut VecDeque<(u64, Event)>,
    pub(crate) now: Duration,
}

impl Scene<'_> {
    /// Whether an offer of a party of a session is open.
    pub(crate) fn is_open(&self, session: u64) -> bool {
        let is_open = |session: &Session| session.exchanges.iter().any(|open| open.id != ExchangeId::INITIAL);
        self.sessions.get(&session).is_some_and(is_open)
    }

    /// Whether nobody else may offer in it (RFC 3264 §4): an offer of a party is open, or it is no more.
    pub(crate) fn is_busy(&self, session: u64) -> bool {
        !self.sessions.contains_key(&session) || self.is_open(session)
    }

    /// For so long a pair rests whose moves have failed.
    pub(crate) fn rest(&self) -> Duration {
        self.settings.release.as_ref().map_or(Duration::ZERO, |policy| policy.settings.remember)
    }
}
