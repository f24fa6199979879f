//! One party of a call that moves: where its media is, where it is to be, and what it was asked.

use std::time::Duration;

use seam::Endpoint;
use serde::{Deserialize, Serialize};

use crate::clock::timed;
use crate::motion::shell::Refusals;

/// Where a party's media is, or is to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Whereabouts {
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
    pub(crate) fn is_elsewhere(self) -> bool {
        matches!(self, Self::Held | Self::Away { .. })
    }
}

/// One party of it.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Mover {
    pub(crate) session: u64,
    pub(crate) endpoint: Endpoint,
    pub(crate) at: Whereabouts,
    pub(crate) want: Whereabouts,
    /// The wish that is open, and what for.
    pub(crate) asked: Option<(u32, Whereabouts)>,
    /// When it was asked last, and how long it took then to be heard from where it was asked to go, at the relay's second address.
    pub(crate) asked_at: Duration,
    pub(crate) reach: Option<Duration>,
    /// A way home that was refused is asked for again then.
    pub(crate) retry: Duration,
    pub(crate) refusals: Refusals,
    /// Offers of its own that have crossed ours while its NAT was learnt.
    pub(crate) crossings: u8,
}

timed!(Mover { asked_at, retry; session, endpoint, at, want, asked, reach, refusals, crossings });

impl Mover {
    /// At the relay.
    pub(crate) fn new(session: u64, endpoint: Endpoint) -> Self {
        Self {
            session,
            endpoint,
            at: Whereabouts::Home,
            want: Whereabouts::Home,
            asked: None,
            asked_at: Duration::ZERO,
            reach: None,
            retry: Duration::ZERO,
            refusals: Refusals::default(),
            crossings: 0,
        }
    }

    /// Whether it is anywhere else, or may be soon.
    pub(crate) fn may_be_away(&self) -> bool {
        self.at != Whereabouts::Home || self.asked.is_some_and(|(_, aim)| aim != Whereabouts::Home)
    }

    /// Counts an offer that has crossed ours; false once there were too many for chance.
    pub(crate) fn may_cross(&mut self) -> bool {
        self.crossings = self.crossings.saturating_add(1);
        self.crossings <= CROSSINGS
    }
}

/// A phone whose offers have crossed ours more often than this never takes ours.
const CROSSINGS: u8 = 3;
