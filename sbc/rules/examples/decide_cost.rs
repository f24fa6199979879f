//! Work for an instruction counter: `decide_cost RULES TIMES` decides so many calls by so many rules. What one costs is the difference
//! between two runs, divided by the difference of their TIMES: `valgrind --tool=callgrind --callgrind-out-file=/dev/null`.
//! `decide_cost expressions TIMES` times each of a few expressions instead, on a rule that asks nothing else; `decide_cost ported
//! NUMBERS` makes a table of so many numbers, and asks it.
#![allow(clippy::expect_used, clippy::print_stdout, clippy::disallowed_methods, reason = "a bench")]

use std::time::Instant;

use jiff::Timestamp;
use rules::facts::{Caller, Facts, Group, LONGEST, Load, Party};
use rules::known::Known;
use rules::portability::Builder;
use rules::row::{Decides, RuleRow};
use rules::set::RuleSet;
use seam::path::Constraint;

/// Half by callee, the rest by caller, subscriber and trunk; every twentieth of those behind a column has an expression.
fn rows(count: i32) -> Vec<RuleRow> {
    let row = |number: i32| {
        let mut row = RuleRow {
            position: number,
            name: format!("rule {number}").into(),
            enabled: true,
            goes_on: number % 2 == 0,
            decides: Decides { media: Some(Constraint::MustAnchor), ..Decides::default() },
            ..RuleRow::default()
        };
        match number % 6 {
            0..=2 => row.callee_prefix = Some(format!("+{}", 490_000_000 + i64::from(number) * 7).into()),
            3 => row.caller_prefix = Some(format!("+{}", 390_000_000 + i64::from(number) * 7).into()),
            4 => row.subscriber = Some(format!("user{number}@example.net").into()),
            _ => {
                row.trunk =
                    Some("carrier".into()).filter(|_| number < 6).or(Some(format!("t{number}").into()))
            }
        }
        if number % 20 == 7 {
            row.expression = Some("callee.number.startsWith('+49') && calls.realm < 100".into());
        }
        row
    };
    let mut rows: Vec<RuleRow> = (0..count - 1).map(row).collect();
    // One that every call reaches.
    rows.push(RuleRow { position: count, name: "all".into(), enabled: true, ..row(1) });
    if let Some(last) = rows.last_mut() {
        (last.callee_prefix, last.goes_on) = (None, false);
    }
    rows
}

fn names(rows: &[RuleRow]) -> Known {
    Known {
        trunks: rows.iter().filter_map(|row| row.trunk.clone()).collect(),
        groups: [("vip".into(), Vec::new())].into(),
        ..Known::default()
    }
}

fn call(number: u32) -> Facts {
    Facts {
        realm: "peering".into(),
        caller: Caller::Trunk("carrier".into()),
        groups: vec![Group { name: "vip".into(), calls: 1 }],
        from: Party { number: format!("+39{:08}", number % 90_000).into(), host: "a.example".into() },
        to: Party { number: format!("+49{:08}", number % 90_000).into(), host: "b.example".into() },
        emergency: false,
        codecs: vec!["opus".into(), "pcma".into()],
        user_agent: "trunk 1.0".into(),
        at: Timestamp::UNIX_EPOCH,
        load: Load { realm: 12, caller: 3 },
        headers: vec![("x-class".into(), "x".repeat(2 * LONGEST).into())],
    }
}

fn time_expressions(times: u32) {
    let costly = ["header('x-class').contains(user_agent)"; 12].join(" || ");
    let patterns = ["header('x-class').matches('y{3}[a-z]{4}$')"; 12].join(" || ");
    let facts = Facts { user_agent: format!("{}y", "x".repeat(127)).into(), ..call(1) };
    for (name, text) in [
        ("ordinary", "callee.number.startsWith('+49') && 'vip' in groups && calls.realm < 100"),
        ("one pattern", "callee.number.matches('^[+]49[0-9]{4,11}$')"),
        ("12 searches in long texts", &costly),
        ("12 patterns on long texts", &patterns),
    ] {
        let row = RuleRow { expression: Some(text.into()), position: 1, ..rows(2).remove(0) };
        let row = RuleRow { callee_prefix: None, name: name.into(), ..row };
        let set = RuleSet::compile(std::slice::from_ref(&row), &names(&[])).expect("rules");
        let begun = Instant::now();
        let reached: u32 = (0..times).map(|_| std::hint::black_box(&set).decide(&facts).expressions).sum();
        println!("{name}: {:.3} us", begun.elapsed().as_secs_f64() * 1e6 / f64::from(reached.max(1)));
    }
}

fn time_ported(count: u64) {
    let mut builder = Builder::with_capacity(usize::try_from(count).unwrap_or_default());
    let begun = Instant::now();
    for number in 0..count {
        let text = (4_900_000_000 + number * 7919 % (count * 8 + 1)).to_string();
        builder
            .add(&text, Some(["D001", "D002", "D003"][usize::try_from(number % 3).unwrap_or(0)]))
            .expect("a row");
    }
    let table = builder.finish();
    let (made, begun) = (begun.elapsed(), Instant::now());
    let hits =
        (0..1_000_000_u64).filter(|n| table.get(&(4_900_000_000 + n * 13).to_string()).is_some()).count();
    let each = begun.elapsed().as_secs_f64();
    println!(
        "{} numbers, {} octets each, made in {:.1} s, {each:.3} us a question, {hits} of 1,000,000 known",
        table.len(),
        table.octets() / table.len().max(1),
        made.as_secs_f64()
    );
}

fn main() {
    let mut arguments = std::env::args().skip(1);
    let what = arguments.next().unwrap_or_default();
    let times = arguments.next().and_then(|text| text.parse::<u32>().ok());
    match (what.as_str(), what.parse::<i32>(), times) {
        ("expressions", _, Some(times)) => time_expressions(times),
        ("ported", _, Some(count)) => time_ported(count.into()),
        (_, Ok(count @ 1..), Some(times)) => {
            let rows = rows(count);
            let set = RuleSet::compile(&rows, &names(&rows)).expect("rules");
            let calls: Vec<Facts> = (0..64).map(|number| call(number * 1401)).collect();
            let told: u32 =
                calls.iter().cycle().zip(0..times).map(|(facts, _)| set.decide(facts).expressions).sum();
            println!("{told} expressions reached");
        }
        _ => {
            eprintln!("usage: decide_cost RULES TIMES | expressions TIMES | ported NUMBERS");
            std::process::exit(2);
        }
    }
}
