//! Loss, jitter and transit of one path.

use crate::count::Count;
use std::collections::VecDeque;

/// Packets over which loss is counted.
const LOSS_WINDOW: i64 = 50;
/// Packets over which transit is known.
const TRANSITS: usize = 100;

/// One stream on one path.
#[derive(Debug, Clone, Default)]
pub(crate) struct Meter {
    numbers: VecDeque<i64>,
    transits: VecDeque<f64>,
    jitter: f64,
    newest: Option<i64>,
    received: u64,
}

impl Meter {
    /// `number`: extended sequence number; `transit`: arrival minus timestamp, milliseconds on an arbitrary common base.
    pub(crate) fn arrived(&mut self, number: i64, transit: f64) {
        if self.numbers.contains(&number) {
            return;
        }
        if let Some(last) = self.transits.back() {
            // RFC 3550 §6.4.1.
            self.jitter += ((transit - last).abs() - self.jitter) / 16.0;
        }
        self.newest = self.newest.max(Some(number));
        self.received.up();
        self.numbers.push_back(number);
        self.transits.push_back(transit);
        if self.transits.len() > TRANSITS {
            self.transits.pop_front();
        }
        let oldest = self.newest.unwrap_or(number).saturating_sub(LOSS_WINDOW);
        self.numbers.retain(|number| *number > oldest);
    }

    /// Packets so far.
    pub(crate) fn received(&self) -> u64 {
        self.received
    }

    /// Share of the newest packets that did not come, 0 to 1.
    pub(crate) fn loss(&self) -> f64 {
        let (Some(newest), Some(oldest)) = (self.newest, self.numbers.iter().min()) else {
            return 0.0;
        };
        1.0 - self.numbers.len() as f64 / newest.saturating_sub(*oldest).saturating_add(1) as f64
    }

    /// Milliseconds.
    pub(crate) fn jitter(&self) -> f64 {
        self.jitter
    }

    /// The transit that this share of packets does not exceed, milliseconds.
    pub(crate) fn percentile(&self, share: f64) -> Option<f64> {
        let mut sorted: Vec<f64> = self.transits.iter().copied().collect();
        sorted.sort_by(f64::total_cmp);
        let place = ((sorted.len() as f64 * share).ceil() as usize).saturating_sub(1);
        sorted.get(place).copied()
    }

    /// Forgets everything: the path was not in use.
    pub(crate) fn reset(&mut self) {
        *self = Self::default();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loss_jitter_and_percentiles_of_a_known_path() {
        let mut meter = Meter::default();
        for number in 0..100 {
            if number % 10 != 3 {
                meter.arrived(number, if number % 2 == 0 { 20.0 } else { 30.0 });
            }
        }
        assert!((meter.loss() - 0.1).abs() < 0.02, "{}", meter.loss());
        assert!((5.0..10.1).contains(&meter.jitter()));
        assert_eq!((meter.percentile(0.5), meter.percentile(0.95)), (Some(20.0), Some(30.0)));
    }

    #[test]
    fn repeated_and_reordered_packets_are_no_loss() {
        let mut meter = Meter::default();
        for number in [1, 3, 2, 2, 5, 4] {
            meter.arrived(number, 20.0);
        }
        assert_eq!((meter.loss(), meter.received()), (0.0, 5));
    }
}
