//! The filter in front of the parser: what it drops costs a search in a sorted list and a hash.

use std::net::IpAddr;
use std::time::Duration;

use sip_engine::buckets::{Buckets, source_of};

use crate::address_list::AddressList;
pub use sip_engine::buckets::Rate;

/// Address lists and rates of one listener.
#[derive(Debug, Clone, Default)]
pub struct FilterSettings {
    /// If not empty, only these may send.
    pub allow: AddressList,
    /// These may not; wins over `allow`.
    pub deny: AddressList,
    /// Never limited in rate, beside the trunks of the realm.
    pub unlimited: AddressList,
    /// Messages a second and the burst of one source; `None` sets no limit.
    pub rate: Option<Rate>,
}

impl FilterSettings {
    /// Whether the address lists shut a source out.
    pub(crate) fn denies(&self, source: IpAddr) -> bool {
        self.deny.contains(source) || (!self.allow.is_empty() && !self.allow.contains(source))
    }
}

/// What becomes of a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// On to the parser.
    Pass,
    /// Its source is not allowed.
    Denied,
    /// Its source sends too much.
    Limited,
}

/// One listener's filter. Time is handed in.
#[derive(Debug)]
pub struct Filter {
    settings: FilterSettings,
    buckets: Option<Buckets>,
}

impl Filter {
    /// A filter that has seen nobody yet. `seed` must be unpredictable: see [`Buckets::new`].
    pub fn new(settings: FilterSettings, seed: [u64; 2]) -> Self {
        let buckets = settings.rate.map(|rate| Buckets::new(rate, seed));
        Self { settings, buckets }
    }

    /// Judges one message by its source address. `now` is monotonic; `is_trunk` is asked only about a source that sends
    /// too much.
    pub fn judge(&mut self, source: IpAddr, now: Duration, is_trunk: impl FnOnce() -> bool) -> Verdict {
        if self.settings.denies(source) {
            return Verdict::Denied;
        }
        let has_token = self.buckets.as_mut().is_none_or(|buckets| buckets.take(source_of(source), now));
        if has_token || self.settings.unlimited.contains(source) || is_trunk() {
            Verdict::Pass
        } else {
            Verdict::Limited
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn host(last: u8) -> IpAddr {
        IpAddr::from([10, 0, 0, last])
    }

    fn list(nets: &[&str]) -> AddressList {
        nets.iter().map(|net| net.parse::<ipnet::IpNet>().unwrap()).collect()
    }

    #[test]
    fn deny_wins_over_allow_and_an_allow_list_excludes_the_rest() {
        let settings = FilterSettings {
            allow: list(&["10.0.0.0/28"]),
            deny: list(&["10.0.0.7/32"]),
            ..FilterSettings::default()
        };
        let mut filter = Filter::new(settings, [1, 2]);
        let mut judge = |last| filter.judge(host(last), Duration::ZERO, || false);
        assert_eq!(judge(1), Verdict::Pass);
        assert_eq!(judge(7), Verdict::Denied);
        assert_eq!(judge(16), Verdict::Denied);
    }

    #[test]
    fn trunks_and_unlimited_sources_are_not_limited() {
        let settings = FilterSettings {
            unlimited: list(&["10.0.0.2/32"]),
            rate: Some(Rate { per_second: 1.0, burst: 1.0 }),
            ..FilterSettings::default()
        };
        let mut filter = Filter::new(settings, [1, 2]);
        let mut passed = |last| {
            let verdicts = (0..10).map(|_| filter.judge(host(last), Duration::ZERO, || last == 3));
            verdicts.filter(|verdict| *verdict == Verdict::Pass).count()
        };
        assert_eq!([passed(1), passed(2), passed(3)], [1, 10, 10]);
    }
}
