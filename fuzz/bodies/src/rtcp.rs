//! RTCP: reports, and the copy without names.

use media_wire::rtcp::{reports, without_names};

const CNAME: &[u8] = b"anchor";

/// Reads `bytes` as a compound packet.
pub fn rtcp(bytes: &[u8]) {
    let before = collect(bytes);
    let Some(clean) = without_names(bytes, CNAME, true) else { return };
    assert_eq!(clean.len() % 4, 0);
    assert_eq!(collect(&clean), before, "reports changed");
    let mut rest = &clean[..];
    while !rest.is_empty() {
        let length = 4 * (usize::from(u16::from_be_bytes([rest[2], rest[3]])) + 1);
        let (packet, after) = rest.split_at(length);
        match packet[1] {
            202 => names(packet),
            203 => assert_eq!(length, 4 + 4 * usize::from(packet[0] & 0x1f), "a BYE with more than sources"),
            204 => panic!("an application's packet passed"),
            _ => {}
        }
        rest = after;
    }
    assert_eq!(without_names(&clean, CNAME, true).as_deref().unwrap_or(&clean), clean, "not stable");
}

fn collect(bytes: &[u8]) -> Vec<media_wire::rtcp::Report> {
    let mut all = Vec::new();
    reports(bytes, |report| all.push(report));
    all
}

/// Each chunk of an SDES packet is a source and our CNAME, nothing else (RFC 3550 §6.5).
fn names(packet: &[u8]) {
    let chunk = (4 + 2 + CNAME.len() + 1).next_multiple_of(4);
    let count = usize::from(packet[0] & 0x1f);
    assert_eq!(packet.len(), 4 + count * chunk);
    for chunk in packet[4..].chunks(chunk) {
        assert_eq!(chunk[4..6], [1, CNAME.len() as u8]);
        assert_eq!(&chunk[6..6 + CNAME.len()], CNAME);
        assert!(chunk[6 + CNAME.len()..].iter().all(|byte| *byte == 0));
    }
}
