//! One outgoing stream: on which path its packets go (docs/crush.md §7.1).

use std::time::Duration;

use media_wire::handoff::{Condition, Mode, Move, Sending};
use media_wire::rtp::Header;

/// What only the sender knows of a packet; SRTP hides it from everybody else.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Marks {
    /// It begins a key frame.
    pub key_frame: bool,
    /// It lies in a lull (silence, or a still picture).
    pub lull: bool,
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Route {
    Relay,
    /// Switches when the condition comes true, or at this time.
    Armed(Move, Duration),
    /// Both, until then.
    Overlap(Duration),
    Direct,
}

/// On which paths a packet goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Paths {
    pub(crate) relay: bool,
    pub(crate) direct: bool,
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Outgoing {
    route: Route,
    /// Both paths until then, to synchronise or compare.
    copy: Duration,
    last: Option<Header>,
}

impl Outgoing {
    pub(crate) fn new() -> Self {
        Self { route: Route::Relay, copy: Duration::ZERO, last: None }
    }

    /// Also on the other path, until then.
    pub(crate) fn copy_until(&mut self, until: Duration) {
        self.copy = self.copy.max(until);
    }

    pub(crate) fn copies(&self, now: Duration) -> bool {
        now < self.copy
    }

    /// Everything to the relay from now on.
    pub(crate) fn return_to_relay(&mut self) {
        self.route = Route::Relay;
        self.copy = Duration::ZERO;
    }

    /// The receiver asks for the direct path. The sequence number of the switch, if it is known by now.
    pub(crate) fn order(&mut self, order: &Move, now: Duration) -> Option<u16> {
        let following = self.following();
        if self.route == Route::Direct {
            return following;
        }
        let at = match order.condition {
            Condition::Now => following,
            Condition::Sequence(number) => Some(number),
            _ => None,
        };
        if self.last.is_none() && order.condition == Condition::Now {
            // Nothing flows: there is nothing to wait for, nor to overlap.
            self.copy = Duration::ZERO;
            self.route = Route::Direct;
        } else {
            self.route = Route::Armed(*order, now.saturating_add(order.limit));
        }
        at
    }

    /// The next packet. With the moment of the switch comes its sequence number.
    pub(crate) fn packet(&mut self, header: Header, marks: Marks, now: Duration) -> (Paths, Option<u16>) {
        self.last = Some(header);
        let mut switched = None;
        if let Route::Armed(order, limit) = self.route {
            let fulfilled = match order.condition {
                Condition::Now => true,
                Condition::Sequence(number) => header.sequence.wrapping_sub(number) < 1 << 15,
                Condition::Timestamp(timestamp) => header.timestamp.wrapping_sub(timestamp) < 1 << 31,
                Condition::KeyFrame => marks.key_frame,
                Condition::Lull => marks.lull,
            };
            if fulfilled || now >= limit {
                switched = Some(header.sequence);
                self.switch(order, now);
            }
        }
        self.end_overlap(now);
        let copy = self.copies(now);
        let paths = match self.route {
            Route::Relay | Route::Armed(..) => Paths { relay: true, direct: copy },
            Route::Overlap(_) => Paths { relay: true, direct: true },
            Route::Direct => Paths { relay: copy, direct: true },
        };
        (paths, switched)
    }

    fn switch(&mut self, order: Move, now: Duration) {
        self.copy = Duration::ZERO;
        self.route = match order.mode {
            Mode::Hard => Route::Direct,
            Mode::Soft(overlap) => Route::Overlap(now.saturating_add(overlap)),
        };
    }

    fn end_overlap(&mut self, now: Duration) {
        if matches!(self.route, Route::Overlap(until) if now >= until) {
            self.route = Route::Direct;
        }
    }

    /// What comes true without a packet, as a sender that suppresses silence has none. Says whether it has switched.
    pub(crate) fn elapse(&mut self, now: Duration) -> bool {
        self.end_overlap(now);
        match self.route {
            Route::Armed(order, limit) if now >= limit => {
                self.switch(order, now);
                true
            }
            _ => false,
        }
    }

    /// The sequence number of the next packet, once there was one.
    pub(crate) fn following(&self) -> Option<u16> {
        self.last.map(|last| last.sequence.wrapping_add(1))
    }

    /// When [`Outgoing::elapse`] has something to do.
    pub(crate) fn timeout(&self) -> Option<Duration> {
        match self.route {
            Route::Armed(_, limit) => Some(limit),
            Route::Overlap(until) => Some(until),
            Route::Relay | Route::Direct => None,
        }
    }

    /// Where packets go now.
    pub(crate) fn sending(&self, now: Duration) -> Sending {
        match self.route {
            Route::Relay | Route::Armed(..) if self.copies(now) => Sending::Both,
            Route::Relay | Route::Armed(..) => Sending::Relay,
            Route::Overlap(_) => Sending::Both,
            Route::Direct => Sending::Direct,
        }
    }

    /// No order to leave it holds.
    pub(crate) fn is_on_relay(&self) -> bool {
        self.route == Route::Relay
    }

    /// Nothing goes to the relay but copies.
    pub(crate) fn is_direct(&self) -> bool {
        matches!(self.route, Route::Direct | Route::Overlap(_))
    }

    pub(crate) fn ssrc(&self) -> u32 {
        self.last.map_or(0, |last| last.ssrc)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use media_wire::handoff::Kind;

    const MS: fn(u64) -> Duration = Duration::from_millis;

    fn order(condition: Condition, mode: Mode) -> Move {
        Move { stream: 0, kind: Kind::Audio, ssrc: 0, condition, mode, limit: MS(2000) }
    }

    /// Paths of packets 0..count, one each 20 ms, ordered at packet 3.
    fn run(order: Move, count: u16, marked: u16) -> (Option<u16>, String) {
        let mut stream = Outgoing::new();
        let mut at = None;
        let mut paths = String::new();
        for n in 0..count {
            let now = MS(u64::from(n) * 20);
            if n == 3 {
                at = stream.order(&order, now);
            }
            let header = Header {
                sequence: n.wrapping_sub(2),
                timestamp: u32::from(n) * 160,
                ssrc: 7,
                ..Header::default()
            };
            let marks = Marks { key_frame: n == marked, lull: n == marked };
            let (on, switched) = stream.packet(header, marks, now);
            paths.push(match (on.relay, on.direct) {
                (true, true) => 'B',
                (true, false) => 'R',
                (false, true) => 'D',
                (false, false) => '-',
            });
            at = at.or(switched);
        }
        (at, paths)
    }

    #[test]
    fn hard_moves_at_the_condition_and_soft_overlaps() {
        assert_eq!(run(order(Condition::Now, Mode::Hard), 6, 99), (Some(1), "RRRDDD".into()));
        assert_eq!(run(order(Condition::Now, Mode::Soft(MS(60))), 8, 99), (Some(1), "RRRBBBDD".into()));
        // Over the wrap of sequence numbers: packet 5 has number 3.
        assert_eq!(run(order(Condition::Sequence(3), Mode::Hard), 7, 99), (Some(3), "RRRRRDD".into()));
        assert_eq!(run(order(Condition::Timestamp(640), Mode::Hard), 6, 99), (Some(2), "RRRRDD".into()));
        assert_eq!(run(order(Condition::KeyFrame, Mode::Hard), 7, 5), (Some(3), "RRRRRDD".into()));
        assert_eq!(run(order(Condition::Lull, Mode::Soft(MS(20))), 8, 5), (Some(3), "RRRRRBDD".into()));
    }

    #[test]
    fn a_condition_that_never_comes_true_is_waived_at_its_limit() {
        let (at, paths) = run(order(Condition::KeyFrame, Mode::Hard), 110, 999);
        assert_eq!((at, paths.find('D')), (Some(101), Some(103)));
    }

    #[test]
    fn a_sender_that_has_fallen_silent_switches_at_the_limit_and_ends_its_overlap() {
        let mut stream = Outgoing::new();
        stream.packet(
            Header { sequence: 7, timestamp: 0, ssrc: 1, ..Header::default() },
            Marks::default(),
            MS(0),
        );
        stream.order(&order(Condition::Now, Mode::Soft(MS(60))), MS(20));
        assert!(!stream.elapse(MS(2019)));
        assert_eq!(stream.timeout(), Some(MS(2020)));
        assert!(stream.elapse(MS(2020)));
        assert_eq!((stream.following(), stream.sending(MS(2020))), (Some(8), Sending::Both));
        assert_eq!(stream.timeout(), Some(MS(2080)));
        assert!(!stream.elapse(MS(2080)));
        assert_eq!((stream.timeout(), stream.sending(MS(2080))), (None, Sending::Direct));
        // Nor does a camera that never sends keep its stream waiting.
        let mut stream = Outgoing::new();
        stream.order(&order(Condition::KeyFrame, Mode::Hard), MS(0));
        assert!(stream.elapse(MS(2000)) && stream.is_direct() && stream.following().is_none());
    }

    #[test]
    fn without_media_the_order_holds_at_once_and_the_relay_takes_all_back() {
        let mut stream = Outgoing::new();
        stream.copy_until(MS(5000));
        assert_eq!(stream.order(&order(Condition::Now, Mode::Soft(MS(60))), MS(0)), None);
        assert_eq!(stream.sending(MS(0)), Sending::Direct);
        stream.copy_until(MS(100));
        let header = Header { sequence: 1, timestamp: 0, ssrc: 1, ..Header::default() };
        let (paths, _) = stream.packet(header, Marks::default(), MS(50));
        assert_eq!(paths, Paths { relay: true, direct: true });
        stream.return_to_relay();
        let (paths, _) = stream.packet(header, Marks::default(), MS(60));
        assert_eq!(paths, Paths { relay: true, direct: false });
    }
}
