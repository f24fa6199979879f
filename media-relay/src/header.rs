//! IP and UDP headers of packets that leave by a raw socket.

use std::net::{IpAddr, SocketAddr};

/// IPv6 and UDP.
pub(crate) const LARGEST_HEADER: usize = 40 + UDP;
const UDP: usize = 8;
const PROTOCOL_UDP: u8 = 17;
/// As the kernel's own packets.
const HOPS: u8 = 64;

/// Writes a whole packet into `room`, with a traffic class (RFC 2474: six bits of DSCP, then two): its length; `None` if it does not fit, or the addresses are of different families.
///
/// Of IPv4 the identification and the header's checksum are left to the kernel, which fills them in (raw(7)); it may be fragmented on
/// its way, so that a narrower link than ours costs nothing (RFC 791 §2.3).
pub(crate) fn write(
    room: &mut [u8],
    traffic_class: u8,
    from: SocketAddr,
    to: SocketAddr,
    payload: &[u8],
) -> Option<usize> {
    let datagram = payload.len().checked_add(UDP)?;
    let length = u16::try_from(datagram).ok()?;
    let (start, pseudo) = match (from.ip(), to.ip()) {
        (IpAddr::V4(source), IpAddr::V4(destination)) => {
            let header = room.first_chunk_mut::<20>()?;
            header.fill(0);
            header[..2].copy_from_slice(&[0x45, traffic_class]);
            header[2..4].copy_from_slice(&length.checked_add(20)?.to_be_bytes());
            header[8] = HOPS;
            header[9] = PROTOCOL_UDP;
            header[12..16].copy_from_slice(&source.octets());
            header[16..20].copy_from_slice(&destination.octets());
            (20, sum(&header[12..20]))
        }
        (IpAddr::V6(source), IpAddr::V6(destination)) => {
            let header = room.first_chunk_mut::<40>()?;
            header.fill(0);
            header[..2].copy_from_slice(&[0x60 | traffic_class >> 4, traffic_class << 4]);
            header[4..6].copy_from_slice(&length.to_be_bytes());
            header[6] = PROTOCOL_UDP;
            header[7] = HOPS;
            header[8..24].copy_from_slice(&source.octets());
            header[24..40].copy_from_slice(&destination.octets());
            (40, sum(&header[8..40]))
        }
        _ => return None,
    };
    let end = datagram.checked_add(start)?;
    let (header, rest) = room.get_mut(start..end)?.split_first_chunk_mut::<UDP>()?;
    header[..2].copy_from_slice(&from.port().to_be_bytes());
    header[2..4].copy_from_slice(&to.port().to_be_bytes());
    header[4..6].copy_from_slice(&length.to_be_bytes());
    header[6..8].fill(0);
    rest.copy_from_slice(payload);
    let parts = [pseudo, u64::from(PROTOCOL_UDP), u64::from(length), sum(header), sum(payload)];
    let checksum = !fold(parts.into_iter().fold(0, u64::wrapping_add));
    // RFC 768: 0 would mean that there is none.
    header[6..8].copy_from_slice(&if checksum == 0 { 0xffff } else { checksum }.to_be_bytes());
    Some(end)
}

/// Of 16-bit words; an odd last byte is padded with zero (RFC 1071). In words of 32 bits: their halves come together in `fold`.
fn sum(bytes: &[u8]) -> u64 {
    let (words, rest) = bytes.as_chunks::<4>();
    let mut last = [0; 4];
    last.iter_mut().zip(rest).for_each(|(to, from)| *to = *from);
    // A packet has far fewer words than would wrap this.
    words.iter().chain([&last]).fold(0, |sum, word| sum.wrapping_add(u64::from(u32::from_be_bytes(*word))))
}

fn fold(mut sum: u64) -> u16 {
    while sum > 0xffff {
        sum = (sum & 0xffff).wrapping_add(sum >> 16);
    }
    sum as u16
}

#[cfg(test)]
mod tests {
    use super::*;

    /// RFC 3246, as it stands in the header's byte.
    const EXPEDITED: u8 = 46 << 2;

    fn packet(from: &str, to: &str, payload: &[u8]) -> Vec<u8> {
        let mut room = [0xee; 256];
        let length =
            write(&mut room, EXPEDITED, from.parse().unwrap(), to.parse().unwrap(), payload).unwrap();
        room[..length].to_vec()
    }

    /// What a receiver does (RFC 1071): with the checksum in it, everything sums up to ones.
    fn is_intact(addresses: &[u8], datagram: &[u8]) -> bool {
        fold(sum(addresses) + u64::from(PROTOCOL_UDP) + datagram.len() as u64 + sum(datagram)) == 0xffff
    }

    #[test]
    fn an_ipv4_packet_is_what_a_receiver_expects() {
        for length in 0..40u8 {
            let payload: Vec<u8> = (0..length).map(|byte| byte.wrapping_mul(57)).collect();
            let packet = packet("192.0.2.1:4000", "198.51.100.7:65535", &payload);
            assert_eq!(packet[..4], [0x45, EXPEDITED, 0, 28 + length]);
            assert_eq!(packet[20..26], [0x0f, 0xa0, 0xff, 0xff, 0, 8 + length]);
            assert!(is_intact(&packet[12..20], &packet[20..]));
            assert_eq!(packet[28..], payload[..]);
        }
    }

    #[test]
    fn an_ipv6_packet_is_what_a_receiver_expects() {
        let packet = packet("[2001:db8::1]:4000", "[2001:db8::2]:5000", b"speech!");
        assert_eq!(packet[..8], [0x6b, 0x80, 0, 0, 0, 15, 17, 64]);
        assert!(is_intact(&packet[8..40], &packet[40..]));
        assert_eq!(packet[48..], *b"speech!");
    }

    #[test]
    fn a_checksum_of_zero_is_sent_as_ones() {
        // The payload makes up for everything else: the addresses' words, the protocol, twice the length.
        let packet = packet("192.0.2.1:0", "192.0.2.2:0", &0x7bd6u16.to_be_bytes());
        assert_eq!(packet[26..28], [0xff, 0xff]);
        assert!(is_intact(&packet[12..20], &packet[20..]));
    }

    #[test]
    fn what_does_not_fit_is_refused() {
        let (one, six) = ("192.0.2.1:1".parse().unwrap(), "[::1]:1".parse().unwrap());
        assert_eq!(write(&mut [0; 256], 0, one, six, b""), None);
        assert_eq!(write(&mut [0; 30], 0, one, one, b"abc"), None);
        assert_eq!(write(&mut [0; 256], 0, one, one, &[0; 70_000]), None);
    }
}
