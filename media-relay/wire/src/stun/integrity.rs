//! What shows who wrote a message (RFC 8489 §9.1, §14.5, §14.6), and that nothing of it was bent on the way (§14.7).

use std::fmt;

use hmac::{Hmac, Mac};
use sha1::Sha1;
use sha2::Sha256;

use super::{ATTRIBUTE, HEADER, MESSAGE_INTEGRITY, MESSAGE_INTEGRITY_SHA256, Method};

/// A short-term password (RFC 8489 §9.1).
#[derive(Clone)]
pub struct Key(Box<[u8]>);

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Key(..)")
    }
}

impl Key {
    /// Password as it stands in `a=ice-pwd` or `a=crush`.
    pub fn new(password: &str) -> Self {
        Self(password.as_bytes().into())
    }
}

/// How a method is signed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Signature {
    /// MESSAGE-INTEGRITY.
    Sha1,
    /// MESSAGE-INTEGRITY-SHA256, not truncated.
    Sha256,
}

impl Signature {
    pub(super) fn of(method: Method) -> Self {
        match method {
            Method::Binding => Self::Sha1,
            Method::Handoff => Self::Sha256,
        }
    }

    pub(super) const fn attribute(self) -> u16 {
        match self {
            Self::Sha1 => MESSAGE_INTEGRITY,
            Self::Sha256 => MESSAGE_INTEGRITY_SHA256,
        }
    }

    /// Octets of its value.
    const fn length(self) -> usize {
        match self {
            Self::Sha1 => 20,
            Self::Sha256 => 32,
        }
    }

    /// Whether `value` signs what stands before its attribute.
    pub(super) fn is_by(self, key: &Key, before: &[u8], value: &[u8]) -> bool {
        if value.len() != self.length() {
            return false;
        }
        match self {
            Self::Sha1 => {
                self.fed::<Hmac<Sha1>>(key, before).is_some_and(|code| code.verify_slice(value).is_ok())
            }
            Self::Sha256 => {
                self.fed::<Hmac<Sha256>>(key, before).is_some_and(|code| code.verify_slice(value).is_ok())
            }
        }
    }

    /// The value that signs what stands before its attribute.
    pub(super) fn sign(self, key: &Key, before: &[u8]) -> Vec<u8> {
        let value = match self {
            Self::Sha1 => {
                self.fed::<Hmac<Sha1>>(key, before).map(|code| code.finalize().into_bytes().to_vec())
            }
            Self::Sha256 => {
                self.fed::<Hmac<Sha256>>(key, before).map(|code| code.finalize().into_bytes().to_vec())
            }
        };
        value.unwrap_or_default()
    }

    /// Over the message as if it ended with this attribute.
    fn fed<M: Mac + hmac::digest::KeyInit>(self, key: &Key, before: &[u8]) -> Option<M> {
        let mut code = <M as Mac>::new_from_slice(&key.0).ok()?;
        let (kind, rest) = (before.get(..2)?, before.get(4..)?);
        code.update(kind);
        code.update(&length_with(before, self.length())?);
        code.update(rest);
        Some(code)
    }
}

/// The header's length, of a message that ends with one more attribute with a value of so many octets.
fn length_with(before: &[u8], value: usize) -> Option<[u8; 2]> {
    let length = before.len().saturating_add(ATTRIBUTE).saturating_add(value).checked_sub(HEADER)?;
    u16::try_from(length).ok().map(u16::to_be_bytes)
}

/// Octets of FINGERPRINT's value.
pub(super) const FINGERPRINT_LENGTH: usize = 4;
/// What it is mixed with (RFC 8489 §14.7), so that a message inside another protocol's is not taken for one.
const MIX: u32 = 0x5354_554E;

/// FINGERPRINT's value for what stands before it.
pub(super) fn fingerprint(before: &[u8]) -> Option<[u8; FINGERPRINT_LENGTH]> {
    let (kind, rest) = (before.get(..2)?, before.get(4..)?);
    let length = length_with(before, FINGERPRINT_LENGTH)?;
    let sum = [kind, &length, rest].iter().fold(u32::MAX, |sum, part| crc32(sum, part));
    Some((!sum ^ MIX).to_be_bytes())
}

/// CRC-32 as in ITU-T V.42, of which `sum` is what came before.
fn crc32(sum: u32, bytes: &[u8]) -> u32 {
    bytes.iter().fold(sum, |sum, byte| {
        let place = (sum ^ u32::from(*byte)) & 0xff;
        TABLE.get(place as usize).copied().unwrap_or(0) ^ (sum >> 8)
    })
}

#[allow(clippy::indexing_slicing, reason = "evaluated by the compiler, below 256")]
const TABLE: [u32; 256] = {
    let mut table = [0; 256];
    let mut place = 0;
    while place < 256 {
        let mut rest = place as u32;
        let mut bit = 0;
        while bit < 8 {
            rest = if rest & 1 == 1 { 0xEDB8_8320 ^ (rest >> 1) } else { rest >> 1 };
            bit += 1;
        }
        table[place] = rest;
        place += 1;
    }
    table
};
