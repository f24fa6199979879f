//! The leg between this endpoint and its SBC (docs/crush.md §2 and §3.1): what they have said of CRUSH, and authenticated Binding requests
//! that latch the relay, and keep the NAT's mapping.

use std::net::SocketAddr;
use std::time::Duration;

use media_wire::handoff::{PATH, Report, SEQUENCE, Sending};
use media_wire::sdp::crush::{Policy, Support};
use media_wire::stun::{Class, Incoming, Method, Outgoing};

use super::generation::Credentials;
use super::stream::Stream;
use crate::count::Count;
use crate::random::Random;

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

/// Whose a response is, and what it says.
pub(super) enum Answered {
    /// Not the relay's.
    Other,
    /// It is to a request to the relay, and not from it.
    Forged,
    /// The relay sees that stream so.
    Seen(usize, Option<SocketAddr>),
}

/// See the module.
#[derive(Debug)]
pub(super) struct Leg {
    /// Of our `a=crush`.
    pub(super) ours: Credentials,
    /// What the SBC has said in its newest description; `None`: it does not take part.
    pub(super) support: Option<Support>,
    pub(super) sbc: Option<Credentials>,
    /// What the application says, whatever the SBC does.
    pub(super) own_policy: Option<Policy>,
    /// Nothing may leave the relay, as far as is known.
    pub(super) is_held: bool,
    /// Between us and the relay.
    pub(super) round_trip: Option<Duration>,
    /// By stream.
    pub(super) warmth: Vec<Warmth>,
}

impl Leg {
    pub(super) fn new(ours: Credentials, streams: usize) -> Self {
        Self {
            ours,
            support: None,
            sbc: None,
            own_policy: None,
            is_held: true,
            round_trip: None,
            warmth: (0..streams).map(|_| Warmth::default()).collect(),
        }
    }

    /// Ours, for our descriptions.
    pub(super) fn line(&self) -> Support {
        let (ufrag, pwd) = (self.ours.ufrag.clone(), self.ours.pwd.clone());
        Support { ufrag, pwd, policy: Policy::Direct, servers: Vec::new(), temper: None }
    }

    /// The SBC's has come, or its description is without.
    pub(super) fn hears(&mut self, support: Option<Support>) {
        self.sbc = support.as_ref().map(|support| Credentials::new(&support.ufrag, &support.pwd));
        self.support = support;
    }

    /// What may leave the relay now. Without support nothing may.
    pub(super) fn policy(&self) -> Policy {
        match &self.support {
            None => Policy::Relay,
            Some(support) => self.own_policy.unwrap_or(support.policy),
        }
    }

    /// The request that is due on a stream's socket, if one is; `report` is where its packets go now, and why.
    pub(super) fn request(
        &mut self,
        place: usize,
        report: Report,
        random: &mut Random,
        now: Duration,
    ) -> Option<Vec<u8>> {
        let (sbc, warmth) = (self.sbc.as_ref()?, self.warmth.get_mut(place)?);
        if report.sending != warmth.told {
            // News: a request of its own.
            warmth.told = report.sending;
            warmth.begin(now);
        }
        if now < warmth.next {
            return None;
        }
        let transaction = match warmth.transaction {
            Some(open) if warmth.tries < TRIES => open,
            _ => {
                warmth.tries = 0;
                warmth.sequence.up();
                warmth.asked = now;
                random.transaction()
            }
        };
        warmth.transaction = Some(transaction);
        warmth.tries.up();
        warmth.next = now.saturating_add(if warmth.tries == TRIES { KEEPALIVE } else { RETRY });
        let request = Outgoing::new(Method::Binding, Class::Request, transaction)
            .username(&sbc.ufrag, &self.ours.ufrag)
            .with(SEQUENCE, &warmth.sequence.to_be_bytes())
            .with(PATH, &report.write());
        Some(request.sealed(&sbc.key))
    }

    /// A request on the first stream's socket is due, unless that was so less than so long ago: true if it is.
    pub(super) fn ask_each(&mut self, interval: Duration, now: Duration) -> bool {
        let first = self.warmth.first_mut();
        let is_due = |warmth: &&mut Warmth| {
            now >= warmth.asked.saturating_add(interval) && warmth.transaction.is_none()
        };
        first.filter(is_due).map(|warmth| warmth.begin(now)).is_some()
    }

    /// What the relay did not answer on the first stream's socket is forgotten: a request is due.
    pub(super) fn ask_anew(&mut self, now: Duration) {
        if let Some(warmth) = self.warmth.first_mut() {
            warmth.begin(now);
        }
    }

    pub(super) fn is_unanswered(&self, now: Duration) -> bool {
        let patience = UNANSWERED.saturating_add(self.round_trip.unwrap_or_default());
        let asked = self.warmth.first().filter(|warmth| warmth.transaction.is_some());
        asked.is_some_and(|warmth| now >= warmth.asked.saturating_add(patience))
    }

    /// When [`request`](Self::request) has something, of streams that have a relay.
    pub(super) fn timeout(&self, streams: &[Stream]) -> Option<Duration> {
        self.sbc.as_ref()?;
        let with_relay = streams.iter().zip(&self.warmth).filter(|(stream, _)| stream.relay.is_some());
        with_relay.map(|(_, warmth)| warmth.next).min()
    }

    /// A successful response.
    pub(super) fn answered(&mut self, message: &Incoming<'_>, now: Duration) -> Answered {
        let transaction = Some(message.transaction());
        let mut asked = self.warmth.iter_mut().enumerate();
        let Some((place, warmth)) = asked.find(|(_, warmth)| warmth.transaction == transaction) else {
            return Answered::Other;
        };
        if !self.sbc.as_ref().is_some_and(|sbc| message.authentic(&sbc.key)) {
            return Answered::Forged;
        }
        // An answer to a repeated request may be to any of them.
        if warmth.tries == 1 {
            self.round_trip = Some(now.saturating_sub(warmth.asked));
        }
        warmth.transaction = None;
        warmth.next = now.saturating_add(KEEPALIVE);
        Answered::Seen(place, message.mapped_address())
    }
}
