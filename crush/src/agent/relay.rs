//! The endpoint's side of the relay: authenticated Binding requests that latch it, and keep the NAT's mapping
//! (docs/crush.md §3.1).

use std::time::Duration;

use super::Agent;
use crate::stun::handoff::{PATH, Reason, SEQUENCE};
use crate::stun::{Class, Incoming, Method, Outgoing, Report, Sending};

/// Nothing was sent for so long.
const KEEPALIVE: Duration = Duration::from_secs(15);
/// Between requests that are not answered.
const RETRY: Duration = Duration::from_millis(50);
/// Of them.
const TRIES: u32 = 10;

/// One stream's socket towards the relay.
#[derive(Debug, Default)]
pub(super) struct Warmth {
    transaction: Option<u128>,
    tries: u32,
    next: Duration,
    sent: Duration,
    /// When the newest transaction began.
    asked: Duration,
    /// CRUSH-SEQUENCE of the newest request.
    sequence: u32,
    /// Where the relay was told that packets go.
    told: Sending,
}

impl Warmth {
    /// From a new socket, or for a new relay: at once.
    pub(super) fn begin(&mut self, now: Duration) {
        *self = Self { transaction: None, tries: 0, next: now, sent: now, ..*self };
    }

    /// Something else went to the relay.
    pub(super) fn sent(&mut self, now: Duration) {
        self.sent = now;
        if self.transaction.is_none() && self.tries > 0 {
            self.next = now + KEEPALIVE;
        }
    }
}

impl Agent {
    pub(super) fn keep_relay_warm(&mut self, now: Duration) {
        let Some(sbc) = self.sbc.clone() else {
            return;
        };
        for place in 0..self.streams.len() {
            let Some(relay) = self.streams[place].relay else {
                continue;
            };
            let sending = self.streams[place].outgoing.sending(now);
            if sending != self.warmth[place].told {
                // News: a request of its own.
                self.warmth[place].told = sending;
                self.warmth[place].begin(now);
            }
            if now < self.warmth[place].next {
                continue;
            }
            let transaction = match self.warmth[place].transaction {
                Some(open) if self.warmth[place].tries < TRIES => open,
                _ => {
                    self.warmth[place].tries = 0;
                    self.warmth[place].sequence += 1;
                    self.warmth[place].asked = now;
                    self.random.transaction()
                }
            };
            let warmth = &mut self.warmth[place];
            warmth.transaction = Some(transaction);
            warmth.tries += 1;
            warmth.next = now + if warmth.tries == TRIES { KEEPALIVE } else { RETRY };
            let reason = match sending {
                Sending::Relay => self.returned,
                Sending::Direct => Reason::Synchronised,
                Sending::Both => Reason::Comparison,
            };
            let bytes = Outgoing::new(Method::Binding, Class::Request, transaction)
                .username(&sbc.ufrag, &self.leg.ufrag)
                .with(SEQUENCE, &warmth.sequence.to_be_bytes())
                .with(PATH, &Report { sending, reason }.write())
                .sealed(&sbc.key);
            self.transmit(self.streams[place].setup.socket, relay, bytes);
        }
    }

    pub(super) fn relay_timeout(&self) -> Option<Duration> {
        self.sbc.as_ref()?;
        let with_relay = self.streams.iter().zip(&self.warmth).filter(|(stream, _)| stream.relay.is_some());
        with_relay.map(|(_, warmth)| warmth.next).min()
    }

    /// Whether a response is the relay's.
    pub(super) fn relay_answered(&mut self, message: &Incoming<'_>, now: Duration) -> bool {
        let transaction = Some(message.transaction());
        let Some(place) = self.warmth.iter().position(|warmth| warmth.transaction == transaction) else {
            return false;
        };
        if !self.sbc.as_ref().is_some_and(|sbc| message.authentic(&sbc.key)) {
            self.refused.unauthentic += 1;
            return true;
        }
        // An answer to a repeated request may be to any of them.
        if self.warmth[place].tries == 1 {
            self.relay_round_trip = Some(now.saturating_sub(self.warmth[place].asked));
        }
        self.warmth[place].transaction = None;
        self.warmth[place].next = now + KEEPALIVE;
        if place == 0
            && let Some(mapped) = message.mapped_address()
        {
            self.seen_as(mapped, now);
        }
        true
    }

    /// Sends to the peer through the relay, on the first stream that has one.
    pub(super) fn by_relay(&mut self, bytes: Vec<u8>, now: Duration) {
        if let Some(place) = self.streams.iter().position(|stream| stream.relay.is_some())
            && let Some(relay) = self.streams[place].relay
        {
            self.warmth[place].sent(now);
            self.transmit(self.streams[place].setup.socket, relay, bytes);
        }
    }
}
