//! A worker, its ports and the time: one session between A (realm 0) and B (realm 1), and who may send what to its ports.

use media_core::worker::Settings;
use play::anchor::Anchor;
pub(crate) use play::anchor::{at, rtp};
use play::ports::Counted;
pub(crate) use play::settings::media::ENDS;
use play::settings::media::party;
use seam::Endpoint;

pub(crate) const A: Endpoint = ENDS[0];
pub(crate) const B: Endpoint = ENDS[1];
/// The public address that A's signalling comes from, and that of B.
pub(crate) const A_HOST: &str = "203.0.113.1";
pub(crate) const B_HOST: &str = "198.51.100.1";

pub(crate) fn anchor(settings: Settings) -> Anchor {
    let parties = [(0, A_HOST), (1, B_HOST)].map(|(realm, host)| party(realm, at(&format!("{host}:5060"))));
    Anchor { session: 9 << 20, ..Anchor::new(settings, Counted::default(), parties.into()) }
}

/// A call between A, which says that it is at `a` (sockets 0 and 1), and B at `b` (sockets 2 and 3), with these m-line
/// profiles and attributes.
pub(crate) fn connected(settings: Settings, a: &str, b: &str, more: &str) -> Anchor {
    let mut world = anchor(settings);
    world.agree(1, ENDS, [audio(a, more), audio(b, more)]);
    world
}

/// One m-line of PCMU at an address, its profile RTP/AVP unless `more` begins with one.
pub(crate) fn audio(address: &str, more: &str) -> String {
    let address = at(address);
    let (profile, more) = more.split_once(' ').unwrap_or(("RTP/AVP", more));
    let profile = if profile.is_empty() { "RTP/AVP" } else { profile };
    format!(
        "v=0\r\no=- 1 1 IN IP4 {ip}\r\ns=-\r\nc=IN IP4 {ip}\r\nt=0 0\r\nm=audio {port} {profile} 0\r\n{more}",
        ip = address.ip(),
        port = address.port()
    )
}

/// An empty receiver report.
pub(crate) fn rtcp(ssrc: u32) -> Vec<u8> {
    [&[0x80, 201, 0, 1][..], &ssrc.to_be_bytes()].concat()
}

/// A DTLS record with some of a ClientHello.
pub(crate) fn hello() -> Vec<u8> {
    [&[22, 0xfe, 0xff, 0, 0, 0, 0, 0, 0, 0, 0, 0, 8][..], &[1, 0, 0, 0, 0, 0, 0, 0]].concat()
}

/// A STUN Binding request without credentials.
pub(crate) fn binding() -> Vec<u8> {
    [&[0, 1, 0, 0, 0x21, 0x12, 0xa4, 0x42][..], &[7; 12]].concat()
}
