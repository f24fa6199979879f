//! The leg between this endpoint and its SBC (docs/crush.md §2 and §3.1).

use std::time::Duration;

use media_wire::sdp::crush::{Policy, Support};

use super::generation::Credentials;
use super::relay::Warmth;

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
}
