//! What a capture file holds: the UDP and TCP packets of Ethernet frames, with IP fragments put together.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

/// One captured packet above the network layer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Packet {
    /// When it was captured, since the Unix epoch.
    pub at: Duration,
    /// IP protocol: 6 or 17.
    pub protocol: u8,
    /// Address and port it came from.
    pub source: SocketAddr,
    /// Address and port it goes to.
    pub destination: SocketAddr,
    /// TCP sequence number of its first octet; 0 for UDP.
    pub sequence: u32,
    /// UDP or TCP payload.
    pub payload: Vec<u8>,
}

/// RTP by RFC 7983 (first byte 128 to 191), apart from RTCP by its packet type (RFC 5761 §4).
pub fn is_rtp(payload: &[u8]) -> bool {
    matches!(payload, [first, kind, ..] if (128..192).contains(first) && !(192..224).contains(kind))
        && payload.len() >= 12
}

/// RTCP by the same rules.
pub fn is_rtcp(payload: &[u8]) -> bool {
    matches!(payload, [first, kind, ..] if (128..192).contains(first) && (192..224).contains(kind))
        && payload.len() >= 8
}

/// Reads a classic little-endian pcap file of Ethernet frames, piece by piece while it grows.
#[derive(Debug, Default)]
pub struct Reader {
    pending: Vec<u8>,
    has_header: bool,
    fragments: HashMap<(IpAddr, IpAddr, u32), Fragments>,
}

/// The parts of one datagram: offset and octets of each, and its length once the last part has come.
#[derive(Debug, Default)]
struct Fragments {
    parts: Vec<(usize, Vec<u8>)>,
    length: Option<usize>,
}

impl Reader {
    /// Takes more of the file and returns the packets that have become complete; `None` if it is no such file.
    pub fn take(&mut self, bytes: &[u8]) -> Option<Vec<Packet>> {
        self.pending.extend_from_slice(bytes);
        let mut at = 0;
        if !self.has_header {
            if self.pending.len() < 24 {
                return Some(Vec::new());
            }
            if self.pending.get(..4)? != [0xd4, 0xc3, 0xb2, 0xa1] {
                return None;
            }
            self.has_header = true;
            at = 24;
        }
        let mut packets = Vec::new();
        while let Some(head) = self.pending.get(at..at + 16) {
            let word = |from: usize| {
                head.get(from..from + 4).and_then(|word| word.try_into().ok()).map_or(0, u32::from_le_bytes)
            };
            let time = Duration::from_secs(u64::from(word(0))) + Duration::from_micros(u64::from(word(4)));
            let end = at + 16 + word(8) as usize;
            let Some(frame) = self.pending.get(at + 16..end).map(<[u8]>::to_vec) else { break };
            at = end;
            packets.extend(self.of_frame(&frame, time));
        }
        self.pending.drain(..at);
        Some(packets)
    }

    fn of_frame(&mut self, frame: &[u8], at: Duration) -> Option<Packet> {
        let packet = frame.get(14..)?;
        match frame.get(12..14)? {
            [0x08, 0x00] => self.of_ipv4(packet, at),
            [0x86, 0xdd] => self.of_ipv6(packet, at),
            _ => None,
        }
    }

    fn of_ipv4(&mut self, packet: &[u8], at: Duration) -> Option<Packet> {
        let header = usize::from(packet.first()? & 15) * 4;
        let segment = packet.get(header..usize::from(short(packet, 2)?))?;
        let ends = (
            IpAddr::from(Ipv4Addr::from(*packet.get(12..)?.first_chunk::<4>()?)),
            IpAddr::from(Ipv4Addr::from(*packet.get(16..)?.first_chunk::<4>()?)),
        );
        let fragment = short(packet, 6)?;
        let (offset, has_more) = (usize::from(fragment & 0x1fff) * 8, fragment & 0x2000 != 0);
        let whole = self.put_together(ends, u32::from(short(packet, 4)?), offset, has_more, segment)?;
        of_segment(*packet.get(9)?, ends, &whole, at)
    }

    fn of_ipv6(&mut self, packet: &[u8], at: Duration) -> Option<Packet> {
        let segment = packet.get(40..40 + usize::from(short(packet, 4)?))?;
        let ends = (
            IpAddr::from(Ipv6Addr::from(*packet.get(8..)?.first_chunk::<16>()?)),
            IpAddr::from(Ipv6Addr::from(*packet.get(24..)?.first_chunk::<16>()?)),
        );
        // RFC 8200 §4.5: a fragment header stands before the datagram's part.
        if *packet.get(6)? != 44 {
            return of_segment(*packet.get(6)?, ends, segment, at);
        }
        let fragment = short(segment, 2)?;
        let id = u32::from_be_bytes(*segment.get(4..)?.first_chunk()?);
        let offset = usize::from(fragment & !7);
        let whole = self.put_together(ends, id, offset, fragment & 1 != 0, segment.get(8..)?)?;
        of_segment(*segment.first()?, ends, &whole, at)
    }

    fn put_together(
        &mut self,
        ends: (IpAddr, IpAddr),
        id: u32,
        offset: usize,
        has_more: bool,
        part: &[u8],
    ) -> Option<Vec<u8>> {
        if offset == 0 && !has_more {
            return Some(part.to_vec());
        }
        let key = (ends.0, ends.1, id);
        let known = self.fragments.entry(key).or_default();
        if !has_more {
            known.length = Some(offset + part.len());
        }
        known.parts.push((offset, part.to_vec()));
        let length = known.length?;
        if known.parts.iter().map(|(_, part)| part.len()).sum::<usize>() < length {
            return None;
        }
        let mut whole = vec![0; length];
        for (offset, part) in self.fragments.remove(&key)?.parts {
            whole.get_mut(offset..offset + part.len())?.copy_from_slice(&part);
        }
        Some(whole)
    }
}

fn short(bytes: &[u8], at: usize) -> Option<u16> {
    bytes.get(at..)?.first_chunk().map(|word| u16::from_be_bytes(*word))
}

fn of_segment(protocol: u8, ends: (IpAddr, IpAddr), segment: &[u8], at: Duration) -> Option<Packet> {
    let header = match protocol {
        17 => 8,
        6 => usize::from(segment.get(12)? >> 4) * 4,
        _ => return None,
    };
    let sequence = if protocol == 6 { u32::from_be_bytes(*segment.get(4..)?.first_chunk()?) } else { 0 };
    Some(Packet {
        at,
        protocol,
        source: SocketAddr::new(ends.0, short(segment, 0)?),
        destination: SocketAddr::new(ends.1, short(segment, 2)?),
        sequence,
        payload: segment.get(header..)?.to_vec(),
    })
}

/// What each TCP flow carried, in order of its octets: a message, or an address in it, may lie across two segments.
pub fn streams(packets: &[Packet]) -> Vec<(SocketAddr, SocketAddr, Vec<u8>)> {
    let mut flows: HashMap<(SocketAddr, SocketAddr), Vec<&Packet>> = HashMap::new();
    for packet in packets.iter().filter(|packet| packet.protocol == 6 && !packet.payload.is_empty()) {
        flows.entry((packet.source, packet.destination)).or_default().push(packet);
    }
    let mut streams = Vec::new();
    for ((source, destination), mut segments) in flows {
        let first = segments.first().map_or(0, |packet| packet.sequence);
        // Relative to the first that was seen, as signed: one that overtook it lies before it.
        let place = |packet: &Packet| i64::from(packet.sequence.wrapping_sub(first) as i32);
        segments.sort_by_key(|packet| place(packet));
        let (mut bytes, mut reached) = (Vec::new(), i64::MIN);
        for packet in segments {
            let (start, length) = (place(packet), packet.payload.len() as i64);
            // Sent again: only what is new of it counts.
            let known = (reached - start).clamp(0, length);
            bytes.extend_from_slice(packet.payload.get(known as usize..).unwrap_or_default());
            reached = reached.max(start + length);
        }
        streams.push((source, destination, bytes));
    }
    streams
}

#[cfg(test)]
mod tests {
    use super::*;

    const ENDS: [u8; 8] = [10, 0, 0, 1, 10, 0, 0, 2];

    fn file(frames: &[Vec<u8>]) -> Vec<u8> {
        let mut file = vec![0xd4, 0xc3, 0xb2, 0xa1];
        file.resize(24, 0);
        for frame in frames {
            file.extend([1, 0, 0, 0, 2, 0, 0, 0]);
            file.extend((frame.len() as u32).to_le_bytes());
            file.extend((frame.len() as u32).to_le_bytes());
            file.extend(frame);
        }
        file
    }

    fn ipv4(protocol: u8, fragment: u16, part: &[u8]) -> Vec<u8> {
        let mut frame = vec![0; 12];
        frame.extend([8, 0, 0x45, 0]);
        frame.extend((20 + part.len() as u16).to_be_bytes());
        frame.extend([0, 7]);
        frame.extend(fragment.to_be_bytes());
        frame.extend([64, protocol, 0, 0]);
        frame.extend(ENDS);
        frame.extend(part);
        // Ethernet's padding.
        frame.extend([0, 0, 0]);
        frame
    }

    fn udp(text: &[u8]) -> Vec<u8> {
        let mut datagram = vec![0x13, 0xc4, 0x13, 0xc5, 0, 8 + text.len() as u8, 0, 0];
        datagram.extend(text);
        datagram
    }

    #[test]
    fn a_datagram_is_read_without_the_padding_of_its_frame_and_piece_by_piece() {
        let file = file(&[ipv4(17, 0, &udp(b"hi"))]);
        let mut reader = Reader::default();
        let mut found = Vec::new();
        for byte in &file {
            found.extend(reader.take(&[*byte]).unwrap());
        }
        assert_eq!(found.len(), 1);
        assert_eq!(found[0].source, "10.0.0.1:5060".parse().unwrap());
        assert_eq!(found[0].destination, "10.0.0.2:5061".parse().unwrap());
        assert_eq!(
            (found[0].payload.as_slice(), found[0].at),
            (&b"hi"[..], Duration::from_micros(1_000_002))
        );
    }

    #[test]
    fn fragments_become_one_datagram_whatever_their_order() {
        let datagram = udp(b"eight or more octets");
        let (first, last) = datagram.split_at(16);
        let file = file(&[ipv4(17, 2, last), ipv4(17, 0x2000, first)]);
        let found = Reader::default().take(&file).unwrap();
        assert_eq!(found.len(), 1);
        assert_eq!(found[0].payload, b"eight or more octets");
    }

    #[test]
    fn an_ipv6_datagram_is_read_and_its_fragments_too() {
        let frame = |next: u8, part: &[u8]| {
            let mut frame = vec![0; 12];
            frame.extend([0x86, 0xdd, 0x60, 0, 0, 0]);
            frame.extend((part.len() as u16).to_be_bytes());
            frame.extend([next, 64]);
            frame.extend([0; 15]);
            frame.push(1);
            frame.extend([0; 15]);
            frame.push(2);
            frame.extend(part);
            frame
        };
        let datagram = udp(b"over the sixth version");
        let (first, last) = datagram.split_at(16);
        let fragment = |offset: u8, part: &[u8]| [&[17, 0, 0, offset, 0, 0, 0, 9], part].concat();
        let frames =
            [frame(17, &udp(b"whole")), frame(44, &fragment(1, first)), frame(44, &fragment(16, last))];
        let found = Reader::default().take(&file(&frames)).unwrap();
        let texts: Vec<_> = found.iter().map(|packet| packet.payload.as_slice()).collect();
        assert_eq!(texts, [&b"whole"[..], b"over the sixth version"]);
        assert_eq!(found[1].source, "[::1]:5060".parse().unwrap());
    }

    #[test]
    fn a_stream_is_put_in_order_without_what_was_sent_again() {
        let segment = |sequence: u32, text: &[u8]| {
            let mut segment = vec![0x13, 0xc4, 0x13, 0xc5];
            segment.extend(sequence.to_be_bytes());
            segment.extend([0, 0, 0, 0, 0x50, 0, 0, 0, 0, 0, 0, 0]);
            segment.extend(text);
            ipv4(6, 0, &segment)
        };
        let start = u32::MAX - 3;
        let frames = [
            segment(start, b"hello "),
            segment(start.wrapping_add(11), b", this"),
            segment(start.wrapping_add(6), b"world"),
            segment(start.wrapping_add(3), b"lo wor"),
        ];
        let packets = Reader::default().take(&file(&frames)).unwrap();
        let streams = streams(&packets);
        assert_eq!(streams.len(), 1);
        assert_eq!(streams[0].2, b"hello world, this");
    }
}
