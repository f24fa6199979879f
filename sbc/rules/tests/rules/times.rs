//! Days and times, above all where clocks change.

use jiff::{Span, Timestamp};
use rules::facts::Facts;
use rules::row::RuleRow;
use rules::set::RuleSet;

use super::world::{at, call, known, rule};

fn span(zone: &str, days: &[i8], from: &str, until: &str) -> RuleSet {
    let time = |text: &str| (!text.is_empty()).then(|| text.into());
    let row = RuleRow {
        zone: Some(zone.into()),
        days: days.into(),
        from: time(from),
        until: time(until),
        ..rule(10)
    };
    RuleSet::compile(&[row], &known()).unwrap()
}

fn is_open(set: &RuleSet, moment: Timestamp) -> bool {
    !set.decide(&Facts { at: moment, ..call() }).by.is_empty()
}

/// The changes after a moment.
fn changes(set: &RuleSet, after: &str, count: usize) -> Vec<String> {
    let mut now = at(after);
    let next = std::iter::from_fn(|| {
        now = set.next_change(now)?;
        Some(now.to_string())
    });
    next.take(count).collect()
}

#[test]
fn a_span_over_midnight_belongs_to_the_day_it_begins_on() {
    let friday = span("Europe/Berlin", &[5], "22:00", "06:00");
    // 3 July 2026 is a Friday; Berlin is two hours ahead.
    for (moment, open) in [
        ("2026-07-03T19:59:59Z", false),
        ("2026-07-03T20:00:00Z", true),
        ("2026-07-04T03:59:59Z", true),
        ("2026-07-04T04:00:00Z", false),
        ("2026-07-02T23:00:00Z", false),
        ("2026-07-04T21:00:00Z", false),
    ] {
        assert_eq!(is_open(&friday, at(moment)), open, "{moment}");
    }
    assert_eq!(
        changes(&friday, "2026-07-01T00:00:00Z", 3),
        ["2026-07-03T20:00:00Z", "2026-07-04T04:00:00Z", "2026-07-10T20:00:00Z"]
    );
}

#[test]
fn what_clocks_skip_in_spring_does_not_happen_and_a_span_round_it_is_shorter() {
    // 29 March 2026: 02:00 becomes 03:00 in Berlin, at 01:00 UTC.
    let skipped = span("Europe/Berlin", &[7], "02:15", "02:45");
    assert_eq!(
        changes(&skipped, "2026-03-23T00:00:00Z", 2),
        ["2026-04-05T00:15:00Z", "2026-04-05T00:45:00Z"]
    );
    let round = span("Europe/Berlin", &[], "01:30", "03:30");
    assert_eq!(changes(&round, "2026-03-29T00:00:00Z", 2), ["2026-03-29T00:30:00Z", "2026-03-29T01:30:00Z"]);
    let into = span("Europe/Berlin", &[], "02:30", "04:00");
    assert_eq!(changes(&into, "2026-03-29T00:00:00Z", 2), ["2026-03-29T01:00:00Z", "2026-03-29T02:00:00Z"]);
}

#[test]
fn what_clocks_show_twice_in_autumn_happens_twice() {
    // 25 October 2026: 03:00 becomes 02:00 in Berlin, at 01:00 UTC.
    let twice = span("Europe/Berlin", &[], "02:15", "02:45");
    assert_eq!(
        changes(&twice, "2026-10-24T22:00:00Z", 4),
        ["2026-10-25T00:15:00Z", "2026-10-25T00:45:00Z", "2026-10-25T01:15:00Z", "2026-10-25T01:45:00Z"]
    );
    let until = span("Europe/Berlin", &[], "01:00", "02:30");
    assert_eq!(
        changes(&until, "2026-10-24T22:00:00Z", 4),
        ["2026-10-24T23:00:00Z", "2026-10-25T00:30:00Z", "2026-10-25T01:00:00Z", "2026-10-25T01:30:00Z"]
    );
}

#[test]
fn days_alone_change_at_local_midnight_and_all_days_never() {
    let weekend = span("America/New_York", &[6, 7], "", "");
    assert_eq!(
        changes(&weekend, "2026-07-01T00:00:00Z", 2),
        ["2026-07-04T04:00:00Z", "2026-07-06T04:00:00Z"]
    );
    assert_eq!(span("UTC", &[1, 2, 3, 4, 5, 6, 7], "", "").next_change(at("2026-07-01T00:00:00Z")), None);
    assert_eq!(RuleSet::default().next_change(at("2026-07-01T00:00:00Z")), None);
}

#[test]
fn nothing_changes_between_a_moment_and_the_next_change() {
    for (zone, from, until) in [
        ("Europe/Berlin", "22:30", "02:30"),
        ("Australia/Lord_Howe", "01:45", "02:15"),
        ("America/New_York", "00:00", "24:00"),
        ("Asia/Kathmandu", "18:00", "00:00"),
    ] {
        let set = span(zone, &[2, 7], from, until);
        let mut now = at("2026-01-01T00:00:00Z");
        let mut next = set.next_change(now).unwrap();
        let mut open = is_open(&set, now);
        while now < at("2027-01-01T00:00:00Z") {
            now = now.checked_add(Span::new().minutes(5)).unwrap();
            if now >= next {
                open = !open;
                next = set.next_change(now).unwrap();
            }
            assert_eq!(is_open(&set, now), open, "{zone} {now}");
        }
    }
}
