//! Transactions: RFC 3261 §17 with the corrections of RFC 6026.
//!
//! One file per machine, and [`Transactions`] that finds the machine for a message. What a transaction user must see
//! comes back as an [`Event`]; all that the layer does by itself (retransmissions, 100 Trying, ACK to a failure, 200 to
//! a CANCEL, CANCEL itself) goes straight to the outputs.

mod address;
mod invite_client;
mod invite_server;
mod key;
mod machine;
mod non_invite_client;
mod non_invite_server;
mod response;
mod rest;
mod table;

pub use address::via;
pub(crate) use response::stateless_tag;
pub use response::{reason_of, response_to};
pub(crate) use table::StoredTransaction;
pub use table::Transactions;

use std::collections::VecDeque;
use std::sync::Arc;

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use sip_wire::Message;

use crate::flow::Flow;
use crate::io::Output;
use crate::time::Now;

/// A client transaction.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ClientId {
    index: u32,
    generation: u32,
}

/// A server transaction.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ServerId {
    index: u32,
    generation: u32,
}

impl ServerId {
    /// Of a transaction that is over: names none.
    pub(crate) const GONE: Self = Self { index: u32::MAX, generation: u32::MAX };
}

/// Whose a server transaction is. When the table fills up, strangers are refused first and those who are known last.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Share {
    /// Who need not prove anything here: in an open realm, or on its way to a registrar that asks.
    Strangers,
    /// Who has shown a password, over a flow that nobody is registered by.
    Users,
    /// Trunks, and who is registered over this flow.
    Known,
    /// What belongs to a dialog.
    Dialogs,
}

impl std::fmt::Display for Share {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Share::Strangers => "strangers",
            Share::Users => "users who are not registered",
            Share::Known => "trunks and registered users",
            Share::Dialogs => "dialogs",
        })
    }
}

/// What becomes of a request that is too large for a datagram.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Large {
    /// It goes as a datagram, in fragments if need be: where a phone has registered from, or what was named with its
    /// transport, is reached in that way or not at all (RFC 5626 §5.3). Whoever answers there by TCP is somebody else.
    AsDatagram,
    /// It goes over TCP, as a datagram if that fails (RFC 3261 §18.1.1): what was resolved without a transport.
    OverStream,
}

/// Where a request goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hop {
    /// The way.
    pub flow: Flow,
    /// And what may be made of it.
    pub large: Large,
    /// Whose certificate TLS wants there (RFC 5922); `None`: that of the address.
    pub server_name: Option<Arc<str>>,
}

impl Hop {
    /// This way, without a name.
    pub fn new(flow: Flow, large: Large) -> Self {
        Self { flow, large, server_name: None }
    }
}

impl From<Flow> for Hop {
    fn from(flow: Flow) -> Self {
        Self::new(flow, Large::AsDatagram)
    }
}

/// When a step of the layer is taken, and where what it sends goes.
#[derive(Debug)]
pub struct Context<'a> {
    /// The time.
    pub now: Now,
    /// Takes what is sent, in order.
    pub out: &'a mut VecDeque<Output>,
}

/// A request that has come.
#[derive(Debug, Clone)]
pub struct Incoming {
    /// Its transaction: where the response goes.
    pub server: ServerId,
    /// Where it came from.
    pub flow: Flow,
    /// The request; its top Via carries `received` and `rport` already.
    pub request: Message,
}

/// What it takes to answer a request.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Asked<'a> {
    pub(crate) server: ServerId,
    pub(crate) request: &'a Message,
}

/// A response that has come, and the transaction that it is of.
#[derive(Debug)]
pub(crate) struct Reply {
    pub(crate) client: ClientId,
    pub(crate) response: Message,
}

/// A response of ours, and the transaction that it is for.
#[derive(Debug, Clone)]
pub(crate) struct Answer {
    pub(crate) server: ServerId,
    pub(crate) status: u16,
    pub(crate) response: Bytes,
}

impl<'a> From<&'a Incoming> for Asked<'a> {
    fn from(incoming: &'a Incoming) -> Self {
        Self { server: incoming.server, request: &incoming.request }
    }
}

/// What the user of the layer must know.
#[derive(Debug)]
pub enum Event<O> {
    /// A new request; it must be answered with [`Transactions::respond`] sooner or later. An INVITE gets its 100 by
    /// itself.
    Request(Incoming),
    /// The INVITE was cancelled before a final response; the CANCEL has its 200, the INVITE needs its 487.
    Cancelled {
        /// The INVITE's transaction.
        invite: ServerId,
        /// The CANCEL, for its Reason header.
        cancel: Message,
    },
    /// An ACK to a 2xx. It has no transaction.
    Ack {
        /// Where it came from.
        flow: Flow,
        /// The ACK.
        message: Message,
    },
    /// A response other than 100. After a 2xx to an INVITE, those of other forks may follow for 64·T1. Each is told
    /// once, and is the user's to acknowledge ([`Transactions::acknowledge`]).
    Response {
        /// The transaction.
        client: ClientId,
        /// Whose it is.
        owner: O,
        /// The response.
        message: Message,
    },
    /// No final response came in time: to be treated as 408 (RFC 3261 §8.1.3.1). The transaction is gone.
    Timeout {
        /// The transaction.
        client: ClientId,
        /// Whose it was.
        owner: O,
    },
    /// The request could not be delivered: to be treated as 503. The transaction is gone.
    TransportFailed {
        /// The transaction.
        client: ClientId,
        /// Whose it was.
        owner: O,
    },
    /// No ACK came for a failure response (timer H). The transaction is gone.
    NoAck {
        /// The INVITE's transaction.
        invite: ServerId,
    },
    /// A response that matches no transaction. A 2xx to an INVITE may be a late retransmission that wants its ACK.
    Stray {
        /// Where it came from.
        flow: Flow,
        /// The response.
        message: Message,
    },
}
