//! What kinds of phones do when their media is moved, measured (see `docs/release.md`): a plain phone is told by its
//! User-Agent, and an unknown one is treated as the most difficult.

use std::time::Duration;

/// How a phone behaves in a move.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Temperament {
    /// It sends to where it hears from, whatever signalling says: old packets pull it back, so that relaying to it must
    /// stop when it has accepted a move, and it comes home from a working direct path only after a hold.
    pub follows_what_it_hears: bool,
    /// How often it reports; `None` where the interval can't be foretold.
    pub report_interval: Option<Duration>,
    /// It reports at once after a re-INVITE.
    pub reports_after_move: bool,
    /// Its kind was measured: it reports, and honours `a=rtcp`. Of others a report must have been seen before a move.
    pub is_known: bool,
    /// The longest that it is silent between two reports.
    pub longest_report_gap: Duration,
}

impl Temperament {
    /// baresip: fixed interval, goes where it is told.
    const STEADY: Self = Self {
        follows_what_it_hears: false,
        report_interval: Some(Duration::from_secs(5)),
        reports_after_move: false,
        is_known: true,
        longest_report_gap: Duration::from_millis(5_500),
    };
    /// linphone: randomised interval (RFC 3550 §6.3), goes where it is told.
    const RANDOM: Self = Self {
        follows_what_it_hears: false,
        report_interval: None,
        reports_after_move: true,
        is_known: true,
        longest_report_gap: Duration::from_millis(3_500),
    };
    /// PJSIP: follows what it hears, reports right after each re-INVITE.
    const LATCHING: Self = Self {
        follows_what_it_hears: true,
        report_interval: None,
        reports_after_move: true,
        is_known: true,
        longest_report_gap: Duration::from_millis(6_000),
    };
    /// Nothing is known of it: RFC 3550 allows 5 s and half as much again, and latching must be feared.
    const UNKNOWN: Self = Self {
        follows_what_it_hears: true,
        report_interval: None,
        reports_after_move: false,
        is_known: false,
        longest_report_gap: Duration::from_millis(8_000),
    };

    /// By its User-Agent or Server header.
    pub fn of(product: &str) -> Self {
        let product = product.to_ascii_lowercase();
        let is = |name: &str| product.contains(name);
        if is("baresip") {
            Self::STEADY
        } else if is("linphone") || is("belle-sip") {
            Self::RANDOM
        } else if is("pjsip") || is("pjsua") {
            Self::LATCHING
        } else {
            Self::UNKNOWN
        }
    }
}
