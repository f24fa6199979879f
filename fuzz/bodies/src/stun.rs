//! STUN: framing and attributes.

use media_wire::stun::{Incoming, is_stun};

/// Reads `bytes` as a packet of a media port.
pub fn stun(bytes: &[u8]) {
    let Some(message) = Incoming::read(bytes) else { return };
    assert!(is_stun(bytes));
    let mut written = bytes[..20].to_vec();
    let mut at = 20;
    for (kind, value) in message.attributes() {
        written.extend_from_slice(&kind.to_be_bytes());
        written.extend_from_slice(&(value.len() as u16).to_be_bytes());
        written.extend_from_slice(value);
        // Padding may hold anything (RFC 8489 §14).
        at += 4 + value.len();
        let padding = value.len().next_multiple_of(4) - value.len();
        written.extend_from_slice(&bytes[at..at + padding]);
        at += padding;
    }
    assert!(bytes.starts_with(&written), "the attributes are not what stands there");
    let rest = bytes.get(written.len()..written.len() + 2).map(|kind| u16::from_be_bytes([kind[0], kind[1]]));
    assert!(
        matches!(rest, None | Some(0x0008 | 0x001C | 0x8028)),
        "attributes are left out that stand before integrity and fingerprint"
    );
}
