//! What a REGISTER may ask us to keep. Whoever may register may not make us store, copy and send whatever fits a message: a
//! binding is kept in memory by every shard, written to disk and to the database, and sent with every request to it.

use sip_wire::{Message, Name};

/// Octets of a Contact URI. RFC 3261 names no bound; phones stay far below 200, and what we send must fit datagrams.
const URI: usize = 1_024;
/// Octets of a Contact's parameters (`+sip.instance`, `q`, `expires`, feature tags of RFC 3840), and how many there may be.
const PARAMETERS: usize = 1_024;
const PARAMETER_COUNT: usize = 40;
/// Contacts in one REGISTER.
const CONTACTS: usize = 20;
/// Octets of all Path values together.
const PATH: usize = 2_048;
/// Octets of an address of record and of a Call-ID.
const NAME: usize = 512;

/// Octets of a User-Agent that are kept; what is longer is cut, because nothing depends on it.
pub(super) const USER_AGENT: usize = 256;

/// What is too large in a REGISTER, in words for its sender's operator; `None` if it may be kept.
pub(super) fn excess(request: &Message, aor: &str) -> Option<&'static str> {
    if aor.len() > NAME {
        return Some("the address of record is longer than 512 octets");
    }
    if request.call_id().is_ok_and(|call_id| call_id.len() > NAME) {
        return Some("the Call-ID is longer than 512 octets");
    }
    if request.values(Name::Path).map(<[u8]>::len).fold(0, usize::saturating_add) > PATH {
        return Some("Path is longer than 2048 octets");
    }
    for (index, contact) in request.contacts().flatten().enumerate() {
        if index >= CONTACTS {
            return Some("more than 20 Contacts");
        }
        if contact.uri.as_bytes().len() > URI {
            return Some("a Contact URI is longer than 1024 octets");
        }
        let mut octets = 0_usize;
        for (count, (name, value)) in contact.parameters().enumerate() {
            octets = octets.saturating_add(name.len()).saturating_add(value.map_or(0, <[u8]>::len));
            if count >= PARAMETER_COUNT || octets > PARAMETERS {
                return Some("the parameters of a Contact are more than 40, or longer than 1024 octets");
            }
        }
    }
    None
}
