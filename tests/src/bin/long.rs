//! `make release-long`: long calls of real phones, several at a time, and what became of their direct paths. Rows that are in the table
//! are not played again, unless AGAIN is set. What is played is chosen by the environment:
//!
//! PAIRS="baresip-linphone pjsua2-pjsua2", LOSS="0 2", VAD="none one both", CUTS="none both out in", SECONDS=180, RUNS=1, FIELDS=12, OUT=FILE
#![allow(clippy::print_stdout, reason = "what it shows is its purpose")]

use std::path::PathBuf;
use std::process::ExitCode;

use crush_tests::long;
use crush_tests::long::bounds::{self, Line};
use crush_tests::long::row::Row;
use crush_tests::long::table::{Choice, Table, list, pair};
use crush_tests::phone::Kind;
use crush_tests::{Failure, Lab, Result};
use serde_json::Value;
use tokio::signal::unix::{SignalKind, signal};

/// How many calls are up at a time where two processors have nothing else to do.
const FIELDS: usize = 12;

fn main() -> ExitCode {
    match release_long() {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(failure) => {
            eprintln!("{failure}");
            ExitCode::FAILURE
        }
    }
}

fn words<T>(name: &str, otherwise: Vec<T>, read: impl Fn(&str) -> Result<T>) -> Result<Vec<T>> {
    std::env::var(name).map_or(Ok(otherwise), |text| list(&text, read))
}

fn number<T: std::str::FromStr>(text: &str) -> Result<T> {
    text.parse().map_err(|_| Failure(format!("{text:?} is no number")))
}

fn one<T: std::str::FromStr>(name: &str, otherwise: T) -> Result<T> {
    std::env::var(name).map_or(Ok(otherwise), |text| number(&text))
}

fn choice() -> Result<Choice> {
    let all = Choice::default();
    Ok(Choice {
        pairs: words("PAIRS", all.pairs, pair)?,
        loss: words("LOSS", all.loss, number)?,
        vad: words("VAD", all.vad, str::parse)?,
        cuts: words("CUTS", all.cuts, str::parse)?,
        seconds: one("SECONDS", all.seconds)?,
        runs: one("RUNS", all.runs)?,
    })
}

fn release_long() -> Result<bool> {
    let programs = [Kind::Baresip, Kind::Linphone, Kind::Pjsua].map(Kind::program);
    let programs = [&programs[..], &["openssl", "curl", "psql"]].concat();
    if let Some(reason) = Lab::impossible(&programs) {
        return Err(Failure(reason));
    }
    let (rows, fields) = (choice()?.rows(), one("FIELDS", FIELDS)?.max(1));
    let path =
        std::env::var_os("OUT").map_or_else(|| PathBuf::from("bench/release-long.json"), PathBuf::from);
    let mut table = Table::open(&path)?;
    let is_anew = std::env::var_os("AGAIN").is_some();
    let (wanted, there): (Vec<Row>, Vec<Row>) =
        rows.iter().partition(|row| is_anew || table.row(row).is_none());
    println!("{} calls, {fields} at a time; {} are in {}", wanted.len(), there.len(), path.display());
    stops_when_told();
    let mut failed = Vec::new();
    for batch in wanted.chunks(fields) {
        if long::is_stopped() {
            return Err(Failure(format!(
                "stopped; what was played is in {}, and the next run goes on",
                path.display()
            )));
        }
        for (row, outcome) in batch.iter().zip(long::play(batch)) {
            match outcome {
                Ok(outcome) => {
                    let value = outcome.row(row);
                    println!("{}", line(row, &value));
                    if let Some(folder) = outcome.kept {
                        println!("  {folder}");
                    }
                    table.put(row, value)?;
                }
                Err(Failure(why)) => {
                    println!("{row}  was not played: {why}");
                    failed.push(format!("{row}  was not played: {}", why.lines().next().unwrap_or_default()));
                }
            }
        }
    }
    let played: Vec<_> = rows.iter().filter_map(|row| Some((*row, table.row(row)?))).collect();
    for (row, value) in &played {
        failed.extend(bounds::missed(row, value).into_iter().map(|missed| format!("{row}  {missed}")));
    }
    println!("\n{} of {} rows are in {}", played.len(), rows.len(), path.display());
    let lines = bounds::summary(&played);
    for Line { name, kept: [all, kept], holds, worst } in &lines {
        let (verdict, worst) = (if *holds { "ok    " } else { "MISSED" }, worst.as_deref().unwrap_or("-"));
        println!("{verdict} {name:60} {kept:>4} of {all:<4} {worst}");
    }
    failed.iter().for_each(|row| println!("  {row}"));
    Ok(failed.is_empty() && lines.iter().all(|line| line.holds))
}

/// SIGINT and SIGTERM end the calls, and with them their networks and phones.
fn stops_when_told() {
    std::thread::spawn(|| {
        let Ok(runtime) = tokio::runtime::Builder::new_current_thread().enable_all().build() else { return };
        runtime.block_on(async {
            let Ok(mut told) = signal(SignalKind::terminate()) else { return };
            tokio::select! {
                _ = told.recv() => {}
                _ = tokio::signal::ctrl_c() => {}
            }
            long::stop();
        });
    });
}

/// A row for people.
fn line(row: &Row, value: &Value) -> String {
    let text = |name: &str| match &value[name] {
        Value::Null => "-".to_owned(),
        value => value.to_string(),
    };
    let share = value["direct_share"].as_f64().unwrap_or_default();
    let moves = value["moves_ms"].as_array().map_or(0, Vec::len);
    let missed = value["missed"].as_array().map_or(0, Vec::len);
    format!(
        "{row}  proof {:>6} s  direct {:5.1} %  silence {:>4} ms  moves {moves:2}  reports lost {:>2}/{:<3}  home {:>5} ms  busy {:3.0} %  {}",
        text("proof_s"),
        100.0 * share,
        text("longest_silence_ms"),
        text("reports_lost"),
        text("reports"),
        text("home_ms"),
        100.0 * value["busy"].as_f64().unwrap_or_default(),
        if missed == 0 { "ok" } else { "MISSED" },
    )
}
