//! The nominated pair: consent, keepalives, life (docs/crush.md §7.3 and §8.1).

use std::net::SocketAddr;
use std::time::Duration;

use super::io::SocketId;
use crate::count::Count;
use crate::handoff::Liveness;
use crate::random::Random;

/// Nothing was sent for so long: a keepalive.
const KEEPALIVE: Duration = Duration::from_millis(100);
/// The first keepalives of a silence come sooner, so that the peer does not take it for a dead path.
const FIRST_KEEPALIVES: [Duration; 3] =
    [Duration::from_millis(40), Duration::from_millis(60), Duration::from_millis(80)];
/// RFC 7675 §5.1.
const CONSENT_EXPIRY: Duration = Duration::from_secs(30);
/// A path on trial, checked once a second, that answers nothing for so long is dead.
const DEAD: Duration = Duration::from_secs(5);
/// Checks in silence.
const ASK: Duration = Duration::from_millis(20);
/// Test packets.
const TEST: Duration = Duration::from_millis(20);
/// Checks that may be outstanding.
const OUTSTANDING: usize = 64;

/// What goes out on it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Packet {
    /// RTP, which ends a silence.
    Media,
    /// Checks, answers, indications.
    Other,
}

/// What depends on it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stake {
    /// The peer's media comes on it.
    Media,
    /// Nothing: it is on trial.
    Nothing,
}

impl Stake {
    pub(super) fn of(is_receiving: bool) -> Self {
        if is_receiving { Self::Media } else { Self::Nothing }
    }
}

/// See the module.
#[derive(Debug)]
pub(super) struct Link {
    pub(super) socket: SocketId,
    pub(super) remote: SocketAddr,
    pub(super) round_trip: Duration,
    pub(super) live: Liveness,
    /// The newest answer to a check.
    pub(super) consent: Duration,
    consent_next: Duration,
    /// Since when nothing depends on it.
    trial: Duration,
    outstanding: Vec<(u128, Duration)>,
    sent: Duration,
    media_sent: Option<Duration>,
    keepalives: usize,
    asked: Duration,
    pub(super) test_next: Duration,
    pub(super) tests: u32,
}

impl Link {
    pub(super) fn new(socket: SocketId, remote: SocketAddr, round_trip: Duration, now: Duration) -> Self {
        Self {
            socket,
            remote,
            round_trip,
            live: Liveness::new(now),
            consent: now,
            consent_next: now.saturating_add(Duration::from_secs(1)),
            trial: now,
            outstanding: Vec::new(),
            sent: now,
            media_sent: None,
            keepalives: FIRST_KEEPALIVES.len(),
            asked: Duration::ZERO,
            test_next: now,
            tests: 0,
        }
    }

    pub(super) fn is(&self, socket: SocketId, remote: SocketAddr) -> bool {
        self.socket == socket && self.remote == remote
    }

    /// A packet goes out on it.
    pub(super) fn sent(&mut self, packet: Packet, now: Duration) {
        self.sent = now;
        if packet == Packet::Media {
            self.media_sent = Some(now);
            self.keepalives = 0;
        }
    }

    /// When the next keepalive is due.
    pub(super) fn keepalive_at(&self) -> Duration {
        match (self.media_sent, FIRST_KEEPALIVES.get(self.keepalives)) {
            (Some(media), Some(after)) => media.saturating_add(*after),
            _ => self.sent.saturating_add(KEEPALIVE),
        }
    }

    pub(super) fn kept_alive(&mut self, now: Duration) {
        self.sent = now;
        self.keepalives.up();
    }

    /// When the next check is due: for consent, or because the peer is silent for too long.
    pub(super) fn check_at(&self, stake: Stake) -> Duration {
        let overdue = self.live.overdue_at().filter(|_| stake == Stake::Media);
        let asks = overdue.map(|at| at.max(self.asked.saturating_add(ASK)));
        asks.map_or(self.consent_next, |at| at.min(self.consent_next))
    }

    /// A check goes out.
    pub(super) fn checked(&mut self, transaction: u128, stake: Stake, random: &mut Random, now: Duration) {
        self.asked = now;
        if now >= self.consent_next {
            // RFC 7675 §5.1: 5 s, randomised by a fifth; each second while the path is on trial.
            let wait = match stake {
                Stake::Nothing => 1000,
                Stake::Media => random.below(2000).saturating_add(4000),
            };
            self.consent_next = now.saturating_add(Duration::from_millis(wait.into()));
        }
        if self.outstanding.len() == OUTSTANDING {
            self.outstanding.remove(0);
        }
        self.outstanding.push((transaction, now));
        self.sent(Packet::Other, now);
    }

    /// Media has left it: it is on trial from now on.
    pub(super) fn try_again(&mut self, now: Duration) {
        self.trial = now;
        self.consent_next = self.consent_next.min(now);
    }

    /// It has been left alone for a while, and is of use again: it has its time to answer, as when it was found.
    pub(super) fn found_again(&mut self, now: Duration) {
        (self.consent, self.consent_next) = (now, now);
        (self.sent, self.test_next) = (now, now);
        self.trial = now;
        self.outstanding.clear();
    }

    /// An answer to a check of ours on it.
    pub(super) fn answered(&mut self, transaction: u128, now: Duration) -> bool {
        let Some(place) = self.outstanding.iter().position(|(known, _)| *known == transaction) else {
            return false;
        };
        let (_, at) = self.outstanding.remove(place);
        self.round_trip = now.saturating_sub(at);
        self.consent = now;
        self.live.sign(now);
        true
    }

    pub(super) fn is_outstanding(&self, transaction: u128) -> bool {
        self.outstanding.iter().any(|(known, _)| *known == transaction)
    }

    /// When a path on trial counts as dead.
    pub(super) fn dead_at(&self) -> Duration {
        self.consent.max(self.trial).saturating_add(DEAD)
    }

    pub(super) fn consent_expires(&self) -> Duration {
        self.consent.saturating_add(CONSENT_EXPIRY)
    }

    pub(super) fn tested(&mut self, now: Duration) -> u32 {
        self.test_next = now.saturating_add(TEST);
        self.tests.up();
        self.tests
    }
}
