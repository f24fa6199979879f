//! How many phones and trunks one request may reach at once, with all whom they send it on to (RFC 5393 §5). What a caller
//! allows is divided among the branches that are under way; whom it does not suffice for, waits until another is done.

use sip_wire::{Message, Name};

/// The most that anybody may allow, and what is allowed where nothing is said (RFC 5393 §5.3.3).
const LARGEST: u32 = 60;

/// What a request allows.
pub(super) fn breadth_of(request: &Message) -> u32 {
    request.number(Name::MaxBreadth).and_then(Result::ok).map_or(LARGEST, |breadth| breadth.min(LARGEST))
}
