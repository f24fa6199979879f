//! Of the worker, and of who speaks through it.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use media_core::path::Settings as Limits;
use media_core::path::place::Networks;
use media_core::policy::{Mode, PairRelease, RealmRelease, ReleasePolicy};
use media_core::worker::Settings;
use seam::{Endpoint, Party, RealmId};

/// The two of a call.
pub const ENDS: [Endpoint; 2] = [Endpoint { party: 0, branch: 0 }, Endpoint { party: 1, branch: 0 }];

/// A realm whose media may leave the relay, in one network too.
pub fn allowing() -> RealmRelease {
    RealmRelease { mode: Mode::Allow, lan: true, ..RealmRelease::default() }
}

/// What these realms say of release, with the limits that are used if nobody says anything.
pub fn release(realms: Vec<RealmRelease>) -> Arc<ReleasePolicy> {
    release_within(Limits::default(), realms, Vec::new())
}

/// What realms and pairs of them say, within these limits.
pub fn release_within(
    limits: Limits,
    realms: Vec<RealmRelease>,
    pairs: Vec<PairRelease>,
) -> Arc<ReleasePolicy> {
    Arc::new(ReleasePolicy::new(limits, realms, pairs, Networks::default()))
}

/// Two realms that release their media by this policy, with a relay at these addresses and ports, which nobody may name as his.
pub fn two_realms(
    policy: Arc<ReleasePolicy>,
    relay: &[IpAddr],
    ports: std::ops::RangeInclusive<u16>,
) -> Settings {
    let mut own = martian::Own::default();
    relay.iter().for_each(|ip| own.range(*ip, ports.clone()));
    let addresses = Arc::new(martian::Rules::new(own, vec![martian::Realm::default(); 2]));
    Settings { release: Some(policy), addresses, ..Settings::default() }
}

/// Somebody of a realm, by the address that its signalling comes from.
pub fn party(realm: u16, signalling: SocketAddr) -> Party {
    Party { realm: RealmId(realm), signalling, product: Arc::default(), contact: None, is_private: false }
}
