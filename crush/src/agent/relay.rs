//! The endpoint's side of the relay: authenticated Binding requests that latch it, and keep the NAT's mapping
//! (docs/crush.md §3.1).

use std::time::Duration;

use media_wire::handoff::{PATH, Reason, Report, SEQUENCE, Sending};
use media_wire::stun::{Class, Incoming, Method, Outgoing};

use super::Agent;
use crate::count::Count;

/// Nothing was sent for so long.
const KEEPALIVE: Duration = Duration::from_secs(15);
/// Between requests that are not answered.
const RETRY: Duration = Duration::from_millis(50);
/// Of them.
const TRIES: u32 = 10;
/// The relay answers nothing for so long, and a round trip: it does not hear us, or is not heard.
const UNANSWERED: Duration = Duration::from_millis(500);

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
            self.next = now.saturating_add(KEEPALIVE);
        }
    }
}

impl Agent {
    pub(super) fn keep_relay_warm(&mut self, now: Duration) {
        let Some(sbc) = self.leg.sbc.clone() else {
            return;
        };
        for place in 0..self.streams.len() {
            let sending = self.sending(place, now);
            let (stream, warmth) = (self.streams.get_mut(place), self.leg.warmth.get_mut(place));
            let Some((stream, warmth)) = stream.zip(warmth) else { return };
            let Some(relay) = stream.relay else {
                continue;
            };
            let socket = stream.setup.socket;
            if sending != warmth.told {
                // News: a request of its own.
                warmth.told = sending;
                warmth.begin(now);
            }
            if now < warmth.next {
                continue;
            }
            let transaction = match warmth.transaction {
                Some(open) if warmth.tries < TRIES => open,
                _ => {
                    warmth.tries = 0;
                    warmth.sequence.up();
                    warmth.asked = now;
                    self.random.transaction()
                }
            };
            warmth.transaction = Some(transaction);
            warmth.tries.up();
            warmth.next = now.saturating_add(if warmth.tries == TRIES { KEEPALIVE } else { RETRY });
            let reason = match sending {
                Sending::Relay => self.switching.returned,
                Sending::Direct => Reason::Synchronised,
                Sending::Both => Reason::Comparison,
            };
            let bytes = Outgoing::new(Method::Binding, Class::Request, transaction)
                .username(&sbc.ufrag, &self.leg.ours.ufrag)
                .with(SEQUENCE, &warmth.sequence.to_be_bytes())
                .with(PATH, &Report { sending, reason }.write())
                .sealed(&sbc.key);
            self.transmit(socket, relay, bytes);
        }
    }

    /// Asks on the first stream's socket, unless that was done less than so long ago.
    pub(super) fn ask_relay_each(&mut self, interval: Duration, now: Duration) {
        if let Some(warmth) = self.leg.warmth.first_mut()
            && now >= warmth.asked.saturating_add(interval)
            && warmth.transaction.is_none()
        {
            warmth.begin(now);
            self.keep_relay_warm(now);
        }
    }

    /// What it did not answer is forgotten.
    pub(super) fn ask_relay_anew(&mut self, now: Duration) {
        if let Some(warmth) = self.leg.warmth.first_mut() {
            warmth.begin(now);
            self.keep_relay_warm(now);
        }
    }

    pub(super) fn is_unanswered_by_relay(&self, now: Duration) -> bool {
        let patience = UNANSWERED.saturating_add(self.leg.round_trip.unwrap_or_default());
        let asked = self.leg.warmth.first().filter(|warmth| warmth.transaction.is_some());
        asked.is_some_and(|warmth| now >= warmth.asked.saturating_add(patience))
    }

    pub(super) fn relay_timeout(&self) -> Option<Duration> {
        self.leg.sbc.as_ref()?;
        let with_relay =
            self.streams.iter().zip(&self.leg.warmth).filter(|(stream, _)| stream.relay.is_some());
        with_relay.map(|(_, warmth)| warmth.next).min()
    }

    /// Whether a response is the relay's.
    pub(super) fn relay_answered(&mut self, message: &Incoming<'_>, now: Duration) -> bool {
        let transaction = Some(message.transaction());
        let mut asked = self.leg.warmth.iter_mut().enumerate();
        let Some((place, warmth)) = asked.find(|(_, warmth)| warmth.transaction == transaction) else {
            return false;
        };
        if !self.leg.sbc.as_ref().is_some_and(|sbc| message.authentic(&sbc.key)) {
            self.refused.unauthentic.up();
            return true;
        }
        // An answer to a repeated request may be to any of them.
        if warmth.tries == 1 {
            self.leg.round_trip = Some(now.saturating_sub(warmth.asked));
        }
        warmth.transaction = None;
        warmth.next = now.saturating_add(KEEPALIVE);
        if place == 0
            && let Some(mapped) = message.mapped_address()
        {
            self.seen_as(mapped, now);
        }
        true
    }

    /// Sends to the peer through the relay, on the first stream that has one.
    pub(super) fn by_relay(&mut self, bytes: Vec<u8>, now: Duration) {
        let mut relayed = self.streams.iter().zip(&mut self.leg.warmth);
        if let Some((warmth, socket, relay)) =
            relayed.find_map(|(stream, warmth)| Some((warmth, stream.setup.socket, stream.relay?)))
        {
            warmth.sent(now);
            self.transmit(socket, relay, bytes);
        }
    }
}
