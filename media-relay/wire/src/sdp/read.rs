//! How a description is read, line by line.

use std::net::{IpAddr, SocketAddr};

use super::hiding::{name, names_an_address};
use super::{Direction, Fault, Media};

/// What stands before the first m-line.
#[derive(Debug, Default)]
pub(super) struct Session {
    pub(super) address: Option<IpAddr>,
    pub(super) direction: Direction,
    has_fingerprint: bool,
    has_ice: bool,
}

impl Session {
    pub(super) fn attribute(&mut self, value: &[u8]) {
        self.direction = direction_of(value).unwrap_or(self.direction);
        self.has_fingerprint |= is(value, b"fingerprint");
        self.has_ice |= is(value, b"ice-ufrag");
    }
}

/// An m-line and what follows it.
#[derive(Debug)]
pub(super) struct Section {
    media: Media,
    /// Of its own c= line.
    pub(super) address: Option<Option<IpAddr>>,
    rtcp: Option<(u16, Option<IpAddr>)>,
}

impl Section {
    pub(super) fn new(media: Media) -> Self {
        Self { media, address: None, rtcp: None }
    }

    pub(super) fn attribute(&mut self, value: &[u8]) {
        let media = &mut self.media;
        if let Some(direction) = direction_of(value) {
            media.direction = direction;
        } else if is(value, b"rtpmap") {
            read_rtpmap(rest(value), media);
        } else if value.eq_ignore_ascii_case(b"rtcp-mux") {
            media.rtcp_mux = true;
        } else if is(value, b"crypto") || is(value, b"fingerprint") {
            // SDES (RFC 4568) or DTLS (RFC 8122).
            media.is_secure = true;
        } else if is(value, b"ice-ufrag") {
            media.has_ice = true;
        } else if is(value, b"rtcp") {
            self.rtcp = read_rtcp(rest(value));
        }
    }

    pub(super) fn finish(self, session: &Session) -> Media {
        let Self { mut media, address, rtcp } = self;
        media.has_ice |= session.has_ice;
        if media.port == 0 {
            return media;
        }
        let address = address.unwrap_or(session.address);
        media.is_secure |= session.has_fingerprint || media.profile.to_ascii_uppercase().contains("SAVP");
        media.is_parked = !media.has_ice && address.is_some_and(|address| address.is_unspecified());
        if media.is_parked {
            media.direction = media.direction.deaf();
        }
        let is_known = |address: &IpAddr| !address.is_unspecified();
        let address = address.filter(is_known);
        media.rtp = address.map(|address| SocketAddr::new(address, media.port));
        let next = media.port.checked_add(1);
        let (port, own) = rtcp.map_or((next, None), |(port, own)| (Some(port), own));
        let host = own.filter(is_known).or(address);
        media.rtcp = host.zip(port.filter(|port| *port != 0)).map(|(host, port)| SocketAddr::new(host, port));
        media
    }
}

/// Whether an attribute has this name.
fn is(attribute: &[u8], known: &[u8]) -> bool {
    name(attribute).eq_ignore_ascii_case(known)
}

/// What stands behind its colon.
fn rest(attribute: &[u8]) -> &[u8] {
    attribute.splitn(2, |byte| *byte == b':').nth(1).unwrap_or_default()
}

pub(super) fn read_m_line(text: &[u8], direction: Direction) -> Result<Media, Fault> {
    let text = std::str::from_utf8(text).map_err(|_| Fault::Malformed)?;
    let mut words = text.split_ascii_whitespace();
    let (Some(kind), Some(port), Some(profile)) = (words.next(), words.next(), words.next()) else {
        return Err(Fault::Malformed);
    };
    if [kind, profile].iter().any(|word| names_an_address(word.as_bytes())) {
        return Err(Fault::Malformed);
    }
    let format = words.clone().next().unwrap_or("0").to_owned();
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
        has_ice: false,
        begins: false,
        format,
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

/// `IN IP4 address[/ttl]`, whatever the second word says; a name is no address.
pub(super) fn read_connection(text: &[u8]) -> Result<Option<IpAddr>, Fault> {
    let text = std::str::from_utf8(text).map_err(|_| Fault::Malformed)?;
    let mut words = text.split_ascii_whitespace();
    let (Some(network), Some(kind), Some(address)) = (words.next(), words.next(), words.next()) else {
        return Err(Fault::Malformed);
    };
    if !network.eq_ignore_ascii_case("IN") {
        return Ok(None);
    }
    if !kind.eq_ignore_ascii_case("IP4") && !kind.eq_ignore_ascii_case("IP6") {
        return Err(Fault::Malformed);
    }
    Ok(read_address(address.split('/').next().unwrap_or_default()))
}

/// In the form that sockets have it: one that is mapped into IPv6 is an IPv4 address.
fn read_address(word: &str) -> Option<IpAddr> {
    word.parse::<IpAddr>().ok().map(|address| address.to_canonical())
}

/// `port [IN IP4 address]` (RFC 3605 §2.1).
fn read_rtcp(text: &[u8]) -> Option<(u16, Option<IpAddr>)> {
    let text = std::str::from_utf8(text).ok()?;
    let mut words = text.split_ascii_whitespace();
    let port = words.next()?.parse().ok()?;
    Some((port, words.nth(2).and_then(read_address)))
}

pub(super) fn direction_of(attribute: &[u8]) -> Option<Direction> {
    let is = |word: &[u8]| attribute.eq_ignore_ascii_case(word);
    match () {
        () if is(b"sendrecv") => Some(Direction::SendRecv),
        () if is(b"sendonly") => Some(Direction::SendOnly),
        () if is(b"recvonly") => Some(Direction::RecvOnly),
        () if is(b"inactive") => Some(Direction::Inactive),
        () => None,
    }
}
