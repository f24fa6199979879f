//! The question what of one side shows on the other: addresses as text and as bytes, and what SIP, SDP and RTCP name.

use std::collections::BTreeSet;
use std::net::IpAddr;

use memchr::memmem;

use crate::packet::{Packet, is_rtcp, is_rtp, streams};

/// What one side must not show to the other.
#[derive(Debug, Clone, Default)]
pub struct Secrets {
    addresses: BTreeSet<IpAddr>,
    words: BTreeSet<String>,
}

/// Where something forbidden was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Leak {
    /// What was found, and in which form.
    pub what: String,
    /// Between whom.
    pub place: String,
    /// The message or packet, as text where it is text.
    pub payload: String,
}

/// RFC 3550 §6.5.6.
const TOOL: u8 = 6;

/// A short tag is found by chance in random bytes; real phones' are longer.
const SHORTEST: usize = 6;

impl Secrets {
    /// The addresses of a side's hosts.
    pub fn add_addresses(&mut self, addresses: impl IntoIterator<Item = IpAddr>) {
        self.addresses.extend(addresses);
    }

    /// Text that names somebody of this side: a device's product, a user.
    pub fn add_word(&mut self, word: &str) {
        if word.len() >= SHORTEST {
            self.words.insert(word.to_owned());
        }
    }

    /// The Call-IDs, tags, branches and SDP origins of all SIP messages in a text: a phone's own trace shows them in
    /// clear when the wire, over TLS, does not.
    pub fn add_messages(&mut self, text: &str) {
        for line in text.lines() {
            let name = line.split(':').next().unwrap_or_default().trim().to_ascii_lowercase();
            let value = line.split_once(':').map(|(_, value)| value.trim()).unwrap_or_default();
            match name.as_str() {
                "call-id" | "i" => self.add_word(value),
                "from" | "f" | "to" | "t" => self.add_parameter(value, ";tag="),
                "via" | "v" => self.add_parameter(value, ";branch="),
                _ => {
                    // RFC 4566 §5.2: user name, session id, version.
                    if let Some(origin) = line.strip_prefix("o=") {
                        let id = origin.split(' ').nth(1).unwrap_or_default();
                        if !is_time(id) {
                            self.add_word(id);
                        }
                    }
                }
            }
        }
    }

    fn add_parameter(&mut self, value: &str, name: &str) {
        if let Some((_, value)) = value.split_once(name) {
            self.add_word(value.split([';', ',', '>', ' ', '\r']).next().unwrap_or_default());
        }
    }

    /// What the packets of a capture name, on UDP and TCP. Names in RTCP count unless the SBC itself sent them.
    pub fn add_packets(&mut self, packets: &[Packet], sbc: &[IpAddr]) {
        for packet in packets.iter().filter(|packet| packet.protocol == 17) {
            if is_rtcp(&packet.payload) {
                if !sbc.contains(&packet.source.ip()) {
                    // A CNAME that is an address of record is in each From as well; an address in it is found as such.
                    names_in_rtcp(&packet.payload)
                        .filter(|name| !name.starts_with("sip:"))
                        .for_each(|name| self.add_word(&name));
                }
            } else if memmem::find(&packet.payload, b"SIP/2.0").is_some() {
                self.add_messages(&String::from_utf8_lossy(&packet.payload));
            }
        }
        for (_, _, bytes) in streams(packets) {
            if !is_tls(&bytes) {
                self.add_messages(&String::from_utf8_lossy(&bytes));
            }
        }
    }

    /// How many words there are to look for: none means that nothing was seen to compare with.
    pub fn words(&self) -> usize {
        self.words.len()
    }

    /// What of this side shows in packets of the other.
    pub fn leaks_in(&self, packets: &[Packet]) -> Vec<Leak> {
        let mut found = Vec::new();
        for packet in packets.iter().filter(|packet| packet.protocol == 17) {
            // 4 bytes turn up by chance in what people say, so the payload of RTP is searched for text alone.
            let payload = &packet.payload[..];
            let (text, bytes) =
                if is_rtp(payload) { (payload, rtp_head(payload)) } else { (payload, payload) };
            let place = || format!("{} -> {}", packet.source, packet.destination);
            self.search(text, bytes, place, &mut found);
        }
        for (source, destination, stream) in streams(packets) {
            // Ciphertext shows nothing, and may hold any bytes.
            if !is_tls(&stream) {
                self.search(&stream, &stream, || format!("{source} -> {destination} (TCP)"), &mut found);
            }
        }
        found
    }

    /// What of this side shows in a phone's trace of its messages.
    pub fn leaks_in_text(&self, text: &str, whose: &str) -> Vec<Leak> {
        let mut found = Vec::new();
        self.search(text.as_bytes(), &[], || whose.to_owned(), &mut found);
        found
    }

    fn search(&self, text: &[u8], bytes: &[u8], place: impl Fn() -> String, found: &mut Vec<Leak>) {
        let mut note = |what: String, at: usize, whole: &[u8]| {
            let around = whole.get(at.saturating_sub(1_500)..(at + 500).min(whole.len())).unwrap_or_default();
            found.push(Leak { what, place: place(), payload: String::from_utf8_lossy(around).into_owned() });
        };
        for address in &self.addresses {
            for form in forms(*address) {
                if let Some(at) = memmem::find(text, form.as_bytes()) {
                    note(format!("{form} in text"), at, text);
                }
            }
            let octets = match address {
                IpAddr::V4(ip) => ip.octets().to_vec(),
                IpAddr::V6(ip) => ip.octets().to_vec(),
            };
            if let Some(at) = memmem::find(bytes, &octets) {
                note(format!("{address} as {} bytes", octets.len()), at, bytes);
            }
        }
        for word in &self.words {
            if let Some(at) = memmem::find(text, word.as_bytes()) {
                note(format!("identifier {word}"), at, text);
            }
        }
    }
}

/// An NTP time of these days (RFC 8866 §5.2 suggests one as session id): two phones that begin in one second agree in it.
fn is_time(id: &str) -> bool {
    let now = std::time::SystemTime::UNIX_EPOCH.elapsed().unwrap_or_default().as_secs() + 2_208_988_800;
    id.parse::<u64>().is_ok_and(|id| id.abs_diff(now) < 86_400)
}

/// How an address may be written (RFC 5952, and IPv6 without its abbreviation).
fn forms(address: IpAddr) -> Vec<String> {
    let mut forms = vec![address.to_string()];
    if let IpAddr::V6(ip) = address {
        forms.push(address.to_string().to_ascii_uppercase());
        forms.push(ip.segments().map(|segment| format!("{segment:x}")).join(":"));
        forms.push(ip.segments().map(|segment| format!("{segment:04x}")).join(":"));
        forms.sort();
        forms.dedup();
    }
    forms
}

/// Fixed header, contributing sources and extension of RTP (RFC 3550 §5.1, §5.3.1).
fn rtp_head(packet: &[u8]) -> &[u8] {
    let first = packet.first().copied().unwrap_or_default();
    let mut end = 12 + 4 * usize::from(first & 15);
    if first & 0x10 != 0
        && let Some([_, _, high, low]) = packet.get(end..end + 4)
    {
        end += 4 + 4 * usize::from(u16::from_be_bytes([*high, *low]));
    }
    packet.get(..end).unwrap_or(packet)
}

/// A stream that begins with a handshake record of TLS (RFC 8446 §5.1).
fn is_tls(stream: &[u8]) -> bool {
    matches!(stream, [22, 3, ..])
}

/// The texts of all SDES items in a compound packet (RFC 3550 §6.5) but TOOL, in which two phones of one product agree.
pub fn names_in_rtcp(compound: &[u8]) -> impl Iterator<Item = String> {
    let mut names = Vec::new();
    let mut rest = compound;
    while let [_, kind, high, low, ..] = rest {
        let length = 4 * (usize::from(u16::from_be_bytes([*high, *low])) + 1);
        let Some(packet) = rest.get(..length) else { break };
        rest = rest.get(length..).unwrap_or_default();
        if *kind != 202 {
            continue;
        }
        let mut at = 4;
        while at + 4 < packet.len() {
            // A chunk: its source, items, and zeros up to the next word.
            at += 4;
            while let Some(&kind) = packet.get(at).filter(|kind| **kind != 0) {
                let length = usize::from(packet.get(at + 1).copied().unwrap_or_default());
                let text = packet.get(at + 2..at + 2 + length).unwrap_or_default();
                // PRIV's prefix has a length of its own; the text after it is what matters, and is found within.
                let text = if kind == 8 { text.get(1..).unwrap_or_default() } else { text };
                if kind != TOOL {
                    names.push(String::from_utf8_lossy(text).into_owned());
                }
                at += 2 + length;
            }
            at = (at / 4 + 1) * 4;
        }
    }
    names.into_iter()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn packet(protocol: u8, sequence: u32, payload: &[u8]) -> Packet {
        Packet {
            at: Duration::ZERO,
            protocol,
            source: "203.0.113.12:5060".parse().unwrap(),
            destination: "203.0.113.1:5060".parse().unwrap(),
            sequence,
            payload: payload.to_vec(),
        }
    }

    fn udp(payload: &[u8]) -> Packet {
        packet(17, 0, payload)
    }

    fn secrets(address: &str) -> Secrets {
        let mut secrets = Secrets::default();
        secrets.add_addresses([address.parse().unwrap()]);
        secrets
    }

    fn found(secrets: &Secrets, packets: &[Packet]) -> Vec<String> {
        secrets.leaks_in(packets).into_iter().map(|leak| leak.what).collect()
    }

    #[test]
    fn an_address_is_found_as_text_and_as_bytes() {
        let secrets = secrets("198.51.100.9");
        assert_eq!(found(&secrets, &[udp(b"c=IN IP4 198.51.100.9\r\n")]), ["198.51.100.9 in text"]);
        assert_eq!(found(&secrets, &[udp(&[0, 1, 198, 51, 100, 9, 7])]), ["198.51.100.9 as 4 bytes"]);
        assert_eq!(found(&secrets, &[udp(b"c=IN IP4 203.0.113.9\r\n")]), [""; 0]);
    }

    #[test]
    fn an_ipv6_address_is_found_in_each_of_its_forms() {
        let secrets = secrets("2001:db8:a::9");
        for text in ["c=IN IP6 2001:db8:a::9", "[2001:DB8:A::9]", "2001:db8:a:0:0:0:0:9"] {
            assert_eq!(found(&secrets, &[udp(text.as_bytes())]).len(), 1, "{text}");
        }
        let mut bytes = vec![1, 2, 3];
        bytes.extend("2001:db8:a::9".parse::<std::net::Ipv6Addr>().unwrap().octets());
        assert_eq!(found(&secrets, &[udp(&bytes)]), ["2001:db8:a::9 as 16 bytes"]);
    }

    #[test]
    fn bytes_in_the_payload_of_rtp_are_no_leak_but_in_its_head_and_in_rtcp_they_are() {
        let secrets = secrets("198.51.100.9");
        let address = [198, 51, 100, 9];
        let rtp = [&[0x80, 0, 0, 1, 0, 0, 0, 0, 1, 2, 3, 4][..], &address].concat();
        assert_eq!(found(&secrets, &[udp(&rtp)]).len(), 0);
        let with_extension =
            [&[0x90, 0, 0, 1, 0, 0, 0, 0, 1, 2, 3, 4, 0xbe, 0xde, 0, 1][..], &address, &[1; 160]].concat();
        assert_eq!(found(&secrets, &[udp(&with_extension)]).len(), 1);
        let contributing = [&[0x81, 0, 0, 1, 0, 0, 0, 0, 1, 2, 3, 4][..], &address, &[1; 160]].concat();
        assert_eq!(found(&secrets, &[udp(&contributing)]).len(), 1);
        let rtcp = [&[0x80, 202, 0, 3, 0, 0, 0, 0, 1, 2, 3, 4][..], &address].concat();
        assert_eq!(found(&secrets, &[udp(&rtcp)]).len(), 1);
    }

    #[test]
    fn an_address_that_lies_across_two_segments_is_found() {
        let segments = [packet(6, 1, b"c=IN IP4 198.51."), packet(6, 17, b"100.9\r\n")];
        assert_eq!(found(&secrets("198.51.100.9"), &segments), ["198.51.100.9 in text"]);
        // The same in ciphertext means nothing.
        let segments = [packet(6, 1, &[22, 3, 1, 0, 9]), packet(6, 6, &[198, 51, 100, 9])];
        assert_eq!(found(&secrets("198.51.100.9"), &segments), [""; 0]);
    }

    #[test]
    fn call_ids_tags_branches_and_origins_of_one_side_are_found_on_the_other() {
        let message = "INVITE sip:a@b SIP/2.0\r\nVia: SIP/2.0/UDP h;branch=z9hG4bKabc;rport\r\n\
            From: <sip:x@y>;tag=fromtag1\r\nt: <sip:a@b>;tag=totag22\r\ni: call-id-1\r\n\r\nv=0\r\no=- 1234567 1 IN IP4 h\r\n";
        let over_udp = {
            let mut secrets = Secrets::default();
            secrets.add_packets(&[udp(message.as_bytes())], &[]);
            secrets
        };
        let over_tcp = {
            let (first, last) = message.split_at(70);
            let mut secrets = Secrets::default();
            let last = packet(6, 71, last.as_bytes());
            secrets.add_packets(&[packet(6, 1, first.as_bytes()), last], &[]);
            secrets
        };
        for secrets in [over_udp, over_tcp] {
            assert_eq!(secrets.words(), 5);
            for planted in [
                "SIP/2.0 200 OK\r\nCall-ID: call-id-1\r\n",
                "Refer-To: <sip:a@b?Replaces=c%3Bfrom-tag%3Dfromtag1>",
                "NOTIFY x SIP/2.0\r\n\r\nSIP/2.0 200 OK\r\nTo: <sip:a@b>;tag=totag22",
                "Via: SIP/2.0/TCP z;branch=z9hG4bKabc",
                "o=- 1234567 2 IN IP4 z",
            ] {
                assert_eq!(found(&secrets, &[udp(planted.as_bytes())]).len(), 1, "{planted}");
                assert_eq!(secrets.leaks_in_text(planted, "trace").len(), 1, "{planted}");
            }
        }
    }

    #[test]
    fn names_in_rtcp_are_found_on_the_other_side_unless_the_sbc_gave_them() {
        let mut sdes = vec![0x82, 202, 0, 7, 0, 0, 0, 1, 1, 9];
        sdes.extend(b"alice@pc1");
        sdes.push(0);
        sdes.extend([0, 0, 0, 2, 3, 5]);
        sdes.extend(b"a@b.c");
        sdes.push(0);
        let mut secrets = Secrets::default();
        secrets.add_packets(&[udp(&sdes)], &["203.0.113.12".parse().unwrap()]);
        assert_eq!(secrets.words(), 0);
        secrets.add_packets(&[udp(&sdes)], &[]);
        assert_eq!(found(&secrets, &[udp(&sdes)]), ["identifier alice@pc1"], "the other is too short");
    }
}
