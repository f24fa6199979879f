//! The one door to running calls: what policy, operators and rooms to come want of one of them, and what they are told.
//!
//! A call is named as its records name it, and that name says where it lives: nothing is searched. Whatever is ordered is
//! answered, once; what media does of it goes through the call, so that a session has one master.

use std::time::Duration;

use seam::path::Constraint;
use seam::{Listener, SessionId, StreamStatistics};
use serde::{Deserialize, Serialize};

use crate::slot::Slot;

/// A call, as its records name it: a UUID of our own layout (RFC 9562 §5.8). Its first 48 bits are the millisecond since the Unix epoch
/// in which it began, as in version 7, so that records lie in the order of time and a table can be parted by it. Then, around version and
/// variant, 12 bits are the slot of its home, 8 its node, and the last 52 those of its media session, which are random.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct CallId(pub u128);

const BEGAN: u32 = 80;
const SLOT: u32 = 64;
const NODE: u32 = 54;
/// The id's and its session's.
const SHARED: u128 = (1 << 52) - 1;
/// Random in the id alone.
const SPARE: u128 = 0b11 << 52;
/// Version 8, and the variant.
const FORM: u128 = (0x8 << 76) | (0x2 << 62);

impl CallId {
    /// Of a call that begins here, at this time since the Unix epoch; `random` fills what neither place nor session says.
    pub(crate) fn new(node: u8, session: SessionId, began: Duration, random: u128) -> Self {
        let began = (began.as_millis() & ((1 << 48) - 1)) << BEGAN;
        let place = (u128::from(Slot::of_session(session).number()) << SLOT) | (u128::from(node) << NODE);
        Self(began | place | (random & SPARE) | FORM | (u128::from(session.0) & SHARED))
    }

    /// When it began, since the Unix epoch, to the millisecond.
    pub fn began(self) -> Duration {
        Duration::from_millis((self.0 >> BEGAN) as u64)
    }

    /// The node that it lives on.
    pub fn node(self) -> u8 {
        (self.0 >> NODE) as u8
    }

    /// Its home there.
    pub fn slot(self) -> Slot {
        Slot::new((self.0 >> SLOT) as u16 & 0xfff)
    }

    /// Its media session.
    pub(crate) fn session(self) -> SessionId {
        self.slot().session(((self.0 & SHARED) as u64) << 12)
    }
}

/// What is wanted of a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CallOrder {
    /// It ends: BYE, or CANCEL, and the record says that an operator ended it.
    HangUp,
    /// Its media stays on the relay, or may leave it, whatever its realms say; for the rest of the call.
    Constrain(Constraint),
    /// What [`Constrain`](Self::Constrain) said is said no more: its realms decide again.
    Release,
    /// Somebody hears its media from now on; it comes home to the relay, and stays.
    Listen(Listener),
    /// And no longer.
    Unlisten(Listener),
    /// How it is.
    Query,
}

/// What became of an order.
#[derive(Debug, Clone, PartialEq)]
pub enum CallAnswer {
    /// It is done; of media that has not begun, it will be when it does.
    Done,
    /// To [`CallOrder::Query`].
    State(CallState),
}

/// How a call is.
#[derive(Debug, Clone, PartialEq)]
pub struct CallState {
    /// Since its INVITE.
    pub lasts: Duration,
    /// Since its 2xx; `None`: it is not answered.
    pub talks: Option<Duration>,
    /// What media has counted.
    pub streams: Vec<StreamStatistics>,
}

/// Why nothing became of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NotDone {
    /// There is none of this id, or it ended a while ago.
    #[error("there is no such call")]
    Unknown,
    /// It has ended, or is about to.
    #[error("the call has ended")]
    Over,
    /// Its id names another node.
    #[error("the call is of another node")]
    Elsewhere,
}

/// The answer to a [`Command::Call`](crate::io::Command::Call).
#[derive(Debug, Clone, PartialEq)]
pub struct CallAnswered {
    /// The number of the order.
    pub number: u64,
    /// What became of it.
    pub result: Result<CallAnswer, NotDone>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_name_of_a_call_tells_its_time_and_leads_to_its_node_its_slot_and_its_session() {
        let began = Duration::from_millis(1_796_115_437_579);
        for (node, slot, random) in [(0, 0, 0), (255, 4095, u64::MAX), (7, 1234, 0x1234_5678_9abc_def0)] {
            let session = Slot::new(slot).session(random);
            let id = CallId::new(node, session, began, u128::from(random) * 0x1_0000_0001);
            assert_eq!((id.node(), id.slot(), id.session()), (node, Slot::new(slot), session));
            assert_eq!(id.began(), began);
            assert_eq!(((id.0 >> 76) & 0xf, (id.0 >> 62) & 0x3), (8, 2), "a UUID of our own layout");
            assert!(
                CallId::new(0, session, began + Duration::from_millis(1), 0) > id,
                "in the order of time"
            );
        }
    }
}
