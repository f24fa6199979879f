//! STUN messages (RFC 8489), as far as a relay must read them: to tell them from media (RFC 7983) and to walk their
//! attributes safely.

use super::is_stun;

/// A message whose framing is right.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Message<'a> {
    /// Class and method, as on the wire.
    pub kind: u16,
    /// Transaction id.
    pub transaction: [u8; 12],
    attributes: &'a [u8],
}

impl<'a> Message<'a> {
    /// `None` if length, cookie or padding are wrong.
    pub fn read(packet: &'a [u8]) -> Option<Self> {
        if !is_stun(packet) {
            return None;
        }
        let (head, attributes) = packet.split_first_chunk::<20>()?;
        let [kind, more_kind, high, low, ..] = *head;
        let length = usize::from(u16::from_be_bytes([high, low]));
        if !length.is_multiple_of(4) || length.saturating_add(20) != packet.len() {
            return None;
        }
        let message = Self {
            kind: u16::from_be_bytes([kind, more_kind]),
            transaction: *head.last_chunk()?,
            attributes,
        };
        let covered: usize = message.attributes().fold(0_usize, |sum, (_, value)| {
            sum.saturating_add(4).saturating_add(value.len().next_multiple_of(4))
        });
        (covered == length).then_some(message)
    }

    /// Type and value of each attribute, in order.
    pub fn attributes(&self) -> impl Iterator<Item = (u16, &'a [u8])> {
        let mut rest = self.attributes;
        std::iter::from_fn(move || {
            let [kind, more_kind, high, low] = *rest.first_chunk()?;
            let length = usize::from(u16::from_be_bytes([high, low]));
            let value = rest.get(4..)?.get(..length)?;
            rest = rest.get(length.next_multiple_of(4).saturating_add(4)..)?;
            Some((u16::from_be_bytes([kind, more_kind]), value))
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
