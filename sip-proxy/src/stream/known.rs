//! Where trunks and phones that have shown who they are come from. At the door they come before strangers: those may hold
//! all places that there are for strangers, and have the others' neither taken nor their turns delayed.

use std::collections::VecDeque;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use ahash::AHashSet;
use sip_engine::io::RealmId;
use sip_engine::question::Policy;

/// Addresses that are remembered, the latest.
const REMEMBERED: usize = 100_000;

/// One of all shards: the kernel leads a phone that comes back to any of them.
#[derive(Debug)]
pub(crate) struct Known {
    sources: Mutex<Sources>,
    /// Which addresses are trunks'.
    policy: Mutex<Option<Arc<dyn Policy>>>,
}

#[derive(Debug)]
struct Sources {
    all: AHashSet<IpAddr>,
    order: VecDeque<IpAddr>,
}

impl Known {
    pub(crate) fn new() -> Self {
        let sources = Sources { all: AHashSet::new(), order: VecDeque::new() };
        Self { sources: Mutex::new(sources), policy: Mutex::new(None) }
    }

    /// Somebody there has shown who he is.
    pub(crate) fn note(&self, source: IpAddr) {
        let mut sources = held(&self.sources);
        if sources.all.insert(source) {
            sources.order.push_back(source);
        }
        if sources.order.len() > REMEMBERED
            && let Some(oldest) = sources.order.pop_front()
        {
            sources.all.remove(&oldest);
        }
    }

    pub(crate) fn follow(&self, policy: Arc<dyn Policy>) {
        *held(&self.policy) = Some(policy);
    }

    pub(crate) fn has(&self, realm: Option<RealmId>, source: IpAddr) -> bool {
        if held(&self.sources).all.contains(&source) {
            return true;
        }
        let policy = held(&self.policy).clone();
        policy.zip(realm).is_some_and(|(policy, realm)| policy.source(realm, source).is_some())
    }
}

fn held<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_addresses_that_are_known_the_latest_are_remembered() {
        let known = Known::new();
        let address = |number: u32| IpAddr::from(number.to_be_bytes());
        (0..=REMEMBERED as u32).for_each(|number| known.note(address(number)));
        known.note(address(7));
        let has = |number| known.has(None, address(number));
        assert_eq!((has(0), has(1), has(7), has(REMEMBERED as u32)), (false, true, true, true));
    }
}
