//! Whom a user agent speaks for, and what it can.

use std::sync::Arc;
use std::time::Duration;

use crate::config::{Listener, SessionTimer, TimerValues};
use crate::flow::Flow;
use crate::question::TrunkCredentials;

/// One account of one user agent.
#[derive(Debug, Clone)]
pub struct Account {
    /// Its address of record, `sip:alice@example.net`.
    pub aor: Arc<str>,
    /// The display name in From, without quotes.
    pub display: Option<Arc<str>>,
    /// What answers challenges.
    pub credentials: Option<TrunkCredentials>,
    /// Its own addresses, indexed by [`ListenerId`](crate::flow::ListenerId).
    pub listeners: Vec<Listener>,
    /// Where requests outside dialogs go: the registrar or outbound proxy.
    pub proxy: Flow,
    /// `+sip.instance` of its Contact (RFC 5626), a URN.
    pub instance: Option<Arc<str>>,
    /// What User-Agent and Server say.
    pub product: Option<Arc<str>>,
    /// Protocol timers.
    pub timers: TimerValues,
    /// Session timers (RFC 4028); `None`: only if the peer asks.
    pub session_timer: Option<SessionTimer>,
    /// What it can beyond RFC 3261.
    pub abilities: Abilities,
    /// Info packages that it takes (RFC 6086). An INFO of another is refused with 469, one of none is taken.
    pub info_packages: Vec<Arc<str>>,
}

/// Extensions that a user agent has; phones differ in all of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Abilities {
    /// UPDATE (RFC 3311).
    pub update: bool,
    /// Reliable provisional responses (RFC 3262).
    pub reliable: bool,
    /// Tries a re-INVITE again that met 491 (RFC 3261 §14.1). Most phones don't.
    pub retries_glare: bool,
}

impl Default for Abilities {
    fn default() -> Self {
        Self { update: true, reliable: true, retries_glare: true }
    }
}

/// How long a registration is asked for if nobody says.
pub const REGISTRATION: Duration = Duration::from_secs(3600);

impl Account {
    /// Its From value, without a tag.
    pub(super) fn identity(&self) -> String {
        match &self.display {
            Some(display) => {
                format!("\"{}\" <{}>", display.replace('\\', "\\\\").replace('"', "\\\""), self.aor)
            }
            None => format!("<{}>", self.aor),
        }
    }

    /// The user part of its address.
    pub(super) fn user(&self) -> &str {
        let rest = self.aor.split_once(':').map_or(&*self.aor, |(_, rest)| rest);
        rest.split_once('@').map_or("", |(user, _)| user)
    }

    /// The host of its address: the registrar's domain.
    pub(super) fn domain(&self) -> &str {
        let rest = self.aor.split_once(':').map_or(&*self.aor, |(_, rest)| rest);
        rest.split_once('@').map_or(rest, |(_, host)| host)
    }

    pub(super) fn allow(&self) -> String {
        let mut allow = "INVITE, ACK, CANCEL, BYE, OPTIONS, INFO, REFER, NOTIFY, MESSAGE".to_owned();
        for (has, method) in [(self.abilities.reliable, ", PRACK"), (self.abilities.update, ", UPDATE")] {
            if has {
                allow.push_str(method);
            }
        }
        allow
    }

    pub(super) fn supported(&self) -> &'static str {
        if self.abilities.reliable { "replaces, timer, 100rel" } else { "replaces, timer" }
    }
}
