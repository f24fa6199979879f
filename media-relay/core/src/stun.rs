//! STUN messages (RFC 8489), as far as a relay must read them: to tell them from media (RFC 7983) and to walk their
//! attributes safely.

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

#[cfg(test)]
mod tests {
    use super::*;

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
