//! What operators say of media, as far as it is the same for all sessions.

use std::sync::Arc;
use std::time::Duration;

use crate::handoff::HandoffSettings;
use crate::latch::{Latching, Manner};
use crate::open_ports::OpenPorts;
use crate::policy::ReleasePolicy;

/// What a realm wishes of its sessions.
#[derive(Debug, Clone)]
pub struct Settings {
    /// A session without a packet for so long is reported; `None` never.
    pub inactivity: Option<Duration>,
    /// Whether a NAT that rebinds is followed without signalling.
    pub follows_rebinding: bool,
    /// Who teaches where a party is, by realm.
    pub latching: Vec<Latching>,
    /// What may leave the relay; `None` nothing.
    pub release: Option<Arc<ReleasePolicy>>,
    /// CRUSH; `None`: nobody is told of it.
    pub handoff: Option<Arc<HandoffSettings>>,
    /// The open ports of all workers: they share this.
    pub open_ports: OpenPorts,
    /// Where descriptions and candidates may say that packets are to go, by realm.
    pub addresses: Arc<martian::Rules>,
    /// What ICE credentials are made from: random, and known to nobody else.
    pub secret: [u8; 32],
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            inactivity: Some(Duration::from_secs(300)),
            follows_rebinding: true,
            latching: Vec::new(),
            release: None,
            handoff: None,
            open_ports: OpenPorts::default(),
            addresses: Arc::default(),
            secret: [0; 32],
        }
    }
}

impl Settings {
    /// How the latches of a realm learn.
    pub(crate) fn manner(&self, realm: u16) -> Manner {
        let latching = self.latching.get(usize::from(realm)).copied().unwrap_or_default();
        Manner { latching, follows_rebinding: self.follows_rebinding }
    }
}
