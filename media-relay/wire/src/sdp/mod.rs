//! Session descriptions (RFC 8866), read once and edited line by line: what needs no change stays byte for byte, and what is only ugly is put
//! right first (`clean.rs`). How one is written for another party is in `rewrite.rs`, what must not reach that one in `hiding.rs`.

mod clean;
pub mod crush;
mod hiding;
pub mod ice;
mod read;
mod rewrite;

use std::net::SocketAddr;

use bytes::{Bytes, BytesMut};
use serde::{Deserialize, Serialize};

pub use clean::clean;
use crush::Support;
use ice::Spoken;
use read::{Section, Session, read_connection, read_m_line};
use rewrite::put;
pub use rewrite::{Edition, Place, with_version};

/// Greatest description and number of m-lines that are read.
const MAX_LENGTH: usize = 32_768;
const MAX_STREAMS: usize = 128;
/// The port that is named where none is known yet (RFC 8840 §4.1.1, RFC 863).
pub const DISCARD: u16 = 9;

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
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
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
    /// The same for who receives nothing.
    fn deaf(self) -> Self {
        match self {
            Self::SendRecv | Self::SendOnly => Self::SendOnly,
            Self::RecvOnly | Self::Inactive => Self::Inactive,
        }
    }

    /// Whether its author takes anything.
    pub fn receives(self) -> bool {
        matches!(self, Self::SendRecv | Self::RecvOnly)
    }

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
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Media {
    /// `audio`, `video`, `image`, ...
    pub kind: String,
    /// The port; 0 refuses the stream.
    pub port: u16,
    /// `RTP/AVP`, `RTP/SAVPF`, `udptl`, `TCP/MSRP`, ...
    pub profile: String,
    /// Where RTP goes, as its author says; `None` where the address is a name or unspecified.
    pub rtp: Option<SocketAddr>,
    /// Where RTCP goes: `a=rtcp` (RFC 3605) or the next port.
    pub rtcp: Option<SocketAddr>,
    /// Direction, the session's if it has none of its own. Of who holds by the unspecified address what that means (RFC 3264
    /// §8.4): he receives nothing.
    pub direction: Direction,
    /// Payload type, encoding name, clock rate, in order of preference.
    pub codecs: Vec<(u8, String, u32)>,
    /// Its author can take RTCP on the port of RTP (RFC 5761 §5.1.1).
    pub rtcp_mux: bool,
    /// The unspecified address without ICE: an old way of holding (RFC 3264 §8.4). With ICE it means that no address is known yet (RFC
    /// 8840 §4.1.1), which is no hold. Nothing is sent there in either case.
    pub is_parked: bool,
    /// It speaks ICE: where its media is will be shown by checks.
    pub has_ice: bool,
    /// The first format of its m-line, as it stands there.
    pub format: String,
    /// What our offer says of who begins the handshake of DTLS, where its author leaves it open (RFC 5763 §5): he does.
    pub begins: bool,
    /// Media keys are agreed here, in SDES or DTLS: what the packets hold is not for us.
    pub is_secure: bool,
}

impl Media {
    /// Whether RTP and RTCP run here, rather than another protocol over UDP.
    pub fn is_rtp(&self) -> bool {
        self.profile.to_ascii_uppercase().contains("RTP/")
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
    /// What it says of ICE.
    pub ice: Spoken,
    /// Its session's `a=crush`, the last usable one.
    pub support: Option<Support>,
    /// It is one of ours that came back (`ours.rs`).
    pub is_joined: bool,
}

impl Description {
    /// Reads it as everybody does: see `clean.rs`. Unknown lines are kept.
    pub fn parse(bytes: Bytes) -> Result<Self, Fault> {
        if bytes.len() > MAX_LENGTH {
            return Err(Fault::TooLarge);
        }
        let bytes = clean(bytes)?;
        let mut lines = Vec::with_capacity(32);
        let mut at = 0_usize;
        for line in bytes.split_inclusive(|byte| *byte == b'\n') {
            lines.push((at, at.saturating_add(line.len()).saturating_sub(2)));
            at = at.saturating_add(line.len());
        }
        let first = lines.first().and_then(|line| bytes.get(line.0..line.1));
        if first != Some(b"v=0") {
            return Err(Fault::Malformed);
        }
        let mut description =
            Self { bytes, lines, media: Vec::new(), ice: Spoken::default(), support: None, is_joined: false };
        description.read()?;
        Ok(description)
    }

    /// The text that was read, clean.
    pub fn text(&self) -> &Bytes {
        &self.bytes
    }

    /// Number of the session, as o= says it.
    pub fn origin(&self) -> Option<u64> {
        let line =
            (0..self.lines.len()).map(|index| self.line(index)).find(|line| line.starts_with(b"o="))?;
        let mut words = std::str::from_utf8(line).ok()?.split_ascii_whitespace().rev();
        // A name in front may hold blanks.
        words.nth(4)?.parse().ok()
    }

    /// Makes an answer fit its offer: m-lines that it leaves out are refused (RFC 3264 §6 wants them; conference servers leave
    /// them out), and refused ones that nobody offered go.
    pub fn fit_to(self, offered: &[Media]) -> Result<Self, Fault> {
        let answered = self.media.len();
        let extra = self.media.get(offered.len()..).unwrap_or_default();
        let is_joined = self.is_joined;
        if answered == offered.len() || extra.iter().any(|media| media.port != 0) {
            return Ok(self);
        }
        let mut text = BytesMut::with_capacity(self.bytes.len().saturating_add(64));
        let mut seen = 0_usize;
        for index in 0..self.lines.len() {
            let line = self.line(index);
            seen = seen.saturating_add(usize::from(line.starts_with(b"m=")));
            if seen <= offered.len() {
                put(&mut text, line);
            }
        }
        for media in offered.get(answered..).unwrap_or_default() {
            put(&mut text, format!("m={} 0 {} {}", media.kind, media.profile, media.format).as_bytes());
        }
        Ok(Self { is_joined, ..Self::parse(text.freeze())? })
    }

    fn line(&self, index: usize) -> &[u8] {
        self.lines.get(index).and_then(|line| self.bytes.get(line.0..line.1)).unwrap_or_default()
    }

    /// All that is looked at, in one pass over the lines.
    fn read(&mut self) -> Result<(), Fault> {
        let mut sections: Vec<Section> = Vec::new();
        let mut session = Session::default();
        let mut ice = ice::Reader::default();
        let mut support = None;
        for index in 0..self.lines.len() {
            let line = self.line(index);
            let Some((kind, value)) =
                line.split_first().zip(line.get(2..)).map(|((kind, _), value)| (*kind, value))
            else {
                continue;
            };
            let is_full = sections.len() == MAX_STREAMS;
            match (kind, sections.last_mut()) {
                (b'm', _) if is_full => return Err(Fault::TooLarge),
                (b'm', _) => {
                    sections.push(Section::new(read_m_line(value, session.direction)?));
                    ice.section();
                }
                (b'c', Some(section)) => section.address = Some(read_connection(value)?),
                (b'c', None) => session.address = read_connection(value)?,
                (b'a', Some(section)) => {
                    section.attribute(value);
                    ice.attribute(line);
                }
                (b'a', None) => {
                    session.attribute(value);
                    ice.attribute(line);
                    support = Support::of_line(line).or(support);
                }
                _ => {}
            }
        }
        self.media = sections.into_iter().map(|section| section.finish(&session)).collect();
        (self.ice, self.support) = (ice.finish(), support);
        Ok(())
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

#[cfg(test)]
mod tests {
    use memchr::memmem;

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
        let out = description.rewrite(&Edition::new(
            "- 7 1 IN IP6 2001:db8::1",
            &[Some(Place::at("[2001:db8::1]:20000".parse().unwrap())), None],
            "x",
        ));
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
        let out = description.rewrite(&Edition::new("- 1 1 IN IP4 192.0.2.1", &[Some(place)], "x"));
        assert!(memmem::find(&out, b"a=rtpmap:101 opus/48000/2\r\n").is_some());
    }

    #[test]
    fn multiplexing_is_said_on_our_own_account_once_per_stream() {
        let place = |rtcp_mux| Some(Place { rtcp_mux, ..Place::at("192.0.2.1:20000".parse().unwrap()) });
        let count = |text: &str, places: &[Option<Place>]| {
            let out =
                Description::parse(text.to_owned().into()).unwrap().rewrite(&Edition::new("o", places, "x"));
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
            let out = description.rewrite(&Edition::new("- 1 2 IN IP4 192.0.2.1", &[Some(place)], "x"));
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
