//! A description for another party: like its author's, with other places, and without what must not be known.

use std::net::{IpAddr, SocketAddr};

use bytes::{BufMut, Bytes, BytesMut};
use memchr::memmem;

use super::hiding::{is_per_leg, names_a_host, names_an_address};
use super::read::direction_of;
use super::{Description, Direction};

/// Where one m-line is, for the party that a description goes to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Place {
    /// Our RTP port, or where a released stream goes.
    pub rtp: SocketAddr,
    /// Where RTCP goes, if not to the port after it (RFC 3605).
    pub rtcp: Option<SocketAddr>,
    /// Whether we say `a=rtcp-mux`.
    pub rtcp_mux: bool,
    /// What is said in the place of the author's direction.
    pub direction: Option<Direction>,
}

impl Place {
    /// A pair of ports.
    pub fn at(rtp: SocketAddr) -> Self {
        Self { rtp, rtcp: None, rtcp_mux: false, direction: None }
    }

    /// The attributes that are ours, as far as the author's have not given them a place.
    fn put_own(self, owes_mux: bool, out: &mut BytesMut) {
        if owes_mux {
            put(out, MUX);
        }
        if let Some(rtcp) = self.rtcp {
            let family = if rtcp.is_ipv6() { "IP6" } else { "IP4" };
            put(out, format!("a=rtcp:{} IN {family} {}", rtcp.port(), rtcp.ip()).as_bytes());
        }
        if let Some(direction) = self.direction {
            put(out, direction.line());
        }
    }
}

/// How a description is written for another party.
#[derive(Debug, Clone, Copy)]
pub struct Edition<'a> {
    /// The value of o=.
    pub origin: &'a str,
    /// Where each m-line is; `None` refuses it.
    pub places: &'a [Option<Place>],
    /// What stands in for RTCP names.
    pub cname: &'a str,
    /// A line of the session more: `a=crush`.
    pub support: Option<&'a str>,
    /// Lines that each m-line gets at its end, with their ends: those of ICE.
    pub ice: &'a [Bytes],
}

impl<'a> Edition<'a> {
    /// Without lines of CRUSH or ICE.
    pub fn new(origin: &'a str, places: &'a [Option<Place>], cname: &'a str) -> Self {
        Self { origin, places, cname, support: None, ice: &[] }
    }

    /// What is ours at the end of the m-line before the one numbered `next`, or of the session.
    fn end_section(&self, next: usize, place: Option<Place>, owes_mux: bool, out: &mut BytesMut) {
        let Some(ended) = next.checked_sub(1) else {
            return self.support.into_iter().for_each(|line| put(out, line.as_bytes()));
        };
        if let Some(place) = place {
            place.put_own(owes_mux, out);
        }
        if let Some(lines) = self.ice.get(ended) {
            out.put_slice(lines);
        }
    }
}

impl Description {
    /// Texts that must not reach the other side: the addresses in o= and c= lines and in `a=rtcp`.
    fn addresses(&self) -> Vec<&[u8]> {
        let mut found = Vec::new();
        for index in 0..self.lines.len() {
            let line = self.line(index);
            if matches!(line, [b'o' | b'c', ..]) || line.starts_with(b"a=rtcp:") {
                let word = line.rsplit(|byte| *byte == b' ').next().unwrap_or_default();
                let word = word.split(|byte| *byte == b'/').next().unwrap_or_default();
                if names_a_host(word) && !found.contains(&word) {
                    found.push(word);
                }
            }
        }
        found
    }

    /// The description for another party. Lines that name the author's addresses go.
    pub fn rewrite(&self, edition: &Edition<'_>) -> Bytes {
        let Edition { origin, places, cname, support, ice } = *edition;
        let more =
            ice.iter().map(Bytes::len).chain(support.map(str::len)).fold(160_usize, usize::saturating_add);
        let mut out = BytesMut::with_capacity(self.bytes.len().saturating_add(more));
        let secrets = self.addresses();
        let is_secret = |line: &[u8]| {
            names_an_address(line) || secrets.iter().any(|secret| memmem::find(line, secret).is_some())
        };
        let session = places.iter().flatten().next().copied();
        let mut begins = self.media.iter().any(|media| media.begins);
        let mut current: Option<Place> = None;
        let mut stream = 0_usize;
        let mut wrote_connection = false;
        let mut owes_mux = false;
        for index in 0..self.lines.len() {
            let line = self.line(index);
            let (Some(kind), Some(value)) = (line.first(), line.get(2..)) else { continue };
            match kind {
                b'o' => put(&mut out, format!("o={origin}").as_bytes()),
                b'm' => {
                    edition.end_section(stream, current, owes_mux, &mut out);
                    current = places.get(stream).copied().flatten();
                    // Of who holds by an unspecified address the address does not pass, so its meaning does.
                    let media = self.media.get(stream);
                    if let (Some(place), Some(media)) = (&mut current, media) {
                        place.direction = place.direction.or(media.is_parked.then_some(media.direction));
                    }
                    begins = media.is_some_and(|media| media.begins);
                    owes_mux = current.is_some_and(|place| place.rtcp_mux);
                    put(&mut out, &with_port(value, current.map_or(0, |place| place.rtp.port())));
                    stream = stream.saturating_add(1);
                    let needs_own = !wrote_connection
                        || current.map(|place| place.rtp.ip()) != session.map(|place| place.rtp.ip());
                    let has_own = (index.saturating_add(1)..self.lines.len())
                        .map(|next| self.line(next))
                        .take_while(|next| !next.starts_with(b"m="))
                        .any(|next| next.starts_with(b"c="));
                    // i= stands before c=; none of the peers cares for their order.
                    if needs_own
                        && !has_own
                        && let Some(place) = current.or(session)
                    {
                        put(&mut out, connection(place.rtp.ip()).as_bytes());
                    }
                }
                b'c' => {
                    let place = if stream == 0 { session } else { current.or(session) };
                    wrote_connection |= stream == 0;
                    match place {
                        Some(place) => put(&mut out, connection(place.rtp.ip()).as_bytes()),
                        None => put(&mut out, b"c=IN IP4 0.0.0.0"),
                    }
                }
                // Answered on our own account, where it stood if it stood there.
                b'a' if value.eq_ignore_ascii_case(b"rtcp-mux") => {
                    if std::mem::take(&mut owes_mux) {
                        put(&mut out, MUX);
                    }
                }
                b'a' if is_per_leg(value) => {}
                b'a' if begins && value.eq_ignore_ascii_case(b"setup:actpass") => {
                    put(&mut out, b"a=setup:active");
                }
                // The session's stays for the m-lines that we say nothing of.
                b'a' if current.is_some_and(|place| place.direction.is_some())
                    && direction_of(value).is_some() => {}
                b'a' if line.starts_with(b"a=ssrc:") && memmem::find(line, b" cname:").is_some() => {
                    let end = memmem::find(line, b" cname:").and_then(|end| line.get(..end)).unwrap_or(line);
                    put(&mut out, &[end, b" cname:", cname.as_bytes()].concat());
                }
                // A description must have a name (RFC 8866 §5.3).
                b's' if is_secret(line) => put(&mut out, b"s=-"),
                _ if is_secret(line) => {}
                _ => put(&mut out, line),
            }
        }
        edition.end_section(stream, current, owes_mux, &mut out);
        out.freeze()
    }
}

/// The same description with another version in its o= line (RFC 8866 §5.2), where that has one.
pub fn with_version(sdp: &[u8], version: u64) -> Bytes {
    let mut out = BytesMut::with_capacity(sdp.len().saturating_add(20));
    let mut rest = sdp;
    while let Some(end) = memchr::memchr(b'\n', rest) {
        let (line, after) = rest.split_at(end.saturating_add(1));
        rest = after;
        if !line.starts_with(b"o=") {
            out.put_slice(line);
            continue;
        }
        // Whatever the name in front is: session, version, IN, family, address.
        let mut words: Vec<&[u8]> = line.split(|byte| *byte == b' ').collect();
        let version = version.to_string();
        if let Some(place) = words.len().checked_sub(4).and_then(|place| words.get_mut(place)) {
            *place = version.as_bytes();
        }
        out.put_slice(&words.join(&b' '));
        break;
    }
    out.put_slice(rest);
    out.freeze()
}

const MUX: &[u8] = b"a=rtcp-mux";

pub(super) fn put(out: &mut BytesMut, line: &[u8]) {
    out.put_slice(line);
    out.put_slice(b"\r\n");
}

fn connection(address: IpAddr) -> String {
    match address {
        IpAddr::V4(address) => format!("c=IN IP4 {address}"),
        IpAddr::V6(address) => format!("c=IN IP6 {address}"),
    }
}

/// An m-line with another port as its second word; words that name an address go.
fn with_port(value: &[u8], port: u16) -> Vec<u8> {
    let port = port.to_string();
    let words = value.split(u8::is_ascii_whitespace).filter(|word| !word.is_empty());
    let words = words.enumerate().map(|(place, word)| if place == 1 { port.as_bytes() } else { word });
    let words: Vec<&[u8]> = words.filter(|word| !names_an_address(word)).collect();
    [b"m=", words.join(&b' ').as_slice()].concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn another_version_changes_nothing_else() {
        let sdp = "v=0\r\no=- 7 0 IN IP4 192.0.2.1\r\ns=o= 1\r\nt=0 0\r\n";
        let out = with_version(sdp.as_bytes(), 12);
        assert_eq!(out, sdp.replace("o=- 7 0", "o=- 7 12").as_bytes());
        assert_eq!(with_version(b"v=0\r\ns=-\r\n", 1), &b"v=0\r\ns=-\r\n"[..]);
    }

    #[test]
    fn lines_of_ice_go_to_the_end_of_their_section_and_that_of_crush_to_the_end_of_the_session() {
        let text = "v=0\r\nm=audio 1 RTP/AVP 0\r\na=x\r\nm=video 2 RTP/AVP 99\r\n";
        let places = [Some(Place::at("192.0.2.1:2000".parse().unwrap())), None];
        let ice = [Bytes::from_static(b"a=1\r\n"), Bytes::new()];
        let edition = Edition { support: Some("a=crush:1"), ice: &ice, ..Edition::new("o", &places, "x") };
        let out = Description::parse(text.into()).unwrap().rewrite(&edition);
        assert_eq!(
            out,
            "v=0\r\na=crush:1\r\nm=audio 2000 RTP/AVP 0\r\nc=IN IP4 192.0.2.1\r\na=x\r\na=1\r\nm=video 0 RTP/AVP 99\r\nc=IN IP4 192.0.2.1\r\n"
        );
        let without = Description::parse("v=0\r\n".into()).unwrap().rewrite(&Edition { ice: &[], ..edition });
        assert_eq!(without, "v=0\r\na=crush:1\r\n");
    }
}
