//! Reports and descriptions that are not true: nothing is released on their word, and each leaves its reason.
#![allow(clippy::unwrap_used, reason = "a test that fails says where")]

use std::sync::Arc;
use std::time::Duration;

use media_core::Track;
use media_core::path::phone::Temperament;
use media_core::path::place::{Networks, Place};
use media_core::path::proof::Reception;
use media_core::path::{Moved, Output, Outset, Release, Settings, Sight};
use seam::Side;
use seam::path::{Constraint, Entry, Lie, Mapping, PathState};

/// Two baresips whose media passes the relay, until they are asked to move and have done so.
struct Call {
    release: Release,
    now: u64,
    sequence: u16,
    packets: u64,
    is_away: bool,
}

/// The SSRC of what a party sends.
fn source(party: Side) -> u32 {
    match party {
        Side::First => 100,
        Side::Second => 101,
    }
}

fn milliseconds(number: u64) -> Duration {
    Duration::from_millis(number)
}

impl Call {
    fn new() -> Self {
        let (settings, constraint) = (Settings::default(), Constraint::MayRelease);
        let outset = Outset { settings, constraint, lines: 1, past: None };
        let temperaments = [Temperament::of("baresip v1.0.0"); 2];
        let release = Release::new(outset, Arc::new(Networks::default()), temperaments, Duration::ZERO);
        let mut call = Self { release, now: 0, sequence: 1_000, packets: 0, is_away: false };
        for (party, at) in Side::BOTH.into_iter().zip(["198.51.100.7:4000", "203.0.113.8:5000"]) {
            let at: std::net::SocketAddr = at.parse().unwrap();
            let (signalled, contact) = (Some(at), Some(at.ip()));
            let (mapping, realm) = (Mapping::Unknown, 0);
            let place = Place { observed: at, signalled, contact, mapping, realm, is_unfit: false };
            call.release.placed(party, place);
        }
        call
    }

    fn run(&mut self, until: u64) {
        while self.now < until {
            self.now += 20;
            self.sequence += 1;
            let now = milliseconds(self.now);
            if !self.is_away {
                self.packets += 1;
                for party in Side::BOTH {
                    let (ssrc, packets, sequence) = (source(party), self.packets, self.sequence);
                    let sight =
                        Sight { ssrc, clock_rate: 8000, packets, sequence, heard: now, silence: None };
                    self.release.sight(Track { line: 0, party }, sight, now);
                }
            }
            self.release.handle_timeout(now);
            while let Some(output) = self.release.poll_output() {
                self.is_away = match output {
                    Output::Move(_) => true,
                    Output::Home(_) => false,
                    _ => self.is_away,
                };
                for party in Side::BOTH {
                    self.release.moved(party, Moved::Accepted, now);
                }
            }
        }
    }

    /// What `party` says of the other's packets.
    fn report(&mut self, party: Side, change: impl Fn(&mut Reception)) {
        let ssrc = source(!party);
        let mut report = Reception { ssrc, highest: u32::from(self.sequence), lost: 0, jitter: 8 };
        change(&mut report);
        self.release.reception(Track { line: 0, party }, &report, milliseconds(self.now));
    }

    fn lies(&self) -> Vec<Lie> {
        let entries = self.release.timeline().entries().iter();
        entries
            .filter_map(|(_, entry)| if let Entry::Lie { lie, .. } = entry { Some(*lie) } else { None })
            .collect()
    }
}

type Change = fn(&mut Reception);
const LIES: [(Lie, Change); 3] = [
    (Lie::Source, |report| report.ssrc = 999),
    (Lie::TooMany, |report| report.highest += 10_000),
    (Lie::Jitter, |report| report.jitter = u32::MAX),
];

#[test]
fn a_report_that_lies_during_a_trial_proves_nothing_and_is_noted_once() {
    for (lie, change) in LIES {
        let mut call = Call::new();
        call.run(900);
        assert_eq!(call.release.state(), PathState::Synchronising);
        for party in Side::BOTH {
            call.report(party, change);
            call.run(call.now + 60);
            call.report(party, change);
        }
        assert_eq!(call.release.state(), PathState::Synchronising);
        assert_eq!((call.lies(), call.release.rejected_reports), (vec![lie; 2], 4));
        call.run(60_000);
        assert_eq!(call.release.state(), PathState::Anchored);
    }
}

#[test]
fn a_report_that_lies_on_the_relay_decides_no_trial() {
    for (lie, change) in LIES {
        let mut call = Call::new();
        call.run(6_000);
        for party in Side::BOTH {
            call.release.sender_report(
                Track { line: 0, party },
                source(party),
                10_000,
                milliseconds(call.now),
            );
            call.report(party, change);
        }
        call.run(7_000);
        assert_eq!((call.lies(), call.release.state()), (vec![lie; 2], PathState::Anchored));
        for party in Side::BOTH {
            call.report(party, |_| {});
        }
        call.run(7_100);
        assert_eq!(call.release.state(), PathState::Direct, "the truth does");
    }
}

#[test]
fn numbers_that_run_backwards_do_not_keep_a_path() {
    let mut call = Call::new();
    call.run(900);
    for party in Side::BOTH {
        call.report(party, |_| {});
    }
    assert_eq!(call.release.state(), PathState::Direct);
    for _ in 0..12 {
        call.run(call.now + 1_000);
        for party in Side::BOTH {
            call.report(party, |report| report.highest -= 900);
        }
    }
    assert_eq!(call.lies(), [Lie::Backwards; 2]);
    assert_eq!(call.release.state(), PathState::Anchored, "as if no reports came");
}

#[test]
fn a_flood_of_reports_is_heard_twenty_times_a_second_at_most() {
    let mut call = Call::new();
    call.run(900);
    for _ in 0..1_000 {
        call.report(Side::First, |_| {});
    }
    assert_eq!(call.release.rejected_reports, 999);
    assert_eq!(call.release.state(), PathState::Synchronising, "one direction only is proven");
}
