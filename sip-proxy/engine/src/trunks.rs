//! Which trunks are worth trying: what OPTIONS pings find (RFC 3261 §11), and what trunks say of themselves (503 with
//! Retry-After, RFC 3261 §21.5.4).

pub(crate) mod pings;

use std::sync::Arc;
use std::time::Duration;

use ahash::AHashMap;
use sip_wire::{Message, Name};

use crate::question::TrunkTarget;
use crate::times::LONGEST_REST;

/// What is known of the trunks of the present snapshot.
#[derive(Debug)]
pub(crate) struct Trunks {
    known: Vec<Trunk>,
    /// Where each is in `known`: a call asks for its trunk alone, however many there are.
    by_name: AHashMap<Arc<str>, usize>,
    by_number: AHashMap<u32, usize>,
    /// What is followed now.
    followed: Arc<[Arc<TrunkTarget>]>,
    next_number: u32,
}

#[derive(Debug)]
struct Trunk {
    /// Names it in the owner of a ping's transaction; never used twice.
    number: u32,
    target: Arc<TrunkTarget>,
    /// Its last ping went unanswered.
    is_dead: bool,
    /// It wants nothing before.
    rests_until: Duration,
    next_ping: Duration,
    is_pinged: bool,
}

impl Default for Trunks {
    fn default() -> Self {
        Self {
            known: Vec::new(),
            by_name: AHashMap::new(),
            by_number: AHashMap::new(),
            followed: Arc::default(),
            next_number: 0,
        }
    }
}

impl Trunks {
    /// A new snapshot: what is known of a trunk stays, unless it is another one now.
    pub(crate) fn follow(&mut self, targets: Arc<[Arc<TrunkTarget>]>, now: Duration) {
        if Arc::ptr_eq(&self.followed, &targets) {
            return;
        }
        let mut known: AHashMap<Arc<str>, Trunk> = AHashMap::new();
        for trunk in self.known.drain(..) {
            known.insert(trunk.target.name.clone(), trunk);
        }
        (self.by_name, self.by_number) = (AHashMap::new(), AHashMap::new());
        for target in targets.iter().cloned() {
            let same = known.remove(&target.name).filter(|trunk| trunk.target.host == target.host);
            let trunk = match same {
                Some(trunk) => Trunk { target, ..trunk },
                None => Trunk {
                    number: {
                        self.next_number = self.next_number.wrapping_add(1);
                        self.next_number
                    },
                    target,
                    is_dead: false,
                    rests_until: Duration::ZERO,
                    next_ping: now,
                    is_pinged: false,
                },
            };
            self.by_name.insert(trunk.target.name.clone(), self.known.len());
            self.by_number.insert(trunk.number, self.known.len());
            self.known.push(trunk);
        }
        self.followed = targets;
    }

    /// Whether a call may be tried there; of a trunk that is not known nothing bad is known.
    pub(crate) fn is_up(&self, name: &str, now: Duration) -> bool {
        let known = self.position(name).and_then(|position| self.known.get(position));
        known.is_none_or(|trunk| !trunk.is_dead && trunk.rests_until <= now)
    }

    /// A 503 of it: with Retry-After it rests so long.
    pub(crate) fn refused(&mut self, name: &str, response: &Message, now: Duration) {
        let Some(Ok(seconds)) = response.number(Name::RetryAfter) else { return };
        let rest = Duration::from_secs(u64::from(seconds)).min(LONGEST_REST);
        let position = self.position(name);
        if let Some(trunk) = position.and_then(|position| self.known.get_mut(position)) {
            trunk.rests_until = now.saturating_add(rest);
        }
    }

    fn position(&self, name: &str) -> Option<usize> {
        self.by_name.get(name).copied()
    }
}
