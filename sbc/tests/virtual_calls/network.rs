//! The network between the phones and the SBC: it loses, doubles, delays and reorders.

use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;

use play::Dice;
use play::clock::Post;

/// Of a hundred datagrams.
const LOST: u64 = 10;
const DOUBLED: u64 = 5;
const LATE: u64 = 5;

/// A datagram under way.
#[derive(Debug)]
pub(crate) struct Datagram {
    pub(crate) from: SocketAddr,
    pub(crate) to: SocketAddr,
    pub(crate) bytes: Bytes,
}

#[derive(Debug)]
pub(crate) struct Network {
    dice: Dice,
    under_way: Post<Datagram>,
    is_perfect: bool,
}

impl Network {
    pub(crate) fn new(seed: u64, is_perfect: bool) -> Self {
        Self { dice: Dice::of(seed, 2), under_way: Post::default(), is_perfect }
    }

    /// How many copies will arrive.
    pub(crate) fn send(&mut self, from: SocketAddr, to: SocketAddr, bytes: Bytes, now: Duration) -> usize {
        let copies = match (self.is_perfect, self.dice.below(100)) {
            (true, _) => 1,
            (_, 0..LOST) => 0,
            (_, chance) if chance < LOST + DOUBLED => 2,
            _ => 1,
        };
        for _ in 0..copies {
            let mut delay = 5 + self.dice.below(40);
            if !self.is_perfect && self.dice.chance(LATE) {
                delay += self.dice.below(700);
            }
            self.under_way
                .post(now + Duration::from_millis(delay), Datagram { from, to, bytes: bytes.clone() });
        }
        copies
    }

    pub(crate) fn next(&self) -> Option<Duration> {
        self.under_way.next()
    }

    pub(crate) fn pop(&mut self, now: Duration) -> Option<Datagram> {
        self.under_way.take(now)
    }
}
