//! What a line does to datagrams: delay, jitter, loss, reordering, duplicates, a rate.

use std::time::Duration;

use smallvec::SmallVec;

use crate::random::Random;

/// The properties of one direction of a line.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Impairment {
    /// Added to every datagram.
    pub delay: Duration,
    /// At most this is added besides, evenly spread; order is kept (a datagram waits for those before it).
    pub jitter: Duration,
    /// Share of datagrams that are lost, 0 to 1.
    pub loss: f64,
    /// Share of datagrams that are held up by [`Self::HELD_UP`] while others overtake them, 0 to 1.
    pub reorder: f64,
    /// Share of datagrams that arrive twice, 0 to 1.
    pub duplicate: f64,
    /// Bits per second, with the headers of IP and UDP; `None` is unlimited.
    pub rate: Option<u64>,
    /// How long a datagram may wait for the rate before it is dropped instead.
    pub queue: Duration,
}

impl Impairment {
    /// A perfect line.
    pub const NONE: Self = Self {
        delay: Duration::ZERO,
        jitter: Duration::ZERO,
        loss: 0.0,
        reorder: 0.0,
        duplicate: 0.0,
        rate: None,
        queue: Duration::from_millis(200),
    };

    /// By how much a datagram is late that others overtake: more than one packet time of 20 ms.
    pub const HELD_UP: Duration = Duration::from_millis(30);

    /// A line with this delay alone.
    pub const fn delay(delay: Duration) -> Self {
        Self { delay, ..Self::NONE }
    }
}

/// One direction of a line.
#[derive(Debug, Clone)]
pub struct Pipe {
    impairment: Impairment,
    random: Random,
    /// When the line will have sent what it has taken.
    is_busy_until: Duration,
    /// When the latest datagram that keeps its place in order arrives.
    latest: Duration,
    lost: u64,
}

impl Pipe {
    /// A line that has carried nothing yet.
    pub fn new(impairment: Impairment, random: Random) -> Self {
        Self { impairment, random, is_busy_until: Duration::ZERO, latest: Duration::ZERO, lost: 0 }
    }

    /// What it does now.
    pub fn impairment(&self) -> Impairment {
        self.impairment
    }

    /// It does this from now on; what is under way arrives as it would have.
    pub fn set(&mut self, impairment: Impairment) {
        self.impairment = impairment;
    }

    /// How many datagrams it has lost, at random or for its rate.
    pub fn lost(&self) -> u64 {
        self.lost
    }

    /// A datagram enters, of so many octets with its headers: when it arrives (twice if duplicated, never if lost).
    pub fn pass(&mut self, octets: usize, now: Duration) -> SmallVec<[Duration; 2]> {
        let line = self.impairment;
        let mut arrivals = SmallVec::new();
        let mut sent = now;
        if let Some(rate) = line.rate {
            let start = self.is_busy_until.max(now);
            if start - now > line.queue {
                self.lost += 1;
                return arrivals;
            }
            sent = start + Duration::from_secs_f64(octets as f64 * 8.0 / rate.max(1) as f64);
            self.is_busy_until = sent;
        }
        if self.random.chance(line.loss) {
            self.lost += 1;
            return arrivals;
        }
        let jitter =
            if line.jitter.is_zero() { Duration::ZERO } else { line.jitter.mul_f64(self.random.share()) };
        let arrival = (sent + line.delay + jitter).max(self.latest);
        if self.random.chance(line.reorder) {
            arrivals.push(arrival + Impairment::HELD_UP);
        } else {
            self.latest = arrival;
            arrivals.push(arrival);
        }
        if self.random.chance(line.duplicate) {
            arrivals.push(arrival);
        }
        arrivals
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    /// Passes so many datagrams of 200 octets, one each 20 ms: when each left and when it arrived.
    fn passed(impairment: Impairment, count: u32) -> Vec<(Duration, SmallVec<[Duration; 2]>)> {
        let mut pipe = Pipe::new(impairment, Random::new(5));
        (0..count).map(|index| index * 20 * MS).map(|sent| (sent, pipe.pass(200, sent))).collect()
    }

    #[test]
    fn a_perfect_line_delivers_at_once() {
        assert!(passed(Impairment::NONE, 10).iter().all(|(sent, arrivals)| arrivals[..] == [*sent]));
    }

    #[test]
    fn delay_jitter_loss_and_reordering_are_as_set() {
        let (delay, jitter) = (40 * MS, 20 * MS);
        let passed =
            passed(Impairment { delay, jitter, loss: 0.05, reorder: 0.02, ..Impairment::NONE }, 10_000);
        let arrived: Vec<_> = passed.iter().filter_map(|(sent, at)| Some((*sent, *at.first()?))).collect();
        assert!((9_400..9_600).contains(&arrived.len()), "{} of 10000", arrived.len());
        let late = arrived.windows(2).filter(|pair| pair[0].1 > pair[1].1).count();
        assert!((140..240).contains(&late), "{late} out of order");
        let mut delays: Vec<_> = arrived.iter().map(|(sent, at)| *at - *sent).collect();
        delays.sort();
        assert!(delays[0] >= delay && delays[delays.len() - 1] <= delay + jitter + Impairment::HELD_UP);
        let median = delays[delays.len() / 2];
        assert!((49 * MS..51 * MS).contains(&median), "{median:?}");
    }

    #[test]
    fn jitter_alone_never_changes_the_order() {
        let mut pipe = Pipe::new(Impairment { jitter: 50 * MS, ..Impairment::NONE }, Random::new(5));
        let arrivals: Vec<_> = (0..1000).flat_map(|index| pipe.pass(200, index * MS)).collect();
        assert!(arrivals.is_sorted());
    }

    #[test]
    fn duplicates_arrive_twice() {
        let twice = passed(Impairment { duplicate: 0.1, ..Impairment::NONE }, 10_000);
        let twice = twice.iter().filter(|(_, arrivals)| arrivals.len() == 2).count();
        assert!((900..1_100).contains(&twice), "{twice}");
    }

    #[test]
    fn beyond_its_rate_a_line_delays_up_to_its_queue_and_then_drops() {
        // 1,000 octets at 800 kbit/s take 10 ms; 40 at once would take 400 ms.
        let line = Impairment { rate: Some(800_000), queue: 100 * MS, ..Impairment::NONE };
        let mut pipe = Pipe::new(line, Random::new(5));
        let arrivals: Vec<_> = (0..40).flat_map(|_| pipe.pass(1_000, Duration::ZERO)).collect();
        assert_eq!(arrivals, (1..=11).map(|index| index * 10 * MS).collect::<Vec<_>>());
        assert_eq!(pipe.lost(), 29);
        assert_eq!(pipe.pass(1_000, 200 * MS)[..], [210 * MS]);
    }
}
