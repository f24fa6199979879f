//! Captures, and the question what of one side shows in them on the other.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::process::{Process, eventually};
use crate::{Failure, Lab, Result};

/// A running capture.
#[derive(Debug)]
pub struct Capture {
    tcpdump: Process,
    file: PathBuf,
}

/// One captured packet above the network layer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Packet {
    /// IP protocol: 6 or 17.
    pub protocol: u8,
    /// Ports, source first.
    pub ports: (u16, u16),
    /// UDP or TCP payload.
    pub payload: Vec<u8>,
}

/// Where something forbidden was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Leak {
    /// What was looked for, as named by the seeker.
    pub what: String,
    /// Ports of the packet, source first.
    pub ports: (u16, u16),
    /// The payload, as text where it is text.
    pub payload: String,
}

impl Capture {
    /// Starts a capture on a device of a host and waits until it runs.
    pub fn start(lab: &Lab, host: &str, device: &str) -> Result<Self> {
        let label = format!("capture-{host}-{device}");
        let file = lab.folder().join(format!("{label}.pcap"));
        let path = file.to_string_lossy();
        let argv = ["tcpdump", "-U", "-n", "-s", "0", "-B", "8192", "-Z", "root", "-i", device, "-w", &path];
        let tcpdump = lab.start(host, &label, &argv)?;
        tcpdump.says("listening on", Duration::from_secs(5))?;
        Ok(Capture { tcpdump, file })
    }

    /// Ends the capture and returns its packets.
    pub fn finish(mut self) -> Result<Vec<Packet>> {
        // The last packets reach the file with the buffer that the kernel hands over at the latest within a second.
        std::thread::sleep(Duration::from_millis(1_100));
        self.tcpdump.signal("INT")?;
        self.tcpdump.ended(Duration::from_secs(5))?;
        packets(&self.file)
    }
}

/// Reads the UDP and TCP packets of a classic pcap file of Ethernet frames.
pub fn packets(file: &Path) -> Result<Vec<Packet>> {
    let mut bytes = Vec::new();
    eventually(Duration::from_secs(1), || {
        bytes = fs::read(file).unwrap_or_default();
        bytes.len() >= 24
    });
    if bytes.get(..4) != Some(&[0xd4, 0xc3, 0xb2, 0xa1]) {
        return Err(Failure(format!("{}: no little-endian pcap file", file.display())));
    }
    let mut packets = Vec::new();
    let mut rest = bytes.get(24..).unwrap_or_default();
    while let Some(length) = rest.get(8..12).and_then(|l| l.try_into().ok()).map(u32::from_le_bytes) {
        let end = 16usize.saturating_add(length as usize);
        let Some(frame) = rest.get(16..end) else { break };
        packets.extend(of_frame(frame));
        rest = rest.get(end..).unwrap_or_default();
    }
    Ok(packets)
}

fn of_frame(frame: &[u8]) -> Option<Packet> {
    let (protocol, segment) = match frame.get(12..14)? {
        [0x08, 0x00] => {
            let packet = frame.get(14..)?;
            let header = usize::from(packet.first()? & 15) * 4;
            let total = usize::from(u16::from_be_bytes(packet.get(2..4)?.try_into().ok()?));
            (*packet.get(9)?, packet.get(header..total)?)
        }
        [0x86, 0xdd] => {
            let packet = frame.get(14..)?;
            let length = usize::from(u16::from_be_bytes(packet.get(4..6)?.try_into().ok()?));
            (*packet.get(6)?, packet.get(40..40 + length)?)
        }
        _ => return None,
    };
    let ports = match segment.get(..4)? {
        [a, b, c, d] => (u16::from_be_bytes([*a, *b]), u16::from_be_bytes([*c, *d])),
        _ => return None,
    };
    let header = match protocol {
        17 => 8,
        6 => usize::from(segment.get(12)? >> 4) * 4,
        _ => return None,
    };
    Some(Packet { protocol, ports, payload: segment.get(header..)?.to_vec() })
}

/// The Call-IDs, tags and branches that the SIP messages of a capture carry.
pub fn identifiers(packets: &[Packet]) -> Vec<String> {
    let mut found = Vec::new();
    for packet in packets {
        let text = String::from_utf8_lossy(&packet.payload);
        if !text.contains("SIP/2.0") {
            continue;
        }
        for line in text.lines() {
            let name = line.split(':').next().unwrap_or_default().trim().to_ascii_lowercase();
            match name.as_str() {
                "call-id" | "i" => found.extend(line.split_once(':').map(|(_, id)| id.trim().to_owned())),
                "from" | "f" | "to" | "t" => found.extend(parameter(line, ";tag=")),
                "via" | "v" => found.extend(parameter(line, ";branch=")),
                _ => {}
            }
        }
    }
    found.sort();
    found.dedup();
    // A short tag is found by chance in random bytes; real phones' are longer.
    found.retain(|identifier| identifier.len() >= 6);
    found
}

fn parameter(line: &str, name: &str) -> Option<String> {
    let value = line.split_once(name)?.1;
    Some(value.split([';', ',', '>', ' ', '\r']).next().unwrap_or_default().to_owned())
}

/// Finds the other side's addresses (as text, and as the 4 or 16 bytes of it) and identifiers in a capture.
/// Media payload is left out of the search for bytes: 4 bytes turn up by chance in what people say.
pub fn leaks(packets: &[Packet], addresses: &[String], identifiers: &[String]) -> Vec<Leak> {
    let mut found = Vec::new();
    for packet in packets {
        let searched =
            if is_rtp(&packet.payload) { packet.payload.get(..12) } else { Some(&packet.payload[..]) };
        let searched = searched.unwrap_or_default();
        let mut note = |what: String| {
            let payload = String::from_utf8_lossy(&packet.payload).into_owned();
            found.push(Leak { what, ports: packet.ports, payload });
        };
        for address in addresses {
            if contains(searched, address.as_bytes()) {
                note(format!("{address} in text"));
            }
            let bytes = match address.parse() {
                Ok(std::net::IpAddr::V4(ip)) => ip.octets().to_vec(),
                Ok(std::net::IpAddr::V6(ip)) => ip.octets().to_vec(),
                Err(_) => continue,
            };
            if contains(searched, &bytes) {
                note(format!("{address} as {} bytes", bytes.len()));
            }
        }
        for identifier in identifiers {
            if contains(searched, identifier.as_bytes()) {
                note(format!("identifier {identifier}"));
            }
        }
    }
    found
}

/// RTP by RFC 7983 (first byte 128 to 191), apart from RTCP by its packet type (RFC 5761 §4).
fn is_rtp(payload: &[u8]) -> bool {
    matches!(payload, [first, kind, ..] if (128..192).contains(first) && !(192..224).contains(kind))
        && payload.len() >= 12
}

fn contains(bytes: &[u8], part: &[u8]) -> bool {
    !part.is_empty() && bytes.windows(part.len()).any(|window| window == part)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn udp(payload: &[u8]) -> Packet {
        Packet { protocol: 17, ports: (5060, 5060), payload: payload.to_vec() }
    }

    #[test]
    fn an_address_is_found_as_text_and_as_bytes() {
        let address = vec!["203.0.113.9".to_owned()];
        assert_eq!(leaks(&[udp(b"c=IN IP4 203.0.113.9\r\n")], &address, &[]).len(), 1);
        assert_eq!(leaks(&[udp(&[0, 1, 203, 0, 113, 9, 7])], &address, &[]).len(), 1);
        assert_eq!(leaks(&[udp(b"c=IN IP4 198.51.100.9\r\n")], &address, &[]).len(), 0);
    }

    #[test]
    fn bytes_in_the_payload_of_rtp_are_no_leak_but_in_rtcp_they_are() {
        let address = vec!["203.0.113.9".to_owned()];
        let mut rtp = vec![0x80, 0, 0, 1, 0, 0, 0, 0, 1, 2, 3, 4, 203, 0, 113, 9];
        assert_eq!(leaks(&[udp(&rtp)], &address, &[]).len(), 0);
        rtp[1] = 202;
        assert_eq!(leaks(&[udp(&rtp)], &address, &[]).len(), 1);
    }

    #[test]
    fn identifiers_are_call_id_tags_and_branches() {
        let message = b"INVITE sip:a@b SIP/2.0\r\nVia: SIP/2.0/UDP h;branch=z9hG4bKabc;rport\r\n\
            From: <sip:x@y>;tag=fromtag1\r\nTo: <sip:a@b>\r\ni: call-id-1\r\n\r\n";
        assert_eq!(identifiers(&[udp(message)]), ["call-id-1", "fromtag1", "z9hG4bKabc"]);
    }

    #[test]
    fn a_frame_of_udp_is_read_without_its_padding() {
        let mut frame = vec![0; 12];
        frame.extend([8, 0, 0x45, 0, 0, 30, 0, 0, 0, 0, 64, 17, 0, 0, 1, 1, 1, 1, 2, 2, 2, 2]);
        frame.extend([0x13, 0xc4, 0x13, 0xc5, 0, 10, 0, 0, b'h', b'i', 0, 0, 0]);
        let packet = of_frame(&frame).unwrap();
        assert_eq!((packet.ports, packet.payload.as_slice()), ((5060, 5061), &b"hi"[..]));
    }
}
