//! Many calls at once, of simulated phones: some refuse to be moved, and all together are the relay's load.

use std::fs;
use std::time::{Duration, Instant};

use crush_tests::crowd::{Crowd, Report};
use crush_tests::network::SBC;
use crush_tests::place::{Ground, Place};
use crush_tests::process::{eventually, run};
use crush_tests::sbc::{self, Sbc};
use crush_tests::{Failure, Lab, Network, Result, skip_unless_possible};
use serde_json::json;

use crate::scene::{USERS, realm};

struct Crowds {
    sides: [Crowd; 2],
    sbc: Sbc,
    lab: Lab,
}

impl Crowds {
    /// `moves` is how the called take re-INVITEs, in turn; the callers follow. `settings` are more of the SBC's.
    fn new(moves: &str, settings: &str) -> Result<Self> {
        let mut lab = Lab::new("crowds")?;
        let ground = Ground::new(&mut lab, Place::Open)?;
        // Ports for 2,000 calls at each address.
        let realm = realm().replace("\"20000-20999\"", "\"20000-27999\"");
        let sbc = Sbc::start(&lab, &(settings.to_owned() + &realm), &sbc::subscribers(&USERS))?;
        let relay = Network::Access.address(SBC);
        let side = |index: usize, moves| {
            let (host, address) = &ground.hosts[index];
            let program = env!("CARGO_BIN_EXE_crowd");
            Crowd::start(&lab, program, [host, address], USERS[index].0, &relay, moves)
        };
        let sides = [side(0, "follow")?, side(1, moves)?];
        Ok(Self { lab, sbc, sides })
    }

    /// So many calls, all heard on both sides.
    fn call(&mut self, count: u64) -> Result<()> {
        self.sides[0].command(&format!("dial {} {count}", USERS[1].0))?;
        let within = Duration::from_secs(10 + count / 25);
        self.reach("all calls are heard", within, |side| side.calls == count && side.hearing == count)
    }

    fn reports(&mut self) -> Result<[Report; 2]> {
        let [one, other] = &mut self.sides;
        Ok([one.report()?, other.report()?])
    }

    /// Waits until both sides' calls are so.
    fn reach(&mut self, what: &str, within: Duration, is_so: impl Fn(&Report) -> bool) -> Result<()> {
        let end = Instant::now() + within;
        loop {
            let reports = self.reports()?;
            if reports.iter().all(&is_so) {
                return Ok(());
            }
            if Instant::now() > end {
                return Err(Failure(format!("not {what} within {within:?}: {reports:?}")));
            }
            std::thread::sleep(Duration::from_millis(200));
        }
    }

    /// How often this is in the timelines, counted once per call.
    fn calls_with(&self, condition: &str) -> Result<u64> {
        let query = format!("SELECT count(DISTINCT call) FROM call_path WHERE {condition}");
        let count = self.sbc.sql(&query)?;
        count.parse().map_err(|_| Failure(count))
    }

    fn wait_for_calls_with(&self, condition: &str, count: u64, within: Duration) -> Result<()> {
        let end = Instant::now() + within;
        loop {
            let found = self.calls_with(condition)?;
            if found == count {
                return Ok(());
            }
            if Instant::now() > end {
                return Err(Failure(format!("{found} calls, not {count}, with {condition}")));
            }
            std::thread::sleep(Duration::from_millis(500));
        }
    }

    /// All calls end, and each is billed for where its media was.
    fn hang_up(&mut self, count: u64) -> Result<()> {
        self.sides[0].command("hangup")?;
        let billed = "SELECT count(*) FROM call WHERE cause = 'bye' AND relayed_ms + direct_ms = duration_ms";
        self.sbc.eventually_sql(billed, &count.to_string(), Duration::from_secs(30))
    }

    /// Processor time of the SBC so far, seconds, and packets that its interface has taken and given.
    fn load(&self) -> Result<(f64, f64)> {
        let id = self.sbc.id().unwrap_or_default();
        let text = fs::read_to_string(format!("/proc/{id}/stat"))?;
        let fields: Vec<&str> = text.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
        let ticks: f64 = [11, 12].iter().filter_map(|index| fields.get(*index)?.parse::<f64>().ok()).sum();
        let text = run(&["ip", "netns", "exec", &self.lab.namespace("sbc"), "cat", "/proc/net/dev"])?;
        let line = text.lines().find_map(|line| line.trim().strip_prefix("access:")).unwrap_or_default();
        let fields: Vec<f64> = line.split_whitespace().filter_map(|field| field.parse().ok()).collect();
        let packets = fields.get(1).zip(fields.get(9)).map_or(0.0, |(taken, given)| taken + given);
        Ok((ticks / 100.0, packets))
    }
}

/// 488, 491, 500, 501 and no answer at all, each in a fifth of 100 calls: not one is harmed, and none is asked again.
#[test]
fn a_phone_that_will_not_be_moved_keeps_its_call() {
    skip_unless_possible!("curl", "openssl");
    const CALLS: u64 = 100;
    // Each is tried, whatever became of those before.
    let mut crowds = Crowds::new("488,491,500,501,nothing", "[release]\nremember_seconds = 0\n\n").unwrap();
    crowds.call(CALLS).unwrap();
    let end = Duration::from_secs(60);
    crowds.wait_for_calls_with("what = 'stays' AND why = 'refused'", CALLS, end).unwrap();
    crowds.reach("all are home", Duration::from_secs(5), |side| side.away == 0).unwrap();
    println!("{:?}", crowds.reports().unwrap());
    crowds
        .reach("all are heard", Duration::from_secs(2), |side| side.hearing == CALLS && side.ended == 0)
        .unwrap();
    let [_, asked] = crowds.reports().unwrap();
    println!("{asked:?}");
    crowds.hang_up(CALLS).unwrap();
}

/// What the relay has to do for 1,000 calls before their media has left it, and after.
#[test]
#[ignore = "make release-load"]
fn the_relays_load_before_and_after_release() {
    skip_unless_possible!("curl", "openssl");
    let calls: u64 = std::env::var("LOAD_CALLS").ok().and_then(|calls| calls.parse().ok()).unwrap_or(1_000);
    // All are up long before the first leaves.
    let mut crowds = Crowds::new("follow", "[release]\nsettle_ms = 45000\n\n").unwrap();
    crowds.call(calls).unwrap();
    let measure = |crowds: &mut Crowds| {
        crowds.reports().unwrap();
        let (start, before) = (Instant::now(), crowds.load().unwrap());
        std::thread::sleep(Duration::from_secs(10));
        let after = crowds.load().unwrap();
        let seconds = start.elapsed().as_secs_f64();
        let sides = crowds.reports().unwrap();
        assert!(sides.iter().all(|side| side.hearing == calls && side.ended == 0), "{sides:?}");
        ((after.0 - before.0) / seconds, (after.1 - before.1) / seconds)
    };
    let relayed = measure(&mut crowds);
    assert_eq!(crowds.calls_with("what = 'direct'").unwrap(), 0, "measured too late");
    crowds.wait_for_calls_with("what = 'direct'", calls, Duration::from_secs(150)).unwrap();
    let away = |crowds: &mut Crowds| crowds.reach("away", Duration::from_secs(10), |side| side.away == calls);
    away(&mut crowds).unwrap();
    let direct = measure(&mut crowds);
    away(&mut crowds).unwrap();
    crowds.hang_up(calls).unwrap();
    let result = json!({
        "calls": calls,
        "relayed": { "cpu_share": relayed.0, "packets_per_second": relayed.1 },
        "direct": { "cpu_share": direct.0, "packets_per_second": direct.1 },
        "ratio": { "cpu": relayed.0 / direct.0, "packets": relayed.1 / direct.1 },
    });
    println!("{result:#}");
    if let Ok(path) = std::env::var("LOAD_OUT") {
        fs::write(path, format!("{result:#}\n")).unwrap();
    }
    assert!(eventually(Duration::ZERO, || relayed.1 > 50.0 * direct.1), "{result}");
}
