//! What one sender may use up of what all need: requests that prove nothing, calls of one user, guesses at a password.
//!
//! **Limits are of requests not yet proven**: of a source address, or, for who is registered, of its flow alone, so that
//! nobody is made to pay for a neighbour behind the same NAT. A right password is never charged. Trunks are exempt.

use std::hash::Hash;
use std::net::SocketAddr;
use std::sync::Arc;

use ahash::AHashMap;
use serde::{Deserialize, Serialize};

use crate::buckets::{Buckets, Rate, source_of};
use crate::config::Limits;
use crate::flow::Flow;
use crate::guesses::Guesses;
use crate::ids::Ids;
use crate::time::Now;

/// How far the sender of the request at hand is known before it has shown anything.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Sender {
    /// Nothing is known of it but its address.
    Stranger,
    /// Somebody is registered over its flow.
    Registered,
    /// The address, or certificate, is a trunk's.
    Trunk,
}

/// What one user has running.
#[derive(Debug, Clone, Copy, Default)]
struct Running {
    sessions: usize,
    subscriptions: usize,
}

/// What a user wants to have one more of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Kind {
    Session,
    Subscription,
    /// It leaves nothing running.
    Once,
}

/// Lamp fields watch many lines: so many subscriptions a user may have for each call.
const SUBSCRIPTIONS: usize = 5;

/// Counts, buckets and guesses.
#[derive(Debug)]
pub(crate) struct Strangers {
    unproven: Option<Buckets>,
    wishes: Option<Buckets>,
    running: AHashMap<Arc<str>, Running>,
    pub(crate) guesses: Guesses,
    rates: [u32; 2],
    seed: [u64; 2],
}

impl Strangers {
    pub(crate) fn new(limits: &Limits, ids: &mut Ids) -> Self {
        let seed = [ids.number(), ids.number()];
        let mut new = Self {
            unproven: None,
            wishes: None,
            running: AHashMap::new(),
            guesses: Guesses::new([ids.number(), ids.number()]),
            rates: [0; 2],
            seed,
        };
        new.configure(limits);
        new
    }

    /// Takes limits of a configuration; buckets whose rate stays keep what is in them.
    pub(crate) fn configure(&mut self, limits: &Limits) {
        let rates = [limits.unproven_per_source, limits.requests_per_user];
        if rates == self.rates {
            return;
        }
        self.rates = rates;
        let seed = self.seed;
        let buckets = |per_second: u32, seconds: f64, places: usize| {
            let per_second = f64::from(per_second);
            let rate = Rate { per_second, burst: seconds * per_second };
            (per_second > 0.0).then(|| Buckets::of_places(rate, seed, places))
        };
        // At once: a site whose thousand phones all come back after an outage; a console that subscribes to all lines.
        self.unproven = buckets(limits.unproven_per_source, 4.0, 16_384);
        self.wishes = buckets(limits.requests_per_user, 10.0, 32_768);
    }

    /// Whether a request that has proven nothing may be looked at.
    pub(crate) fn may_ask(&mut self, sender: Sender, flow: &Flow, now: Now) -> bool {
        self.charge(sender, flow, |buckets, source| buckets.has_token(source, now.monotonic))
    }

    /// Whether a request that has proven nothing may be answered: it is charged for.
    pub(crate) fn take(&mut self, sender: Sender, flow: &Flow, now: Now) -> bool {
        self.charge(sender, flow, |buckets, source| buckets.take(source, now.monotonic))
    }

    fn charge(
        &mut self,
        sender: Sender,
        flow: &Flow,
        judge: impl FnOnce(&mut Buckets, Source) -> bool,
    ) -> bool {
        let source = match sender {
            Sender::Trunk => return true,
            Sender::Registered => Source::Flow(flow.remote),
            Sender::Stranger => Source::Address(source_of(flow.remote.ip())),
        };
        self.unproven.as_mut().is_none_or(|buckets| judge(buckets, source))
    }

    /// Whether a user may have one more: in the second at hand, and at once.
    pub(crate) fn may_have(&mut self, aor: &str, kind: Kind, limits: &Limits, now: Now) -> bool {
        let running = self.running.get(aor).copied().unwrap_or_default();
        let most = match limits.calls_per_user {
            0 => usize::MAX,
            calls => calls,
        };
        let has_room = match kind {
            Kind::Session => running.sessions < most,
            Kind::Subscription => running.subscriptions < most.saturating_mul(SUBSCRIPTIONS),
            Kind::Once => true,
        };
        has_room && self.wishes.as_mut().is_none_or(|buckets| buckets.take(aor, now.monotonic))
    }

    /// A user has one more.
    pub(crate) fn began(&mut self, aor: &Arc<str>, kind: Kind) {
        if kind == Kind::Once {
            return;
        }
        let running = self.running.entry(aor.clone()).or_default();
        let count = running.of(kind);
        *count = count.saturating_add(1);
    }

    /// A user has one less.
    pub(crate) fn ended(&mut self, aor: &str, kind: Kind) {
        let Some(running) = self.running.get_mut(aor) else { return };
        let count = running.of(kind);
        *count = count.saturating_sub(1);
        if running.sessions == 0 && running.subscriptions == 0 {
            self.running.remove(aor);
        }
    }

    /// Whether no user has anything running.
    pub(crate) fn is_idle(&self) -> bool {
        self.running.is_empty()
    }
}

impl Running {
    fn of(&mut self, kind: Kind) -> &mut usize {
        match kind {
            Kind::Subscription => &mut self.subscriptions,
            Kind::Session | Kind::Once => &mut self.sessions,
        }
    }
}

#[derive(Hash)]
enum Source {
    Address(u128),
    Flow(SocketAddr),
}
