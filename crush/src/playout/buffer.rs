//! The one jitter buffer, fed by both paths. Frames leave at the pace of the sound card; the delay that this means is moved
//! towards a target in lulls, or by time-scaling.

use crate::count::Count;
use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

/// Longest change of a frame's length.
const SCALING: f64 = 0.05;
/// Deviations of the delay below this are left alone, milliseconds.
const TOLERANCE: f64 = 2.0;
/// After so long without a packet, silence is no longer an error of the network.
const LULL: f64 = 200.0;
/// Longest buffered span, milliseconds; more means that the timestamps jumped.
const DEEPEST: f64 = 2000.0;
/// Given up numbers that are remembered, to tell late from twice.
const SKIPPED: usize = 64;
/// Adjustments that are remembered for the log.
const LOG: usize = 256;

/// What to play next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// Decode this RTP packet; it holds `samples`, to be played as `play` (see [`super::scale`]).
    Frame {
        /// The packet as it was handed in: in the clear.
        packet: Vec<u8>,
        /// Samples in it.
        samples: u32,
        /// Samples to play.
        play: u32,
    },
    /// The packet did not come in time: conceal.
    Missing {
        /// Samples to play.
        play: u32,
    },
    /// The sender is silent, or nothing has come yet.
    Lull {
        /// Samples to play.
        play: u32,
    },
}

impl Step {
    /// Samples that this step plays.
    pub fn play(&self) -> u32 {
        match self {
            Self::Frame { play, .. } | Self::Missing { play } | Self::Lull { play } => *play,
        }
    }
}

/// How a delay was changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Cause {
    /// Frames were made longer or shorter.
    TimeScaling,
    /// Silence was inserted or left out.
    Lull,
}

/// A change of the playout delay, for the log.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Adjustment {
    /// When.
    pub at: Duration,
    /// How.
    pub cause: Cause,
    /// By so many samples; longer is positive.
    pub samples: i32,
}

#[derive(Debug)]
struct Waiting {
    timestamp: i64,
    packet: Vec<u8>,
}

/// See the module.
#[derive(Debug)]
pub struct Playout {
    rate: f64,
    frame: u32,
    waiting: BTreeMap<i64, Waiting>,
    /// Next timestamp to play, and the number of the last packet that was played.
    next: Option<i64>,
    played: Option<i64>,
    /// Wanted: local time minus media time at which a sample is played, milliseconds.
    target: Option<f64>,
    delay: Option<f64>,
    /// Numbers that were given up before the last one that was played.
    skipped: VecDeque<i64>,
    last_arrival: f64,
    missing: u32,
    log: VecDeque<Adjustment>,
    late: u64,
    /// Since the last that was in time.
    late_in_row: u32,
    duplicates: u64,
}

fn milliseconds(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1000.0
}

impl Playout {
    /// `rate`: RTP clock and sampling rate, Hz. `frame`: samples in a packet.
    pub fn new(rate: u32, frame: u32) -> Self {
        Self {
            rate: f64::from(rate) / 1000.0,
            frame: frame.max(1),
            waiting: BTreeMap::new(),
            next: None,
            played: None,
            target: None,
            delay: None,
            skipped: VecDeque::new(),
            last_arrival: 0.0,
            missing: 0,
            log: VecDeque::new(),
            late: 0,
            late_in_row: 0,
            duplicates: 0,
        }
    }

    /// Packets that came after their time.
    pub fn late(&self) -> u64 {
        self.late
    }

    /// Second copies.
    pub fn duplicates(&self) -> u64 {
        self.duplicates
    }

    /// The changes so far; the oldest are forgotten.
    pub fn adjustments(&self) -> impl Iterator<Item = &Adjustment> {
        self.log.iter()
    }

    /// Media time, milliseconds, of an extended timestamp.
    pub(crate) fn media_time(&self, timestamp: i64) -> f64 {
        timestamp as f64 / self.rate
    }

    /// Local time minus media time at which the newest step was played, milliseconds.
    pub(crate) fn delay(&self) -> Option<f64> {
        self.delay
    }

    /// Moves the delay there: the transit that most packets do not exceed, with a margin, milliseconds.
    pub(crate) fn aim(&mut self, target: f64) {
        self.target = Some(target);
    }

    /// A packet of either path, with extended sequence number and timestamp.
    pub(crate) fn put(&mut self, number: i64, timestamp: i64, packet: &[u8], now: Duration) {
        self.last_arrival = milliseconds(now);
        if self.waiting.contains_key(&number) || self.played == Some(number) {
            self.duplicates.up();
            return;
        }
        if let Some(next) = self.next {
            let ahead = self.media_time(timestamp) - self.media_time(next);
            if ahead.abs() > DEEPEST {
                // Another clock: begin again with it.
                self.waiting.clear();
                (self.next, self.played, self.delay) = (None, None, None);
            } else if ahead < 0.0 && !self.is_hardly_late(number, ahead) {
                // Played already, or given up.
                if self.skipped.contains(&number) || self.played.is_none_or(|played| number > played) {
                    self.late.up();
                    self.late_in_row.up();
                } else {
                    self.duplicates.up();
                }
                return;
            }
        }
        self.late_in_row = 0;
        self.waiting.insert(number, Waiting { timestamp, packet: packet.to_vec() });
    }

    /// Less than a frame late, nothing after it was played, and the one before was late, too: the media time has fallen
    /// between two packets, and would find each of them late for ever.
    fn is_hardly_late(&self, number: i64, ahead: f64) -> bool {
        self.late_in_row > 0
            && -ahead < f64::from(self.frame) / self.rate
            && self.played.is_none_or(|played| number > played)
    }

    /// What to play next. To be called when the sound card wants more; it gets [`Step::play`] samples. `now`: when the
    /// first of them will be heard, that is the time plus what is queued already.
    pub fn pull(&mut self, now: Duration) -> Step {
        let at = milliseconds(now);
        let next = match self.next {
            Some(next) => next,
            None => {
                // The first packet waits until its delay has come.
                let Some((_, first)) = self.waiting.first_key_value() else {
                    return Step::Lull { play: self.frame };
                };
                let timestamp = first.timestamp;
                let target = self.target.unwrap_or(at - self.media_time(timestamp));
                let wait = self.media_time(timestamp) + target - at;
                if wait > f64::from(self.frame) / self.rate {
                    return Step::Lull { play: self.frame };
                }
                let ahead = (wait.max(0.0) * self.rate) as u32;
                self.next = Some(timestamp);
                if ahead > 0 {
                    return Step::Lull { play: ahead };
                }
                timestamp
            }
        };
        let delay = at - self.media_time(next);
        self.delay = Some(delay);
        let deviation = self.target.map_or(0.0, |target| target - delay);
        let deviation = if deviation.abs() < TOLERANCE { 0.0 } else { deviation };
        match self.waiting.first_key_value().map(|(number, first)| (*number, first.timestamp)) {
            Some((number, timestamp)) if timestamp <= next => {
                self.waiting.pop_first().map_or(Step::Lull { play: self.frame }, |(_, first)| {
                    self.frame(number, first, deviation, now)
                })
            }
            // The one after the last is there, only later: the sender was silent.
            Some((number, timestamp))
                if self.played.is_some_and(|played| number == played.saturating_add(1)) =>
            {
                let gap = timestamp.saturating_sub(next).min(i64::from(self.frame)) as u32;
                self.lull(gap, deviation, now)
            }
            None if at - self.last_arrival > LULL => self.lull(self.frame, deviation, now),
            _ => {
                self.missing.up();
                // What is concealed can last longer: else a delay that is too short would stay so for ever. A single loss is
                // no reason for that.
                let most = f64::from(self.frame) * if self.late_in_row > 1 { 1.0 } else { SCALING };
                let change = (deviation * self.rate).clamp(0.0, most) as i32;
                self.note(now, Cause::Lull, change);
                self.next =
                    Some(next.saturating_add(i64::from(self.frame)).saturating_sub(i64::from(change)));
                Step::Missing { play: self.frame }
            }
        }
    }

    fn frame(&mut self, number: i64, first: Waiting, deviation: f64, now: Duration) -> Step {
        let samples = match self.waiting.first_key_value() {
            Some((following, waiting)) if *following == number.saturating_add(1) => {
                let distance = waiting.timestamp.saturating_sub(first.timestamp);
                // Silence suppression makes the distance longer than the packet.
                if (1..=i64::from(self.frame).saturating_mul(3) / 2).contains(&distance) {
                    distance as u32
                } else {
                    self.frame
                }
            }
            _ => self.frame,
        };
        self.frame = samples;
        let most = f64::from(samples) * SCALING;
        let change = (deviation * self.rate).clamp(-most, most) as i32;
        let play = samples.saturating_add_signed(change);
        self.note(now, Cause::TimeScaling, change);
        self.next = Some(first.timestamp.saturating_add(i64::from(samples)));
        let given_up = self
            .played
            .map_or(number, |played| played.saturating_add(1).max(number.saturating_sub(SKIPPED as i64)));
        self.skipped.extend(given_up..number);
        let excess = self.skipped.len().saturating_sub(SKIPPED);
        self.skipped.drain(..excess);
        self.played = Some(number);
        Step::Frame { packet: first.packet, samples, play }
    }

    fn lull(&mut self, samples: u32, deviation: f64, now: Duration) -> Step {
        let change = (deviation * self.rate).clamp(-f64::from(samples), f64::from(self.frame)) as i32;
        self.note(now, Cause::Lull, change);
        self.next = self.next.map(|next| next.saturating_add(i64::from(samples)));
        // Never nothing: the caller would ask again at once for ever.
        let play = samples.saturating_add_signed(change).max(1);
        Step::Lull { play }
    }

    fn note(&mut self, at: Duration, cause: Cause, samples: i32) {
        if samples != 0 {
            if self.log.len() == LOG {
                self.log.pop_front();
            }
            self.log.push_back(Adjustment { at, cause, samples });
        }
    }

    /// Frames that had to be concealed.
    pub fn missing(&self) -> u32 {
        self.missing
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: fn(u64) -> Duration = Duration::from_millis;

    fn packet(number: i64) -> Vec<u8> {
        number.to_be_bytes().to_vec()
    }

    /// Plays packets that arrive at `arrivals` (number, ms) and returns the steps, one each 20 ms of output.
    fn play(
        playout: &mut Playout,
        mut arrivals: Vec<(i64, u64)>,
        until: u64,
        mut aim: impl FnMut(&mut Playout, u64),
    ) -> Vec<Step> {
        arrivals.sort_by_key(|(_, at)| *at);
        let mut arrivals = arrivals.into_iter().peekable();
        let mut steps = Vec::new();
        let mut queued = 0i64;
        for at in 0..until {
            while let Some((number, _)) = arrivals.next_if(|(_, arrival)| *arrival <= at) {
                playout.put(number, number * 160, &packet(number), MS(at));
            }
            aim(playout, at);
            while queued < 8 {
                let step = playout.pull(MS(at));
                queued += i64::from(step.play());
                steps.push(step);
            }
            queued -= 8;
        }
        steps
    }

    fn numbers(steps: &[Step]) -> Vec<i64> {
        steps
            .iter()
            .filter_map(|step| match step {
                Step::Frame { packet, .. } => Some(i64::from_be_bytes(packet[..].try_into().unwrap())),
                _ => None,
            })
            .collect()
    }

    #[test]
    fn copies_of_two_paths_are_played_once_and_in_order() {
        let mut playout = Playout::new(8000, 160);
        playout.aim(80.0);
        let both = (0..50).flat_map(|n| [(n, n as u64 * 20 + 60), (n, n as u64 * 20 + 29)]).collect();
        let steps = play(&mut playout, both, 1200, |_, _| {});
        assert_eq!(numbers(&steps), (0..50).collect::<Vec<_>>());
        assert_eq!((playout.duplicates(), playout.late(), playout.missing()), (50, 0, playout.missing()));
    }

    #[test]
    fn a_faster_path_changes_nothing_of_what_is_heard() {
        let mut playout = Playout::new(8000, 160);
        playout.aim(80.0);
        let arrivals = (0..50).map(|n| (n, n as u64 * 20 + if n < 25 { 60 } else { 20 })).collect();
        let steps = play(&mut playout, arrivals, 1080, |_, _| {});
        let first = steps.iter().position(|step| matches!(step, Step::Frame { .. })).unwrap();
        let heard = &steps[first..first + 50];
        assert!(heard.iter().all(|step| matches!(step, Step::Frame { samples: 160, play: 160, .. })));
    }

    #[test]
    fn a_slower_path_is_met_by_at_most_five_percent_of_scaling_before_it_is_needed() {
        let mut playout = Playout::new(8000, 160);
        playout.aim(70.0);
        // From packet 100 on, everything comes 40 ms later; the aim was raised a second before.
        let arrivals = (0..200).map(|n| (n, n as u64 * 20 + if n < 100 { 60 } else { 100 })).collect();
        let steps = play(&mut playout, arrivals, 4200, |playout, at| {
            if at == 900 {
                playout.aim(110.0);
            }
        });
        assert_eq!(numbers(&steps), (0..200).collect::<Vec<_>>());
        let added: i32 = playout.adjustments().map(|adjustment| adjustment.samples).sum();
        assert!((300..=330).contains(&added), "{added}");
        for step in &steps {
            if let Step::Frame { samples, play, .. } = step {
                assert!(samples.abs_diff(*play) <= 8);
            }
        }
    }

    #[test]
    fn a_delay_that_became_too_short_recovers() {
        let mut playout = Playout::new(8000, 160);
        playout.aim(70.0);
        let arrivals = (0..200).map(|n| (n, n as u64 * 20 + if n < 100 { 60 } else { 300 })).collect();
        let steps = play(&mut playout, arrivals, 4500, |playout, at| {
            if at == 2310 {
                playout.aim(310.0);
            }
        });
        let heard = numbers(&steps);
        assert!(heard.len() >= 185 && heard.ends_with(&[198, 199]), "{heard:?}");
    }

    #[test]
    fn a_lull_takes_the_whole_change_at_once() {
        let mut playout = Playout::new(8000, 160);
        playout.aim(60.0);
        // Silence of 600 ms between packets 19 and 20: sequence continues, timestamps jump.
        let mut steps = Vec::new();
        let mut queued = 0i64;
        for at in 0..2000u64 {
            if at >= 50 && (at - 50) % 20 == 0 {
                let n = ((at - 50) / 20) as i64;
                let number = if n < 20 { Some(n) } else { (n >= 50).then_some(n - 30) };
                if let Some(number) = number.filter(|number| *number < 60) {
                    playout.put(number, n * 160, &packet(number), MS(at));
                }
            }
            if at == 600 {
                playout.aim(100.0);
            }
            while queued < 8 {
                let step = playout.pull(MS(at));
                queued += i64::from(step.play());
                steps.push(step);
            }
            queued -= 8;
        }
        assert_eq!(numbers(&steps), (0..60).collect::<Vec<_>>());
        assert!(playout.adjustments().any(|adjustment| adjustment.cause == Cause::Lull));
        let scaled = playout.adjustments().filter(|a| a.cause == Cause::TimeScaling).map(|a| a.samples.abs());
        assert!(scaled.sum::<i32>() <= 24);
    }

    #[test]
    fn a_lost_packet_is_concealed_and_a_late_one_dropped() {
        let mut playout = Playout::new(8000, 160);
        playout.aim(60.0);
        let arrivals =
            (0..20).filter(|n| *n != 7).map(|n| (n, n as u64 * 20 + 50)).chain([(7, 300)]).collect();
        let steps = play(&mut playout, arrivals, 450, |_, _| {});
        assert_eq!(numbers(&steps), (0..20).filter(|n| *n != 7).collect::<Vec<_>>());
        assert_eq!(playout.late(), 1);
        let missing = steps.iter().filter(|step| matches!(step, Step::Missing { .. })).count();
        assert_eq!(missing, 1);
    }

    #[test]
    fn timestamps_that_jump_begin_anew() {
        let mut playout = Playout::new(8000, 160);
        playout.aim(60.0);
        for n in 0..10 {
            playout.put(n, n * 160, &packet(n), MS(n as u64 * 20));
            playout.pull(MS(n as u64 * 20));
        }
        playout.put(11, 90_000_000, &packet(11), MS(220));
        playout.aim(MS(220).as_millis() as f64 - 90_000_000.0 / 8.0);
        assert_eq!(numbers(&[playout.pull(MS(220))]), [11]);
    }
}
