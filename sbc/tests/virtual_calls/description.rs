//! What the phones say in their session descriptions, and how they read them: written apart from the product's own SDP.

use std::net::{IpAddr, SocketAddr};

use bytes::Bytes;
use sip_engine::negotiation::Agreed;

/// One m-line, read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Stream {
    pub(crate) kind: String,
    pub(crate) address: SocketAddr,
    pub(crate) codecs: Vec<String>,
    pub(crate) direction: String,
}

impl Stream {
    pub(crate) fn is_refused(&self) -> bool {
        self.address.port() == 0
    }
}

/// The m-lines of a description; panics on what is not SDP, since no phone may ever see that.
pub(crate) fn read(sdp: &[u8]) -> Vec<Stream> {
    let text = std::str::from_utf8(sdp).expect("a description is text");
    assert!(text.starts_with("v=0\r\n"), "not a description: {text}");
    let mut session: Option<IpAddr> = None;
    let mut streams: Vec<Stream> = Vec::new();
    for line in text.lines() {
        let words: Vec<&str> = line.get(2..).unwrap_or_default().split(' ').collect();
        match line.get(..2) {
            Some("c=") => {
                let address: IpAddr = words[2].parse().expect("an address in c=");
                match streams.last_mut() {
                    Some(stream) => stream.address.set_ip(address),
                    None => session = Some(address),
                }
            }
            Some("m=") => {
                let address = session.unwrap_or(IpAddr::from([0, 0, 0, 0]));
                streams.push(Stream {
                    kind: words[0].to_owned(),
                    address: SocketAddr::new(address, words[1].parse().expect("a port in m=")),
                    codecs: words[3..].iter().map(|word| (*word).to_owned()).collect(),
                    direction: "sendrecv".to_owned(),
                });
            }
            Some("a=") if ["sendrecv", "sendonly", "recvonly", "inactive"].contains(&words[0]) => {
                if let Some(stream) = streams.last_mut() {
                    stream.direction = words[0].to_owned();
                }
            }
            _ => {}
        }
    }
    streams
}

/// What a new offer changes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Change {
    /// Nothing.
    Same,
    Hold,
    Resume,
    /// Only the phone's last codec.
    Codecs,
    /// Fax in the place of the sound (RFC 3264 §8.3.3).
    FaxInPlace,
    /// Fax beside the refused sound.
    FaxBeside,
    /// Back to sound.
    Sound,
    Video,
}

/// Writes one phone's descriptions.
#[derive(Debug)]
pub(crate) struct Describer {
    address: IpAddr,
    port: u16,
    codecs: Vec<u8>,
    version: u64,
}

impl Describer {
    pub(crate) fn new(address: IpAddr, port: u16, codecs: &[u8]) -> Self {
        Self { address, port, codecs: codecs.to_vec(), version: 0 }
    }

    fn write(&mut self, streams: &[(String, bool, Vec<String>, String)]) -> Bytes {
        self.version += 1;
        let address = self.address;
        let mut text = format!(
            "v=0\r\no=phone {} {} IN IP4 {address}\r\ns=-\r\nc=IN IP4 {address}\r\nt=0 0\r\n",
            self.port, self.version
        );
        for (index, (kind, is_refused, codecs, direction)) in streams.iter().enumerate() {
            let port = if *is_refused { 0 } else { self.port + 2 * index as u16 };
            let profile = if kind == "image" { "udptl" } else { "RTP/AVP" };
            text.push_str(&format!("m={kind} {port} {profile} {}\r\n", codecs.join(" ")));
            if kind == "image" {
                text.push_str("a=T38FaxVersion:0\r\n");
            } else if direction != "sendrecv" {
                text.push_str(&format!("a={direction}\r\n"));
            }
        }
        text.into()
    }

    fn sound(&self) -> (String, bool, Vec<String>, String) {
        let codecs = self.codecs.iter().map(u8::to_string).collect();
        ("audio".to_owned(), false, codecs, "sendrecv".to_owned())
    }

    /// An offer, as a change to what is agreed.
    pub(crate) fn offer(&mut self, agreed: Option<&Agreed>, change: Change) -> Bytes {
        let mut streams: Vec<_> = match agreed {
            Some(agreed) => read(&agreed.local)
                .into_iter()
                .map(|stream| (stream.kind.clone(), stream.is_refused(), stream.codecs, stream.direction))
                .collect(),
            None => vec![self.sound()],
        };
        for stream in &mut streams {
            if stream.0 == "audio" && !stream.1 {
                stream.2 = self.sound().2;
            }
        }
        let fax = || ("image".to_owned(), false, vec!["t38".to_owned()], "sendrecv".to_owned());
        match change {
            Change::Same => {}
            Change::Hold => streams.iter_mut().for_each(|stream| stream.3 = "sendonly".to_owned()),
            Change::Resume => streams.iter_mut().for_each(|stream| stream.3 = "sendrecv".to_owned()),
            Change::Codecs => {
                let last = self.codecs.last().map(u8::to_string).into_iter().collect();
                streams[0] = ("audio".to_owned(), false, last, "sendrecv".to_owned());
            }
            Change::FaxInPlace => streams[0] = fax(),
            Change::FaxBeside => {
                streams.iter_mut().for_each(|stream| stream.1 = true);
                match streams.iter_mut().find(|stream| stream.0 == "image") {
                    Some(stream) => stream.1 = false,
                    None => streams.push(fax()),
                }
            }
            Change::Sound => {
                streams.iter_mut().for_each(|stream| stream.1 = true);
                streams[0] = self.sound();
            }
            Change::Video => {
                if !streams.iter().any(|stream| stream.0 == "video") {
                    streams.push(("video".to_owned(), false, vec!["34".to_owned()], "sendrecv".to_owned()));
                }
            }
        }
        self.write(&streams)
    }

    /// An answer with another port and no more than one codec.
    pub(crate) fn announcement(&mut self, offer: &[u8]) -> Option<Bytes> {
        let mut elsewhere = Self::new(self.address, self.port + 100, &self.codecs[self.codecs.len() - 1..]);
        elsewhere.answer(offer)
    }

    /// The answer; `None` if nothing of the offer can be had (488).
    pub(crate) fn answer(&mut self, offer: &[u8]) -> Option<Bytes> {
        let own: Vec<String> = self.codecs.iter().map(u8::to_string).collect();
        let streams: Vec<_> = read(offer)
            .into_iter()
            .map(|offered| {
                let codecs: Vec<String> = match offered.kind.as_str() {
                    "audio" => own.iter().filter(|codec| offered.codecs.contains(codec)).cloned().collect(),
                    _ => offered.codecs.clone(),
                };
                let is_refused = offered.is_refused() || codecs.is_empty();
                let direction = match offered.direction.as_str() {
                    "sendonly" => "recvonly",
                    "recvonly" => "sendonly",
                    "inactive" => "inactive",
                    _ => "sendrecv",
                };
                let codecs = if codecs.is_empty() { offered.codecs } else { codecs };
                (offered.kind, is_refused, codecs, direction.to_owned())
            })
            .collect();
        if streams.iter().all(|stream| stream.1) {
            return None;
        }
        Some(self.write(&streams))
    }
}

/// A description as the answer to another offer than it was made for: with no format that is not offered.
pub(crate) fn narrowed(description: &[u8], offer: &[u8]) -> Bytes {
    let mut offered = read(offer).into_iter();
    let text = std::str::from_utf8(description).expect("a description is text");
    let lines = text.lines().map(|line| {
        let Some(rest) = line.strip_prefix("m=") else { return line.to_owned() };
        let words: Vec<&str> = rest.split(' ').collect();
        let offered = offered.next().map(|stream| stream.codecs).unwrap_or_default();
        let kept: Vec<&str> =
            words[3..].iter().copied().filter(|word| offered.iter().any(|codec| codec == word)).collect();
        // Of a refused stream the formats mean nothing.
        let formats = if kept.is_empty() { words[3..].to_vec() } else { kept };
        format!("m={} {} {} {}", words[0], words[1], words[2], formats.join(" "))
    });
    lines.fold(String::new(), |text, line| text + &line + "\r\n").into()
}
