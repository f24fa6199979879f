//! What kinds of phones do when their media is moved, measured (see `docs/release.md`): a plain phone is told by its
//! User-Agent, and an unknown one is treated as the most difficult.

use std::time::Duration;

use serde::{Deserialize, Serialize};

/// The longest that anybody is silent between two reports: five seconds, randomised by half as much again and less what makes up
/// for timers that are reconsidered (RFC 3550 §6.2, §6.3.1: 5 s · 1.5 / (e − 3/2)). Kinds of phones do not differ in that: linphone
/// takes its 1 to 3 s only with another of its kind.
pub const REPORT_INTERVAL: Duration = Duration::from_millis(6_160);

/// So long one may be silent whose report was lost, too: absence of a report is no evidence before.
pub const PATIENCE: Duration = Duration::from_millis(2 * 6_160 + 600);

/// How a phone behaves in a move.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Temperament {
    /// It sends to where it hears from, whatever signalling says: old packets pull it back, so that relaying to it must
    /// stop when it has accepted a move, and it comes home from a working direct path only after a hold.
    pub follows_what_it_hears: bool,
    /// Its kind was measured: it reports, and honours `a=rtcp`. Of others a report must have been seen before a move.
    pub is_known: bool,
    /// After an offer without ICE it goes where that says, though it spoke ICE before.
    pub leaves_ice: bool,
    /// An offer that it is asked for has new credentials of ICE (RFC 8445 §9), so that they can be handed to another phone.
    pub restarts_in_offers: bool,
    /// It takes a source whose RTCP says BYE from its table (RFC 3550 §6.3.4), and counts it anew if it goes on: of a trial it would then
    /// report that it has missed nothing. So it is not told.
    pub forgets_who_leaves: bool,
}

/// Kinds of phones, by a word in their User-Agent or Server header, and why they are taken for what they are.
const KINDS: [(&str, Temperament); 5] = [
    // Goes where it is told; reports every five seconds, begun anew by each re-INVITE; forgets who says BYE (libre, seen in its counts).
    (
        "baresip",
        Temperament {
            follows_what_it_hears: false,
            is_known: true,
            leaves_ice: true,
            restarts_in_offers: true,
            forgets_who_leaves: true,
        },
    ),
    // Goes where it is told; reports at a randomised interval (RFC 3550 §6.3), measured 2.3 to 6.16 s. It offers the credentials that it
    // has, and changes them when the answer comes, which nobody is told.
    ("linphone", LINPHONE),
    ("belle-sip", LINPHONE),
    // Follows what it hears; reports right after each re-INVITE, then every five seconds. 2.15 answers an offer without ICE with 200, without
    // ICE, and goes on sending to the pair that ICE had chosen.
    ("pjsip", PJSIP),
    ("pjsua", PJSIP),
];
const LINPHONE: Temperament = Temperament {
    follows_what_it_hears: false,
    is_known: true,
    leaves_ice: true,
    restarts_in_offers: false,
    forgets_who_leaves: false,
};
const PJSIP: Temperament = Temperament {
    follows_what_it_hears: true,
    is_known: true,
    leaves_ice: false,
    restarts_in_offers: true,
    forgets_who_leaves: false,
};
/// Nothing is known of it: latching must be feared.
const UNKNOWN: Temperament = Temperament {
    follows_what_it_hears: true,
    is_known: false,
    leaves_ice: false,
    restarts_in_offers: true,
    forgets_who_leaves: false,
};

impl Temperament {
    /// By its User-Agent or Server header.
    pub fn of(product: &str) -> Self {
        let product = product.to_ascii_lowercase();
        let kind = KINDS.iter().find(|(name, _)| product.contains(name));
        kind.map_or(UNKNOWN, |(_, temperament)| *temperament)
    }

    /// Whether it is known to forget with each re-INVITE what it had counted, lost packets too (PJSIP). What it says at home of a trial
    /// is then neither for the path nor against it; what it said during the trial is.
    pub(super) fn counts_anew(self) -> bool {
        self.follows_what_it_hears && self.is_known
    }

    /// Whether it is known to, or nothing is known of it.
    pub(super) fn may_count_anew(self) -> bool {
        self.counts_anew() || !self.is_known
    }
}
