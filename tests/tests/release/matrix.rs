//! Every pair of phones in every place, many times: `make release-matrix`. Each pair writes its rows into a file of its own under
//! REAL_OUT.

use std::collections::BTreeMap;
use std::fs;
use std::time::Duration;

use crush_tests::phone::Kind;
use crush_tests::place::Place;
use crush_tests::{Failure, skip_unless_possible};
use serde_json::{Value, json};

use crate::story::{Run, Story, play};
use crate::{BARESIP, LINPHONE, PJSIP, apart, lan};

/// What is played of each pair.
fn rows() -> Vec<(Place, Story)> {
    vec![
        (Place::Open, Story::CalledBack),
        (lan("cone"), Story::CalledBack),
        (apart("cone", "cone"), Story::CalledBack),
        (apart("full-cone", "restricted-cone"), Story::CalledBack),
        (apart("nft-cone", "nft-cone"), Story::CalledBack),
        (apart("symmetric-random", "cone"), Story::NeverMoved),
        (apart("restricted-cone", "symmetric-sequential"), Story::NeverMoved),
        (apart("cone", "cone"), Story::Blocked),
        (apart("cone", "cone"), Story::Cut),
        (Place::Open, Story::Held),
    ]
}

pub(crate) fn name(kind: Kind) -> &'static str {
    match kind {
        Kind::Baresip => "baresip",
        Kind::Linphone => "linphone",
        Kind::Pjsua => "pjsua2",
        Kind::Softphone => "phone",
    }
}

fn seconds(time: Duration) -> f64 {
    (time.as_secs_f64() * 1000.0).round() / 1000.0
}

/// A row of results: the median time to direct, the longest gap and silence of all runs; `missed` says in how many a limit was
/// not kept.
pub(crate) fn row(
    kinds: [Kind; 2],
    [nat_a, nat_b]: [String; 2],
    story: &str,
    results: &[(Result<Run, Failure>, bool)],
) -> Value {
    let done: Vec<&Run> = results.iter().filter_map(|(result, _)| result.as_ref().ok()).collect();
    let longest = |time: fn(&Run) -> Duration| done.iter().map(|run| time(run)).max().unwrap_or_default();
    let mut to_direct: Vec<Duration> = done.iter().filter_map(|run| run.to_direct).collect();
    to_direct.sort();
    let mut missed: BTreeMap<&str, u32> = BTreeMap::new();
    for failure in results.iter().filter_map(|(result, _)| result.as_ref().err()) {
        // What it was; the story that follows is in the output.
        *missed.entry(failure.0.lines().next().unwrap_or_default()).or_default() += 1;
    }
    json!({
        "a": name(kinds[0]), "b": name(kinds[1]), "nat_a": nat_a, "nat_b": nat_b,
        "phones": "real", "story": story, "runs": results.len(),
        "direct": done.iter().filter(|run| run.to_direct.is_some()).count(),
        "returned": done.iter().filter(|run| run.has_returned).count(),
        "silent": results.iter().filter(|(_, is_silent)| *is_silent).count(),
        "time_to_direct_s": to_direct.get(to_direct.len() / 2).copied().map(seconds),
        "time_to_direct_max_s": to_direct.last().copied().map(seconds),
        "gap_ms": longest(|run| run.gap).as_millis() as u64,
        "silence_ms": longest(|run| run.silence).as_millis() as u64,
        "missed": missed.values().sum::<u32>(), "why_missed": missed,
    })
}

/// How often each is played.
pub(crate) fn runs() -> u32 {
    std::env::var("REAL_RUNS").ok().and_then(|runs| runs.parse().ok()).unwrap_or(3)
}

/// Keeps the rows that there are so far, where `make release-matrix` finds them.
pub(crate) fn write(file: &str, table: &[Value]) {
    if let Ok(folder) = std::env::var("REAL_OUT") {
        fs::write(format!("{folder}/{file}.json"), serde_json::to_string_pretty(table).unwrap()).unwrap();
    }
}

/// No call of any row has missed a limit or ended silent.
pub(crate) fn none_missed(table: &[Value]) {
    let missed: Vec<&Value> = table.iter().filter(|row| row["missed"] != 0 || row["silent"] != 0).collect();
    assert!(missed.is_empty(), "{missed:#?}");
}

fn play_all(kinds: [Kind; 2]) {
    skip_unless_possible!(kinds[0].program(), kinds[1].program(), "conntrack", "curl", "openssl");
    let mut table = Vec::new();
    for (place, story) in rows() {
        let results: Vec<_> = (0..runs()).map(|_| play(kinds, place, story)).collect();
        for failure in results.iter().filter_map(|(result, _)| result.as_ref().err()) {
            println!("{story:?}: {failure}");
        }
        table.push(row(kinds, place.names(), story.name(), &results));
        write(&format!("{}-{}", name(kinds[0]), name(kinds[1])), &table);
    }
    none_missed(&table);
}

pairs! {
    play_all;
    baresip_and_linphone_in_full: BARESIP, LINPHONE;
    two_linphones_in_full: LINPHONE, LINPHONE;
    two_pjsips_in_full: PJSIP, PJSIP;
    baresip_and_pjsip_in_full: BARESIP, PJSIP;
    two_baresips_in_full: BARESIP, BARESIP;
    linphone_and_pjsip_in_full: LINPHONE, PJSIP;
}
