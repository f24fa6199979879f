//! One m-line: what goes out on which path, what comes in, and what both paths are like.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::time::Duration;

use media_wire::handoff::{Kind, Path};
use media_wire::rtp::Header;

use super::io::StreamSetup;
use crate::count::Count;
use crate::handoff::Outgoing;
use crate::playout::Playout;
use crate::sync::Comparison;
use crate::unwrapped::{Unwrapped, UnwrappedTime};

/// So much of what went out directly is sent again after a return (docs/crush.md §8.1).
const RESENT: Duration = Duration::from_millis(100);
/// The playout holds this share of packets, plus the margin.
const SHARE: f64 = 0.98;
/// Milliseconds.
const MARGIN: f64 = 15.0;
/// Milliseconds beyond the first transit, until more is known.
const FIRST: f64 = 40.0;
/// After so long on the direct path alone the playout forgets the relay's delay.
const SETTLED: Duration = Duration::from_secs(1);
/// So many packets on the direct path and none on the relay: the peer's overlap is over.
const ALONE: u32 = 10;
/// Packets of a stream without playout whose second copy is recognised.
const RECENT: i64 = 512;

/// What is counted of the peer's synchronisation source.
#[derive(Debug, Default)]
struct Source {
    payload_type: Option<u8>,
    numbers: Unwrapped,
    times: UnwrappedTime,
    newest: Option<i64>,
    /// Numbers whose second copy is recognised.
    recent: VecDeque<i64>,
}

/// See the module.
#[derive(Debug)]
pub(super) struct Stream {
    pub(super) setup: StreamSetup,
    pub(super) relay: Option<SocketAddr>,
    pub(super) outgoing: Outgoing,
    pub(super) audio_sent: Option<Duration>,
    pub(super) comparison: Comparison,
    pub(super) playout: Option<Playout>,
    pub(super) ssrc: Option<u32>,
    /// The peer was asked to send it directly, and agreed.
    pub(super) direct_since: Option<Duration>,
    /// Encrypted with keys that passed from endpoint to endpoint.
    pub(super) is_keyed: bool,
    /// And direct both ways, which was shown.
    pub(super) is_secured: bool,
    source: Source,
    history: VecDeque<(Duration, Vec<u8>)>,
    since_aim: u32,
    /// Packets of the direct path since the last of the relay.
    direct_alone: u32,
}

/// What became of a packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Taken {
    /// It came for the first time.
    pub(super) first: bool,
    /// It came by the relay after the direct path had been alone: the peer has returned.
    pub(super) back: bool,
}

impl Stream {
    pub(super) fn new(setup: StreamSetup) -> Self {
        let playout = (setup.kind == Kind::Audio).then(|| Playout::new(setup.clock_rate, setup.frame));
        Self {
            setup,
            relay: None,
            outgoing: Outgoing::new(),
            audio_sent: None,
            comparison: Comparison::default(),
            playout,
            ssrc: None,
            direct_since: None,
            is_keyed: false,
            is_secured: false,
            source: Source::default(),
            history: VecDeque::new(),
            since_aim: 0,
            direct_alone: 0,
        }
    }

    pub(super) fn is_audio(&self) -> bool {
        self.setup.kind == Kind::Audio
    }

    /// Whether a packet on the direct path may be its: the SSRC is known, or new and of its payload type.
    pub(super) fn owns(&self, header: &Header) -> bool {
        self.ssrc == Some(header.ssrc)
    }

    pub(super) fn has_payload_type(&self, packet: &[u8]) -> bool {
        self.source.payload_type.is_some()
            && self.source.payload_type == packet.get(1).map(|byte| byte & 0x7F)
    }

    /// A packet of this stream.
    pub(super) fn arrived(&mut self, path: Path, header: Header, packet: &[u8], now: Duration) -> Taken {
        if self.ssrc != Some(header.ssrc) {
            // Another source: nothing of the old one's numbers holds.
            self.ssrc = Some(header.ssrc);
            self.source = Source::default();
            self.comparison = Comparison::default();
            if let Some(playout) = &mut self.playout {
                *playout = Playout::new(self.setup.clock_rate, self.setup.frame);
            }
        }
        self.source.payload_type = packet.get(1).map(|byte| byte & 0x7F);
        let number = self.source.numbers.extend(header.sequence);
        let time = self.source.times.extend(header.timestamp);
        let media = time as f64 * 1000.0 / f64::from(self.setup.clock_rate.max(1));
        let transit = now.as_secs_f64() * 1000.0 - media;
        self.comparison.arrived(path, number, transit, now);
        let newest = self.source.newest.is_none_or(|newest| number > newest);
        let back = path == Path::Relay && newest && self.direct_alone >= ALONE;
        self.direct_alone = if path == Path::Relay { 0 } else { self.direct_alone.saturating_add(1) };
        self.source.newest = self.source.newest.max(Some(number));
        let first = !self.source.recent.contains(&number);
        if first {
            self.source.recent.push_back(number);
            let oldest = self.source.newest.unwrap_or(number).saturating_sub(RECENT);
            while self.source.recent.pop_front_if(|number| *number < oldest).is_some() {}
        }
        if self.playout.is_some() {
            self.since_aim.up();
            if self.since_aim >= 5
                || self.comparison.relay.received().saturating_add(self.comparison.direct.received()) < 10
            {
                self.since_aim = 0;
                self.aim(now);
            }
            if let Some(playout) = &mut self.playout {
                playout.put(number, time, packet, now);
            }
        }
        Taken { first, back }
    }

    /// The playout must hold the path in use, and the other one while both are compared for a move.
    fn aim(&mut self, now: Duration) {
        let (relay, direct) = (&self.comparison.relay, &self.comparison.direct);
        let enough = |meter: &crate::sync::Meter| {
            let margin = if meter.received() < 10 { FIRST } else { MARGIN };
            meter.percentile(SHARE).map(|transit| transit + margin)
        };
        let settled = self.direct_since.is_some_and(|since| now >= since.saturating_add(SETTLED));
        let target = match (enough(relay), enough(direct)) {
            (_, Some(direct)) if settled => Some(direct),
            // A path so slow that it will not be taken does not slow the call down.
            (Some(relay), Some(direct)) if direct - relay <= 60.0 => Some(relay.max(direct)),
            (Some(relay), _) => Some(relay),
            (None, direct) => direct,
        };
        if let (Some(target), Some(playout)) = (target, &mut self.playout) {
            playout.aim(target);
        }
    }

    /// Whether the playout delay lets nearly all packets of the direct path arrive in time.
    pub(super) fn holds_direct(&self) -> bool {
        let Some(delay) = self.playout.as_ref().and_then(|playout| playout.delay()) else {
            return true;
        };
        self.comparison.direct.percentile(SHARE).is_none_or(|transit| delay + 1.0 >= transit)
    }

    /// Time that an average packet waits before it is played.
    pub(super) fn depth(&self) -> Duration {
        let delay = self.playout.as_ref().and_then(|playout| playout.delay());
        let depth =
            delay.zip(self.comparison.relay.percentile(0.5)).map_or(0.0, |(delay, transit)| delay - transit);
        Duration::from_millis(depth.clamp(0.0, 1000.0) as u64)
    }

    /// It went out on the direct path alone.
    pub(super) fn remember(&mut self, packet: &[u8], now: Duration) {
        self.history.push_back((now, packet.to_vec()));
        while self.history.pop_front_if(|(at, _)| at.saturating_add(RESENT) < now).is_some() {}
    }

    /// What may have been lost with the path.
    pub(super) fn resend(&mut self, now: Duration) -> impl Iterator<Item = Vec<u8>> + use<> {
        let history = std::mem::take(&mut self.history);
        history.into_iter().filter(move |(at, _)| at.saturating_add(RESENT) >= now).map(|(_, packet)| packet)
    }

    /// Media of the peer comes by the relay again.
    pub(super) fn back_on_relay(&mut self) {
        self.direct_since = None;
        self.direct_alone = 0;
        self.comparison.restart(Path::Relay);
    }
}
