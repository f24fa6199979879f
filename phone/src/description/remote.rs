//! What the other end says.

use std::net::{IpAddr, SocketAddr};

use srtp::sdes::{self, Crypto, Refused};

use super::Direction;
use crate::codec::Codec;
use crate::encryption::{Expected, Unusable};
use crate::video;

/// One m-line of the other end's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Media {
    pub(crate) kind: String,
    pub(super) profile: String,
    pub(super) formats: Vec<String>,
    /// `None`: refused.
    pub(crate) rtp: Option<SocketAddr>,
    pub(crate) rtcp: Option<SocketAddr>,
    pub(crate) direction: Direction,
    /// The payload type of our pictures' encoding.
    pub(super) pictures: Option<u8>,
    /// Payload types of which key frames may be asked for by PLI (RFC 4585 §4.2); `*` for all.
    losses: Vec<String>,
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

    /// Whether who takes pictures may ask for a key frame.
    pub(crate) fn hears_losses(&self) -> bool {
        let number = self.pictures.map(|number| number.to_string());
        self.losses.iter().any(|known| known == "*" || Some(known) == number.as_ref())
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
        losses: Vec::new(),
        keys: Vec::new(),
    })
}

fn attribute(one: &mut Media, line: &str) {
    if let Some(mapping) = line.strip_prefix("a=rtpmap:")
        && let Some((number, encoding)) = mapping.split_once(' ')
        && encoding.split('/').next() == Some(video::ENCODING)
    {
        one.pictures = number.parse().ok().filter(|number: &u8| *number < 128);
    } else if let Some((number, "nack pli")) =
        line.strip_prefix("a=rtcp-fb:").and_then(|feedback| feedback.split_once(' '))
    {
        one.losses.push(number.to_owned());
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
