//! Session descriptions (RFC 8866), edited line by line: what needs no change stays byte for byte.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use bytes::{BufMut, Bytes, BytesMut};
use memchr::{memchr, memmem};

/// Greatest description and number of m-lines that are read.
const MAX_LENGTH: usize = 32_768;
const MAX_STREAMS: usize = 32;

/// Why a description cannot be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    /// It is not SDP, or breaks its grammar where that matters.
    #[error("the session description can't be read")]
    Malformed,
    /// It is too large.
    #[error("the session description is too large")]
    TooLarge,
}

/// RFC 3264 §5.1, as the author means it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Direction {
    /// Both ways.
    #[default]
    SendRecv,
    /// Its author only sends.
    SendOnly,
    /// Its author only receives.
    RecvOnly,
    /// Neither.
    Inactive,
}

impl Direction {
    fn line(self) -> &'static [u8] {
        match self {
            Self::SendRecv => b"a=sendrecv",
            Self::SendOnly => b"a=sendonly",
            Self::RecvOnly => b"a=recvonly",
            Self::Inactive => b"a=inactive",
        }
    }
}

/// One m-line and what belongs to it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Media {
    /// `audio`, `video`, `image`, ...
    pub kind: String,
    /// The port; 0 refuses the stream.
    pub port: u16,
    /// `RTP/AVP`, `RTP/SAVPF`, `udptl`, `TCP/MSRP`, ...
    pub profile: String,
    /// Where RTP goes; `None` where the address is a name or unspecified (an old way of holding).
    pub rtp: Option<SocketAddr>,
    /// Where RTCP goes: `a=rtcp` (RFC 3605) or the next port.
    pub rtcp: Option<SocketAddr>,
    /// Direction, the session's if it has none of its own.
    pub direction: Direction,
    /// Payload type, encoding name, clock rate, in order of preference.
    pub codecs: Vec<(u8, String, u32)>,
    /// Its author can take RTCP on the port of RTP (RFC 5761 §5.1.1).
    pub rtcp_mux: bool,
    /// The unspecified address: an old way of holding (RFC 3264 §8.4). Nothing must be sent there.
    pub is_parked: bool,
    /// Media keys are agreed here, in SDES or DTLS: what the packets hold is not for us.
    pub is_secure: bool,
}

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

impl Media {
    /// Whether RTP and RTCP run here, rather than another protocol over UDP.
    pub fn is_rtp(&self) -> bool {
        self.profile.contains("RTP/")
    }

    /// Whether datagrams carry it at all.
    pub fn is_datagram(&self) -> bool {
        self.is_rtp()
            || self.profile.eq_ignore_ascii_case("udptl")
            || self.profile.to_ascii_uppercase().starts_with("UDP")
    }
}

/// A readable description.
#[derive(Debug, Clone)]
pub struct Description {
    bytes: Bytes,
    lines: Vec<(usize, usize)>,
    /// Its m-lines.
    pub media: Vec<Media>,
}

impl Description {
    /// Reads it. Lines end in CRLF or LF; unknown lines are kept.
    pub fn parse(bytes: Bytes) -> Result<Self, Fault> {
        if bytes.len() > MAX_LENGTH {
            return Err(Fault::TooLarge);
        }
        let mut lines = Vec::with_capacity(32);
        let mut at = 0;
        while at < bytes.len() {
            let end = memchr(b'\n', &bytes[at..]).map_or(bytes.len(), |found| at + found);
            let text_end = if end > at && bytes[end - 1] == b'\r' { end - 1 } else { end };
            if text_end > at {
                let line = &bytes[at..text_end];
                if line.len() < 2 || line[1] != b'=' || !line[0].is_ascii_lowercase() {
                    return Err(Fault::Malformed);
                }
                lines.push((at, text_end));
            }
            at = end + 1;
        }
        let first = lines.first().map(|line| &bytes[line.0..line.1]);
        if first != Some(b"v=0") {
            return Err(Fault::Malformed);
        }
        let mut description = Self { bytes, lines, media: Vec::new() };
        description.media = description.read_media()?;
        Ok(description)
    }

    fn line(&self, index: usize) -> &[u8] {
        self.lines.get(index).map_or(b"", |line| &self.bytes[line.0..line.1])
    }

    fn read_media(&self) -> Result<Vec<Media>, Fault> {
        let mut media: Vec<Media> = Vec::new();
        let mut session_address = None;
        let mut session_direction = Direction::SendRecv;
        let mut has_fingerprint = false;
        let mut rtcp: Vec<Option<(u16, Option<IpAddr>)>> = Vec::new();
        let mut addresses: Vec<Option<Option<IpAddr>>> = Vec::new();
        for index in 0..self.lines.len() {
            let line = self.line(index);
            match line[0] {
                b'm' => {
                    if media.len() == MAX_STREAMS {
                        return Err(Fault::TooLarge);
                    }
                    media.push(read_m_line(&line[2..], session_direction)?);
                    rtcp.push(None);
                    addresses.push(None);
                }
                b'c' => {
                    let address = read_connection(&line[2..])?;
                    match addresses.last_mut() {
                        Some(own) => *own = Some(address),
                        None => session_address = address,
                    }
                }
                b'a' => {
                    if let Some(direction) = direction_of(&line[2..]) {
                        match media.last_mut() {
                            Some(media) => media.direction = direction,
                            None => session_direction = direction,
                        }
                    } else if line.starts_with(b"a=fingerprint:") && media.is_empty() {
                        has_fingerprint = true;
                    } else if let (Some(media), Some(rest)) =
                        (media.last_mut(), line[2..].strip_prefix(b"rtpmap:"))
                    {
                        read_rtpmap(rest, media);
                    } else if let (Some(media), b"rtcp-mux") = (media.last_mut(), &line[2..]) {
                        media.rtcp_mux = true;
                    } else if let (Some(media), true) = (media.last_mut(), is_key(&line[2..])) {
                        media.is_secure = true;
                    } else if let (Some(own), Some(rest)) =
                        (rtcp.last_mut(), line[2..].strip_prefix(b"rtcp:"))
                    {
                        *own = read_rtcp(rest);
                    }
                }
                _ => {}
            }
        }
        for ((media, rtcp), address) in media.iter_mut().zip(rtcp).zip(addresses) {
            let address = address.unwrap_or(session_address);
            if media.port == 0 {
                continue;
            }
            media.is_secure |= has_fingerprint || media.profile.contains("SAVP");
            media.is_parked = address.is_some_and(|address| address.is_unspecified());
            let address = address.filter(|address| !address.is_unspecified());
            media.rtp = address.map(|address| SocketAddr::new(address, media.port));
            let (port, own) = rtcp.unwrap_or((media.port.wrapping_add(1), None));
            media.rtcp = own.or(address).map(|address| SocketAddr::new(address, port));
        }
        Ok(media)
    }

    /// Texts that must not reach the other side: the addresses in o= and c= lines and in `a=rtcp`.
    fn addresses(&self) -> Vec<&[u8]> {
        let mut found = Vec::new();
        for index in 0..self.lines.len() {
            let line = self.line(index);
            if matches!(line[0], b'o' | b'c') || line.starts_with(b"a=rtcp:") {
                let word = line.rsplit(|byte| *byte == b' ').next().unwrap_or_default();
                let word = word.split(|byte| *byte == b'/').next().unwrap_or_default();
                if names_a_host(word) && !found.contains(&word) {
                    found.push(word);
                }
            }
        }
        found
    }

    /// The description for another party: `origin` is its o= value, `places` where each m-line is (`None` refuses it),
    /// `cname` what stands in for RTCP names. Lines that name the author's addresses go.
    pub fn rewrite(&self, origin: &str, places: &[Option<Place>], cname: &str) -> Bytes {
        let mut out = BytesMut::with_capacity(self.bytes.len() + 128);
        let secrets = self.addresses();
        let session = places.iter().flatten().next().copied();
        let mut current: Option<Place> = None;
        let mut stream = 0;
        let mut wrote_connection = false;
        let mut owes_mux = false;
        for index in 0..self.lines.len() {
            let line = self.line(index);
            match line[0] {
                b'o' => put(&mut out, format!("o={origin}").as_bytes()),
                b'm' => {
                    if let Some(place) = current {
                        place.put_own(owes_mux, &mut out);
                    }
                    current = places.get(stream).copied().flatten();
                    owes_mux = current.is_some_and(|place| place.rtcp_mux);
                    put(&mut out, &with_port(line, current.map_or(0, |place| place.rtp.port())));
                    stream += 1;
                    let needs_own = !wrote_connection
                        || current.map(|place| place.rtp.ip()) != session.map(|place| place.rtp.ip());
                    let has_own = (index + 1..self.lines.len())
                        .map(|next| self.line(next))
                        .take_while(|next| next[0] != b'm')
                        .any(|next| next[0] == b'c');
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
                b'a' if line == MUX => {
                    if std::mem::take(&mut owes_mux) {
                        put(&mut out, MUX);
                    }
                }
                b'a' if is_per_leg(&line[2..]) => {}
                // The session's stays for the m-lines that we say nothing of.
                b'a' if current.is_some_and(|place| place.direction.is_some())
                    && direction_of(&line[2..]).is_some() => {}
                b'a' if line.starts_with(b"a=ssrc:") && memmem::find(line, b" cname:").is_some() => {
                    let end = memmem::find(line, b" cname:").unwrap_or(line.len());
                    put(&mut out, &[&line[..end], b" cname:", cname.as_bytes()].concat());
                }
                _ if secrets.iter().any(|secret| memmem::find(line, secret).is_some()) => {}
                _ => put(&mut out, line),
            }
        }
        if let Some(place) = current {
            place.put_own(owes_mux, &mut out);
        }
        out.freeze()
    }

    /// How many bytes it has.
    pub fn len(&self) -> usize {
        self.bytes.len()
    }

    /// Never: a description has its version line.
    pub fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }
}

/// An address, or a name with a domain: a word that means its author wherever it stands. (`o=- 1 1 IN IP4 101` must not
/// cost the line `a=rtpmap:101`.)
fn names_a_host(word: &[u8]) -> bool {
    let is_name = memchr(b'.', word).is_some()
        && word.iter().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_'));
    let address = std::str::from_utf8(word).ok().and_then(|word| word.parse::<IpAddr>().ok());
    address.map_or(is_name && word.len() >= 4, |address| !address.is_unspecified())
}

/// Removed or answered per leg, never passed: what lets the ends find each other past the relay.
fn is_per_leg(attribute: &[u8]) -> bool {
    let name = attribute.split(|byte| *byte == b':').next().unwrap_or_default();
    let names: [&[u8]; 12] = [
        b"candidate",
        b"remote-candidates",
        b"end-of-candidates",
        b"ice-ufrag",
        b"ice-pwd",
        b"ice-options",
        b"ice-lite",
        b"ice-mismatch",
        b"ice-pacing",
        b"rtcp-mux",
        b"rtcp-mux-only",
        b"rtcp",
    ];
    names.contains(&name)
        || name == b"crush"
        || name == b"bundle-only"
        || attribute.starts_with(b"group:BUNDLE")
        || name == b"alt"
        // Names the author's product, as User-Agent does (RFC 4566 §6).
        || name == b"tool"
}

const MUX: &[u8] = b"a=rtcp-mux";

/// SDES (RFC 4568) or DTLS (RFC 8122).
fn is_key(attribute: &[u8]) -> bool {
    attribute.starts_with(b"crypto:") || attribute.starts_with(b"fingerprint:")
}

fn put(out: &mut BytesMut, line: &[u8]) {
    out.put_slice(line);
    out.put_slice(b"\r\n");
}

fn connection(address: IpAddr) -> String {
    match address {
        IpAddr::V4(address) => format!("c=IN IP4 {address}"),
        IpAddr::V6(address) => format!("c=IN IP6 {address}"),
    }
}

/// An m-line with another port in the place of its second word, which [`read_m_line`] has found there.
fn with_port(line: &[u8], port: u16) -> Vec<u8> {
    let mut words = line.split(|byte| *byte == b' ').filter(|word| !word.is_empty());
    let (kind, old) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
    let at = memmem::find(&line[kind.len()..], old).map_or(line.len(), |at| kind.len() + at);
    [&line[..at], port.to_string().as_bytes(), line.get(at + old.len()..).unwrap_or_default()].concat()
}

fn read_m_line(text: &[u8], direction: Direction) -> Result<Media, Fault> {
    let text = std::str::from_utf8(text).map_err(|_| Fault::Malformed)?;
    let mut words = text.split(' ').filter(|word| !word.is_empty());
    let (Some(kind), Some(port), Some(profile)) = (words.next(), words.next(), words.next()) else {
        return Err(Fault::Malformed);
    };
    if text.starts_with(' ') {
        return Err(Fault::Malformed);
    }
    // Several ports (`49170/2`) are layered coding, which nobody sends.
    let port = port.split('/').next().unwrap_or_default().parse().map_err(|_| Fault::Malformed)?;
    let codecs = words.filter_map(|word| word.parse().ok()).map(static_codec).collect();
    Ok(Media {
        kind: kind.to_owned(),
        port,
        profile: profile.to_owned(),
        rtp: None,
        rtcp: None,
        direction,
        codecs,
        rtcp_mux: false,
        is_parked: false,
        is_secure: false,
    })
}

/// RFC 3551 §6.
fn static_codec(number: u8) -> (u8, String, u32) {
    let (name, rate) = match number {
        0 => ("PCMU", 8000),
        3 => ("GSM", 8000),
        4 => ("G723", 8000),
        8 => ("PCMA", 8000),
        9 => ("G722", 8000),
        13 => ("CN", 8000),
        18 => ("G729", 8000),
        26 => ("JPEG", 90_000),
        31 => ("H261", 90_000),
        34 => ("H263", 90_000),
        _ => ("", 8000),
    };
    (number, name.to_owned(), rate)
}

fn read_rtpmap(text: &[u8], media: &mut Media) {
    let Ok(text) = std::str::from_utf8(text) else { return };
    let Some((number, encoding)) = text.split_once(' ') else { return };
    let mut parts = encoding.trim().split('/');
    let (Ok(number), Some(name)) = (number.trim().parse::<u8>(), parts.next()) else { return };
    let rate = parts.next().and_then(|rate| rate.parse().ok()).unwrap_or(8000);
    if let Some(codec) = media.codecs.iter_mut().find(|codec| codec.0 == number) {
        *codec = (number, name.to_owned(), rate);
    }
}

/// `IN IP4 address[/ttl]`; a name is no address.
fn read_connection(text: &[u8]) -> Result<Option<IpAddr>, Fault> {
    let text = std::str::from_utf8(text).map_err(|_| Fault::Malformed)?;
    let mut words = text.split(' ').filter(|word| !word.is_empty());
    let (Some(network), Some(kind), Some(address)) = (words.next(), words.next(), words.next()) else {
        return Err(Fault::Malformed);
    };
    if network != "IN" {
        return Ok(None);
    }
    let address = address.split('/').next().unwrap_or_default();
    Ok(match kind {
        "IP4" => address.parse::<Ipv4Addr>().ok().filter(|address| !address.is_multicast()).map(IpAddr::V4),
        "IP6" => address.parse::<Ipv6Addr>().ok().filter(|address| !address.is_multicast()).map(IpAddr::V6),
        _ => return Err(Fault::Malformed),
    })
}

fn read_rtcp(text: &[u8]) -> Option<(u16, Option<IpAddr>)> {
    let text = std::str::from_utf8(text).ok()?;
    let mut words = text.split(' ').filter(|word| !word.is_empty());
    let port = words.next()?.parse().ok()?;
    Some((port, words.nth(2).and_then(|address| address.parse().ok())))
}

fn direction_of(attribute: &[u8]) -> Option<Direction> {
    match attribute {
        b"sendrecv" => Some(Direction::SendRecv),
        b"sendonly" => Some(Direction::SendOnly),
        b"recvonly" => Some(Direction::RecvOnly),
        b"inactive" => Some(Direction::Inactive),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OFFER: &str = "v=0\r\no=alice 1 2 IN IP4 10.1.1.9\r\ns=-\r\nc=IN IP4 10.1.1.9\r\nt=0 0\r\na=group:BUNDLE 0\r\na=tool:baresip 1.0.0\r\nm=audio 4000 RTP/AVP 8 96\r\na=rtpmap:96 opus/48000/2\r\na=rtcp:4009\r\na=rtcp-mux\r\na=candidate:1 1 UDP 1 10.1.1.9 4000 typ host\r\na=ssrc:1 cname:alice@10.1.1.9\r\na=x-unknown:kept\r\na=sendonly\r\nm=image 0 udptl t38\r\n";

    #[test]
    fn a_description_is_read() {
        let description = Description::parse(OFFER.into()).unwrap();
        let audio = &description.media[0];
        assert_eq!(audio.rtp, Some("10.1.1.9:4000".parse().unwrap()));
        assert_eq!(audio.rtcp, Some("10.1.1.9:4009".parse().unwrap()));
        assert_eq!(audio.direction, Direction::SendOnly);
        assert_eq!(audio.codecs, [(8, "PCMA".to_owned(), 8000), (96, "opus".to_owned(), 48000)]);
        assert_eq!(description.media[1].rtp, None);
    }

    #[test]
    fn nothing_of_its_author_is_left_and_what_is_unknown_passes() {
        let description = Description::parse(OFFER.into()).unwrap();
        let out = description.rewrite(
            "- 7 1 IN IP6 2001:db8::1",
            &[Some(Place::at("[2001:db8::1]:20000".parse().unwrap())), None],
            "x",
        );
        let out = std::str::from_utf8(&out).unwrap();
        assert!(
            !out.contains("10.1.1.9")
                && !out.contains("candidate")
                && !out.contains("BUNDLE")
                && !out.contains("mux")
                && !out.contains("baresip"),
            "{out}"
        );
        for line in [
            "o=- 7 1 IN IP6 2001:db8::1\r\n",
            "c=IN IP6 2001:db8::1\r\n",
            "m=audio 20000 RTP/AVP 8 96\r\n",
            "a=x-unknown:kept\r\n",
            "a=ssrc:1 cname:x\r\n",
            "m=image 0 udptl t38\r\n",
            "s=-\r\n",
        ] {
            assert!(out.contains(line), "{line} not in {out}");
        }
    }

    #[test]
    fn an_origin_that_is_no_host_costs_no_line() {
        let offer = "v=0\r\no=- 1 1 IN IP4 101\r\ns=-\r\nc=IN IP4 10.1.1.9\r\nt=0 0\r\nm=audio 4000 RTP/AVP 101\r\na=rtpmap:101 opus/48000/2\r\n";
        let description = Description::parse(offer.into()).unwrap();
        let place = Place::at("192.0.2.1:2000".parse().unwrap());
        let out = description.rewrite("- 1 1 IN IP4 192.0.2.1", &[Some(place)], "x");
        assert!(memmem::find(&out, b"a=rtpmap:101 opus/48000/2\r\n").is_some());
    }

    #[test]
    fn multiplexing_is_said_on_our_own_account_once_per_stream() {
        let place = |rtcp_mux| Some(Place { rtcp_mux, ..Place::at("192.0.2.1:20000".parse().unwrap()) });
        let count = |text: &str, places: &[Option<Place>]| {
            let out = Description::parse(text.to_owned().into()).unwrap().rewrite("o", places, "x");
            String::from_utf8(out.to_vec()).unwrap()
        };
        let with = "v=0\r\nm=audio 4000 RTP/AVP 0\r\na=rtcp-mux\r\na=x\r\nm=video 5000 RTP/AVP 99\r\n";
        assert_eq!(
            count(with, &[place(true), place(true)]),
            "v=0\r\nm=audio 20000 RTP/AVP 0\r\nc=IN IP4 192.0.2.1\r\na=rtcp-mux\r\na=x\r\nm=video 20000 RTP/AVP 99\r\nc=IN IP4 192.0.2.1\r\na=rtcp-mux\r\n"
        );
        assert!(!count(with, &[place(false), place(false)]).contains("mux"));
    }

    #[test]
    fn a_released_stream_goes_elsewhere_than_its_reports_and_a_held_one_is_inactive() {
        let text = "v=0\r\no=- 1 1 IN IP4 192.0.2.1\r\nc=IN IP4 192.0.2.1\r\na=sendrecv\r\nm=audio 20000 RTP/AVP 0\r\na=rtcp:20001\r\na=sendrecv\r\n";
        let description = Description::parse(text.into()).unwrap();
        let written = |place| {
            let out = description.rewrite("- 1 2 IN IP4 192.0.2.1", &[Some(place)], "x");
            let read = Description::parse(out.clone()).unwrap().media.remove(0);
            (String::from_utf8(out.to_vec()).unwrap(), read)
        };
        let (away, media) = written(Place {
            rtcp: Some("192.0.2.1:20001".parse().unwrap()),
            ..Place::at("203.0.113.8:5000".parse().unwrap())
        });
        assert!(away.contains("o=- 1 2 IN IP4 192.0.2.1\r\n"), "{away}");
        assert_eq!(media.rtp, Some("203.0.113.8:5000".parse().unwrap()));
        assert_eq!(media.rtcp, Some("192.0.2.1:20001".parse().unwrap()));
        let (held, media) = written(Place {
            direction: Some(Direction::Inactive),
            ..Place::at("192.0.2.1:20000".parse().unwrap())
        });
        assert_eq!((media.direction, held.matches("a=inactive").count()), (Direction::Inactive, 1), "{held}");
    }

    #[test]
    fn keys_and_the_unspecified_address_are_seen() {
        let text = "v=0\r\nc=IN IP4 0.0.0.0\r\nm=audio 4000 RTP/AVP 0\r\na=crypto:1 AES_CM_128_HMAC_SHA1_80 inline:x\r\nm=audio 4002 RTP/SAVP 0\r\nm=audio 4004 RTP/AVP 0\r\nc=IN IP4 pbx.example\r\n";
        let media = Description::parse(text.into()).unwrap().media;
        assert_eq!(
            media.iter().map(|one| (one.is_secure, one.is_parked, one.rtp)).collect::<Vec<_>>(),
            [(true, true, None), (true, true, None), (false, false, None)]
        );
    }

    #[test]
    fn what_is_not_sdp_is_refused_without_a_panic() {
        for text in [
            "",
            "v=1\r\n",
            "hello",
            "v=0\r\nm=audio x RTP/AVP 0\r\n",
            "v=0\r\nm=audio\r\n",
            "v=0\r\nc=IN\r\n",
            "v=0\r\n=\r\n",
        ] {
            assert!(Description::parse(text.to_owned().into()).is_err(), "{text:?}");
        }
    }
}
