//! What rows cost, in a version that is short enough for every run; `make growth` measures a million.
#![allow(clippy::unwrap_used, clippy::panic, missing_docs, reason = "a test that fails ends")]

use sbc::policy::subscribers::SubscriberList;
use sbc::policy::{Digests, Route, Routes, Subscribers};

const ROWS: u32 = 200_000;

fn subscribers() -> Subscribers {
    let mut list = SubscriberList::new(&["example.net".into()]);
    let digests = Digests::new(Some(&"0a".repeat(16)), Some(&"0b".repeat(32)));
    for row in 0..ROWS {
        list.push("example.net", &format!("user{row}"), digests);
    }
    list.finish()
}

fn routes() -> Routes {
    Routes::new((0..ROWS).map(|row| Route {
        id: i64::from(row),
        from: None,
        prefix: format!("4{row:08}"),
        trunk: "carrier".into(),
        priority: 100,
        weight: 1,
        strip: 0,
        prepend: String::new(),
    }))
}

#[test]
fn a_subscriber_with_both_digests_costs_at_most_150_octets_and_a_change_a_few_kilobytes() {
    let mut kept = None;
    let made = allocation_counter::measure(|| kept = Some(subscribers()));
    let each = made.bytes_current / i64::from(ROWS);
    assert!((77..=150).contains(&each), "{each} octets");
    assert!(made.bytes_max < 3 * made.bytes_current as u64, "{made:?}");
    let before = kept.unwrap();
    let mut after = before.clone();
    let change = allocation_counter::measure(|| after.put("example.net", "user7", None));
    assert!(change.bytes_current < 16_384, "{change:?}");
    assert_eq!((before.len(), after.len()), (ROWS as usize, ROWS as usize - 1));
}

#[test]
fn a_route_costs_at_most_100_octets() {
    let mut kept = None;
    let made = allocation_counter::measure(|| kept = Some(routes()));
    let each = made.bytes_current / i64::from(ROWS);
    assert!((56..=100).contains(&each), "{each} octets");
    assert_eq!(kept.unwrap().len(), ROWS as usize);
}
