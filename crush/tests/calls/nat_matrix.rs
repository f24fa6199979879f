//! The NAT matrix: which pairs get a direct path, how soon and at what cost, counted over many seeded runs. `make nat-matrix`
//! runs all of it, `make test` two cells.

use std::fmt::Write as _;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use crate::support::{CONE, COUNTING, Options, Phone, Place, RANDOM, World};
use crush::agent::{Config, Event};
use media_wire::sdp::crush::Temper;
use nat_lab::{Kind, Penalty};

/// Where an endpoint may be, under the names of the result.
const PLACES: [(&str, Place); 7] = [
    ("public", Place::Public),
    ("upnp", Place::Upnp),
    ("full-cone", Place::Behind(Kind::FullCone)),
    ("restricted-cone", Place::Behind(Kind::RestrictedCone)),
    ("cone", CONE),
    ("symmetric-sequential", COUNTING),
    ("symmetric-random", RANDOM),
];

/// One pair under one set of conditions.
#[derive(Debug, Clone)]
struct Cell {
    names: [&'static str; 2],
    /// What is in front of each NAT, with default settings: nothing, a limiter of 30 new flows a second that drops or blocks; or nothing,
    /// which somebody has said: `setting`.
    limiter: &'static str,
    options: Options,
    within: Duration,
}

impl Cell {
    fn new(a: usize, b: usize, limiter: &'static str, loss: f64) -> Self {
        let ((name_a, a), (name_b, b)) = (PLACES[a], PLACES[b]);
        Self::between([name_a, name_b], a, b, limiter, loss)
    }

    fn between(names: [&'static str; 2], a: Place, b: Place, limiter: &'static str, loss: f64) -> Self {
        let penalty = match limiter {
            "drop" => Some(Penalty::Drop),
            "block" => Some(Penalty::Block(Duration::from_secs(2))),
            _ => None,
        };
        let (temper, seconds) =
            if limiter == "setting" { (Some(Temper::Fast), 30) } else { (Config::default().temper, 60) };
        let config = Config { temper, ..Config::default() };
        let options = Options { config, limiter: penalty, loss, ..Options::new(1_000_000, a, b) };
        // The spray's own limit, and what discovery and the handoff take.
        Self { names, limiter, options, within: Duration::from_secs(seconds + 4) }
    }

    /// Same LAN, and every place against every other one.
    fn all() -> Vec<Self> {
        let mut cells = Vec::new();
        let conditions =
            ["none", "drop", "block", "setting"].map(|limiter| [(limiter, 0.0), (limiter, 0.02)]);
        for (limiter, loss) in conditions.into_iter().flatten() {
            cells.push(Self::between(["same-lan"; 2], Place::SameLan, Place::SameLan, limiter, loss));
            for a in 0..PLACES.len() {
                cells.extend((0..PLACES.len()).map(|b| Self::new(a, b, limiter, loss)));
            }
        }
        cells
    }
}

/// What one cell's runs found.
#[derive(Debug, Default)]
struct Found {
    runs: u64,
    /// s, of the runs that got direct both ways.
    times: Vec<f64>,
    /// s, of the runs in which both gave up.
    honest: Vec<f64>,
    /// ms from the answer, at both ends.
    first_audio: Vec<f64>,
    /// Runs in which somebody heard less than was sent to him.
    harmed: u64,
    probes: [u64; 2],
    flows: [u64; 2],
    sockets: [u64; 2],
    /// Most new flows within a second of a run, since its start.
    busiest: [u64; 2],
    blocked: u64,
    /// Packets that a limiter did not let through.
    dropped: u64,
}

impl Found {
    fn by(cell: &Cell, runs: u64) -> Self {
        let mut found = Self { runs, ..Self::default() };
        for run in 0..runs {
            found.run(cell, run);
        }
        found.times.sort_by(f64::total_cmp);
        found.honest.sort_by(f64::total_cmp);
        found.first_audio.sort_by(f64::total_cmp);
        found
    }

    fn run(&mut self, cell: &Cell, run: u64) {
        let seed = cell.options.seed + run;
        let mut world = World::new(&Options { seed, ..cell.options.clone() });
        let mut seconds = 0;
        let mut before = [0; 2];
        let mut busiest = self.busiest;
        let mut count = |world: &World| {
            for (side, phone) in world.phones.iter().enumerate() {
                let flows = phone.agent.effort().flows;
                busiest[side] = busiest[side].max(flows - before[side]);
                before[side] = flows;
            }
        };
        world.run_while(cell.within, |world| {
            if world.now().as_secs() != seconds {
                seconds = world.now().as_secs();
                count(world);
            }
            !world.both_direct() && world.phones.iter().any(|phone| phone.gave_up_at().is_none())
        });
        count(&world);
        self.busiest = busiest;
        let took = world.now().as_secs_f64();
        if world.both_direct() {
            self.times.push(took);
        } else if world.phones.iter().all(|phone| phone.gave_up_at().is_some()) {
            self.honest.push(took);
        }
        for (side, phone) in world.phones.iter().enumerate() {
            let effort = phone.agent.effort();
            self.probes[side] += effort.probes;
            self.flows[side] += effort.flows;
            self.sockets[side] += u64::from(effort.sockets);
            self.first_audio.extend(phone.first_audio.map(|at| at.as_secs_f64() * 1000.0));
        }
        let silenced = |phone: &Phone| {
            let slowed = phone.events.iter().any(|(_, event)| matches!(event, Event::SlowedDown(_)));
            slowed || phone.first_audio.is_none()
        };
        self.harmed += u64::from(world.phones.iter().any(silenced));
        for nat in world.nats.into_iter().flatten() {
            self.blocked += world.network.nat(nat).counters().blocks;
            self.dropped += world.network.nat(nat).counters().limited;
        }
    }

    fn share(&self) -> f64 {
        self.times.len() as f64 / self.runs as f64
    }

    /// One line of `bench/nat-matrix.json`.
    fn line(&self, cell: &Cell) -> String {
        let mean = |sum: [u64; 2]| sum.map(|sum| (sum as f64 / self.runs as f64 * 10.0).round() / 10.0);
        let [a, b] = cell.names;
        let mut line = format!("{{\"a\": \"{a}\", \"b\": \"{b}\", \"network\": \"virtual\"");
        let Options { config, loss, .. } = &cell.options;
        let _ = write!(
            line,
            ", \"temper\": \"{}\", \"limiter\": \"{}\", \"loss\": {loss}",
            config.temper.unwrap_or_default(),
            cell.limiter
        );
        let _ = write!(line, ", \"runs\": {}, \"direct_share\": {:.4}", self.runs, self.share());
        let (median, p95) = (quantile(&self.times, 0.5), quantile(&self.times, 0.95));
        let _ = write!(line, ", \"time_to_direct_s\": {{\"median\": {median}, \"p95\": {p95}}}");
        let _ = write!(line, ", \"gave_up_share\": {:.4}", self.honest.len() as f64 / self.runs as f64);
        let _ = write!(line, ", \"first_audio_ms\": {}", quantile(&self.first_audio, 0.5));
        let _ = write!(line, ", \"harmed\": {}, \"probes\": {:?}", self.harmed, mean(self.probes));
        let _ = write!(line, ", \"new_flows\": {:?}", mean(self.flows));
        let _ = write!(line, ", \"new_flows_per_s_max\": {:?}", self.busiest);
        let _ = write!(
            line,
            ", \"sockets\": {:?}, \"blocked\": {}, \"dropped\": {}}}",
            mean(self.sockets),
            self.blocked,
            self.dropped
        );
        line
    }
}

/// Of sorted figures; `null` if there are none.
fn quantile(sorted: &[f64], share: f64) -> String {
    let place = ((sorted.len() as f64 * share) as usize).min(sorted.len().saturating_sub(1));
    sorted.get(place).map_or_else(|| "null".to_owned(), |one| format!("{one:.3}"))
}

/// What issue and specification promise of a pair.
fn assert_promises(cell: &Cell, found: &Found) {
    let hard = |name: &str| name.starts_with("symmetric");
    let friendly = |name: &str| !hard(name) && name != "cone";
    let [a, b] = cell.names;
    let median = found.times.get(found.times.len() / 2).copied().unwrap_or(f64::INFINITY);
    let p95 = found.times.get(found.times.len() * 95 / 100).copied().unwrap_or(f64::INFINITY);
    let share = found.share();
    let what = found.line(cell);
    let random = a == "symmetric-random" || b == "symmetric-random";
    if friendly(a) || friendly(b) || (!hard(a) && !hard(b)) {
        assert!(share >= 1.0, "{what}");
        assert!(median < 1.0, "{what}");
    } else if !hard(a) || !hard(b) {
        assert!(share >= if random { 0.99 } else { 0.95 }, "{what}");
        assert!(median <= if random { 16.0 } else { 4.0 }, "{what}");
        assert!(p95 <= 45.0, "{what}");
    } else if !random {
        assert!(share >= 0.95, "{what}");
        assert!(median <= 6.0, "{what}");
    } else {
        assert!(found.honest.len() as u64 == found.runs, "{what}");
    }
    assert_eq!((found.blocked, found.dropped, found.harmed), (0, 0, 0), "{what}");
}

#[test]
fn a_cell_of_the_matrix_keeps_what_is_promised_with_loss_and_behind_a_limiter() {
    for cell in [Cell::new(4, 5, "none", 0.02), Cell::new(5, 5, "block", 0.0), Cell::new(6, 4, "drop", 0.0)] {
        let found = Found::by(&cell, 10);
        assert_promises(&cell, &found);
        assert!(found.line(&cell).contains("\"runs\": 10, \"direct_share\": 1.0000"));
    }
}

/// All cells, `NAT_MATRIX_RUNS` (default 1,000) runs each. Writes the list to the file that `NAT_MATRIX_OUT` names.
#[test]
#[ignore = "many minutes: make nat-matrix"]
fn matrix() {
    let runs = std::env::var("NAT_MATRIX_RUNS").ok().and_then(|runs| runs.parse().ok()).unwrap_or(1000);
    let chosen = std::env::var("NAT_MATRIX_PAIR").ok();
    let is_chosen = |cell: &Cell| chosen.as_ref().is_none_or(|pair| *pair == cell.names.join(","));
    let cells: Vec<Cell> = Cell::all().into_iter().filter(is_chosen).collect();
    let next = AtomicUsize::new(0);
    let done: Mutex<Vec<Option<Found>>> = Mutex::new(cells.iter().map(|_| None).collect());
    std::thread::scope(|scope| {
        for _ in 0..std::thread::available_parallelism().map_or(1, |count| count.get()) {
            scope.spawn(|| {
                loop {
                    let place = next.fetch_add(1, Ordering::Relaxed);
                    let Some(cell) = cells.get(place) else { return };
                    let found = Found::by(cell, runs);
                    println!("{}", found.line(cell));
                    done.lock().unwrap()[place] = Some(found);
                }
            });
        }
    });
    let done: Vec<Found> = done.into_inner().unwrap().into_iter().flatten().collect();
    if let Ok(file) = std::env::var("NAT_MATRIX_OUT") {
        let lines: Vec<String> = cells.iter().zip(&done).map(|(cell, found)| found.line(cell)).collect();
        std::fs::write(file, format!("[\n{}\n]\n", lines.join(",\n"))).unwrap();
    }
    for (cell, found) in cells.iter().zip(&done) {
        assert_promises(cell, found);
    }
}
