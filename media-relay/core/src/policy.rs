//! What an operator has said of release: between which realms, and what is known of the networks.

use std::sync::Arc;

use seam::path::Constraint;

use crate::path::Settings;
use crate::path::place::Networks;

/// What a realm's calls may do, the strictest first.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Mode {
    /// They stay on the relay.
    #[default]
    Anchor,
    /// Their audio does; video of two endpoints in CRUSH may leave.
    Video,
    /// They are released where that is likely to work.
    Allow,
    /// They are released wherever that can work.
    Prefer,
}

/// Whether we speak ICE (RFC 8445) with a realm's phones.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Ice {
    /// Never: its lines are taken out, and nothing stands in for them.
    #[default]
    Off,
    /// With phones that offer it.
    Answer,
    /// It is also offered to those that are called by a phone that speaks it.
    Offer,
}

/// One realm.
#[derive(Debug, Clone, Copy, Default)]
pub struct RealmRelease {
    /// Its calls, with realms that allow it as well.
    pub mode: Mode,
    /// Two phones of one LAN may get each other's local address.
    pub lan: bool,
    /// What its phones are told of ICE.
    pub ice: Ice,
}

/// What two realms have of their own, whatever each says.
#[derive(Debug, Clone, Copy)]
pub struct PairRelease {
    /// Whose; twice the same for the calls inside one.
    pub realms: [u16; 2],
    /// What their calls may do.
    pub mode: Mode,
    /// Their networks reach each other as far as anybody can see: phones that no report would prove are moved as well.
    pub certain: bool,
}

/// For all sessions of a worker.
#[derive(Debug, Clone)]
pub struct ReleasePolicy {
    /// Limits.
    pub settings: Settings,
    /// By number.
    pub realms: Vec<RealmRelease>,
    /// Pairs of realms.
    pub pairs: Vec<PairRelease>,
    /// Networks, not certain and certain, each without and with release inside a LAN.
    networks: [[Arc<Networks>; 2]; 2],
}

impl ReleasePolicy {
    /// `networks.lan_release` is said by the realms, `networks.certain` by pairs.
    pub fn new(
        settings: Settings,
        realms: Vec<RealmRelease>,
        pairs: Vec<PairRelease>,
        networks: Networks,
    ) -> Self {
        let networks = [false, true].map(|certain| {
            [false, true].map(|lan_release| Arc::new(Networks { lan_release, certain, ..networks.clone() }))
        });
        Self { settings, realms, pairs, networks }
    }

    fn realm(&self, realm: u16) -> RealmRelease {
        self.realms.get(usize::from(realm)).copied().unwrap_or_default()
    }

    fn pair(&self, one: u16, other: u16) -> Option<&PairRelease> {
        self.pairs.iter().find(|pair| pair.realms == [one, other] || pair.realms == [other, one])
    }

    /// What a call between two realms may do: what the stricter one says, or their pair.
    pub fn mode(&self, one: u16, other: u16) -> Mode {
        let stricter = || self.realm(one).mode.min(self.realm(other).mode);
        self.pair(one, other).map_or_else(stricter, |own| own.mode)
    }

    /// The same of all media at once, as phones are moved; `None`: it stays.
    pub fn between(&self, one: u16, other: u16) -> Option<Constraint> {
        match self.mode(one, other) {
            Mode::Anchor | Mode::Video => None,
            Mode::Allow => Some(Constraint::MayRelease),
            Mode::Prefer => Some(Constraint::PreferRelease),
        }
    }

    /// What is said of ICE in a realm.
    pub fn ice(&self, realm: u16) -> Ice {
        self.realm(realm).ice
    }

    /// What is known of the networks of two realms.
    pub fn networks(&self, one: u16, other: u16) -> Arc<Networks> {
        let is_lan = self.realm(one).lan && self.realm(other).lan;
        let is_certain = self.pair(one, other).is_some_and(|pair| pair.certain);
        let [[far, near], [certain_far, certain_near]] = &self.networks;
        match (is_certain, is_lan) {
            (false, false) => far.clone(),
            (false, true) => near.clone(),
            (true, false) => certain_far.clone(),
            (true, true) => certain_near.clone(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_realms_must_allow_it_and_a_pair_may_say_otherwise() {
        let realm = |mode| RealmRelease { mode, lan: mode == Mode::Prefer, ice: Ice::Off };
        let realms = [Mode::Anchor, Mode::Allow, Mode::Prefer, Mode::Prefer, Mode::Video].map(realm).to_vec();
        let pair = |realms, mode, certain| PairRelease { realms, mode, certain };
        let pairs = vec![pair([0, 1], Mode::Allow, true), pair([2, 3], Mode::Anchor, false)];
        let policy = ReleasePolicy::new(Settings::default(), realms, pairs, Networks::default());
        assert_eq!(policy.between(0, 2), None);
        assert_eq!(policy.between(1, 0), Some(Constraint::MayRelease), "the pair's own");
        assert_eq!(policy.between(1, 2), Some(Constraint::MayRelease));
        assert_eq!(policy.between(2, 2), Some(Constraint::PreferRelease));
        assert_eq!(policy.between(3, 2), None, "the pair's own");
        assert_eq!(policy.between(9, 2), None, "a realm that nobody knows");
        assert_eq!((policy.mode(2, 4), policy.mode(4, 0)), (Mode::Video, Mode::Anchor), "the stricter one");
        assert_eq!(policy.between(2, 4), None, "phones are moved with all their media");
        assert!(policy.networks(2, 3).lan_release && !policy.networks(1, 2).lan_release);
        assert!(policy.networks(1, 0).certain && !policy.networks(1, 1).certain);
    }
}
