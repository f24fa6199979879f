//! What a record keeps of a call's facts has a bound, whatever strangers sent.

use std::sync::Arc;

use rules::facts::{Caller, Facts, Group, Party};
use rules::stored::{MARK, MOST, Stored};

use super::world::call;

#[test]
fn ordinary_facts_are_kept_whole_and_read_back_equal() {
    let facts = Facts {
        groups: vec![Group { name: "vip".into(), calls: 3 }],
        headers: vec![("x-class".into(), "gold".into())],
        at: "2026-07-01T12:00:00.123456789Z".parse().unwrap(),
        ..call()
    };
    let stored = Stored::of(&facts);
    let text = stored.to_json();
    assert!(!stored.is_cut && text.len() < 400, "{text}");
    assert_eq!(Stored::from_json(&text).unwrap().facts, facts);
    assert!(Stored::from_json(&text.replacen("\"v\":1", "\"v\":2", 1)).is_err());
}

#[test]
fn facts_of_any_size_are_cut_to_the_bound_and_marked() {
    for filler in ["x", "é", "\u{1}", "\"", "🎺"] {
        for (length, entries) in [(300, 1), (5000, 40), (10, 1000), (70, 9), (1, 400)] {
            let text = || -> Arc<str> { filler.repeat(length).into() };
            let facts = Facts {
                realm: text(),
                caller: Caller::Subscriber(text()),
                groups: vec![Group { name: text(), calls: u32::MAX }; entries],
                from: Party { number: text(), host: text() },
                to: Party { number: text(), host: text() },
                codecs: vec![text(); entries],
                user_agent: text(),
                headers: vec![(text(), text()); entries],
                ..call()
            };
            let stored = Stored::of(&facts);
            let written = stored.to_json();
            assert!(written.len() <= MOST, "{filler:?} {length} {entries}: {}", written.len());
            let read = Stored::from_json(&written).unwrap();
            assert_eq!(read, stored);
            assert!(read.is_cut && written.contains(MARK));
            let whole = read.facts.user_agent.strip_suffix(MARK).unwrap_or(&read.facts.user_agent);
            assert!(facts.user_agent.starts_with(whole));
            assert_eq!((read.facts.at, read.facts.load), (facts.at, facts.load));
        }
    }
}
