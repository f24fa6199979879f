//! The machine in another process: under another clock, and another configuration of networks.

use std::sync::Arc;

use super::{Agenda, Homecoming, Output, Party, Release, State};
use crate::clock::{Shift, Timed, timed, timeless};
use crate::path::place::Networks;

timed!(Party { restarted; place, temperament, has_lied, is_doubted, is_sent_home, has_refused, is_parked });

timed!(Homecoming { away_until_heard; is_blameless, may_cling });

timed!(Agenda { look, next; outputs });

timeless!(Output);

impl Timed for State {
    fn shift(&mut self, by: Shift) {
        match self {
            Self::Anchored { not_before: at } | Self::Weighing { until: at } | Self::Direct { since: at } => {
                at.shift(by);
            }
            Self::Probing { accepted, since } | Self::Synchronising { accepted, since } => {
                accepted.shift(by);
                since.shift(by);
            }
            Self::Holding { since, let_go, accepted: _, why: _ } => {
                since.shift(by);
                let_go.shift(by);
            }
            Self::Returning { accepted, since, asked: _, why: _ } => {
                accepted.shift(by);
                since.shift(by);
            }
            Self::Staying(_) => {}
        }
    }
}

timed!(Release { parties, lines, state, answered, lapse, homecoming, timeline, agenda; settings, networks, constraint, tries, are_reports_muxed, should_flow, rejected_reports });

impl Release {
    /// In these networks.
    pub(crate) fn settle_in(&mut self, networks: Arc<Networks>) {
        self.networks = networks;
    }
}
