//! One call's media: G.711 in packets of 20 ms, what comes of the other side's, and reports about it (RFC 3550 §6.4.1).

use std::net::SocketAddr;
use std::time::Duration;

const PACKET: Duration = Duration::from_millis(20);
/// Samples in a packet.
const STEP: u32 = 160;
/// As linphone does: 1.5 to 3 s between two reports, and the first 0.3 s after media was moved.
const SPACING: Duration = Duration::from_millis(1_500);
const AFTER_MOVE: Duration = Duration::from_millis(300);

/// Where a description puts media, and which way it may flow.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Target {
    pub(crate) media: SocketAddr,
    pub(crate) reports: SocketAddr,
    /// Whether we may send there.
    pub(crate) is_open: bool,
}

impl Target {
    /// Of the first m-line of a description; RTCP is where `a=rtcp` says (RFC 3605), or one port higher.
    pub(crate) fn read(sdp: &[u8]) -> Option<Self> {
        let text = std::str::from_utf8(sdp).ok()?;
        let value = |name: &str| text.lines().find_map(|line| line.strip_prefix(name));
        let address = value("c=IN IP4 ")?.trim().parse().ok()?;
        let port: u16 = value("m=audio ")?.split(' ').next()?.parse().ok()?;
        let mut words = value("a=rtcp:").unwrap_or_default().split_whitespace();
        let reports_port = words.next().and_then(|port| port.parse().ok()).unwrap_or(port + 1);
        let reports_at = words.nth(2).and_then(|address| address.parse().ok()).unwrap_or(address);
        let is_open =
            !["a=inactive", "a=sendonly"].iter().any(|closed| text.lines().any(|line| line == *closed));
        Some(Self {
            media: SocketAddr::new(address, port),
            reports: SocketAddr::new(reports_at, reports_port),
            is_open,
        })
    }
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Talk {
    ssrc: u32,
    sent: u32,
    due: Duration,
    report_due: Duration,
    pub(crate) target: Option<Target>,
    pub(crate) heard: Option<Heard>,
}

/// What came of the other side's stream.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Heard {
    pub(crate) ssrc: u32,
    first: u32,
    highest: u32,
    received: u32,
    pub(crate) last: Duration,
    /// The longest time between two packets.
    pub(crate) longest: Duration,
}

impl Talk {
    pub(crate) fn new(ssrc: u32, now: Duration) -> Self {
        Self { ssrc, sent: 0, due: now, report_due: now + SPACING, target: None, heard: None }
    }

    /// The call's media goes elsewhere from now on.
    pub(crate) fn aim(&mut self, target: Target, now: Duration) {
        if self.target.is_some_and(|before| before != target) {
            self.report_due = now + AFTER_MOVE;
        }
        self.target = Some(target);
    }

    /// The packet that is due, if one is.
    pub(crate) fn packet(&mut self, now: Duration) -> Option<([u8; 12 + STEP as usize], SocketAddr)> {
        let target = self.target.filter(|_| self.due <= now)?;
        self.due += PACKET;
        if !target.is_open {
            return None;
        }
        let mut packet = [0x55; 12 + STEP as usize];
        packet[..2].copy_from_slice(&[0x80, 0]);
        packet[2..4].copy_from_slice(&(self.sent as u16).to_be_bytes());
        packet[4..8].copy_from_slice(&self.sent.wrapping_mul(STEP).to_be_bytes());
        packet[8..12].copy_from_slice(&self.ssrc.to_be_bytes());
        self.sent += 1;
        Some((packet, target.media))
    }

    /// The other side's packet.
    pub(crate) fn hear(&mut self, ssrc: u32, sequence: u16, now: Duration) {
        let Some(heard) = self.heard.as_mut().filter(|heard| heard.ssrc == ssrc) else {
            let first = u32::from(sequence);
            self.heard =
                Some(Heard { ssrc, first, highest: first, received: 1, last: now, longest: Duration::ZERO });
            return;
        };
        let ahead = sequence.wrapping_sub(heard.highest as u16) as i16;
        heard.highest = heard.highest.max(heard.highest.wrapping_add_signed(i32::from(ahead)));
        heard.received += 1;
        heard.longest = heard.longest.max(now - heard.last);
        heard.last = now;
    }

    /// The report that is due, if one is: what was sent, and what was heard.
    pub(crate) fn report(&mut self, now: Duration, wall: Duration) -> Option<(Vec<u8>, SocketAddr)> {
        let target = self.target.filter(|_| self.report_due <= now)?;
        self.report_due = now
            + SPACING
            + Duration::from_millis(u64::from(self.ssrc.wrapping_mul(2_654_435_761) >> 16) % 1_500);
        let blocks = u8::from(self.heard.is_some());
        let mut report = vec![0x80 | blocks, 200, 0, 6 + 6 * blocks];
        let seconds = (wall.as_secs() as u32).wrapping_add(2_208_988_800);
        let fraction = ((u64::from(wall.subsec_nanos()) << 32) / 1_000_000_000) as u32;
        for word in [
            self.ssrc,
            seconds,
            fraction,
            self.sent.wrapping_mul(STEP),
            self.sent,
            self.sent.wrapping_mul(STEP),
        ] {
            report.extend(word.to_be_bytes());
        }
        if let Some(heard) = self.heard {
            let lost = (heard.highest - heard.first + 1).saturating_sub(heard.received);
            for word in [heard.ssrc, lost & 0xff_ffff, heard.highest, 0, 0, 0] {
                report.extend(word.to_be_bytes());
            }
        }
        // SDES with a CNAME (RFC 3550 §6.5).
        report.extend([0x81, 202, 0, 3]);
        report.extend(self.ssrc.to_be_bytes());
        report.extend([1, 5, b'c', b'r', b'o', b'w', b'd', 0]);
        Some((report, target.reports))
    }
}
