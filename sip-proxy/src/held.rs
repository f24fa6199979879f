//! Answers that must not leave before what they promise is kept: a 200 to a BYE says that the call is recorded, a 200 to a REGISTER
//! that the binding survives. They wait for the host's disk; nothing else does.

use std::collections::VecDeque;

use sip_wire::{Message, Method, Name};

use crate::host::{Host, Promise};
use crate::link::Transmission;

/// In the order in which they were held.
#[derive(Debug, Default)]
pub(crate) struct Held {
    waiting: VecDeque<(Promise, u64, Transmission)>,
}

impl Held {
    /// Keeps a transmission back if it is such an answer and the host is not ready for it; otherwise it is given back.
    pub(crate) fn hold(&mut self, transmission: Transmission, host: &mut dyn Host) -> Option<Transmission> {
        // Most of what leaves is settled by a few octets.
        if !transmission.message.starts_with(b"SIP/2.0 2") {
            return Some(transmission);
        }
        let Some(promise) = promise_of(&transmission) else { return Some(transmission) };
        let Some(ticket) = host.promised(promise) else { return Some(transmission) };
        self.waiting.push_back((promise, ticket, transmission));
        None
    }

    /// Those that may leave now.
    pub(crate) fn release(&mut self, host: &dyn Host) -> Vec<Transmission> {
        let (gone, kept) = std::mem::take(&mut self.waiting)
            .into_iter()
            .partition::<Vec<_>, _>(|(promise, ticket, _)| host.is_kept(*promise, *ticket));
        self.waiting = kept.into();
        gone.into_iter().map(|(_, _, transmission)| transmission).collect()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    /// All, whatever they wait for: the shard stops.
    pub(crate) fn take(&mut self) -> Vec<Transmission> {
        std::mem::take(&mut self.waiting).into_iter().map(|(_, _, transmission)| transmission).collect()
    }
}

fn promise_of(transmission: &Transmission) -> Option<Promise> {
    let message = Message::parse(transmission.message.clone()).ok()?;
    message.value(Name::CSeq)?;
    match message.cseq().ok()?.method {
        method if method == Method::BYE => Some(Promise::Ended),
        method if method == Method::REGISTER => Some(Promise::Registered),
        method if method == Method::INVITE => Some(Promise::Answered),
        _ => None,
    }
}
