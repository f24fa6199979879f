//! Which send of which transaction a ticket names.

use crate::flow::Ticket;
use crate::transaction::machine::{Handle, NOBODY};
use crate::transaction::{ClientId, ServerId};

/// Index in the low half; generation, attempt and side in the high one.
pub(super) fn ticket(handle: Handle, attempt: u8) -> Ticket {
    let (index, generation, side) = match handle {
        Handle::Client(id) => (id.index, id.generation, 0),
        Handle::Server(id) => (id.index, id.generation, 1),
    };
    Ticket(
        u64::from(index)
            | (u64::from(generation & 0x3fff_ffff) << 32)
            | (u64::from(attempt & 1) << 62)
            | (side << 63),
    )
}

pub(super) fn owner_of(ticket: Ticket) -> Option<(Handle, u8)> {
    if ticket == NOBODY {
        return None;
    }
    let index = ticket.0 as u32;
    let generation = ((ticket.0 >> 32) as u32) & 0x3fff_ffff;
    let attempt = ((ticket.0 >> 62) & 1) as u8;
    let handle = if ticket.0 >> 63 == 0 {
        Handle::Client(ClientId { index, generation })
    } else {
        Handle::Server(ServerId { index, generation })
    };
    Some((handle, attempt))
}
