//! A simulated telephone: how it sends, hears, reports and moves is what was measured of real ones.

use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use nat_lab::{HostId, Network};

use crate::Dice;

/// Temperaments.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Reports every five seconds.
    Baresip,
    /// Reports when it pleases.
    Linphone,
    /// Follows whom it hears, and counts anew after each description.
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
    /// All but who stays put.
    pub const ALL: [Self; 14] = [
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

    /// Its User-Agent.
    pub fn product(self) -> &'static str {
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

/// When a phone sends, of the packets that it could: all, or what its voice activity detection lets pass.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Voice {
    /// All.
    Steady,
    /// Spurts of talk and pauses, in which nothing is sent.
    Spurts,
    /// A packet of comfort noise each 200 ms of a pause (RFC 3389).
    ComfortNoise,
    /// Nothing at all between these, in ms after the call began.
    Muted {
        /// When it begins.
        from: u64,
        /// When it ends.
        to: u64,
    },
}

/// What a description says of the one m-line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Said {
    /// Where media goes.
    pub rtp: SocketAddr,
    /// Where reports go.
    pub rtcp: SocketAddr,
    /// `sendrecv` and the others.
    pub direction: &'static str,
    /// Of `o=`.
    pub version: u64,
    is_muxed: bool,
}

impl Said {
    /// The same, which may follow what was said before (RFC 3264 §8).
    #[must_use]
    pub fn following(self, before: Option<Self>) -> Self {
        let may_follow = before.is_none_or(|before| self == before || self.version > before.version);
        assert!(may_follow, "{self:?} after {before:?}");
        self
    }

    /// What an answer says of its direction (RFC 3264 §6.1).
    pub fn answering(self) -> &'static str {
        match self.direction {
            "sendonly" => "recvonly",
            "recvonly" => "sendonly",
            other => other,
        }
    }
}

/// Reads a description apart from the product's own code.
pub fn read(sdp: &[u8]) -> Said {
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

/// One of them.
#[derive(Debug)]
pub struct Phone {
    /// Its temperament.
    pub kind: Kind,
    /// Its place in the network.
    pub host: HostId,
    /// Its media's.
    pub local: SocketAddr,
    /// Its source.
    pub ssrc: u32,
    /// Where signalling told it to send.
    said: Option<Said>,
    /// Where it sends.
    pub target: Option<SocketAddr>,
    rtcp_target: Option<SocketAddr>,
    sends: bool,
    hears: bool,
    direction: &'static str,
    version: u64,
    /// Of its last packet, with its wraps.
    pub sequence: u32,
    sent: u32,
    /// When it last sent.
    spoke: Duration,
    next_report: Duration,
    /// A PJSIP's, after a re-INVITE.
    pub first_report: Duration,
    /// Of the far source: its name, first and highest number, and how many.
    source: Option<u32>,
    first: Option<u32>,
    highest: u32,
    received: u32,
    /// Its latest packet is the first after a long silence: oRTP has thrown away the number of the one before.
    has_forgotten: bool,
    /// When it last heard something.
    pub heard: Duration,
    /// How long it heard nothing at most.
    pub longest_silence: Duration,
    strange: (Option<SocketAddr>, u32),
    is_fresh: bool,
    is_muxed: bool,
    /// When it sends.
    pub voice: Voice,
    /// Whether it talks, and until when; and from when its detection is at work: PJSIP's rests for 600 ms after a re-INVITE.
    is_talking: bool,
    turn: Duration,
    detects: Duration,
    began: Option<Duration>,
    /// What it had sent by its last reports but one and two: a sender report goes out if that has changed.
    told: [u32; 2],
    /// Reports that are lost between these times, whatever the network does.
    pub loses_reports: std::ops::Range<Duration>,
    /// It lets one report a minute be lost.
    pub loses_one_a_minute: bool,
    /// When.
    pub lost_reports: Vec<Duration>,
    /// The same, and those after them that say nothing of what had been sent before.
    pub untold_reports: Vec<Duration>,
    is_untold: bool,
    /// How much of what was sent to it has not been heard, since it heard anything.
    pub unheard: Duration,
    /// The most of it.
    pub longest_unheard: Duration,
}

impl Phone {
    /// With its media at `local`.
    pub fn new(kind: Kind, host: HostId, local: SocketAddr, ssrc: u32, dice: &mut Dice) -> Self {
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
            first_report: Duration::from_millis(200),
            spoke: Duration::ZERO,
            source: None,
            first: None,
            highest: 0,
            has_forgotten: false,
            received: 0,
            heard: Duration::ZERO,
            longest_silence: Duration::ZERO,
            strange: (None, 0),
            is_fresh: false,
            is_muxed: false,
            voice: Voice::Steady,
            is_talking: true,
            turn: Duration::ZERO,
            detects: Duration::ZERO,
            began: None,
            told: [0; 2],
            loses_reports: Duration::ZERO..Duration::ZERO,
            loses_one_a_minute: false,
            lost_reports: Vec::new(),
            untold_reports: Vec::new(),
            is_untold: false,
            unheard: Duration::ZERO,
            longest_unheard: Duration::ZERO,
        }
    }

    /// Its own description.
    pub fn describe(&mut self, direction: &'static str) -> Bytes {
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
    pub fn answer(&mut self, offer: &[u8], now: Duration, dice: &mut Dice) -> Bytes {
        let (before, said) = (self.said, read(offer));
        self.said = Some(said);
        let answer = self.describe(said.answering());
        self.said = before;
        self.follow(offer, now, dice);
        answer
    }

    /// Does what the far description says.
    pub fn follow(&mut self, sdp: &[u8], now: Duration, dice: &mut Dice) {
        let before = self.said;
        let said = read(sdp).following(before);
        self.said = Some(said);
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
            (self.source, self.first, self.received) = (None, None, 0);
            (self.sent, self.told) = (0, [0; 2]);
            self.detects = now + Duration::from_millis(600);
        }
        self.sends = self.direction == "sendrecv" || self.direction == "sendonly";
        self.hears = self.direction == "sendrecv" || self.direction == "recvonly";
        if !self.hears {
            self.heard = now;
        }
        self.next_report = match self.kind {
            kind if kind.is_mute() => Duration::MAX,
            Kind::Pjsip | Kind::Deaf => now + self.first_report,
            Kind::Linphone | Kind::Slow(_) => now + Duration::from_millis(300 + dice.below(2_700)),
            _ => now + Duration::from_secs(5),
        };
    }

    /// Neither speaks nor listens.
    pub fn hang_up(&mut self) {
        (self.sends, self.hears) = (false, false);
    }

    /// Whether it listens, as was agreed.
    pub fn is_hearing(&self) -> bool {
        self.hears
    }

    /// Whether a packet is sent now, and of which payload type.
    fn utters(&mut self, now: Duration, dice: &mut Dice) -> Option<u8> {
        let age = now - *self.began.get_or_insert(now);
        if self.voice == Voice::Steady || now < self.detects {
            return Some(0);
        }
        if let Voice::Muted { from, to } = self.voice {
            return (!(from..to).contains(&(age.as_millis() as u64))).then_some(0);
        }
        if now >= self.turn {
            self.is_talking = !self.is_talking || self.turn.is_zero();
            let most = if self.is_talking { 4_000 } else { 8_000 };
            self.turn = now + Duration::from_millis(300 + dice.below(most));
        }
        let is_noise = self.voice == Voice::ComfortNoise && age.as_millis().is_multiple_of(200);
        // In a pause of PJSIP's own there is a packet each five seconds.
        let is_alive = self.kind == Kind::Pjsip && now >= self.spoke + Duration::from_secs(5);
        if self.is_talking || is_alive { Some(0) } else { is_noise.then_some(13) }
    }

    /// Every 20 ms. Whether it has sent.
    pub fn speak(&mut self, network: &mut Network, now: Duration, dice: &mut Dice) -> bool {
        let Some(target) = self.target.filter(|_| self.sends) else { return false };
        let Some(payload_type) = self.utters(now, dice) else { return false };
        self.sequence += 1;
        self.spoke = now;
        self.sent = self.sent.wrapping_add(1);
        let mut packet = vec![0u8; 20];
        packet[0] = 0x80;
        packet[1] = payload_type;
        packet[2..4].copy_from_slice(&(self.sequence as u16).to_be_bytes());
        packet[4..8].copy_from_slice(&((now.as_millis() as u32).wrapping_mul(8)).to_be_bytes());
        packet[8..12].copy_from_slice(&self.ssrc.to_be_bytes());
        let _ = network.send(self.host, self.local, target, packet.into());
        true
    }

    /// It keeps its NAT's hole open with a binding request (RFC 8489 §6) beside its media, as linphone does with each description.
    pub fn keep_open(&self, network: &mut Network) {
        let Some(target) = self.target else { return };
        let mut request = vec![0, 1, 0, 0, 0x21, 0x12, 0xa4, 0x42];
        request.resize(20, self.ssrc as u8);
        let _ = network.send(self.host, self.local, target, request.into());
    }

    /// As many packets it would have counted before: its count wraps soon.
    pub fn has_sent(&mut self, packets: u32) {
        self.sent = packets;
        self.told = [packets; 2];
    }

    /// It sends as another source from now on, and counts anew (RFC 3550 §8.2).
    pub fn changes_source(&mut self) {
        self.ssrc ^= 0x100;
        self.sequence = self.sequence.wrapping_mul(7) % 0x10000;
        (self.sent, self.told) = (0, [0; 2]);
    }

    /// Sends a report if one is due.
    pub fn report(&mut self, network: &mut Network, now: Duration, dice: &mut Dice) {
        if now < self.next_report {
            return;
        }
        self.next_report = now
            + match self.kind {
                // Measured: median 5.5 s.
                Kind::Linphone | Kind::Slow(_) => {
                    let share = dice.below(100);
                    Duration::from_millis(if share < 25 {
                        2_300 + dice.below(3_000)
                    } else {
                        5_300 + dice.below(860)
                    })
                }
                // PJSIP's has some play, too.
                Kind::Pjsip => Duration::from_millis(5_000 + dice.below(400)),
                _ => Duration::from_secs(5),
            };
        let Some(target) = self.rtcp_target else { return };
        let blocks = u8::from(self.first.is_some());
        // Without a sender's part if nothing was sent since the report before the last (RFC 3550 §6.4); of oRTP and PJSIP, since the last.
        let is_brief = matches!(self.kind, Kind::Linphone | Kind::Slow(_) | Kind::Pjsip | Kind::Deaf);
        let is_sender = self.sent != self.told[usize::from(is_brief)];
        self.told = [self.told[1], self.sent];
        let mut packet = if is_sender {
            vec![0x80 | blocks, 200, 0, 6 + 6 * blocks]
        } else {
            vec![0x80 | blocks, 201, 0, 1 + 6 * blocks]
        };
        let words = [self.ssrc, now.as_secs() as u32, 0, 0, self.sent, self.sent.wrapping_mul(20)];
        for word in &words[..if is_sender { 6 } else { 1 }] {
            packet.extend(word.to_be_bytes());
        }
        if let Some((first, source)) = self.first.zip(self.source) {
            let lost = (self.highest - first + 1).saturating_sub(self.received) & 0x7f_ffff;
            let highest = if self.has_forgotten { 0 } else { self.highest };
            for word in [source, lost, highest, 8, 0, 0] {
                packet.extend(word.to_be_bytes());
            }
        }
        let is_lost = self.loses_one_a_minute
            && self.lost_reports.last().is_none_or(|last| now >= *last + Duration::from_secs(60))
            && dice.below(4) == 0;
        let is_lost = is_lost || self.loses_reports.contains(&now);
        self.is_untold = is_lost || (self.is_untold && !is_sender);
        if self.is_untold {
            self.untold_reports.push(now);
        }
        if is_lost {
            self.lost_reports.push(now);
            return;
        }
        let local = SocketAddr::new(self.local.ip(), self.local.port() + u16::from(!self.is_muxed));
        let _ = network.send(self.host, local, target, packet.into());
    }

    /// A datagram arrived at its RTP port.
    pub fn hear(&mut self, source: SocketAddr, packet: &[u8], now: Duration) {
        if packet.len() < 12 || packet[0] >> 6 != 2 || matches!(packet[1], 200..=204) || !self.hears {
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
        let source = u32::from_be_bytes([packet[8], packet[9], packet[10], packet[11]]);
        if self.source.replace(source) != Some(source) {
            (self.first, self.received) = (None, 0);
        }
        self.longest_unheard = self.longest_unheard.max(std::mem::take(&mut self.unheard));
        let low = u16::from_be_bytes([packet[2], packet[3]]);
        let step = low.wrapping_sub(self.highest as u16);
        if self.first.is_none() {
            (self.first, self.highest) = (Some(u32::from(low)), u32::from(low));
        } else if step < 0x8000 {
            self.highest += u32::from(step);
        }
        self.received += 1;
        let is_ortp = matches!(self.kind, Kind::Linphone | Kind::Slow(_));
        self.has_forgotten = is_ortp && now.saturating_sub(self.heard) >= Duration::from_secs(5);
        self.longest_silence = self.longest_silence.max(now.saturating_sub(self.heard));
        self.heard = now;
    }
}
