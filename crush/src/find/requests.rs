//! Checks that were sent, and which of them an answer may belong to.

use std::collections::{HashMap, VecDeque};
use std::net::SocketAddr;
use std::time::Duration;

use ahash::RandomState;

use crate::agent::SocketId;
use crate::count::Count;
use crate::random::Random;

/// Answers to checks are taken for so long.
const ANSWERS: Duration = Duration::from_secs(10);

/// What a check asks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Check {
    /// Whether the pair works.
    Plain,
    /// To use it (RFC 8445 §8.1.1).
    Nominating,
}

/// One that was sent.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Request {
    pub(crate) socket: SocketId,
    pub(crate) to: SocketAddr,
    pub(crate) at: Duration,
    pub(crate) check: Check,
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Requests {
    open: HashMap<u128, Request, RandomState>,
    order: VecDeque<(Duration, u128)>,
    made: u64,
}

impl Requests {
    pub(crate) fn new(random: &mut Random) -> Self {
        let state = RandomState::with_seeds(random.word(), random.word(), random.word(), random.word());
        Self { open: HashMap::with_hasher(state), order: VecDeque::new(), made: 0 }
    }

    pub(crate) fn sent(&mut self, transaction: u128, request: Request) {
        self.order.push_back((request.at, transaction));
        self.open.insert(transaction, request);
        self.made.up();
    }

    /// The one that this answers (RFC 8445 §7.2.5.2.1): from where it was asked, to where it was asked from.
    pub(crate) fn answered(
        &mut self,
        transaction: u128,
        socket: SocketId,
        from: SocketAddr,
    ) -> Option<Request> {
        let request = self.open.get(&transaction).copied();
        request.filter(|request| request.socket == socket && request.to == from)?;
        self.open.remove(&transaction)
    }

    pub(crate) fn take(&mut self, transaction: u128) -> Option<Request> {
        self.open.remove(&transaction)
    }

    pub(crate) fn is_open(&self, transaction: u128) -> bool {
        self.open.contains_key(&transaction)
    }

    /// Those whose time is over.
    pub(crate) fn purge(&mut self, now: Duration) {
        while let Some((_, transaction)) =
            self.order.pop_front_if(|(at, _)| at.saturating_add(ANSWERS) <= now)
        {
            self.open.remove(&transaction);
        }
    }

    /// So many in all.
    pub(crate) fn made(&self) -> u64 {
        self.made
    }
}
