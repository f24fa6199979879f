//! STUN messages (RFC 8489), as far as a relay must read them: to tell them from media (RFC 7983) and to walk their
//! attributes safely, and to know who signed them.

use hmac::{Hmac, Mac};
use sha1::Sha1;

/// The magic cookie (RFC 8489 §5).
pub const COOKIE: u32 = 0x2112_A442;

/// A message whose framing is right.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Message<'a> {
    /// Class and method, as on the wire.
    pub kind: u16,
    /// Transaction id.
    pub transaction: [u8; 12],
    attributes: &'a [u8],
}

/// Whether a packet on a media port is STUN rather than media (RFC 7983 §7).
pub fn is_stun(packet: &[u8]) -> bool {
    packet.len() >= 20 && packet[0] < 4 && packet[4..8] == COOKIE.to_be_bytes()
}

impl<'a> Message<'a> {
    /// `None` if length, cookie or padding are wrong.
    pub fn read(packet: &'a [u8]) -> Option<Self> {
        if !is_stun(packet) {
            return None;
        }
        let length = usize::from(u16::from_be_bytes([packet[2], packet[3]]));
        if length % 4 != 0 || length + 20 != packet.len() {
            return None;
        }
        let message = Self {
            kind: u16::from_be_bytes([packet[0], packet[1]]),
            transaction: *packet[8..].first_chunk()?,
            attributes: &packet[20..],
        };
        let covered: usize = message.attributes().map(|(_, value)| 4 + value.len().next_multiple_of(4)).sum();
        (covered == length).then_some(message)
    }

    /// Type and value of each attribute, in order.
    pub fn attributes(&self) -> impl Iterator<Item = (u16, &'a [u8])> {
        let mut rest = self.attributes;
        std::iter::from_fn(move || {
            let head: &[u8; 4] = rest.first_chunk()?;
            let length = usize::from(u16::from_be_bytes([head[2], head[3]]));
            let value = rest.get(4..4 + length)?;
            rest = rest.get(4 + length.next_multiple_of(4)..)?;
            Some((u16::from_be_bytes([head[0], head[1]]), value))
        })
    }
}

const USERNAME: u16 = 0x0006;
const MESSAGE_INTEGRITY: u16 = 0x0008;

/// Short-term credentials of ours (RFC 8489 §9.1), as a description gives them to a peer (RFC 8839 §5.4).
#[derive(Clone, PartialEq, Eq)]
pub struct Credentials {
    /// `a=ice-ufrag`.
    pub ufrag: String,
    /// `a=ice-pwd`.
    pub password: String,
}

impl std::fmt::Debug for Credentials {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(out, "Credentials({})", self.ufrag)
    }
}

impl Credentials {
    /// Whether a packet is a STUN request to this user with its MESSAGE-INTEGRITY (RFC 8489 §14.5).
    pub fn signed(&self, packet: &[u8]) -> bool {
        let Some(message) = Message::read(packet) else { return false };
        let mut before = 20;
        let mut is_ours = false;
        for (kind, value) in message.attributes() {
            match kind {
                // `ours:theirs` in ICE (RFC 8445 §7.2.2).
                USERNAME => {
                    is_ours = value
                        .strip_prefix(self.ufrag.as_bytes())
                        .is_some_and(|rest| matches!(rest, [] | [b':', ..]));
                }
                MESSAGE_INTEGRITY => return is_ours && self.has_signed(&packet[..before], value),
                _ => {}
            }
            before += 4 + value.len().next_multiple_of(4);
        }
        false
    }

    fn has_signed(&self, before: &[u8], signature: &[u8]) -> bool {
        let Ok(mut code) = Hmac::<Sha1>::new_from_slice(self.password.as_bytes()) else { return false };
        // The length as if the signature were the last attribute.
        let length = (before.len() - 20 + 24) as u16;
        code.update(&before[..2]);
        code.update(&length.to_be_bytes());
        code.update(&before[4..]);
        code.verify_slice(signature).is_ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// RFC 5769 §2.1.
    const SAMPLE: &str = "000100582112a442b7e7a701bc34d686fa87dfae802200105354554e207465737420636c69656e74002400046e0001ff80290008932ff9b151263b36000600096576746a3a68367659202020000800149aeaa70cbfd8cb56781ef2b5b2d3f249c1b571a280280004e57a3bcf";

    #[test]
    fn the_sample_request_of_rfc_5769_is_signed_by_its_password_and_for_its_user_only() {
        let mut packet: Vec<u8> = (0..SAMPLE.len() / 2)
            .map(|at| u8::from_str_radix(&SAMPLE[2 * at..2 * at + 2], 16).unwrap())
            .collect();
        let credentials = |ufrag: &str, password: &str| Credentials {
            ufrag: ufrag.to_owned(),
            password: password.to_owned(),
        };
        let right = credentials("evtj", "VOkJxbRl1RmTxUk/WvJxBt");
        assert!(right.signed(&packet));
        assert!(!credentials("evt", "VOkJxbRl1RmTxUk/WvJxBt").signed(&packet));
        assert!(!credentials("evtj", "VOkJxbRl1RmTxUk/WvJxBu").signed(&packet));
        packet[30] ^= 1;
        assert!(!right.signed(&packet));
    }

    #[test]
    fn attributes_are_walked_and_lies_about_length_refused() {
        let mut packet = vec![0, 1, 0, 12, 0x21, 0x12, 0xA4, 0x42, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12];
        packet.extend([0, 6, 0, 5, b'a', b'b', b'c', b'd', b'e', 0, 0, 0]);
        let message = Message::read(&packet).unwrap();
        assert_eq!(message.attributes().collect::<Vec<_>>(), [(6, b"abcde".as_slice())]);
        packet[23] = 9;
        assert_eq!(Message::read(&packet), None);
        packet.pop();
        assert_eq!(Message::read(&packet), None);
    }
}
