//! Session descriptions as the phone writes and reads them (RFC 4566, RFC 3264): audio in G.711, its own pictures, nothing else; plain
//! or encrypted.

mod local;
mod remote;

pub(crate) use local::Local;
pub(crate) use remote::Remote;

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

#[cfg(test)]
mod tests {
    use std::net::IpAddr;

    use srtp::Master;
    use srtp::sdes::{self, Refused};

    use super::*;
    use crate::codec::Codec;
    use crate::encryption::{Expected, Srtp, Unusable};

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
