//! The table of ported numbers against a map.

use std::collections::BTreeMap;

use rand_chacha::ChaCha8Rng;
use rand_core::{RngCore, SeedableRng};
use rules::portability::{Answer, Builder, Unfit};

#[test]
fn the_table_answers_as_a_map_does_for_sorted_and_unsorted_input() {
    for seed in 0..40_u64 {
        let mut dice = ChaCha8Rng::seed_from_u64(seed);
        let mut rows: Vec<(String, Option<String>)> = (0..2000)
            .map(|_| {
                let number = (dice.next_u64() % 5000).to_string();
                (number, (dice.next_u64() % 3 != 0).then(|| format!("D{:03}", dice.next_u64() % 50)))
            })
            .collect();
        if seed % 2 == 0 {
            rows.sort_by(|one, other| one.0.cmp(&other.0));
        }
        let mut builder = Builder::with_capacity(rows.len());
        let mut map = BTreeMap::new();
        for (number, rn) in &rows {
            builder.add(number, rn.as_deref()).unwrap();
            map.insert(number.clone(), rn.clone());
        }
        let table = builder.finish();
        assert_eq!(table.len(), map.len(), "seed {seed}");
        for number in (0..5500).map(|number| number.to_string()) {
            let known = map.get(&number).map(|rn| Answer { rn: rn.as_deref() });
            assert_eq!(table.get(&number), known, "seed {seed}, {number}");
            assert_eq!(table.get(&format!("+{number}")), known, "seed {seed}, +{number}");
        }
    }
}

#[test]
fn a_row_that_is_none_is_refused_and_left_out() {
    let mut builder = Builder::with_capacity(0);
    for number in ["", "+", "49 30", "1234567890123456", "bob"] {
        assert_eq!(builder.add(number, None), Err(Unfit::Number), "{number}");
    }
    assert_eq!(builder.add("+4930", Some("sip:x")), Err(Unfit::Routing));
    assert!(builder.finish().is_empty());
}

#[test]
fn a_number_takes_no_more_than_twenty_four_octets() {
    let mut builder = Builder::with_capacity(1_000_000);
    for number in 0..1_000_000_u64 {
        builder.add(&(49_300_000_000 + number * 3).to_string(), Some("D001")).unwrap();
    }
    let table = builder.finish();
    assert!(table.octets() <= 24 * table.len());
    assert_eq!(table.get("+49300000003"), Some(Answer { rn: Some("D001") }));
    assert_eq!(table.get("+49300000004"), None);
}
