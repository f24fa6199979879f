//! Load with media through the SBC: no failed call, no lost packet that is not counted, one exact record for every
//! call, whatever happens to database, process and clock meanwhile.
//!
//! SIPp signals; beside it a talker of ours sends G.711 both ways and counts each packet, because SIPp does not. Each
//! story has a short version for `make test` and a full one (100 calls a second for a minute, 30,000 packets a second)
//! for `make test-load`.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::print_stderr,
    reason = "a laboratory that fails ends its test"
)]

use std::collections::HashSet;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread::sleep;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use crush_tests::process::eventually;
use crush_tests::sbc::{self, Sbc};
use crush_tests::sipp::{Load, Outcome, Sipp};
use crush_tests::talk::{Report, Talker};
use crush_tests::{Lab, Network};

const SOON: Duration = Duration::from_secs(10);
/// Three seconds of speech, one packet every 20 ms.
const PACKETS: u32 = 150;
/// From answer to BYE: the last packets have arrived when it comes.
const TALK: Duration = Duration::from_millis(3200);
const MEDIA_PORT: u16 = 10_000;

const TRUNK: &str = "INSERT INTO trunk (name, realm, host, port, transport) VALUES ('uas', 'core', '203.0.113.12', 5060, 'udp');
    INSERT INTO route (prefix, trunk) VALUES ('', 'uas')";

macro_rules! skip_unless_possible {
    ($($program:literal),*) => {
        if let Some(reason) = Lab::impossible(&["sipp", "curl", "openssl", $($program),*]) {
            eprintln!("SKIPPED: {reason}");
            return;
        }
    };
}

/// How much of it.
#[derive(Clone, Copy)]
struct Size {
    /// Calls a second.
    rate: u32,
    seconds: u32,
}

impl Size {
    const SHORT: Size = Size { rate: 25, seconds: 10 };

    fn full() -> Size {
        let seconds = std::env::var("SBC_LOAD_SECONDS").ok().and_then(|text| text.parse().ok());
        Size { rate: 100, seconds: seconds.unwrap_or(60) }
    }

    /// What one realm with its 5,000 default pairs could not do while each of them rested for 30 s.
    fn of_short_calls() -> Size {
        let value = |name: &str| std::env::var(name).ok().and_then(|text| text.parse().ok());
        Size {
            rate: value("SBC_PORTS_RATE").unwrap_or(500),
            seconds: value("SBC_LOAD_SECONDS").unwrap_or(60),
        }
    }

    fn calls(self) -> u32 {
        self.rate * self.seconds
    }

    fn lasts(self) -> Duration {
        Duration::from_secs(self.seconds.into())
    }
}

/// What its calls are.
struct Kind<'a> {
    realms: &'a str,
    /// Where their callees are: the caller's network or the other.
    callees: Network,
    packets: u32,
    talk: Duration,
}

impl Kind<'_> {
    const ACROSS: Kind<'static> = Kind { realms: "", callees: Network::Core, packets: PACKETS, talk: TALK };
}

/// Two loads at once would measure each other. (Under nextest each test has a process, and its configuration sees to it.)
static ALONE: Mutex<()> = Mutex::new(());

/// Everything of one load, running.
struct Run {
    lab: Lab,
    sbc: Sbc,
    size: Size,
    packets: u32,
    caller: Sipp,
    answerer: Sipp,
    talkers: [Talker; 2],
    began: Instant,
    _alone: MutexGuard<'static, ()>,
}

impl Run {
    /// `more` stands before the realms in the SBC's configuration.
    fn start(name: &str, size: Size, more: &str, environment: &[(&str, &str)]) -> Run {
        let realms = more.to_owned() + &sbc::load();
        Run::start_kind(name, size, &Kind { realms: &realms, ..Kind::ACROSS }, environment)
    }

    fn start_kind(name: &str, size: Size, kind: &Kind<'_>, environment: &[(&str, &str)]) -> Run {
        let Kind { realms, callees, packets, talk } = *kind;
        let alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
        let mut lab = Lab::new(name).unwrap();
        let addresses =
            [lab.host("uac", Network::Access, 11).unwrap(), lab.host("uas", callees, 12).unwrap()];
        let trunk = TRUNK.replace("core", callees.name()).replace("203.0.113.12", &addresses[1]);
        let sbc = Sbc::start_with(&lab, realms, &trunk, environment).unwrap();
        let logs =
            ["uac", "uas"].map(|host| lab.folder().join(format!("{host}-calls.log")).display().to_string());
        let more = |log: &str| ["-trace_logs", "-log_file", log].map(str::to_owned).to_vec();
        let local = (addresses[1].clone(), 5060);
        let load = Load { scenario: "load-answerer.xml", local, more: more(&logs[1]), ..Load::default() };
        let answerer = Sipp::start(&lab, "uas", "uas", &load).unwrap();
        let talkers = [("uac", 0), ("uas", 1)].map(|(host, side)| {
            let program = env!("CARGO_BIN_EXE_talker");
            Talker::start(&lab, host, program, &logs[side], &addresses[side], MEDIA_PORT, packets).unwrap()
        });
        let talk = talk.as_millis().to_string();
        // A message that is lost with the SBC must not hold its call for ever.
        let more = [
            more(&logs[0]),
            ["-s", "load", "-d", &talk, "-recv_timeout", "8000"].map(str::to_owned).to_vec(),
        ];
        let load = Load {
            scenario: "load-caller.xml",
            local: (addresses[0].clone(), 5060),
            remote: Some(format!("{}:5060", Network::Access.address(1))),
            calls: size.calls(),
            rate: size.rate,
            more: more.concat(),
        };
        let caller = Sipp::start(&lab, "uac", "uac", &load).unwrap();
        Run { lab, sbc, size, packets, caller, answerer, talkers, began: Instant::now(), _alone: alone }
    }

    /// Sleeps until this share of the load has been offered.
    fn until(&self, share: f64) {
        sleep((self.size.lasts().mul_f64(share)).saturating_sub(self.began.elapsed()));
    }

    /// Waits for the last call, and demands that none failed and that all were heard, both ways.
    fn finish_with_every_call_heard(self) {
        let Run { lab, sbc, size, packets, mut caller, answerer, talkers, _alone, .. } = self;
        let calls = u64::from(size.calls());
        caller.ended(size.lasts() + SOON * 3).unwrap();
        let reports = talkers.map(|talker| talker.finish(SOON * 3).unwrap());
        eprintln!("{calls} calls, callers {:?}; talkers {reports:?}", caller.counts().unwrap());
        let metrics = ["sbc_media_dropped_total", "sbc_media_send_failed_total"];
        eprintln!("{metrics:?}: {:?}", metrics.map(|metric| sbc.metric(&lab, metric)));
        assert_eq!(caller.counts().unwrap(), Outcome { successful: calls, failed: 0 }, "{}", sbc.output());
        assert_eq!(answerer.unexpected().unwrap(), 0);
        for report in reports {
            assert_eq!((report.foreign, report.twice), (0, 0), "of other calls, or doubled");
            let sent = calls * u64::from(packets);
            assert_eq!(report.sent, sent);
            assert!((sent - report.received) * 1000 <= sent, "more than 0.1 % lost: {report:?}");
        }
        let refused = "SELECT count(*) FROM call WHERE cause IS DISTINCT FROM 'bye'";
        sbc.eventually_sql("SELECT count(*) FROM call WHERE cause IS NOT NULL", &calls.to_string(), SOON * 6)
            .unwrap();
        assert_eq!(sbc.sql(refused).unwrap(), "0");
    }

    /// Waits for the last call, and demands what a load without mishap shows.
    fn finish_without_a_loss(self) {
        let Run { lab, sbc, size, mut caller, answerer, talkers, _alone, .. } = self;
        let calls = u64::from(size.calls());
        caller.ended(size.lasts() + SOON * 3).unwrap();
        let all_well = Outcome { successful: calls, failed: 0 };
        assert_eq!(caller.counts().unwrap(), all_well, "the callers: {}", sbc.output());
        // The answering side knows its calls only some seconds after their BYE.
        eventually(SOON, || answerer.counts().unwrap() == all_well);
        assert_eq!(answerer.counts().unwrap(), all_well, "the answerers: {}", sbc.output());
        assert_eq!(
            [&caller, &answerer].map(|sipp| sipp.unexpected().unwrap()),
            [0, 0],
            "unexpected messages"
        );
        let [caller, callee] = talkers.map(|talker| talker.finish(SOON * 3).unwrap());
        sbc.eventually_sql("SELECT count(*) FROM call WHERE cause IS NOT NULL", &calls.to_string(), SOON * 3)
            .unwrap();
        let media = Media::of(&sbc, &lab);
        eprintln!("{calls} calls; caller's media {caller:?}; callee's {callee:?}; the SBC's {media:?}");
        media.balances(&caller, &callee, calls * u64::from(PACKETS));
        exact_records(&sbc, calls);
        for metric in ["sbc_calls", "sbc_media_sessions", "sbc_media_port_pairs"] {
            assert_eq!(sbc.metric(&lab, metric).unwrap(), 0, "{metric}");
        }
    }
}

/// What the SBC has counted, from its call records; the caller's stream first.
#[derive(Debug)]
struct Media {
    received: [u64; 2],
    lost: [u64; 2],
    strangers: u64,
    not_sent: u64,
}

impl Media {
    fn of(sbc: &Sbc, lab: &Lab) -> Media {
        let sum = |what: &str, filter: &str| -> u64 {
            let text = format!(
                "SELECT coalesce(sum((stream->>'{what}')::bigint), 0) FROM call, jsonb_array_elements(media) AS stream WHERE {filter}"
            );
            sbc.sql(&text).unwrap().parse().unwrap()
        };
        let both = |what| ["0", "1"].map(|party| sum(what, &format!("stream->>'party' = '{party}'")));
        Media {
            received: both("packets"),
            lost: both("lost"),
            strangers: sum("strangers", "true"),
            not_sent: sbc.metric(lab, "sbc_media_send_failed_total").unwrap(),
        }
    }

    /// Each packet is accounted for: sent = received at the far end + loss, and the loss is counted where it happened.
    fn balances(&self, caller: &Report, callee: &Report, expected: u64) {
        let one = [(caller, callee, 0), (callee, caller, 1)];
        for (sender, receiver, party) in one {
            assert_eq!((sender.sent, sender.unsent), (expected, 0), "sent by party {party}");
            assert_eq!((receiver.twice, receiver.foreign), (0, 0), "received from party {party}");
            assert_eq!(self.received[party] + self.lost[party], sender.sent, "counted of party {party}");
        }
        let sent = caller.sent + callee.sent;
        let received = caller.received + callee.received;
        let lost = self.lost[0] + self.lost[1] + self.not_sent + self.strangers;
        assert_eq!(sent, received + lost, "packets sent are packets received and counted losses: {self:?}");
        assert!(lost * 1000 <= sent, "more than 0.1 % lost: {lost} of {sent}");
    }
}

/// One record a call, ended by the caller, with its events in order and its times from the monotonic clock.
fn exact_records(sbc: &Sbc, calls: u64) {
    let all = sbc.sql("SELECT count(*), count(DISTINCT id), count(DISTINCT call_id) FROM call").unwrap();
    assert_eq!(all, format!("{calls}|{calls}|{calls}"));
    let exact = "SELECT count(*) FROM call WHERE cause = 'bye' AND ended_by = 'caller' AND status = 200 AND trunk = 'uas'
        AND answered_realm = 'core' AND extract(epoch FROM ended_at - started_at) * 1000 - setup_ms - duration_ms BETWEEN -1 AND 2";
    assert_eq!(sbc.sql(exact).unwrap(), calls.to_string());
    lengths(sbc, "true", calls);
    let events = "SELECT count(*) FROM (SELECT call FROM call_event GROUP BY call
        HAVING string_agg(sequence || kind, ' ' ORDER BY sequence) = '0started 1answered 2ended') AS whole";
    assert_eq!(sbc.sql(events).unwrap(), calls.to_string());
}

/// Talked as long as SIPp talked, set up in the 50 ms that the callee rings and a little.
fn lengths(sbc: &Sbc, which: &str, calls: u64) {
    let talk = TALK.as_millis();
    let text = format!(
        "SELECT count(*) FROM call WHERE {which} AND duration_ms BETWEEN {talk} - 150 AND {talk} + 600 AND setup_ms BETWEEN 40 AND 700"
    );
    let spread = format!(
        "SELECT min(duration_ms), max(duration_ms), min(setup_ms), max(setup_ms) FROM call WHERE {which}"
    );
    assert_eq!(
        sbc.sql(&text).unwrap(),
        calls.to_string(),
        "durations and set-ups: {}",
        sbc.sql(&spread).unwrap()
    );
}

fn plain(name: &str, size: Size) {
    Run::start(name, size, "", &[]).finish_without_a_loss();
}

/// Calls of a second inside one realm, two pairs of its ports each.
fn short_calls_inside_one_realm(name: &str, size: Size, more: &str) {
    let address = Network::Access.address(1);
    let realms = format!(
        "[[realm]]\nname = \"access\"\nauthentication = \"open\"\ntrunks = true\nlisten = [\"udp:{address}:5060\"]\nmedia = [\"{address}\"]\n{more}"
    );
    // 0.8 s of speech: the last of it has arrived when the BYE comes, though who talks hears of its call from a log.
    let kind = Kind { realms: &realms, callees: Network::Access, packets: 40, talk: Duration::from_secs(1) };
    Run::start_kind(name, size, &kind, &[]).finish_with_every_call_heard();
}

fn over_two_threads_each(name: &str, size: Size) {
    let more = "[signalling]\nshards = 2\n\n[media]\nworkers = 2\n\n";
    Run::start(name, size, more, &[]).finish_without_a_loss();
}

fn without_database(name: &str, size: Size, away: Duration) {
    let run = Run::start(name, size, "", &[]);
    run.until(0.25);
    run.sbc.database(false).unwrap();
    sleep(away);
    run.sbc.database(true).unwrap();
    run.finish_without_a_loss();
}

fn with_a_crash(name: &str, size: Size) {
    let mut run = Run::start(name, size, "", &[]);
    run.until(0.5);
    let killed = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs_f64();
    run.sbc.kill().unwrap();
    run.sbc.serve(&run.lab).unwrap();
    let Run { lab, sbc, mut caller, _alone, .. } = run;
    caller.ended(size.lasts() + SOON * 4).unwrap();
    sbc.eventually_sql("SELECT count(*) FROM call WHERE cause IS NULL", "0", SOON * 3).unwrap();

    let log = std::fs::read_to_string(lab.folder().join("uac-calls.log")).unwrap();
    let of = |kind: &str| -> HashSet<&str> {
        let lines = log.lines().map(|line| line.split(' ').collect::<Vec<_>>());
        lines.filter(|words| words[0] == kind).filter_map(|words| words.get(1).copied()).collect()
    };
    let (talked, ended) = (of("talk"), of("ended"));
    // An INVITE that was ringing at the crash is sent again and is a call of its own after it; an answered one is not.
    let rows = "SELECT call_id, cause, extract(epoch FROM ended_at), answered_at IS NOT NULL FROM call";
    let rows = sbc.sql(rows).unwrap();
    let rows: Vec<Vec<&str>> = rows.lines().map(|row| row.split('|').collect()).collect();
    let answered: Vec<&str> = rows.iter().filter(|row| row[3] == "t").map(|row| row[0]).collect();
    let recorded: HashSet<&str> = answered.iter().copied().collect();
    let by_bye: HashSet<&str> = rows.iter().filter(|row| row[1] == "bye").map(|row| row[0]).collect();
    let crashed: Vec<_> = rows.iter().filter(|row| row[1] == "crash").collect();
    let causes = sbc.sql("SELECT string_agg(format('%s %s', count, cause), ', ') FROM (SELECT cause, count(*) FROM call GROUP BY cause) AS each");
    eprintln!("causes: {}", causes.unwrap());
    eprintln!(
        "{} calls offered, {:?}; {} answered, {} of them with an answered BYE; {} records, {} by BYE, {} crash",
        size.calls(),
        caller.counts().unwrap(),
        talked.len(),
        ended.len(),
        rows.len(),
        by_bye.len(),
        crashed.len()
    );
    assert_eq!(recorded.len(), answered.len(), "no answered call has two records");
    assert!(talked.is_subset(&recorded), "every answered call has its record");
    assert!(ended.is_subset(&by_bye), "every call whose BYE was answered is recorded as ended by it");
    // At the kill about three seconds' worth of calls were open.
    assert!(crashed.len() >= size.rate as usize * 2, "{} crashed calls", crashed.len());
    for row in &crashed {
        let before = killed - row[2].parse::<f64>().unwrap();
        assert!((-0.1..1.4).contains(&before), "{} was closed {before} s before the crash", row[0]);
    }
    // Calls that began after the restart, and those that ended before the crash, are as exact as any.
    lengths(&sbc, "cause = 'bye'", by_bye.len() as u64);
    assert!(by_bye.len() >= size.calls() as usize * 3 / 4 - crashed.len(), "{} by BYE", by_bye.len());
}

fn with_a_stepped_clock(name: &str, size: Size) {
    let file = std::env::temp_dir().join(format!("{name}-{}", std::process::id()));
    std::fs::write(&file, "+0").unwrap();
    let path = file.display().to_string();
    let library = ["x86_64-linux-gnu", "aarch64-linux-gnu"]
        .map(|machine| format!("/usr/lib/{machine}/faketime/libfaketimeMT.so.1"))
        .into_iter()
        .find(|path| std::path::Path::new(path).exists())
        .unwrap();
    let environment = [
        ("LD_PRELOAD", library.as_str()),
        ("FAKETIME_TIMESTAMP_FILE", path.as_str()),
        ("FAKETIME_DONT_FAKE_MONOTONIC", "1"),
        ("FAKETIME_CACHE_DURATION", "1"),
    ];
    let run = Run::start(name, size, "", &environment);
    run.until(0.35);
    std::fs::write(&file, "+3600").unwrap();
    run.until(0.7);
    std::fs::write(&file, "+0").unwrap();
    // The step was seen: some calls began in the other hour.
    let stepped = "SELECT count(*) > 0 FROM call WHERE started_at > now() + interval '50 min'";
    run.sbc.eventually_sql(stepped, "t", SOON).unwrap();
    run.finish_without_a_loss();
    std::fs::remove_file(&file).unwrap();
}

#[test]
fn a_load_leaves_one_exact_record_per_call_and_loses_no_packet() {
    skip_unless_possible!();
    plain("load", Size::SHORT);
}

#[test]
fn calls_spread_over_two_signalling_and_two_media_threads_are_as_exact() {
    skip_unless_possible!();
    over_two_threads_each("load-shards", Size::SHORT);
}

#[test]
fn short_calls_use_the_same_few_ports_again_and_again_and_none_is_refused() {
    skip_unless_possible!();
    // Fifty pairs; thirty calls at a time would need sixty if any had to rest.
    short_calls_inside_one_realm("ports", Size { rate: 15, seconds: 10 }, "media_ports = \"20000-20099\"\n");
}

#[test]
fn a_load_is_recorded_exactly_though_the_database_is_away_meanwhile() {
    skip_unless_possible!();
    without_database("load-database", Size::SHORT, Duration::from_secs(5));
}

#[test]
fn a_crash_in_mid_load_loses_no_record_and_closes_open_calls() {
    skip_unless_possible!();
    with_a_crash("load-crash", Size::SHORT);
}

#[test]
fn a_stepped_wall_clock_bends_no_duration() {
    skip_unless_possible!("faketime");
    with_a_stepped_clock("load-clock", Size::SHORT);
}

#[test]
#[ignore = "a minute of 30,000 packets a second: make test-load, and for hours make soak"]
fn full_load() {
    plain("full-load", Size::full());
}

#[test]
#[ignore = "a minute of 500 calls and 45,000 packets a second: make test-ports"]
fn full_run_of_short_calls_inside_one_realm() {
    short_calls_inside_one_realm("full-ports", Size::of_short_calls(), "");
}

#[test]
#[ignore = "a minute of 30,000 packets a second: make test-load"]
fn full_run_with_the_database_stopped_for_20_s() {
    without_database("full-database", Size::full(), Duration::from_secs(20));
}

#[test]
#[ignore = "a minute of 30,000 packets a second: make test-load"]
fn full_run_with_a_crash() {
    with_a_crash("full-crash", Size::full());
}

#[test]
#[ignore = "a minute of 30,000 packets a second: make test-load"]
fn full_run_with_a_clock_stepped_by_an_hour() {
    with_a_stepped_clock("full-clock", Size::full());
}

#[test]
#[ignore = "a minute of 30,000 packets a second: make test-load"]
fn full_run_over_two_signalling_and_two_media_threads() {
    over_two_threads_each("full-shards", Size::full());
}
