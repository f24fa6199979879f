//! The home of a call or a binding.
//!
//! Signalling runs in shards. Every call and binding has one of 4,096 slots, and a table of the shell maps slots to
//! shards. What others minted is placed by hash; what we minted names its slot, because the two Call-IDs of one call
//! must lead to the same home.

use std::borrow::Cow;

use seam::SessionId;
use sip_wire::{Address, Message, Method, Name};

/// How many slots there are.
pub const SLOTS: u16 = 4096;

/// Marks a Call-ID as minted here; never the start of a random word of ours.
const MARK: &str = "cr-";

/// A home.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Slot(u16);

impl Slot {
    /// Numbers beyond the last slot wrap.
    pub fn new(number: u16) -> Self {
        Self(number % SLOTS)
    }

    /// From 0 to 4,095.
    pub fn number(self) -> u16 {
        self.0
    }

    /// A media session of a call of this home, so that whatever media says of it finds the shard.
    pub(crate) fn session(self, random: u64) -> SessionId {
        SessionId((u64::from(self.0) << 52) | (random >> 12))
    }

    /// The home of a media session's call.
    pub fn of_session(session: SessionId) -> Self {
        Self::new((session.0 >> 52) as u16)
    }

    /// By hash of what somebody else minted (a Call-ID, an AOR). FNV-1a: the same on every node and in every version.
    pub fn of_bytes(bytes: &[u8]) -> Self {
        let hash = bytes.iter().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
            (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
        });
        Self((((hash >> 32) ^ hash) as u16) % SLOTS)
    }

    /// The home of a dialog: named by a Call-ID of ours, hashed from any other.
    pub fn of_call_id(call_id: &[u8]) -> Self {
        Self::minted(call_id).map_or_else(|| Self::of_bytes(call_id), |(_, slot)| slot)
    }

    /// The node and slot that a Call-ID of ours names.
    pub fn minted(call_id: &[u8]) -> Option<(u8, Self)> {
        let rest = call_id.strip_prefix(MARK.as_bytes())?;
        let node = u8::from_str_radix(std::str::from_utf8(rest.get(..2)?).ok()?, 16).ok()?;
        let slot = u16::from_str_radix(std::str::from_utf8(rest.get(2..5)?).ok()?, 16).ok()?;
        (rest.get(5) == Some(&b'-')).then_some((node, Self(slot % SLOTS)))
    }

    /// How a Call-ID of ours begins.
    pub fn prefix(self, node: u8) -> String {
        let mut prefix = String::with_capacity(MARK.len().saturating_add(26));
        prefix.push_str(MARK);
        prefix.push_str(&format!("{node:02x}{:03x}-", self.0));
        prefix
    }
}

/// The home of a message: a REGISTER's is its AOR's, any other's its dialog's.
pub fn slot_of(message: &Message) -> Slot {
    if message.method() == Some(Method::REGISTER)
        && let Ok(to) = message.to()
        && let Some(aor) = crate::aor::aor_of(&to.uri)
    {
        return Slot::of_bytes(aor.as_bytes());
    }
    message.call_id().map_or(Slot(0), Slot::of_call_id)
}

/// The home of the dialog that a request wants to replace.
pub fn replaced_slot(message: &Message) -> Option<Slot> {
    let replaces = replaces_of(message)?;
    let call_id = replaces.split(|byte| *byte == b';').next().unwrap_or_default();
    Some(Slot::of_call_id(call_id.trim_ascii()))
}

/// What names a dialog of perhaps another home: the Replaces of an INVITE (RFC 3891), or of what a REFER refers to
/// (RFC 5589).
pub(crate) fn replaces_of(message: &Message) -> Option<Cow<'_, [u8]>> {
    let method = message.method()?;
    if method == Method::INVITE {
        message.value(Name::Replaces).map(Cow::Borrowed)
    } else if method == Method::REFER {
        let uri = Address::parse(message.value(Name::ReferTo)?).ok()?.uri;
        uri.header(b"Replaces").map(Cow::Owned)
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::Ids;

    #[test]
    fn a_call_id_of_ours_leads_back_to_its_slot() {
        let mut ids = Ids::new([9; 32], 0xab);
        for number in [0, 1, 4095] {
            let call_id = ids.call_id(Slot::new(number));
            assert_eq!(Slot::minted(call_id.as_bytes()), Some((0xab, Slot::new(number))));
            assert_eq!(Slot::of_call_id(call_id.as_bytes()), Slot::new(number));
        }
    }

    #[test]
    fn what_only_looks_like_ours_is_hashed() {
        for call_id in ["cr-", "cr-zz123-x", "cr-01fff", "cr-01ffé-", "a84b4c76e66710@pc33.example.com"] {
            assert_eq!(Slot::of_call_id(call_id.as_bytes()), Slot::of_bytes(call_id.as_bytes()));
        }
    }
}
