//! What enters and leaves the engine.
//!
//! The engine owns no socket, clock or task. A shell hands it [`Input`]s with the time, carries out its [`Output`]s
//! strictly in order, and calls it again at [`Engine::poll_timeout`](crate::Engine::poll_timeout).

use std::net::SocketAddr;
use std::sync::Arc;

use bytes::Bytes;
use seam::{Replied, Request, Told};
use sip_wire::{Message, Refused};

pub use crate::flow::{ConnectionId, Flow, ListenerId, RealmId, Ticket, Transport};

use crate::binding::{BindingChange, BindingRecord};
use crate::digest::Verdict;
use crate::door::{CallAnswered, CallId, CallOrder};
use crate::event::CallEvent;
use crate::peer::Peer;
use crate::question::{Policy, QuestionId, Resolve, ResolvedAddress};
use crate::watchers::Watch;

/// What the shell tells the engine.
#[derive(Debug)]
pub enum Input {
    /// A message that the parser accepted.
    Received {
        /// Where from.
        flow: Flow,
        /// The message.
        message: Message,
    },
    /// A message whose credentials its nonce's home has judged, see [`Engine::judge`](crate::Engine::judge).
    Judged {
        /// Where from.
        flow: Flow,
        /// The message.
        message: Message,
        /// What its credentials are worth.
        verdict: Verdict,
    },
    /// A message that the parser refused: answered where it can be.
    Refused {
        /// Where from.
        flow: Flow,
        /// Why, and what is known of it.
        refused: Refused,
    },
    /// A `Send` could not be delivered (connection refused, ICMP unreachable, TLS failure).
    SendFailed {
        /// Which.
        ticket: Ticket,
    },
    /// The certificate of a connection's peer was verified. Before any message over the connection.
    Identified {
        /// Which.
        connection: ConnectionId,
        /// The names that the certificate bears, in lower case (RFC 5922 §7.1).
        names: Arc<[Arc<str>]>,
    },
    /// A connection was closed.
    Closed {
        /// Which.
        connection: ConnectionId,
    },
    /// The answer to an [`Output::Resolve`]: in order of trial; empty if the name leads nowhere.
    Resolved {
        /// Which question.
        question: QuestionId,
        /// The addresses.
        addresses: Vec<ResolvedAddress>,
    },
    /// The media plane's reply to an [`Output::Media`].
    Media(Replied),
    /// Something the media plane noticed.
    MediaEvent(Told),
    /// What another shard has told all.
    Replicate(Replica),
    /// An operator's word.
    Command(Command),
}

/// What every shard of a node knows, because calls of all homes ask for it.
#[derive(Debug, Clone)]
pub enum Replica {
    /// A binding of another home: to be called, not to be kept alive or written to the store.
    Binding(BindingChange),
    /// An end of another home's dialog that an INVITE may replace.
    End(DialogEnd),
    /// Somebody is told of somebody's dialogs, by a subscription of another home.
    Watch(Watch),
    /// And no longer.
    Unwatch(Watch),
}

/// An end of a dialog that an INVITE may replace (RFC 3891), and the name it is known by.
#[derive(Debug, Clone)]
pub struct DialogEnd {
    pub(crate) token: Box<[u8]>,
    pub(crate) peer: Arc<Peer>,
}

/// How far the shell is behind with its work.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Load {
    /// It is not.
    #[default]
    Fine,
    /// Strangers get 503 with Retry-After.
    Behind,
    /// Trunks and who is registered get it too. What is in a dialog is always served.
    FarBehind,
}

/// An operator's word.
#[derive(Debug, Clone)]
pub enum Command {
    /// No new calls: 503 with Retry-After to what is not in a dialog. Running calls go on.
    Drain,
    /// End every call with BYE (or CANCEL), cause `shutdown`.
    HangUpAll,
    /// Something is wanted of one call; answered by [`Output::Answered`].
    Call {
        /// Which.
        id: CallId,
        /// Names the order in its answer.
        number: u64,
        /// What.
        order: CallOrder,
    },
    /// A new snapshot of subscribers, trunks and routes.
    Policy(Arc<dyn Policy>),
    /// Bindings that outlived a restart.
    Load(Vec<BindingRecord>),
}

/// What the engine asks the shell to do, in order.
#[derive(Debug)]
pub enum Output {
    /// Send a message.
    Send {
        /// Where to.
        flow: Flow,
        /// The name that the TLS certificate must bear (RFC 5922).
        server_name: Option<Arc<str>>,
        /// The message.
        message: Bytes,
        /// Names this send in [`Input::SendFailed`].
        ticket: Ticket,
    },
    /// Resolve a name (RFC 3263).
    Resolve {
        /// Names the question in its answer.
        question: QuestionId,
        /// What to resolve.
        resolve: Resolve,
    },
    /// A request to the media plane.
    Media(Request),
    /// Into the journal, before any later output is carried out.
    Record(CallEvent),
    /// A registration changed: to the store.
    Binding(BindingChange),
    /// Tell the other shards, where there are any. (That a binding changed they are told by [`Output::Binding`].)
    Replicate(Replica),
    /// Close a connection (its peer breaks the protocol, or its flow failed).
    Close(ConnectionId),
    /// The peer of a connection has shown who it is: by digest, registration, address, certificate, or by the ids of a
    /// dialog. Until then the shell owes it little.
    Proven(ConnectionId),
    /// A header was withheld whose realm is not trusted with it: to be counted.
    Withheld,
    /// What became of a [`Command::Call`].
    Answered(CallAnswered),
    /// Something worth counting, and a log line where it was not counted a moment ago.
    Notice(Notice),
}

/// Something a metric counts and an operator may want to read about. Never carries unbounded input.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Notice {
    /// The metric's label: a short word in snake_case, from a fixed set.
    pub kind: &'static str,
    /// Who caused it.
    pub remote: Option<SocketAddr>,
    /// What happened and, for an operator's mistake, what to do.
    pub detail: String,
}
