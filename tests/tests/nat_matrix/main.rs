//! The NAT matrix with real sockets: two of the project's phones, the SBC between them, in namespaces behind NATs of every kind. The
//! virtual counterpart is `crush/tests/calls/nat_matrix.rs`; `make nat-matrix` runs both and sets them side by side.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "a laboratory that fails ends its test"
)]

mod audio;
mod ice;
mod scene;
mod together;

use std::fmt::Write as _;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use crush_tests::home::Home;
use crush_tests::network::SBC;
use crush_tests::phone::{Account, Event, Phone};
use crush_tests::process::eventually;
use crush_tests::sbc::{self, Sbc};
use crush_tests::softphone::{Softphone, Voice};
use crush_tests::{Lab, Network, Result, skip_unless_possible};
use serde_json::Value;

use crate::audio::FirstAudio;
use crate::scene::{Cell, Party, places};

/// Calls of a pair, and of one behind the flood limiter.
const RUNS: [usize; 2] = [3, 1];
/// ms of audio in a packet.
const PACKET_TIME: f64 = 20.0;
const SOON: Duration = Duration::from_secs(20);

/// One call's outcome.
#[derive(Debug, Default)]
struct Call {
    /// s from the answer, until both directions of both were direct.
    direct: Option<f64>,
    gave_up: bool,
    audio: FirstAudio,
    probes: [u64; 2],
    flows: [u64; 2],
    sockets: [u64; 2],
}

/// A cell's laboratory.
struct Bench {
    lab: Lab,
    homes: Vec<Home>,
    parties: [Party<Softphone>; 2],
    _sbc: Sbc,
}

impl Bench {
    fn new(cell: &Cell) -> Result<Self> {
        let (lab, homes, hosts) = places(cell)?;
        let first = Network::Access.address(SBC);
        let realms = sbc::phones_with("release = \"allow\"")
            + &format!(
                "\n[discovery]\naddresses = [\"{first}\", \"{}\"]\n",
                Network::Access.address(SBC + 1)
            );
        let users = [("a", Network::Access), ("b", Network::Access)];
        let sbc = Sbc::start(&lab, &realms, &sbc::subscribers(&users))?;
        let mut parties = Vec::new();
        for (index, (host, address)) in hosts.iter().enumerate() {
            let tap = lab.capture_at(host, "eth0")?;
            let account = Account::of(["a", "b"][index], Network::Access, "udp");
            let answers: &[&str] = if index == 1 { &["--answer"] } else { &[] };
            let options = [cell.options(), answers].concat();
            let voice = Voice::Tone(500.0 + 200.0 * index as f64);
            let phone = Softphone::start_with(&lab, host, &account, voice, &options)?;
            parties.push(Party { phone, tap, address: address.parse().unwrap() });
        }
        for party in &mut parties {
            party.phone.registered(SOON)?;
        }
        let [one, other] = <[_; 2]>::try_from(parties).unwrap_or_else(|_| unreachable!());
        Ok(Self { lab, homes, parties: [one, other], _sbc: sbc })
    }

    fn call(&mut self, cell: &Cell) -> Result<Call> {
        let since = self.parties.each_ref().map(|party| party.phone.timeline().len());
        let marks = self.parties.each_mut().map(|party| party.tap.mark().unwrap());
        let [caller, callee] = &mut self.parties;
        caller.phone.dial(&format!("sip:b@{}", Network::Access.address(SBC)))?;
        caller.phone.wait(Event::Established, SOON)?;
        callee.phone.wait(Event::Established, SOON)?;
        let stories = |parties: &[Party<Softphone>; 2]| {
            [0, 1].map(|side| parties[side].phone.timeline().split_off(since[side]))
        };
        let parties = &self.parties;
        eventually(cell.within(), || {
            let stories = stories(parties);
            let over = |name| stories.iter().all(|story| time_of(story, name).is_some());
            over("direct") || over("gave-up")
        });
        let stories = stories(parties);
        let mut call = Call::default();
        let times =
            stories.each_ref().map(|story| Some(time_of(story, "direct")? - time_of(story, "established")?));
        call.direct = times[0].zip(times[1]).map(|(one, other)| one.max(other));
        call.gave_up = stories.iter().all(|story| time_of(story, "gave-up").is_some());
        for (side, story) in stories.iter().enumerate() {
            let count = |name: &str| {
                let told = story.iter().rev().find_map(|event| event.get(name).and_then(Value::as_u64));
                told.unwrap_or(0)
            };
            (call.probes[side], call.flows[side], call.sockets[side]) =
                (count("probes"), count("new_flows"), count("sockets"));
        }
        call.audio = FirstAudio::of(&mut self.parties, marks)?;
        let [caller, callee] = &mut self.parties;
        caller.phone.hang_up()?;
        callee.phone.wait(Event::Ended, SOON)?;
        caller.phone.wait(Event::Ended, SOON)?;
        Ok(call)
    }

    /// How often a limiter has struck: blocked a host, or dropped a packet of a flow.
    fn blocked(&self) -> Result<u64> {
        self.homes.iter().map(|home| home.limited(&self.lab)).sum()
    }
}

/// When something first happened, s since the phone's start.
fn time_of(story: &[Value], event: &str) -> Option<f64> {
    story.iter().find(|told| told["event"] == event)?["time"].as_f64()
}

/// The middle, and what 95 % stay below.
fn quantiles(mut values: Vec<f64>) -> [Option<f64>; 2] {
    values.sort_by(f64::total_cmp);
    let at =
        |share: f64| values.get(((values.len() as f64 * share).ceil() as usize).saturating_sub(1)).copied();
    [at(0.5), at(0.95)]
}

fn number(value: Option<f64>) -> String {
    value.map_or_else(|| "null".to_owned(), |value| format!("{:.3}", value))
}

/// What is heard first here and with standard ICE: medians of the calls in ms, and ratios of the sums of both sides.
fn heard(ours: &[FirstAudio], theirs: &[FirstAudio]) -> String {
    let median = |calls: &[FirstAudio], of: fn(&FirstAudio) -> [Option<f64>; 2]| {
        [0, 1].map(|side| quantiles(calls.iter().filter_map(|audio| of(audio)[side]).collect())[0])
    };
    let mut text = String::new();
    for (since, of) in [
        ("first_audio", (|audio| audio.after_up) as fn(&FirstAudio) -> [Option<f64>; 2]),
        ("pick_up_to_audio", |audio| audio.after_pick_up),
    ] {
        let [here, there] = [median(ours, of), median(theirs, of)];
        let worst = here[0].zip(here[1]).map(|(one, other)| one.max(other));
        let _ = write!(text, "\"{since}_ms\": {}, ", number(worst));
        for (whose, [caller, callee]) in [("", here), ("ice_", there)] {
            let _ = write!(text, "\"{whose}{since}_at_caller_ms\": {}, ", number(caller));
            let _ = write!(text, "\"{whose}{since}_at_callee_ms\": {}, ", number(callee));
        }
        let sum = |[one, other]: [Option<f64>; 2]| Some(one? + other?);
        // Two of one LAN may hear each other before the 200 is there.
        let ratio = sum(here).zip(sum(there).filter(|wait| *wait > 0.0)).map(|(ours, theirs)| ours / theirs);
        let _ = write!(text, "\"{since}_vs_ice\": {}, ", number(ratio));
    }
    let round_trip = quantiles(ours.iter().filter_map(|audio| audio.round_trip).collect())[0];
    let _ = write!(text, "\"round_trip_to_relay_at_caller_ms\": {}, ", number(round_trip));
    text
}

/// What no call of a cell may miss.
fn miss(cell: &Cell, call: &Call) -> Option<String> {
    if cell.is_easy() && call.direct.is_none() {
        return Some("no direct path".into());
    }
    let FirstAudio { after_up, round_trip, .. } = call.audio;
    // The caller's round trip to the relay and a packet time, for the callee too: its ACK is sent when the caller's 200 is.
    let limit = round_trip? + PACKET_TIME;
    let late = after_up.iter().any(|heard| heard.is_none_or(|heard| heard > limit));
    late.then(|| format!("first heard after {after_up:.1?} ms, limit {limit:.1} ms"))
}

/// Plays a cell: its line of the result, and what it missed.
fn play(cell: &Cell) -> Result<(String, Vec<String>)> {
    let mut bench = Bench::new(cell)?;
    let runs = RUNS[usize::from(cell.limited)];
    let calls = (0..runs).map(|_| bench.call(cell)).collect::<Result<Vec<Call>>>()?;
    let mut misses: Vec<String> = calls.iter().filter_map(|call| miss(cell, call)).collect();
    if !misses.is_empty() {
        // Its captures tell why.
        bench.lab.keep();
    }
    let blocked = bench.blocked()?;
    if blocked > 0 {
        misses.push(format!("the limiter struck {blocked} times"));
    }
    let share = calls.iter().filter(|call| call.direct.is_some()).count() as f64 / runs as f64;
    let gave_up = calls.iter().filter(|call| call.gave_up).count() as f64 / runs as f64;
    let [median, p95] = quantiles(calls.iter().filter_map(|call| call.direct).collect());
    let mean = |of: fn(&Call) -> [u64; 2]| {
        let sum = |side: usize| calls.iter().map(|call| of(call)[side]).sum::<u64>() as f64 / runs as f64;
        format!("[{:.1}, {:.1}]", sum(0), sum(1))
    };
    let mut line = String::new();
    let [a, b] = cell.names;
    let _ = write!(
        line,
        "{{\"a\": \"{a}\", \"b\": \"{b}\", \"network\": \"namespaces\", \"temper\": \"{}\", ",
        cell.temper()
    );
    let _ = write!(
        line,
        "\"limiter\": \"{}\", \"loss\": 0, \"runs\": {runs}, \"direct_share\": {share:.3}, ",
        cell.limiter()
    );
    let _ =
        write!(line, "\"time_to_direct_s\": {{\"median\": {}, \"p95\": {}}}, ", number(median), number(p95));
    let _ = write!(line, "\"gave_up_share\": {gave_up:.3}, ");
    let audio: Vec<FirstAudio> = calls.iter().map(|call| call.audio).collect();
    line.push_str(&heard(&audio, &ice::calls(cell, runs)?));
    let _ = write!(
        line,
        "\"probes\": {}, \"new_flows\": {}, ",
        mean(|call| call.probes),
        mean(|call| call.flows)
    );
    let _ = write!(line, "\"sockets\": {}, \"blocked\": {}}}", mean(|call| call.sockets), blocked);
    Ok((line, misses))
}

/// Plays cells, several at once; the lines in the order of the cells, and all that they missed.
fn play_all(cells: &[Cell], at_once: usize) -> (Vec<String>, Vec<String>) {
    let next = AtomicUsize::new(0);
    let lines = Mutex::new(vec![String::new(); cells.len()]);
    let misses = Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for _ in 0..at_once {
            scope.spawn(|| {
                while let Some((index, cell)) = Some(next.fetch_add(1, Ordering::Relaxed))
                    .and_then(|index| Some((index, cells.get(index)?)))
                {
                    let (line, missed) =
                        play(cell).unwrap_or_else(|failure| panic!("{:?}: {failure}", cell.names));
                    println!("{line}");
                    let whose = format!("{:?}, {}", cell.names, cell.limiter());
                    misses.lock().unwrap().extend(missed.iter().map(|miss| format!("{whose}: {miss}")));
                    lines.lock().unwrap()[index] = line;
                }
            });
        }
    });
    (lines.into_inner().unwrap(), misses.into_inner().unwrap())
}

#[test]
#[ignore = "make nat-matrix"]
fn matrix_in_namespaces() {
    skip_unless_possible!("miniupnpd", "pjsua2", "kamailio", "turnserver", "conntrack", "curl", "openssl");
    let chosen = std::env::var("NAT_MATRIX_PAIR").ok();
    let cells: Vec<Cell> = Cell::all()
        .into_iter()
        .filter(|cell| chosen.as_ref().is_none_or(|pair| *pair == cell.names.join(",")))
        .collect();
    let at_once = std::env::var("NAT_MATRIX_AT_ONCE").ok().and_then(|text| text.parse().ok()).unwrap_or(2);
    let (lines, misses) = play_all(&cells, at_once);
    if let Some(path) = std::env::var_os("NAT_MATRIX_OUT") {
        std::fs::write(path, format!("[\n{}\n]\n", lines.join(",\n"))).unwrap();
    }
    assert!(misses.is_empty(), "{}", misses.join("\n"));
}
