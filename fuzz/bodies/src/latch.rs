//! A latch against a simple model of what it promises: any order of signalling, packets, proofs and waits.
//!
//! The first octet chooses the realm's manner; then each step is an octet that says what, and one that says whose or how long.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use media_core::latch::{Evidence, Latch, Latching, Manner, Verdict};
use media_wire::rtp::Header;

/// Signalling, the same party elsewhere, a private network, a media server, and two strangers.
const HOSTS: [[u8; 4]; 6] =
    [[203, 0, 113, 1], [203, 0, 113, 2], [10, 0, 0, 5], [198, 51, 100, 9], [192, 0, 2, 66], [192, 0, 2, 67]];
const WAITS: [u64; 8] = [1, 20, 80, 500, 1_000, 2_000, 10_000, 600_000];

fn host(octet: u8) -> IpAddr {
    IpAddr::from(HOSTS[usize::from(octet) % HOSTS.len()])
}

/// Each host has four ports.
fn place(octet: u8) -> SocketAddr {
    SocketAddr::new(host(octet & 0x0f), 4000 + 2 * u16::from(octet >> 4 & 3))
}

/// What is true of the latch, as its documentation has it.
#[derive(Debug)]
struct Model {
    latching: Latching,
    signalled: Option<SocketAddr>,
    signalling: IpAddr,
    beside: Option<IpAddr>,
    learnt: Option<SocketAddr>,
    is_proven: bool,
    named: Duration,
    /// Left by signalling: where it was heard, if it had signalled that; what it had signalled.
    left: [Option<(SocketAddr, bool)>; 2],
    /// Doubted at this very moment.
    is_doubted: bool,
}

impl Model {
    fn is_near(&self, source: SocketAddr) -> bool {
        let hosts = [Some(self.signalling), self.beside, self.signalled.map(|at| at.ip())];
        self.signalled == Some(source)
            || (self.latching != Latching::Strict && hosts.contains(&Some(source.ip())))
    }

    fn left(&self, source: SocketAddr) -> Option<bool> {
        let left = self.left.iter().flatten().find(|left| left.0 == source)?;
        (self.signalled != Some(source)).then_some(left.1)
    }

    fn signal(&mut self, address: Option<SocketAddr>, signalling: IpAddr, now: Duration) {
        (self.signalling, self.is_doubted) = (signalling, true);
        let Some(address) = address.filter(|address| self.signalled != Some(*address)) else { return };
        if !self.is_proven && self.learnt != Some(address) {
            let honest = self.learnt == self.signalled;
            let heard = self.learnt.take().map(|at| (at, honest)).or(self.left[0]);
            self.left = [heard, self.signalled.map(|at| (at, true)).or(self.left[1])];
        }
        self.left = self.left.map(|left| left.filter(|left| left.0 != address));
        (self.signalled, self.named, self.is_proven) = (Some(address), now, false);
    }

    /// What a verdict must be, as far as that is promised.
    fn check(&self, source: SocketAddr, is_media: bool, is_agreed: bool, verdict: Verdict, now: Duration) {
        let is_near = self.is_near(source);
        let may_stand_in = self.latching == Latching::Any
            && is_agreed
            && self.signalled.is_some_and(|at| {
                at.ip() != self.signalling
                    && (at.ip() == host(2) || now >= self.named + Duration::from_secs(2))
            });
        let is_same_host = is_media && self.learnt.is_some_and(|at| at.ip() == source.ip());
        if verdict == Verdict::Learnt {
            assert!(is_near || may_stand_in || is_same_host, "{source} may not teach: {self:?}");
            assert_ne!(self.left(source), Some(true), "{source} was left: {self:?}");
        }
        if verdict == Verdict::Passes {
            assert!(self.left(source).is_some(), "{source} passes: {self:?}");
        }
        let must_teach = self.left(source).is_none() && !self.is_proven && is_near;
        let is_open = match self.learnt {
            None => true,
            Some(at) if !self.is_near(at) => true,
            Some(at) => self.signalled == Some(source) || (self.is_doubted && self.signalled != Some(at)),
        };
        if must_teach && is_open {
            assert_eq!(verdict, Verdict::Learnt, "{source} is not heard: {self:?}");
        }
    }
}

/// Plays `bytes` as what happens to one latch.
pub fn latch(bytes: &[u8]) {
    let Some((manner, steps)) = bytes.split_first() else { return };
    let latching = [Latching::Host, Latching::Any, Latching::Strict][usize::from(manner % 3)];
    let manner = Manner { latching, follows_rebinding: manner & 0x80 == 0 };
    let mut latch = Latch::new(host(0), manner);
    let mut model = Model {
        latching,
        signalled: None,
        signalling: host(0),
        beside: None,
        learnt: None,
        is_proven: false,
        named: Duration::ZERO,
        left: [None; 2],
        is_doubted: false,
    };
    let mut now = Duration::from_secs(1);
    let mut sequence = 0_u16;
    for step in steps.chunks_exact(2) {
        let [what, whose] = [step[0], step[1]];
        match what % 10 {
            0 | 1 => {
                latch.signal(Some(place(whose)), host(what >> 4), now);
                model.signal(Some(place(whose)), host(what >> 4), now);
            }
            2 => {
                latch.signal(None, host(whose), now);
                model.signal(None, host(whose), now);
            }
            3 => {
                latch.doubt(now);
                model.is_doubted = true;
            }
            4 => {
                latch.follow(host(whose), now);
                (model.beside, model.is_doubted) = (Some(host(whose)), true);
                if !model.is_proven {
                    model.learnt = model.learnt.filter(|at| model.is_near(*at));
                }
            }
            5 => {
                latch.prove(place(whose), now);
                (model.learnt, model.is_proven) = (Some(place(whose)), true);
                (model.left, model.is_doubted) = ([None; 2], false);
            }
            6 => {
                now += Duration::from_millis(WAITS[usize::from(whose) % WAITS.len()]);
                model.is_doubted = false;
            }
            kind => {
                let source = place(whose);
                sequence = sequence.wrapping_add(1);
                let header = Header { payload_type: 0, sequence, timestamp: 0, ssrc: u32::from(what >> 6) };
                let is_agreed = kind == 7;
                let evidence = if kind == 9 {
                    Evidence::Other
                } else {
                    Evidence::Media {
                        header: &header,
                        latest: Some((0, sequence.wrapping_sub(1))),
                        is_agreed,
                    }
                };
                let before = latch.destination();
                if latch.knows(source, now) {
                    assert_eq!(model.learnt, Some(source));
                    continue;
                }
                let verdict = latch.judge(source, evidence, now);
                model.check(source, kind != 9, is_agreed, verdict, now);
                if verdict == Verdict::Learnt {
                    (model.learnt, model.is_proven) = (Some(source), false);
                    (model.left, model.is_doubted) = ([None; 2], false);
                    assert_eq!(latch.destination(), Some(source));
                } else {
                    assert_eq!(latch.destination(), before, "a stranger moved it");
                }
            }
        }
        let left = model.left[0].map(|left| left.0);
        let destinations = [model.learnt, model.signalled, left];
        assert!(latch.destination().is_none() || destinations.contains(&latch.destination()), "{model:?}");
        assert!(model.learnt.is_none() || latch.destination() == model.learnt, "{model:?}");
    }
}
