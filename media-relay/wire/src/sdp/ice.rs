//! What descriptions say of ICE (RFC 8839 §5).

use std::net::SocketAddr;

use bytes::{BufMut, Bytes, BytesMut};
use serde::{Deserialize, Serialize};
use smallvec::SmallVec;

use crate::rtcp::next_port;

/// Short-term credentials (RFC 8489 §9.1).
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Credentials {
    /// `a=ice-ufrag`.
    pub ufrag: String,
    /// `a=ice-pwd`.
    pub password: String,
}

impl std::fmt::Debug for Credentials {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(out, "Credentials({})", self.ufrag)
    }
}

/// Lines to put at the end of each m-section.
pub type Lines = SmallVec<[Bytes; 1]>;

/// Candidates of one m-line that are looked at.
const MOST_CANDIDATES: usize = 24;
/// A relay's: type preference 0, so that anything that works goes before it (RFC 8445 §5.1.2.1).
const LAST: u32 = 0xffff << 8;
/// Type preference 100: what a server sees, here we.
const REFLEXIVE: u32 = (100 << 24) | (0xffff << 8);

/// What one m-line says.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Line {
    /// The section's own, or the session's.
    pub credentials: Option<Credentials>,
    /// Candidate lines of RTP, as they stand there.
    candidates: Vec<String>,
    /// Places of the far party's RTP that its author has chosen: only the one that controls says so, when it is done
    /// (RFC 8839 §4.4.3).
    pub chosen: Option<SocketAddr>,
}

/// What a description says, by m-line. `None` in a line: it does not speak ICE there.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Spoken(pub SmallVec<[Option<Line>; 1]>);

/// What is read of it, line by line.
#[derive(Debug, Default)]
pub(super) struct Reader {
    session: Pair,
    sections: SmallVec<[(Pair, Line); 1]>,
    is_lite: bool,
}

/// `a=ice-ufrag` and `a=ice-pwd`, where they stand.
#[derive(Debug, Clone, Default)]
struct Pair {
    ufrag: Option<String>,
    password: Option<String>,
}

impl Reader {
    /// The next m-line begins.
    pub(super) fn section(&mut self) {
        self.sections.push(Default::default());
    }

    /// An attribute of the session, or of the newest m-line.
    pub(super) fn attribute(&mut self, line: &[u8]) {
        let is_ices = [&b"a=ice-"[..], b"a=candidate:", b"a=remote-candidates:"];
        if !is_ices.iter().any(|name| line.starts_with(name)) {
            return;
        }
        let Ok(line) = std::str::from_utf8(line) else { return };
        let pair = self.sections.last_mut().map_or(&mut self.session, |(pair, _)| pair);
        if line == "a=ice-lite" {
            self.is_lite = true;
        } else if let Some(ufrag) = line.strip_prefix("a=ice-ufrag:") {
            pair.ufrag = Some(ufrag.to_owned());
        } else if let Some(password) = line.strip_prefix("a=ice-pwd:") {
            pair.password = Some(password.to_owned());
        } else if let Some((_, own)) = self.sections.last_mut() {
            own.take(line);
        }
    }

    /// An agent of the lite kind (RFC 8445 §2.5) never checks, so that with us it would wait for ever: it counts as one without ICE.
    pub(super) fn finish(self) -> Spoken {
        if self.is_lite {
            return Spoken::default();
        }
        let Self { session, sections, .. } = self;
        let lines = sections.into_iter().map(|(own, mut line)| {
            let ufrag = own.ufrag.or_else(|| session.ufrag.clone())?;
            let password = own.password.or_else(|| session.password.clone())?;
            // RFC 8839 §5.4: 4 to 256, 22 to 256 characters.
            if !(4..=256).contains(&ufrag.len()) || !(22..=256).contains(&password.len()) {
                return None;
            }
            line.credentials = Some(Credentials { ufrag, password });
            Some(line)
        });
        Spoken(lines.collect())
    }
}

impl Spoken {
    /// Drops candidates whose address is not to be known.
    pub fn keep(&mut self, is_fit: impl Fn(SocketAddr) -> bool) {
        for line in self.0.iter_mut().flatten() {
            line.candidates.retain(|candidate| place_of(candidate).is_none_or(&is_fit));
        }
    }

    /// Of the m-line with this index, from 0.
    pub fn line(&self, index: usize) -> Option<&Line> {
        self.0.get(index)?.as_ref()
    }

    /// Whether it speaks ICE at all.
    pub fn is_spoken(&self) -> bool {
        self.0.iter().any(Option::is_some)
    }

    /// By m-line.
    pub fn credentials(&self) -> SmallVec<[Option<Credentials>; 1]> {
        self.0.iter().map(|line| line.as_ref()?.credentials.clone()).collect()
    }
}

impl Line {
    fn take(&mut self, line: &str) {
        if let Some(candidate) = line.strip_prefix("a=candidate:") {
            let is_rtp = candidate.split_ascii_whitespace().nth(1) == Some("1");
            if is_rtp && self.candidates.len() < MOST_CANDIDATES {
                self.candidates.push(line.to_owned());
            }
        } else if let Some(chosen) = line.strip_prefix("a=remote-candidates:") {
            let mut words = chosen.split_ascii_whitespace();
            let mut three = || Some([words.next()?, words.next()?, words.next()?]);
            let rtp = std::iter::from_fn(&mut three).find(|words| words[0] == "1");
            self.chosen =
                rtp.and_then(|[_, ip, port]| Some(SocketAddr::new(ip.parse().ok()?, port.parse().ok()?)));
        }
    }

    /// For the far phone: its author's credentials and candidates of RTP unaltered, where the relay has seen its author if it
    /// does not say so itself, and last the relay. Of RTCP the relay is the only candidate, so that reports stay here. What the author
    /// has seen of our own addresses is left out (`ours`), and what it has chosen: linphone 5.1 puts the answer off for
    /// ever (docs/release.md).
    pub fn passed(&self, observed: Option<SocketAddr>, relay: SocketAddr, ours: &[SocketAddr]) -> Bytes {
        let mut out = BytesMut::new();
        let Some(credentials) = &self.credentials else { return Bytes::new() };
        put_credentials(credentials, &mut out);
        for candidate in &self.candidates {
            if !place_of(candidate).is_some_and(|place| ours.contains(&place)) {
                put(candidate, &mut out);
            }
        }
        if let Some(at) = observed
            && !self.candidates.iter().any(|candidate| place_of(candidate) == Some(at))
        {
            Own { foundation: "seen", component: 1, preference: REFLEXIVE, at, kind: "srflx" }.put(&mut out);
        }
        Own { foundation: "relay", component: 1, preference: LAST, at: relay, kind: "relay" }
            .put_both(&mut out);
        out.freeze()
    }
}

/// The address of a candidate line, if it is a literal (RFC 8839 §5.1).
fn place_of(candidate: &str) -> Option<SocketAddr> {
    let mut words = candidate.split_ascii_whitespace().skip(4);
    Some(SocketAddr::new(words.next()?.parse().ok()?, words.next()?.parse().ok()?))
}

/// The lines of our own agent: the relay's port is a host of ours. `is_muxed`: RTCP goes there too.
pub fn own(credentials: &Credentials, relay: SocketAddr, is_muxed: bool) -> Bytes {
    let mut out = BytesMut::new();
    let host: u32 = (126 << 24) | (0xffff << 8);
    put_credentials(credentials, &mut out);
    let own = Own { foundation: "relay", component: 1, preference: host, at: relay, kind: "host" };
    if is_muxed {
        own.put(&mut out);
    } else {
        own.put_both(&mut out);
    }
    out.freeze()
}

fn put_credentials(credentials: &Credentials, out: &mut BytesMut) {
    put(&format!("a=ice-ufrag:{}", credentials.ufrag), out);
    put(&format!("a=ice-pwd:{}", credentials.password), out);
}

/// A candidate of the relay's own writing.
#[derive(Debug, Clone, Copy)]
struct Own {
    foundation: &'static str,
    component: u32,
    /// Of component 0, so to speak.
    preference: u32,
    at: SocketAddr,
    /// Other than `host` it names the base that it was seen from (RFC 8839 §5.1): nobody's, which says nothing.
    kind: &'static str,
}

impl Own {
    fn put(self, out: &mut BytesMut) {
        let Self { foundation, component, preference, at, kind } = self;
        let base = match (kind, at.is_ipv6()) {
            ("host", _) => "",
            (_, false) => " raddr 0.0.0.0 rport 9",
            (_, true) => " raddr :: rport 9",
        };
        let (priority, ip, port) =
            (preference.saturating_add(256).saturating_sub(component), at.ip(), at.port());
        put(
            &format!("a=candidate:{foundation} {component} UDP {priority} {ip} {port} typ {kind}{base}"),
            out,
        );
    }

    /// That of RTP, and after it that of RTCP.
    fn put_both(self, out: &mut BytesMut) {
        self.put(out);
        Self { component: 2, at: next_port(self.at), ..self }.put(out);
    }
}

fn put(line: &str, out: &mut BytesMut) {
    out.put_slice(line.as_bytes());
    out.put_slice(b"\r\n");
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sdp::Description;

    fn read(text: &str) -> Spoken {
        Description::parse(text.to_owned().into()).unwrap().ice
    }

    const OFFER: &str = "v=0\r\na=ice-ufrag:abcd\r\na=ice-pwd:0123456789012345678901\r\nm=audio 4000 RTP/AVP 0\r\na=candidate:1 1 UDP 2130706431 192.168.1.5 4000 typ host\r\na=candidate:1 2 UDP 2130706430 192.168.1.5 4001 typ host\r\na=remote-candidates:1 192.168.1.6 5000 2 192.0.2.1 20001\r\nm=video 0 RTP/AVP 99\r\na=ice-ufrag:own1\r\n";

    #[test]
    fn credentials_are_the_sections_own_or_those_of_the_session() {
        let spoken = read(OFFER);
        let ufrag = |index| spoken.line(index).unwrap().credentials.as_ref().unwrap().ufrag.clone();
        assert_eq!([ufrag(0), ufrag(1)], ["abcd", "own1"]);
        assert_eq!(spoken.line(0).unwrap().chosen, Some("192.168.1.6:5000".parse().unwrap()));
        for without in ["a=ice-lite\r\n", ""] {
            let text = OFFER.replace("a=ice-pwd:0123456789012345678901\r\n", without);
            assert!(!read(&text).is_spoken());
        }
    }

    #[test]
    fn the_far_phone_gets_candidates_of_rtp_where_their_author_was_seen_and_last_the_relay() {
        let spoken = read(OFFER);
        let relay = "192.0.2.1:20000".parse().unwrap();
        let seen = Some("203.0.113.9:61000".parse().unwrap());
        let passed = spoken.line(0).unwrap().passed(seen, relay, &[]);
        let text = std::str::from_utf8(&passed).unwrap();
        assert_eq!(
            text,
            "a=ice-ufrag:abcd\r\na=ice-pwd:0123456789012345678901\r\na=candidate:1 1 UDP 2130706431 192.168.1.5 4000 typ host\r\na=candidate:seen 1 UDP 1694498815 203.0.113.9 61000 typ srflx raddr 0.0.0.0 rport 9\r\na=candidate:relay 1 UDP 16777215 192.0.2.1 20000 typ relay raddr 0.0.0.0 rport 9\r\na=candidate:relay 2 UDP 16777214 192.0.2.1 20001 typ relay raddr 0.0.0.0 rport 9\r\n"
        );
        let local = Some("192.168.1.5:4000".parse().unwrap());
        let without = |seen, ours: &[SocketAddr], word: &[u8]| {
            let passed = spoken.line(0).unwrap().passed(seen, relay, ours);
            memchr::memmem::find(&passed, word).is_none()
        };
        assert!(without(local, &[], b"seen"));
        assert!(without(seen, &["192.168.1.5:4000".parse().unwrap()], b"192.168.1.5"));
    }
}
