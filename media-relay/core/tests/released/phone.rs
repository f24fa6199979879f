//! A simulated telephone: how it sends, hears, reports and moves is what was measured of real ones.

use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use nat_lab::{HostId, Network};

use crate::dice::Dice;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Baresip,
    Linphone,
    Pjsip,
    /// Nobody knows it, and it reports every five seconds.
    Unknown,
    /// Never reports.
    Mute,
    /// Never reports, though its kind does.
    MuteBaresip,
    /// Reports to the port above its media's, whatever `a=rtcp` says.
    IgnoresRtcp,
    /// Sends its reports from its RTP port to the other's where that is agreed (RFC 5761).
    Muxed,
    /// Refuses every re-INVITE with this status.
    Refusing(u16),
    /// Answers re-INVITEs after so long.
    Slow(Duration),
    /// Never answers one.
    Deaf,
    /// Takes every offer, and goes on sending to where the first one led it.
    StaysPut,
}

impl Kind {
    pub(crate) const ALL: [Self; 14] = [
        Self::Baresip,
        Self::Linphone,
        Self::Pjsip,
        Self::Unknown,
        Self::Mute,
        Self::MuteBaresip,
        Self::IgnoresRtcp,
        Self::Muxed,
        Self::Refusing(488),
        Self::Refusing(491),
        Self::Refusing(500),
        Self::Refusing(501),
        Self::Slow(Duration::from_millis(3_500)),
        Self::Deaf,
    ];

    pub(crate) fn product(self) -> &'static str {
        match self {
            Self::Baresip | Self::MuteBaresip | Self::IgnoresRtcp | Self::Refusing(_) | Self::StaysPut => {
                "baresip v1.0.0 (x86_64/linux)"
            }
            Self::Linphone | Self::Slow(_) => "Linphone/5.1.65 (belle-sip/5.1)",
            Self::Pjsip | Self::Deaf => "PJSUA v2.15.1",
            Self::Unknown | Self::Muxed | Self::Mute => "Acme 1",
        }
    }

    fn follows(self) -> bool {
        matches!(self, Self::Pjsip | Self::Deaf)
    }

    fn is_mute(self) -> bool {
        matches!(self, Self::Mute | Self::MuteBaresip)
    }
}

/// What a description says of the one m-line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Said {
    pub(crate) rtp: SocketAddr,
    pub(crate) rtcp: SocketAddr,
    pub(crate) direction: &'static str,
    pub(crate) version: u64,
    is_muxed: bool,
}

/// Reads a description apart from the product's own code.
pub(crate) fn read(sdp: &[u8]) -> Said {
    let text = std::str::from_utf8(sdp).expect("text");
    let value = |start: &str| text.lines().filter_map(|line| line.strip_prefix(start)).next_back();
    let ip = value("c=IN IP4 ").expect("an address").parse().expect("IPv4");
    let port: u16 =
        value("m=audio ").and_then(|line| line.split(' ').next()).expect("a port").parse().expect("a number");
    let rtcp = value("a=rtcp:").map(|line| {
        let words: Vec<&str> = line.split(' ').collect();
        SocketAddr::new(words[3].parse().expect("an address"), words[0].parse().expect("a port"))
    });
    let direction = ["sendonly", "recvonly", "inactive"]
        .into_iter()
        .find(|direction| text.contains(&format!("a={direction}\r\n")))
        .unwrap_or("sendrecv");
    let version =
        value("o=").and_then(|line| line.split(' ').nth(2)).expect("o=").parse().expect("a version");
    let rtp = SocketAddr::new(ip, port);
    Said {
        rtp,
        rtcp: rtcp.unwrap_or(SocketAddr::new(ip, port + 1)),
        direction,
        version,
        is_muxed: text.contains("a=rtcp-mux\r\n"),
    }
}

#[derive(Debug)]
pub(crate) struct Phone {
    pub(crate) kind: Kind,
    pub(crate) host: HostId,
    pub(crate) local: SocketAddr,
    ssrc: u32,
    /// Where signalling told it to send, and where it sends.
    said: Option<Said>,
    pub(crate) target: Option<SocketAddr>,
    rtcp_target: Option<SocketAddr>,
    sends: bool,
    hears: bool,
    direction: &'static str,
    version: u64,
    sequence: u32,
    sent: u32,
    next_report: Duration,
    /// Of the far source: first and highest number, and how many.
    first: Option<u32>,
    highest: u32,
    received: u32,
    pub(crate) heard: Duration,
    pub(crate) longest_silence: Duration,
    strange: (Option<SocketAddr>, u32),
    is_fresh: bool,
    is_muxed: bool,
}

impl Phone {
    pub(crate) fn new(kind: Kind, host: HostId, local: SocketAddr, ssrc: u32, dice: &mut Dice) -> Self {
        Self {
            kind,
            host,
            local,
            ssrc,
            said: None,
            target: None,
            rtcp_target: None,
            sends: false,
            hears: false,
            direction: "sendrecv",
            version: 0,
            sequence: dice.below(0xffff) as u32,
            sent: 0,
            next_report: Duration::MAX,
            first: None,
            highest: 0,
            received: 0,
            heard: Duration::ZERO,
            longest_silence: Duration::ZERO,
            strange: (None, 0),
            is_fresh: false,
            is_muxed: false,
        }
    }

    /// Its own description.
    pub(crate) fn describe(&mut self, direction: &'static str) -> Bytes {
        self.version += 1;
        self.direction = direction;
        // Whoever answers may only take what was offered; ours never offers it first.
        let mux = if self.kind == Kind::Muxed && self.said.is_none_or(|said| said.is_muxed) {
            "a=rtcp-mux\r\n"
        } else {
            ""
        };
        let (ip, port) = (self.local.ip(), self.local.port());
        format!(
            "v=0\r\no=- 7 {} IN IP4 {ip}\r\ns=-\r\nc=IN IP4 {ip}\r\nt=0 0\r\nm=audio {port} RTP/AVP 0 101\r\na=rtpmap:101 telephone-event/8000\r\na={direction}\r\n{mux}",
            self.version
        )
        .into()
    }

    /// Its answer to an offer, which it follows.
    pub(crate) fn answer(&mut self, offer: &[u8], now: Duration, dice: &mut Dice) -> Bytes {
        let direction = match read(offer).direction {
            "sendonly" => "recvonly",
            "recvonly" => "sendonly",
            other => other,
        };
        let before = self.said;
        self.said = Some(read(offer));
        let answer = self.describe(direction);
        self.said = before;
        self.follow(offer, now, dice);
        answer
    }

    /// Does what the far description says.
    pub(crate) fn follow(&mut self, sdp: &[u8], now: Duration, dice: &mut Dice) {
        let said = read(sdp);
        let before = self.said.replace(said);
        if let Some(before) = before {
            assert!(said == before || said.version > before.version, "{said:?} after {before:?}");
        }
        let first = self.target.filter(|_| self.kind == Kind::StaysPut);
        (self.target, self.rtcp_target, self.strange) =
            (Some(first.unwrap_or(said.rtp)), Some(said.rtcp), (None, 0));
        self.is_muxed = self.kind == Kind::Muxed && said.is_muxed;
        if self.is_muxed {
            self.rtcp_target = Some(said.rtp);
        } else if self.kind == Kind::IgnoresRtcp {
            self.rtcp_target = Some(SocketAddr::new(said.rtp.ip(), said.rtp.port() + 1));
        }
        // PJSIP begins its stream anew, and its counts; the first packet that it then hears decides whom it follows.
        self.is_fresh = before.is_some();
        if self.kind.follows() {
            (self.first, self.received, self.sent) = (None, 0, 0);
        }
        self.sends = self.direction == "sendrecv" || self.direction == "sendonly";
        self.hears = self.direction == "sendrecv" || self.direction == "recvonly";
        if !self.hears {
            self.heard = now;
        }
        self.next_report = match self.kind {
            kind if kind.is_mute() => Duration::MAX,
            Kind::Pjsip | Kind::Deaf => now + Duration::from_millis(200),
            Kind::Linphone | Kind::Slow(_) => now + Duration::from_millis(300 + dice.below(2_700)),
            _ => now + Duration::from_secs(5),
        };
    }

    pub(crate) fn is_hearing(&self) -> bool {
        self.hears
    }

    /// Every 20 ms.
    pub(crate) fn speak(&mut self, network: &mut Network) {
        let Some(target) = self.target.filter(|_| self.sends) else { return };
        self.sequence += 1;
        self.sent += 1;
        let mut packet = vec![0u8; 20];
        packet[0] = 0x80;
        packet[2..4].copy_from_slice(&(self.sequence as u16).to_be_bytes());
        packet[4..8].copy_from_slice(&self.sequence.wrapping_mul(160).to_be_bytes());
        packet[8..12].copy_from_slice(&self.ssrc.to_be_bytes());
        let _ = network.send(self.host, self.local, target, packet.into());
    }

    pub(crate) fn report(&mut self, network: &mut Network, now: Duration, dice: &mut Dice) {
        if now < self.next_report {
            return;
        }
        self.next_report = now
            + match self.kind {
                Kind::Linphone | Kind::Slow(_) => Duration::from_millis(1_500 + dice.below(1_500)),
                _ => Duration::from_secs(5),
            };
        let Some(target) = self.rtcp_target else { return };
        let blocks = u8::from(self.first.is_some());
        let mut packet = vec![0x80 | blocks, 200, 0, 6 + 6 * blocks];
        for word in [self.ssrc, now.as_secs() as u32, 0, 0, self.sent, self.sent * 20] {
            packet.extend(word.to_be_bytes());
        }
        if let Some(first) = self.first {
            let lost = (self.highest - first + 1).saturating_sub(self.received) & 0x7f_ffff;
            // The far one's source is known by its number: the other of two.
            for word in [self.ssrc ^ 1, lost, self.highest, 8, 0, 0] {
                packet.extend(word.to_be_bytes());
            }
        }
        let local = SocketAddr::new(self.local.ip(), self.local.port() + u16::from(!self.is_muxed));
        let _ = network.send(self.host, local, target, packet.into());
    }

    /// A datagram arrived at its RTP port.
    pub(crate) fn hear(&mut self, source: SocketAddr, packet: &[u8], now: Duration) {
        if packet.len() < 12 || matches!(packet[1], 200..=204) || !self.hears {
            return;
        }
        let is_fresh = std::mem::take(&mut self.is_fresh);
        if self.kind.follows() && self.target != Some(source) && !is_fresh {
            let count = if self.strange.0 == Some(source) { self.strange.1 + 1 } else { 1 };
            self.strange = (Some(source), count);
            if count < 10 {
                return;
            }
        }
        if self.kind.follows() {
            (self.target, self.strange) = (Some(source), (None, 0));
        }
        let low = u16::from_be_bytes([packet[2], packet[3]]);
        let step = low.wrapping_sub(self.highest as u16);
        if self.first.is_none() {
            (self.first, self.highest) = (Some(u32::from(low)), u32::from(low));
        } else if step < 0x8000 {
            self.highest += u32::from(step);
        }
        self.received += 1;
        self.longest_silence = self.longest_silence.max(now.saturating_sub(self.heard));
        self.heard = now;
    }
}
