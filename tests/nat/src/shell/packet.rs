//! UDP in IP packets: who sends to whom, and the same with other addresses.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

const UDP: u8 = 17;

/// Source and destination of a UDP datagram in an IPv4 or IPv6 packet, whole or the first of its fragments; `None` for
/// anything else.
pub(crate) fn ends(packet: &[u8]) -> Option<(SocketAddr, SocketAddr)> {
    let (source, destination, at): (IpAddr, IpAddr, usize) = match packet.first()? >> 4 {
        4 => {
            let is_later_fragment = word(packet, 6)? & 0x1fff != 0;
            if *packet.get(9)? != UDP || is_later_fragment {
                return None;
            }
            (address(packet, 12)?.into(), address(packet, 16)?.into(), header(packet))
        }
        6 if *packet.get(6)? == UDP => {
            let address = |at: usize| Some(Ipv6Addr::from(*packet.get(at..)?.first_chunk::<16>()?));
            (address(8)?.into(), address(24)?.into(), 40)
        }
        _ => return None,
    };
    packet.get(at..at + 8)?;
    Some((SocketAddr::new(source, word(packet, at)?), SocketAddr::new(destination, word(packet, at + 2)?)))
}

/// What the IPv4 fragments of one datagram have in common (RFC 791 §3.2); `None` for what is whole.
pub(crate) fn fragment(packet: &[u8]) -> Option<Fragment> {
    let is_ipv4_udp = packet.first()? >> 4 == 4 && *packet.get(9)? == UDP;
    let is_fragment = is_ipv4_udp && word(packet, 6)? & 0x3fff != 0;
    is_fragment.then_some(())?;
    Some(Fragment { source: address(packet, 12)?, destination: address(packet, 16)?, id: word(packet, 4)? })
}

/// The mark of a datagram in fragments.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Fragment {
    pub(crate) source: Ipv4Addr,
    destination: Ipv4Addr,
    id: u16,
}

fn address(packet: &[u8], at: usize) -> Option<Ipv4Addr> {
    Some(Ipv4Addr::from(*packet.get(at..)?.first_chunk::<4>()?))
}

/// The length of an IPv4 header.
fn header(packet: &[u8]) -> usize {
    usize::from(packet.first().copied().unwrap_or_default() & 15) * 4
}

/// Writes other IPv4 addresses and ports into a packet that [`ends`] could read, and keeps both checksums right. IPv6
/// packets are left as they are: they are not translated.
pub(crate) fn readdress(packet: &mut [u8], source: SocketAddr, destination: SocketAddr) {
    let (SocketAddr::V4(source), SocketAddr::V4(destination)) = (source, destination) else { return };
    let udp = header(packet);
    let mut of_udp = readdress_header(packet, *source.ip(), *destination.ip());
    for (at, port) in [(udp, source.port()), (udp + 2, destination.port())] {
        of_udp.note(put(packet, at, port), port);
    }
    // RFC 768: 0 means that there is none, and a sum of 0 is sent as all ones.
    if let Some(sum) = word(packet, udp + 6).filter(|sum| *sum != 0) {
        put(packet, udp + 6, Some(of_udp.applied(sum)).filter(|sum| *sum != 0).unwrap_or(u16::MAX));
    }
}

/// The same for a fragment without ports. The datagram's checksum is in the first fragment; what this changes of it is
/// returned.
pub(crate) fn readdress_header(packet: &mut [u8], source: Ipv4Addr, destination: Ipv4Addr) -> Change {
    let mut change = Change::default();
    for (at, octets) in [(12, source.octets()), (16, destination.octets())] {
        for (at, pair) in [(at, [octets[0], octets[1]]), (at + 2, [octets[2], octets[3]])] {
            let new = u16::from_be_bytes(pair);
            change.note(put(packet, at, new), new);
        }
    }
    if let Some(sum) = word(packet, 10) {
        put(packet, 10, change.applied(sum));
    }
    change
}

/// What replaced words do to a ones' complement checksum (RFC 1624 §3, equation 3).
#[derive(Debug, Default)]
pub(crate) struct Change(u32);

impl Change {
    fn note(&mut self, old: u16, new: u16) {
        self.0 += u32::from(!old) + u32::from(new);
    }

    fn applied(&self, sum: u16) -> u16 {
        let mut total = self.0 + u32::from(!sum);
        while total > 0xffff {
            total = (total & 0xffff) + (total >> 16);
        }
        !(total as u16)
    }
}

fn word(packet: &[u8], at: usize) -> Option<u16> {
    packet.get(at..)?.first_chunk().map(|word| u16::from_be_bytes(*word))
}

/// Replaces a word and returns the old one.
fn put(packet: &mut [u8], at: usize, new: u16) -> u16 {
    match packet.get_mut(at..at + 2) {
        Some(place) => {
            let old = u16::from_be_bytes([place[0], place[1]]);
            place.copy_from_slice(&new.to_be_bytes());
            old
        }
        None => new,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The ones' complement sum that a receiver takes: 0xffff if the checksum in it is right.
    fn sum(parts: &[&[u8]]) -> u16 {
        let bytes = parts.concat();
        let words =
            bytes.chunks(2).map(|pair| u32::from(u16::from_be_bytes([pair[0], *pair.get(1).unwrap_or(&0)])));
        let mut total: u32 = words.sum();
        while total > 0xffff {
            total = (total & 0xffff) + (total >> 16);
        }
        total as u16
    }

    fn sums(packet: &[u8]) -> (u16, u16) {
        let udp = &packet[20..];
        let length = (udp.len() as u16).to_be_bytes();
        (sum(&[&packet[..20]]), sum(&[&packet[12..20], &[0, UDP], &length, udp]))
    }

    fn packet(payload: &[u8]) -> Vec<u8> {
        let mut packet = vec![0x45, 0, 0, 28 + payload.len() as u8, 0, 1, 0x40, 0, 64, UDP, 0, 0];
        packet.extend([
            192,
            168,
            1,
            10,
            203,
            0,
            113,
            1,
            0x13,
            0x8c,
            0x0d,
            0x96,
            0,
            8 + payload.len() as u8,
            0,
            0,
        ]);
        packet.extend(payload);
        let header = !sum(&[&packet[..20]]);
        put(&mut packet, 10, header);
        let (_, udp) = sums(&packet);
        put(&mut packet, 26, !udp);
        packet
    }

    #[test]
    fn a_translated_packet_has_the_new_ends_and_right_checksums() {
        for payload in [&b"even"[..], b"odd", b"", &[0xff; 97]] {
            let mut packet = packet(payload);
            assert_eq!(sums(&packet), (0xffff, 0xffff), "as made");
            let (_, remote) = ends(&packet).unwrap();
            let external: SocketAddr = "198.51.100.7:61000".parse().unwrap();
            readdress(&mut packet, external, remote);
            assert_eq!(ends(&packet), Some((external, remote)));
            assert_eq!(sums(&packet), (0xffff, 0xffff));
        }
    }

    #[test]
    fn a_datagram_without_checksum_stays_without() {
        let mut packet = packet(b"x");
        put(&mut packet, 26, 0);
        let (source, destination) = ends(&packet).unwrap();
        readdress(&mut packet, destination, source);
        assert_eq!(word(&packet, 26), Some(0));
    }

    #[test]
    fn other_protocols_later_fragments_and_stumps_are_not_read() {
        let whole = packet(b"x");
        for (at, byte) in [(9, 6), (7, 1), (0, 0x55), (0, 0x4f)] {
            let mut other = whole.clone();
            other[at] = byte;
            assert_eq!(ends(&other), None, "{at}");
        }
        for length in 0..28 {
            assert_eq!(ends(&whole[..length]), None, "{length} octets");
        }
    }
}
