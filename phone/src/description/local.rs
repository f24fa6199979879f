//! What we say.

use std::fmt::Write as _;
use std::net::IpAddr;

use srtp::sdes::Crypto;
use srtp::{Master, Suite};

use super::{Direction, Remote};
use crate::codec::Codec;
use crate::encryption::{SUITE, Srtp, TAG};
use crate::video;

/// What we say of ourselves.
#[derive(Debug, Clone)]
pub(crate) struct Local {
    pub(crate) address: IpAddr,
    /// Of o=, for the whole call.
    pub(crate) session: u64,
    /// Grows with each description (RFC 3264 §8).
    pub(crate) version: u64,
    pub(crate) audio_port: u16,
    pub(crate) video_port: Option<u16>,
    pub(crate) direction: Direction,
    /// `a=crush` (docs/crush.md §2).
    pub(crate) support: Option<String>,
    pub(crate) srtp: Srtp,
    /// What we encrypt audio and pictures with, the same through the whole call.
    pub(crate) keys: [Master; 2],
    /// How our newest offer would have them encrypted.
    pub(crate) offered: [Option<Suite>; 2],
}

impl Local {
    /// An offer. In a call that is up it keeps the m-lines that were agreed (RFC 3264 §8).
    pub(crate) fn offer(&mut self, agreed: Option<&Remote>) -> String {
        let direction = self.direction;
        self.offered = match agreed {
            Some(remote) => remote.keys.each_ref().map(|key| key.as_ref().map(|key| key.suite)),
            None => [(self.srtp == Srtp::Require).then_some(SUITE); 2],
        };
        let keys = [0, 1].map(|kind| self.key(kind, TAG, self.offered[kind]?));
        match agreed {
            Some(remote) => self.write(remote, &Codec::ALL, &keys, |_| direction),
            None => {
                let mut text = self.head();
                let profile = if keys[0].is_some() { "RTP/SAVP" } else { "RTP/AVP" };
                audio(&mut text, self.audio_port, profile, &Codec::ALL, direction);
                secured(&mut text, &keys[0]);
                if let Some(port) = self.video_port {
                    pictures(&mut text, port, profile, video::PAYLOAD_TYPE, direction);
                    hears_losses(&mut text, video::PAYLOAD_TYPE);
                    secured(&mut text, &keys[1]);
                }
                text
            }
        }
    }

    fn key(&self, kind: usize, tag: u32, suite: Suite) -> Option<Crypto> {
        Some(Crypto { tag, suite, master: self.keys[kind].clone() })
    }

    /// The answer to what they offer.
    pub(crate) fn answer(&mut self, remote: &Remote) -> String {
        let ours = self.direction;
        let keys = [0, 1].map(|kind| {
            let theirs = remote.keys[kind].as_ref()?;
            self.key(kind, theirs.tag, theirs.suite)
        });
        self.write(remote, &[remote.audio.1], &keys, |theirs| {
            let theirs = theirs.mirrored();
            Direction::new(theirs.sends() && ours.sends(), theirs.receives() && ours.receives())
        })
    }

    /// Their m-lines in their order, ours in the place of what is used of them.
    fn write(
        &mut self,
        remote: &Remote,
        codecs: &[Codec],
        keys: &[Option<Crypto>; 2],
        direction: impl Fn(Direction) -> Direction,
    ) -> String {
        let mut text = self.head();
        for (place, one) in remote.media.iter().enumerate() {
            let direction = direction(one.direction);
            match (self.video_port, one.pictures) {
                _ if place == remote.audio.0 => {
                    audio(&mut text, self.audio_port, &one.profile, codecs, direction);
                    secured(&mut text, &keys[0]);
                }
                (Some(port), Some(number)) if Some(place) == remote.video => {
                    pictures(&mut text, port, &one.profile, number, direction);
                    // An answer says nothing that was not offered (RFC 4585 §4.2).
                    if one.hears_losses() {
                        hears_losses(&mut text, number);
                    }
                    secured(&mut text, &keys[1]);
                }
                _ => {
                    let format = one.formats.first().map_or("0", String::as_str);
                    let _ = write!(text, "m={} 0 {} {format}\r\n", one.kind, one.profile);
                }
            }
        }
        text
    }

    fn head(&mut self) -> String {
        self.version += 1;
        let (session, version, address) = (self.session, self.version, self.address);
        let family = if address.is_ipv4() { "IP4" } else { "IP6" };
        let mut text = format!(
            "v=0\r\no=- {session} {version} IN {family} {address}\r\ns=-\r\nc=IN {family} {address}\r\nt=0 0\r\n"
        );
        if let Some(support) = &self.support {
            let _ = write!(text, "{support}\r\n");
        }
        text
    }
}

fn secured(text: &mut String, key: &Option<Crypto>) {
    if let Some(key) = key {
        let _ = write!(text, "{}\r\n", key.line());
    }
}

fn audio(text: &mut String, port: u16, profile: &str, codecs: &[Codec], direction: Direction) {
    let _ = write!(text, "m=audio {port} {profile}");
    for codec in codecs {
        let _ = write!(text, " {}", codec.payload_type());
    }
    text.push_str("\r\n");
    for codec in codecs {
        let name = if *codec == Codec::Pcmu { "PCMU" } else { "PCMA" };
        let _ = write!(text, "a=rtpmap:{} {name}/8000\r\n", codec.payload_type());
    }
    let _ = write!(text, "a=ptime:20\r\n{}\r\n", direction.line());
}

fn hears_losses(text: &mut String, number: u8) {
    let _ = write!(text, "a=rtcp-fb:{number} nack pli\r\n");
}

fn pictures(text: &mut String, port: u16, profile: &str, number: u8, direction: Direction) {
    let (encoding, clock, line) = (video::ENCODING, video::CLOCK, direction.line());
    let _ = write!(
        text,
        "m=video {port} {profile} {number}\r\na=rtpmap:{number} {encoding}/{clock}\r\n{line}\r\n"
    );
}
