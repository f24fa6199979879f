//! Session descriptions as the phone writes and reads them (RFC 4566, RFC 3264): audio in G.711, its own pictures, nothing else; plain
//! or encrypted.

use std::fmt::Write as _;
use std::net::{IpAddr, SocketAddr};

use srtp::sdes::{self, Crypto, Refused};
use srtp::{Master, Suite};

use crate::codec::Codec;
use crate::encryption::{Expected, SUITE, Srtp, TAG, Unusable};
use crate::video;

/// Who may send.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Direction {
    Both,
    SendOnly,
    ReceiveOnly,
    Inactive,
}

impl Direction {
    pub(crate) fn new(sends: bool, receives: bool) -> Self {
        match (sends, receives) {
            (true, true) => Self::Both,
            (true, false) => Self::SendOnly,
            (false, true) => Self::ReceiveOnly,
            (false, false) => Self::Inactive,
        }
    }

    pub(crate) fn sends(self) -> bool {
        matches!(self, Self::Both | Self::SendOnly)
    }

    pub(crate) fn receives(self) -> bool {
        matches!(self, Self::Both | Self::ReceiveOnly)
    }

    /// The same seen from the other end.
    pub(crate) fn mirrored(self) -> Self {
        Self::new(self.receives(), self.sends())
    }

    fn read(line: &str) -> Option<Self> {
        match line {
            "a=sendrecv" => Some(Self::Both),
            "a=sendonly" => Some(Self::SendOnly),
            "a=recvonly" => Some(Self::ReceiveOnly),
            "a=inactive" => Some(Self::Inactive),
            _ => None,
        }
    }

    fn line(self) -> &'static str {
        match self {
            Self::Both => "a=sendrecv",
            Self::SendOnly => "a=sendonly",
            Self::ReceiveOnly => "a=recvonly",
            Self::Inactive => "a=inactive",
        }
    }
}

/// One m-line of the other end's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Media {
    pub(crate) kind: String,
    profile: String,
    formats: Vec<String>,
    /// `None`: refused.
    pub(crate) rtp: Option<SocketAddr>,
    pub(crate) rtcp: Option<SocketAddr>,
    pub(crate) direction: Direction,
    /// The payload type of our pictures' encoding.
    pictures: Option<u8>,
    keys: Vec<Result<Crypto, Refused>>,
}

impl Media {
    /// The codec that the other end prefers of those that we have.
    fn codec(&self) -> Option<Codec> {
        let is_audio = self.kind == "audio" && self.is_rtp();
        let ours = |format: &String| format.parse().ok().and_then(Codec::of);
        self.formats.iter().find_map(ours).filter(|_| is_audio)
    }

    fn is_rtp(&self) -> bool {
        self.rtp.is_some()
            && matches!(self.profile.as_str(), "RTP/AVP" | "RTP/AVPF" | "RTP/SAVP" | "RTP/SAVPF")
    }

    fn is_pictures(&self) -> bool {
        self.kind == "video" && self.is_rtp() && self.pictures.is_some()
    }

    fn key(&self, expected: Expected, kind: usize) -> Result<Option<Crypto>, Unusable> {
        expected.key(kind, self.profile.starts_with("RTP/SAVP"), &self.keys)
    }
}

/// What the other end says, as far as it matters here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Remote {
    pub(crate) media: Vec<Media>,
    /// Place of the audio that is used, and its codec.
    pub(crate) audio: (usize, Codec),
    /// Place of the pictures.
    pub(crate) video: Option<usize>,
    /// What they encrypt audio and pictures with. All that is used is encrypted, or nothing.
    pub(crate) keys: [Option<Crypto>; 2],
}

impl Remote {
    pub(crate) fn read(text: &str, expected: Expected) -> Result<Self, Unusable> {
        let mut session: Option<IpAddr> = None;
        let mut session_direction = Direction::Both;
        let mut media: Vec<Media> = Vec::new();
        for line in text.lines().map(str::trim_end) {
            if let Some(connection) = line.strip_prefix("c=IN ") {
                let address = connection.split(' ').nth(1).and_then(|word| word.split('/').next());
                let address = address.and_then(|word| word.parse().ok());
                match media.last_mut() {
                    Some(one) => {
                        for place in [&mut one.rtp, &mut one.rtcp].into_iter().flatten() {
                            place.set_ip(address.unwrap_or(place.ip()));
                        }
                    }
                    None => session = address,
                }
            } else if let Some(line) = line.strip_prefix("m=") {
                media.extend(begun(line, session, session_direction));
            } else if let Some(direction) = Direction::read(line) {
                match media.last_mut() {
                    Some(one) => one.direction = direction,
                    None => session_direction = direction,
                }
            } else if let Some(one) = media.last_mut() {
                attribute(one, line);
            }
        }
        let (audio, key) = audio_of(&media, expected)?;
        let (video, pictures_key) = pictures_of(&media, expected, key.is_some())?.unzip();
        Ok(Self { audio, video, media, keys: [key, pictures_key.flatten()] })
    }

    /// Whether the places of the streams are those that CRUSH's messages count: audio first, then pictures.
    pub(crate) fn is_in_order(&self) -> bool {
        self.audio.0 == 0 && self.video.is_none_or(|place| place == 1)
    }
}

/// The first audio that can be used, and its key.
fn audio_of(media: &[Media], expected: Expected) -> Result<((usize, Codec), Option<Crypto>), Unusable> {
    let mut reason = None;
    for (place, one) in media.iter().enumerate() {
        if let Some(codec) = one.codec() {
            match one.key(expected, 0) {
                Ok(key) => return Ok(((place, codec), key)),
                Err(refused) => drop(reason.get_or_insert(refused)),
            }
        }
    }
    Err(reason.unwrap_or(Unusable::NoAudio))
}

/// The pictures, if they are encrypted as audio is. What was offered otherwise is refused, what was answered so is an error.
fn pictures_of(
    media: &[Media],
    expected: Expected,
    is_secure: bool,
) -> Result<Option<(usize, Option<Crypto>)>, Unusable> {
    let Some((place, one)) = media.iter().enumerate().find(|(_, one)| one.is_pictures()) else {
        return Ok(None);
    };
    match (one.key(expected, 1), expected) {
        (Ok(key), _) => Ok(Some((place, key)).filter(|(_, key)| key.is_some() == is_secure)),
        (Err(_), Expected::Offer(_)) => Ok(None),
        (Err(refused), Expected::Answer(_)) => Err(refused),
    }
}

fn begun(line: &str, session: Option<IpAddr>, direction: Direction) -> Option<Media> {
    let words: Vec<&str> = line.split(' ').collect();
    let [kind, port, profile, formats @ ..] = &words[..] else { return None };
    let port: u16 = port.split('/').next()?.parse().ok()?;
    let address = session.unwrap_or(IpAddr::from([0, 0, 0, 0]));
    let rtp = (port != 0).then_some(SocketAddr::new(address, port));
    Some(Media {
        kind: (*kind).to_owned(),
        profile: (*profile).to_owned(),
        formats: formats.iter().map(|format| (*format).to_owned()).collect(),
        rtp,
        // RFC 3550 §11.
        rtcp: rtp.and_then(|rtp| Some(SocketAddr::new(rtp.ip(), rtp.port().checked_add(1)?))),
        direction,
        pictures: None,
        keys: Vec::new(),
    })
}

fn attribute(one: &mut Media, line: &str) {
    if let Some(mapping) = line.strip_prefix("a=rtpmap:")
        && let Some((number, encoding)) = mapping.split_once(' ')
        && encoding.split('/').next() == Some(video::ENCODING)
    {
        one.pictures = number.parse().ok().filter(|number: &u8| *number < 128);
    } else if line.starts_with(sdes::ATTRIBUTE) {
        one.keys.push(Crypto::read(line));
    } else if let Some(rtcp) = line.strip_prefix("a=rtcp:") {
        // RFC 3605.
        let mut words = rtcp.split(' ');
        let port = words.next().and_then(|port| port.parse().ok());
        let address = words.nth(2).and_then(|address| address.parse().ok());
        if let (Some(port), Some(place)) = (port, &mut one.rtcp) {
            *place = SocketAddr::new(address.unwrap_or(place.ip()), port);
        }
    }
}

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

fn pictures(text: &mut String, port: u16, profile: &str, number: u8, direction: Direction) {
    let (encoding, clock, line) = (video::ENCODING, video::CLOCK, direction.line());
    let _ = write!(
        text,
        "m=video {port} {profile} {number}\r\na=rtpmap:{number} {encoding}/{clock}\r\n{line}\r\n"
    );
}

#[cfg(test)]
mod tests {
    use super::*;

    fn local(video_port: Option<u16>) -> Local {
        with(Srtp::Accept, video_port)
    }

    fn with(srtp: Srtp, video_port: Option<u16>) -> Local {
        Local {
            address: IpAddr::from([192, 0, 2, 7]),
            session: 5,
            version: 0,
            audio_port: 4000,
            video_port,
            direction: Direction::Both,
            support: None,
            srtp,
            keys: [1, 2].map(|octet| Master::new([octet; Master::LENGTH])),
            offered: [None; 2],
        }
    }

    const OFFER: Expected = Expected::Offer(Srtp::Accept);
    const PLAIN: Expected = Expected::Answer([None; 2]);

    #[test]
    fn an_answer_to_our_offer_agrees_on_sound_and_pictures() {
        let offer = Remote::read(&local(Some(4002)).offer(None), OFFER).unwrap();
        assert_eq!((offer.audio, offer.video), ((0, Codec::Pcmu), Some(1)));
        assert!(offer.is_in_order());
        let answer = Remote::read(&local(Some(5002)).answer(&offer), PLAIN).unwrap();
        assert_eq!(answer.media[1].rtp, Some("192.0.2.7:5002".parse().unwrap()));
        let without = Remote::read(&local(None).answer(&offer), PLAIN).unwrap();
        assert_eq!((without.video, without.media[1].rtp), (None, None));
    }

    #[test]
    fn what_cannot_be_used_is_refused_in_its_place() {
        let offer = "v=0\r\no=- 1 1 IN IP4 192.0.2.1\r\ns=-\r\nt=0 0\r\nm=image 9 udptl t38\r\nc=IN IP4 192.0.2.2\r\n\
                     m=audio 4000 RTP/AVP 96 8 0\r\nc=IN IP4 192.0.2.3\r\na=sendonly\r\na=rtcp:4100\r\n";
        let offer = Remote::read(offer, OFFER).unwrap();
        assert_eq!(offer.audio, (1, Codec::Pcma));
        assert_eq!(offer.media[1].rtcp, Some("192.0.2.3:4100".parse().unwrap()));
        assert!(!offer.is_in_order());
        let answer = local(None).answer(&offer);
        assert!(answer.contains("m=image 0 udptl t38\r\nm=audio 4000 RTP/AVP 8\r\n"), "{answer}");
        assert!(answer.contains("a=recvonly"), "{answer}");
    }

    #[test]
    fn an_encrypted_call_has_a_key_for_each_stream_and_direction_and_keeps_them() {
        let (mut caller, mut callee) = (with(Srtp::Require, Some(4002)), local(Some(5002)));
        callee.keys = [3, 4].map(|octet| Master::new([octet; Master::LENGTH]));
        let offer = Remote::read(&caller.offer(None), OFFER).unwrap();
        let answer = callee.answer(&offer);
        let answer = Remote::read(&answer, Expected::Answer(caller.offered)).unwrap();
        let masters = |remote: &Remote| remote.keys.clone().map(|key| key.unwrap().master);
        assert_eq!((masters(&offer), masters(&answer)), (caller.keys.clone(), callee.keys.clone()));
        // The callee's re-INVITE, and the caller's.
        let again = Remote::read(&callee.offer(Some(&offer)), Expected::Offer(Srtp::Require)).unwrap();
        assert_eq!(masters(&again), callee.keys);
        let again = Remote::read(&caller.offer(Some(&answer)), OFFER).unwrap();
        assert_eq!(masters(&again), caller.keys);
    }

    #[test]
    fn a_peer_that_answers_an_offer_of_encryption_wrongly_is_told_what_is_wrong() {
        let mut caller = with(Srtp::Require, None);
        let offer = Remote::read(&caller.offer(None), OFFER).unwrap();
        let answer = local(None).answer(&offer);
        let read = |answer: &str| Remote::read(answer, Expected::Answer(caller.offered)).map(drop);
        assert_eq!(read(&answer), Ok(()));
        let crypto = answer.lines().find(|line| line.starts_with(sdes::ATTRIBUTE)).unwrap();
        for (before, after, reason) in [
            ("RTP/SAVP", "RTP/AVP", Unusable::Plain),
            (crypto, "a=x", Unusable::NoKey),
            ("a=crypto:1", "a=crypto:2", Unusable::OtherKey),
            ("SHA1_80", "SHA1_32", Unusable::OtherKey),
            ("SHA1_80", "SHA1_79", Unusable::Crypto(Refused::Suite)),
            ("inline:", "inline:*", Unusable::Crypto(Refused::Key)),
        ] {
            assert_eq!(read(&answer.replace(before, after)), Err(reason), "{before} {after}");
        }
        assert_eq!(Remote::read(&answer, PLAIN), Err(Unusable::NotOffered));
    }

    #[test]
    fn who_requires_encryption_takes_no_plain_offer_and_nobody_mixes_plain_pictures_with_encrypted_sound() {
        let plain = local(Some(4002)).offer(None);
        assert_eq!(Remote::read(&plain, Expected::Offer(Srtp::Require)), Err(Unusable::Plain));
        let mixed = with(Srtp::Require, Some(4002)).offer(None);
        let mixed = mixed.replace("m=video 4002 RTP/SAVP", "m=video 4002 RTP/AVP");
        let offer = Remote::read(&mixed, OFFER).unwrap();
        assert!(offer.video.is_none() && offer.keys[0].is_some());
        assert!(local(Some(5002)).answer(&offer).contains("m=video 0 RTP/AVP"));
    }

    #[test]
    fn without_g711_there_is_no_call() {
        for line in [
            "m=audio 4000 TCP/RTP/AVP 0",
            "m=audio 4000 RTP/AVP 96",
            "m=audio 0 RTP/AVP 0",
            "m=video 4 RTP/AVP 0",
            "",
        ] {
            assert_eq!(
                Remote::read(&format!("v=0\r\nc=IN IP4 192.0.2.1\r\n{line}\r\n"), OFFER),
                Err(Unusable::NoAudio),
                "{line}"
            );
        }
    }
}
