//! The same packets on both paths: differential delay, and whether a receiver may hand off.

use std::collections::VecDeque;
use std::time::Duration;

use media_wire::handoff::{Figures, Path};

use super::Meter;
use crate::count::Count;

/// Differences over which the median is taken.
const DIFFERENCES: usize = 50;
/// First copies that wait for their second.
const WAITING: usize = 100;

/// One stream (or its test packets) on both paths.
#[derive(Debug, Clone, Default)]
pub(crate) struct Comparison {
    pub(crate) relay: Meter,
    pub(crate) direct: Meter,
    first: VecDeque<(i64, Path, Duration)>,
    differences: VecDeque<f64>,
    compared: u32,
    since: Option<Duration>,
}

impl Comparison {
    /// A packet on one path; `transit` as in [`Meter::arrived`].
    pub(crate) fn arrived(&mut self, path: Path, number: i64, transit: f64, now: Duration) {
        match path {
            Path::Relay => self.relay.arrived(number, transit),
            Path::Direct => self.direct.arrived(number, transit),
        }
        match self.first.iter().position(|(waiting, ..)| *waiting == number) {
            None => {
                if self.first.len() == WAITING {
                    self.first.pop_front();
                }
                self.first.push_back((number, path, now));
            }
            Some(place) if self.first.get(place).is_some_and(|first| first.1 != path) => {
                let Some((_, _, arrival)) = self.first.remove(place) else { return };
                let later = now.saturating_sub(arrival).as_secs_f64() * 1000.0;
                self.differences.push_back(if path == Path::Direct { later } else { -later });
                if self.differences.len() > DIFFERENCES {
                    self.differences.pop_front();
                }
                self.compared.up();
                self.since.get_or_insert(now);
            }
            Some(_) => {}
        }
    }

    /// Direct minus relay, milliseconds; the median.
    pub(crate) fn differential(&self) -> Option<f64> {
        let mut sorted: Vec<f64> = self.differences.iter().copied().collect();
        sorted.sort_by(f64::total_cmp);
        sorted.get(sorted.len() / 2).copied()
    }

    /// Packets seen on both since the last [`Comparison::restart`].
    pub(crate) fn compared(&self) -> u32 {
        self.compared
    }

    /// Time since the first packet that was seen on both.
    pub(crate) fn span(&self, now: Duration) -> Duration {
        self.since.map_or(Duration::ZERO, |since| now.saturating_sub(since))
    }

    pub(crate) fn figures(&self) -> Figures {
        Figures {
            differential_ms: self.differential().unwrap_or(0.0),
            relay_jitter_ms: self.relay.jitter(),
            direct_jitter_ms: self.direct.jitter(),
            relay_loss: self.relay.loss(),
            direct_loss: self.direct.loss(),
            compared: self.compared,
        }
    }

    /// Begins a new comparison. The path in use keeps its figures.
    pub(crate) fn restart(&mut self, in_use: Path) {
        match in_use {
            Path::Relay => self.direct.reset(),
            Path::Direct => self.relay.reset(),
        }
        self.first.clear();
        self.differences.clear();
        (self.compared, self.since) = (0, None);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_difference_is_direct_minus_relay_whichever_copy_comes_first() {
        for (relay, direct, difference) in [(60, 29, -31.0), (20, 55, 35.0)] {
            let mut comparison = Comparison::default();
            let mut arrivals: Vec<(u64, Path, i64)> = (0..20)
                .flat_map(|number: i64| {
                    let sent = number as u64 * 20;
                    [(sent + relay, Path::Relay, number), (sent + direct, Path::Direct, number)]
                })
                .collect();
            arrivals.sort_by_key(|(at, ..)| *at);
            for (at, path, number) in arrivals {
                comparison.arrived(path, number, 0.0, Duration::from_millis(at));
            }
            assert_eq!(comparison.differential(), Some(difference));
            assert_eq!(comparison.compared(), 20);
        }
    }

    #[test]
    fn a_packet_that_came_twice_on_one_path_says_nothing() {
        let mut comparison = Comparison::default();
        comparison.arrived(Path::Relay, 1, 0.0, Duration::ZERO);
        comparison.arrived(Path::Relay, 1, 0.0, Duration::from_millis(5));
        assert_eq!((comparison.compared(), comparison.differential()), (0, None));
    }
}
