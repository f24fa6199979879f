//! Packets through both ends: what arrives is what was sent, once, and nothing else.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use proptest::prelude::*;
use srtp::{Error, Inbound, MOST_OVERHEAD, Master, Outbound, Suite};

fn octets(hex: &str) -> Vec<u8> {
    (0..hex.len()).step_by(2).map(|n| u8::from_str_radix(&hex[n..n + 2], 16).unwrap()).collect()
}

/// The key of RFC 3711 B.3.
fn master() -> Master {
    let key = octets("E1F97A0D3E018BE0D64FA32C06DE41390EC675AD498AFEEBB6960B3AABE6");
    Master::new(key.try_into().unwrap())
}

fn rtp(sequence: u16, payload: &[u8]) -> Vec<u8> {
    let mut packet = octets("800F0000DECAFBADCAFEBABE");
    packet[2..4].copy_from_slice(&sequence.to_be_bytes());
    packet.extend_from_slice(payload);
    packet
}

struct Ends {
    outbound: Outbound,
    inbound: Inbound<2>,
}

impl Ends {
    fn new(suite: Suite) -> Self {
        Self { outbound: Outbound::new(suite, &master()), inbound: Inbound::new(suite, &master()) }
    }

    fn protect(&mut self, packet: &[u8]) -> Result<Vec<u8>, Error> {
        protect(packet, |buffer, length| self.outbound.protect_rtp(buffer, length))
    }

    fn protect_rtcp(&mut self, packet: &[u8]) -> Result<Vec<u8>, Error> {
        protect(packet, |buffer, length| self.outbound.protect_rtcp(buffer, length))
    }

    fn unprotect(&mut self, packet: &[u8], path: usize) -> Result<Vec<u8>, Error> {
        let mut packet = packet.to_vec();
        let length = self.inbound.unprotect_rtp(&mut packet, path)?;
        packet.truncate(length);
        Ok(packet)
    }

    fn unprotect_rtcp(&mut self, packet: &[u8]) -> Result<Vec<u8>, Error> {
        let mut packet = packet.to_vec();
        let length = self.inbound.unprotect_rtcp(&mut packet)?;
        packet.truncate(length);
        Ok(packet)
    }
}

fn protect(
    packet: &[u8],
    with: impl FnOnce(&mut [u8], usize) -> Result<usize, Error>,
) -> Result<Vec<u8>, Error> {
    let mut buffer = packet.to_vec();
    buffer.resize(packet.len() + MOST_OVERHEAD, 0);
    let length = with(&mut buffer, packet.len())?;
    buffer.truncate(length);
    Ok(buffer)
}

#[test]
fn packets_are_those_of_libsrtp() {
    // `srtp_validate` of libsrtp's test driver: the same key, packet and ciphertext.
    let mut ends = Ends::new(Suite::Sha1Tag80);
    let expected = octets("800F1234DECAFBADCAFEBABE4E55DC4CE79978D88CA4D215949D2402B78D6ACC99EA179B8DBB");
    assert_eq!(ends.protect(&rtp(0x1234, &[0xAB; 16])).unwrap(), expected);
    assert_eq!(ends.unprotect(&expected, 0).unwrap(), rtp(0x1234, &[0xAB; 16]));
    let report = octets("81C8000BCAFEBABEABABABABABABABABABABABABABABABAB");
    let expected = octets("81C8000BCAFEBABE7128035BE487B9BDBEF89041F977A5A880000001993E08CD54D6C1230798");
    assert_eq!(ends.protect_rtcp(&report).unwrap(), expected);
    assert_eq!(ends.unprotect_rtcp(&expected).unwrap(), report);
}

#[test]
fn after_the_wrap_packets_are_still_those_of_libsrtp() {
    // Made once with libsrtp (pylibsrtp 1.0.0): sequence numbers from 65,500 on, the same key.
    for (suite, tag) in [(Suite::Sha1Tag80, "ECDCA5982122FF"), (Suite::Sha1Tag32, "EC")] {
        let mut ends = Ends::new(suite);
        let mut last = Vec::new();
        for sequence in (65_500..=u16::MAX).chain(0..10) {
            let mut packet = rtp(sequence, format!("payload {sequence}").as_bytes());
            packet[1] = 0;
            packet[4..8].copy_from_slice(&(u32::from(sequence) * 160).to_be_bytes());
            packet[8..12].copy_from_slice(&0xDECA_FBAD_u32.to_be_bytes());
            last = ends.protect(&packet).unwrap();
        }
        let expected = "80000009000005A0DECAFBADEB72338B3C5F23A2407DD0D8".to_owned() + tag;
        assert_eq!(last, octets(&expected), "{suite:?}");
        let report = octets("80C90001CAFEBABE");
        ends.protect_rtcp(&report).unwrap();
        let expected = octets("80C90001CAFEBABE8000000237B45D5E7C029458034D");
        assert_eq!(ends.protect_rtcp(&report).unwrap(), expected);
    }
}

#[test]
fn each_path_brings_a_packet_once() {
    let mut ends = Ends::new(Suite::Sha1Tag80);
    let packet = ends.protect(&rtp(1, b"hello")).unwrap();
    for path in [0, 1] {
        assert_eq!(ends.unprotect(&packet, path).unwrap(), rtp(1, b"hello"));
        assert_eq!(ends.unprotect(&packet, path), Err(Error::Replayed));
    }
    let report = ends.protect_rtcp(&octets("80C90001CAFEBABE")).unwrap();
    assert!(ends.unprotect_rtcp(&report).is_ok());
    assert_eq!(ends.unprotect_rtcp(&report), Err(Error::Replayed));
}

#[test]
fn sequence_numbers_wrap_on_both_paths_with_packets_out_of_order() {
    let mut ends = Ends::new(Suite::Sha1Tag32);
    let mut late = Vec::new();
    for count in 0u32..200_000 {
        let packet = rtp(count as u16, &count.to_be_bytes());
        let protected = ends.protect(&packet).unwrap();
        assert_eq!(ends.unprotect(&protected, 0).unwrap(), packet, "{count}");
        // The other path is 20 packets behind.
        late.push((protected, packet));
        if count >= 20 {
            let (protected, packet) = &late[count as usize - 20];
            assert_eq!(&ends.unprotect(protected, 1).unwrap(), packet, "{count}");
        }
    }
}

#[test]
fn a_sequence_number_protects_one_packet_only() {
    let mut ends = Ends::new(Suite::Sha1Tag80);
    ends.protect(&rtp(1, b"one")).unwrap();
    assert_eq!(ends.protect(&rtp(1, b"two")), Err(Error::Replayed));
}

#[test]
fn a_change_of_any_bit_is_noticed_and_does_no_harm() {
    for suite in [Suite::Sha1Tag80, Suite::Sha1Tag32] {
        let mut ends = Ends::new(suite);
        let packet = ends.protect(&rtp(1, b"hello")).unwrap();
        let report = ends.protect_rtcp(&octets("81C90001CAFEBABE0102030405060708")).unwrap();
        for bit in 0..8 * packet.len() {
            let mut forged = packet.clone();
            forged[bit / 8] ^= 1 << (bit % 8);
            assert!(ends.unprotect(&forged, 0).is_err(), "{suite:?}, bit {bit}");
        }
        for bit in 0..8 * report.len() {
            let mut forged = report.clone();
            forged[bit / 8] ^= 1 << (bit % 8);
            assert!(ends.unprotect_rtcp(&forged).is_err(), "{suite:?}, bit {bit}");
        }
        assert!(ends.unprotect(&packet, 0).is_ok() && ends.unprotect_rtcp(&report).is_ok());
    }
}

#[test]
fn a_forged_sequence_number_moves_no_counter() {
    let mut ends = Ends::new(Suite::Sha1Tag80);
    let first = ends.protect(&rtp(10, b"a")).unwrap();
    ends.unprotect(&first, 0).unwrap();
    for sequence in (0..=u16::MAX).step_by(100) {
        let mut forged = first.clone();
        forged[2..4].copy_from_slice(&sequence.to_be_bytes());
        assert!(ends.unprotect(&forged, 1).is_err());
    }
    let second = ends.protect(&rtp(11, b"b")).unwrap();
    assert_eq!(ends.unprotect(&second, 0).unwrap(), rtp(11, b"b"));
}

#[test]
fn packets_of_many_forged_sources_leave_room_for_the_real_one() {
    let mut ends = Ends::new(Suite::Sha1Tag80);
    let packet = ends.protect(&rtp(1, b"real")).unwrap();
    for ssrc in 0..1000u32 {
        let mut forged = packet.clone();
        forged[8..12].copy_from_slice(&ssrc.to_be_bytes());
        assert_eq!(ends.unprotect(&forged, 0), Err(Error::NotAuthentic));
    }
    assert!(ends.unprotect(&packet, 0).is_ok());
}

#[test]
fn a_packet_with_padding_and_an_extension_keeps_its_header_readable() {
    let mut ends = Ends::new(Suite::Sha1Tag80);
    let mut packet = rtp(1, &octets("00000001BEDE0001AABBCCDD"));
    packet[0] = 0xB1;
    packet.extend_from_slice(b"payload\x01");
    let protected = ends.protect(&packet).unwrap();
    assert_eq!(protected[..24], packet[..24]);
    assert_ne!(protected[24..packet.len()], packet[24..]);
    assert_eq!(ends.unprotect(&protected, 0).unwrap(), packet);
}

#[test]
fn a_buffer_without_room_is_not_touched() {
    let mut outbound = Outbound::new(Suite::Sha1Tag80, &master());
    let packet = rtp(1, b"hello");
    let mut buffer = packet.clone();
    assert_eq!(outbound.protect_rtp(&mut buffer, packet.len()), Err(Error::NoRoom));
    assert_eq!(buffer, packet);
}

#[test]
fn a_known_source_costs_no_allocation() {
    let mut ends = Ends::new(Suite::Sha1Tag80);
    let first = ends.protect(&rtp(0, &[7; 160])).unwrap();
    ends.unprotect(&first, 0).unwrap();
    let mut buffer = rtp(1, &[7; 160 + MOST_OVERHEAD]);
    let allocations = allocation_counter::measure(|| {
        let length = ends.outbound.protect_rtp(&mut buffer, 172).unwrap();
        ends.inbound.unprotect_rtp(&mut buffer[..length], 0).unwrap();
    });
    assert_eq!(allocations.count_total, 0);
}

proptest! {
    #[test]
    fn what_is_protected_comes_out_again(
        payload in proptest::collection::vec(any::<u8>(), 0..300), sequence: u16, wide: bool,
    ) {
        let mut ends = Ends::new(if wide { Suite::Sha1Tag80 } else { Suite::Sha1Tag32 });
        let packet = rtp(sequence, &payload);
        let protected = ends.protect(&packet).unwrap();
        prop_assert_eq!(ends.unprotect(&protected, 0).unwrap(), packet);
        let mut report = octets("80C90001CAFEBABE");
        report.extend(payload);
        let protected = ends.protect_rtcp(&report).unwrap();
        prop_assert_eq!(ends.unprotect_rtcp(&protected).unwrap(), report);
    }

    #[test]
    fn rubbish_is_refused(bytes in proptest::collection::vec(any::<u8>(), 0..80)) {
        let mut ends = Ends::new(Suite::Sha1Tag80);
        prop_assert!(ends.unprotect(&bytes, 1).is_err());
        prop_assert!(ends.unprotect_rtcp(&bytes).is_err());
        let _ = (ends.protect(&bytes), ends.protect_rtcp(&bytes));
    }
}
