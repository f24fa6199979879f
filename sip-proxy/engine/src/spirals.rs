//! One call that comes back again and again, by whatever way: each time it has fewer hops left than when it left us.
//! Networks that hide what they were sent leave nothing else to know it by (RFC 3261 §16.3 step 4 needs our Via).
//!
//! A spiral of a few turns is legitimate (RFC 5393 §4.1): a diverted call may pass twice. One that grows is ended.

use std::hash::Hash;

use ahash::{AHashMap, RandomState};
use sip_wire::{Message, Name, Uri};
use smallvec::SmallVec;

/// So many turns may be under way; the next is refused with 482.
const TURNS: usize = 4;

/// One turn of a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Turn {
    call: u64,
    hops: u32,
}

/// Calls that have no answer yet, by who calls whom.
#[derive(Debug)]
pub(crate) struct Spirals {
    turns: AHashMap<u64, SmallVec<[u32; 4]>>,
    hasher: RandomState,
}

impl Spirals {
    pub(crate) fn new(seed: [u64; 2]) -> Self {
        Self { turns: AHashMap::new(), hasher: RandomState::with_seeds(seed[0], seed[1], 3, 0) }
    }

    /// What an INVITE is a turn of.
    pub(crate) fn turn_of(&self, invite: &Message) -> Turn {
        let user = |uri: &[u8]| {
            Uri::parse(uri).map(|uri| Uri::unescape(uri.user()).into_owned()).unwrap_or_default()
        };
        let from = invite.from().map(|from| from.uri.as_bytes().to_vec()).unwrap_or_default();
        let key = (user(&from), user(invite.request_uri().unwrap_or_default()));
        Turn {
            call: self.hash(key),
            hops: invite.number(Name::MaxForwards).and_then(Result::ok).unwrap_or(70),
        }
    }

    fn hash(&self, key: impl Hash) -> u64 {
        self.hasher.hash_one(key)
    }

    /// Whether it has made as many turns as one may: each had more hops left than the one after it.
    pub(crate) fn is_endless(&self, turn: Turn) -> bool {
        let Some(others) = self.turns.get(&turn.call) else { return false };
        let mut before: SmallVec<[u32; 8]> =
            others.iter().copied().filter(|hops| *hops > turn.hops).collect();
        before.sort_unstable();
        before.dedup();
        before.len() >= TURNS
    }

    pub(crate) fn began(&mut self, turn: Turn) {
        self.turns.entry(turn.call).or_default().push(turn.hops);
    }

    pub(crate) fn ended(&mut self, turn: Turn) {
        let Some(turns) = self.turns.get_mut(&turn.call) else { return };
        if let Some(at) = turns.iter().position(|hops| *hops == turn.hops) {
            turns.swap_remove(at);
        }
        if turns.is_empty() {
            self.turns.remove(&turn.call);
        }
    }

    pub(crate) fn is_idle(&self) -> bool {
        self.turns.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn invite(hops: u32) -> Message {
        Message::parse(
            format!(
                "INVITE sip:+4930@a SIP/2.0\r\nFrom: <sip:anonymous@b>;tag=1\r\nMax-Forwards: {hops}\r\n\r\n"
            )
            .into(),
        )
        .unwrap()
    }

    #[test]
    fn a_call_that_comes_back_with_fewer_hops_each_time_is_endless_and_many_of_one_caller_are_not() {
        let mut spirals = Spirals::new([1, 2]);
        for _ in 0..100 {
            for hops in [70, 69, 68] {
                let turn = spirals.turn_of(&invite(hops));
                assert!(!spirals.is_endless(turn));
                spirals.began(turn);
            }
        }
        for _ in 0..100 {
            [70, 69, 68]
                .map(|hops| spirals.turn_of(&invite(hops)))
                .into_iter()
                .for_each(|turn| spirals.ended(turn));
        }
        assert!(spirals.is_idle());
        let turns: Vec<_> = (0..10).map(|turn| spirals.turn_of(&invite(70 - 2 * turn))).collect();
        for turn in turns.iter().take(4) {
            assert!(!spirals.is_endless(*turn));
            spirals.began(*turn);
        }
        assert!(spirals.is_endless(turns[4]));
        spirals.ended(turns[0]);
        assert!(!spirals.is_endless(turns[4]));
    }
}
