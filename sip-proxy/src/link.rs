//! What shards tell each other, and what the rest of the program tells a shard.

use std::sync::Arc;

use bytes::Bytes;
use sip_engine::digest::Verdict;
use sip_engine::io::{Command, ConnectionId, Flow, Input, Replica, Ticket};
use sip_wire::Message;
use tokio::sync::mpsc;

use crate::counters::ShardCounters;
use crate::stream::opened::Accepted;

/// Letters that may wait in a shard's inbox.
const INBOX: usize = 16_384;

/// Of these only an operator's words may take the last ones: a shard that drowns can still be told to drain.
const RESERVED: usize = 64;

/// A message handed over by another shard is dropped when so many letters wait: its sender repeats it, while a reply of
/// media or DNS comes once.
const MESSAGES: usize = 4_096;

/// A send on its way to the shard that owns the connection, and back if it fails.
#[derive(Debug, Clone)]
pub(crate) struct Transmission {
    pub(crate) flow: Flow,
    pub(crate) server_name: Option<Arc<str>>,
    pub(crate) message: Bytes,
    pub(crate) ticket: Ticket,
    /// The shard whose engine wants to know of a failure.
    pub(crate) sender: usize,
}

/// A message on its way to its home, which may first have to ask others about it.
#[derive(Debug)]
pub(crate) struct Arrival {
    pub(crate) flow: Flow,
    pub(crate) message: Message,
    /// What the home of its nonce says.
    pub(crate) verdict: Option<Verdict>,
}

/// What arrives in a shard's inbox.
#[derive(Debug)]
pub(crate) enum Letter {
    Input(Box<Input>),
    Transmit(Box<Transmission>),
    Close(ConnectionId),
    /// Somebody got through the door.
    Accepted(Box<Accepted>),
    /// To the owner of a connection: its peer has shown who it is.
    Proven(ConnectionId),
    /// To the home of the nonce that a message, of the home `back`, answers.
    Judge {
        back: usize,
        arrival: Box<Arrival>,
    },
    /// And back.
    Judged {
        arrival: Box<Arrival>,
    },
    /// To the home of a dialog that a message, of the home `back`, would replace.
    Join {
        back: usize,
        arrival: Box<Arrival>,
    },
    /// And back.
    Joined {
        end: Option<Box<Replica>>,
        arrival: Box<Arrival>,
    },
    /// Answers that wait may perhaps leave.
    LookAgain,
    Stop,
}

impl Letter {
    /// How many letters may wait before this one is refused.
    fn room(&self) -> usize {
        match self {
            Letter::Input(input) => match **input {
                Input::Received { .. } | Input::Refused { .. } => MESSAGES,
                Input::Command(_) => INBOX,
                _ => INBOX - RESERVED,
            },
            Letter::Judge { .. }
            | Letter::Judged { .. }
            | Letter::Join { .. }
            | Letter::Joined { .. }
            | Letter::Accepted(_) => MESSAGES,
            Letter::Transmit(_) | Letter::Close(_) | Letter::Proven(_) | Letter::LookAgain => {
                INBOX - RESERVED
            }
            Letter::Stop => INBOX,
        }
    }
}

/// The way into one shard, from any thread. What waits is bounded; what does not fit is dropped and counted
/// (`inbox_full`), and the timers of whoever waits for it deal with the loss.
#[derive(Debug, Clone)]
pub struct ShardHandle {
    inbox: mpsc::Sender<Letter>,
    counters: Arc<ShardCounters>,
}

impl ShardHandle {
    pub(crate) fn new(counters: Arc<ShardCounters>) -> (Self, mpsc::Receiver<Letter>) {
        let (inbox, receiver) = mpsc::channel(INBOX);
        (Self { inbox, counters }, receiver)
    }

    /// Hands an input to the shard's engine. A shard that has stopped takes nothing; its calls are gone with it.
    pub fn input(&self, input: Input) {
        let is_command = matches!(input, Input::Command(_));
        if !self.send(Letter::Input(Box::new(input))) && is_command && !self.inbox.is_closed() {
            tracing::error!("a command was lost: the signalling shard has been stuck for long");
        }
    }

    /// The same for an operator's word.
    pub fn command(&self, command: Command) {
        self.input(Input::Command(command));
    }

    /// What an answer waits for may be kept now: see [`Host::is_kept`](crate::Host::is_kept).
    pub fn look_again(&self) {
        self.send(Letter::LookAgain);
    }

    /// Whether the letter was taken.
    pub(crate) fn send(&self, letter: Letter) -> bool {
        let taken = self.waiting() < letter.room() && self.inbox.try_send(letter).is_ok();
        if !taken && !self.inbox.is_closed() {
            self.counters.dropped.inbox_full.up();
        }
        taken
    }

    /// Letters that wait.
    pub(crate) fn waiting(&self) -> usize {
        INBOX.saturating_sub(self.inbox.capacity())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn closed(number: u64) -> Input {
        Input::Closed { connection: ConnectionId(number) }
    }

    #[test]
    fn a_full_inbox_drops_and_counts_but_takes_an_operators_word() {
        let counters = Arc::new(ShardCounters::default());
        let (handle, mut inbox) = ShardHandle::new(counters.clone());
        for number in 0..INBOX as u64 {
            handle.input(closed(number));
        }
        assert_eq!(handle.waiting(), INBOX - RESERVED);
        assert_eq!(counters.dropped.inbox_full.get(), RESERVED as u64);
        handle.command(Command::Drain);
        assert_eq!(handle.waiting(), INBOX - RESERVED + 1);

        let mut last = None;
        while let Ok(letter) = inbox.try_recv() {
            last = Some(letter);
        }
        let drained =
            matches!(&last, Some(Letter::Input(input)) if matches!(**input, Input::Command(Command::Drain)));
        assert!(drained, "{last:?}");
        handle.input(closed(1));
        assert_eq!(handle.waiting(), 1);
    }
}
