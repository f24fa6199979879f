//! Whole calls that leave the relay and come back, in virtual time: the real engine, the real media worker and the records,
//! between simulated phones of every temperament behind every pair of NATs, with paths that are cut, policy that changes
//! its mind, holds, and parties that hang up at any moment.
//!
//! Every call is a seed: `RELEASE_SEED=17` plays that one alone and tells its story, `RELEASE_CALLS=10000` plays so many,
//! `RELEASE_OUT=FILE` writes what became of each pair as JSON. `CORE_SEED=17` plays it through a registrar in the core. A table of it is printed (`--nocapture`).
#![allow(clippy::expect_used, clippy::panic, clippy::print_stdout, reason = "a test fails by panicking")]

mod census;
mod circle;
mod crush_calls;
mod ears;
mod handed_calls;
mod handed_circles;
mod long_calls;
mod records;
mod signalling;
mod world;

use std::fmt::Write as _;
use std::time::Duration;

use census::{Call, Census};
use nat_lab::Kind as Nat;
use play::Dice;
use play::ground::Place;
use play::phone::device::Model;
use play::phone::plain::Kind;
use seam::path::{Constraint, PathWords};
use world::World;

/// What happens to a call once it is up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Act {
    Nothing,
    /// No packet passes directly any more, one way or both.
    Cut([bool; 2]),
    Anchor,
    Hold {
        by: usize,
        milliseconds: u64,
    },
    HangUp {
        by: usize,
    },
}

/// What a seed makes of a call.
#[derive(Debug, Clone, Copy)]
struct Plan {
    kinds: [Kind; 2],
    place: Place,
    /// The direct path never works, one way or both.
    blocked: Option<[bool; 2]>,
    /// After the answer, ms.
    after: u64,
    act: Act,
    /// A registrar's proxy in the core leads it back: it is two calls of ours.
    has_core: bool,
    /// Other processes go on with it now and then.
    is_handed: bool,
}

const KNOWN: [Kind; 3] = [Kind::Baresip, Kind::Linphone, Kind::Pjsip];
const NATS: [Option<Nat>; 11] = [
    None,
    Some(Nat::FullCone),
    Some(Nat::RestrictedCone),
    Some(Nat::Cone),
    Some(Nat::Firewall),
    Some(Nat::LinuxCone),
    Some(Nat::LinuxLeaky),
    Some(Nat::SymmetricAddress),
    Some(Nat::SymmetricSequential),
    Some(Nat::SymmetricRandom),
    Some(Nat::UdpBlocked),
];
/// Between these a direct path works as soon as both send.
const OPEN: [Option<Nat>; 5] =
    [None, Some(Nat::FullCone), Some(Nat::RestrictedCone), Some(Nat::Cone), Some(Nat::Firewall)];

impl Plan {
    fn of(seed: u64) -> Self {
        let mut dice = Dice::new(seed ^ 0x5eed);
        let any = dice.below(10) < 4;
        let kind = |dice: &mut Dice| if any { dice.pick(&Kind::ALL) } else { dice.pick(&KNOWN) };
        let kinds = [kind(&mut dice), kind(&mut dice)];
        let place = match dice.below(10) {
            0 => Place::OneLan,
            // Where UDP is blocked there is no call.
            _ => Place::Apart([dice.pick(&NATS[..10]), dice.pick(&NATS[..10])]),
        };
        let ways = [[true, true], [true, true], [true, false], [false, true]];
        let blocked = (dice.below(6) == 0).then(|| dice.pick(&ways));
        let after = if dice.below(3) == 0 { dice.below(3_000) } else { dice.below(20_000) };
        let by = dice.below(2) as usize;
        let act = match dice.below(8) {
            0 | 1 => Act::Cut(dice.pick(&ways)),
            2 => Act::Anchor,
            3 => Act::Hold { by, milliseconds: 200 + dice.below(9_000) },
            4 => Act::HangUp { by },
            _ => Act::Nothing,
        };
        Self { kinds, place, blocked, after, act, has_core: false, is_handed: false }
    }

    /// Whether its direct path works until something happens.
    fn is_open(&self) -> bool {
        match self.place {
            Place::OneLan | Place::Realms(_) => true,
            Place::Apart(nats) => self.blocked.is_none() && nats.iter().all(|nat| OPEN.contains(nat)),
        }
    }

    fn is_of_known(&self) -> bool {
        self.kinds.iter().all(|kind| KNOWN.contains(kind))
    }
}

/// How long reports that stop, a phone that never answers, or both may keep a call from its end state.
const REST: Duration = Duration::from_secs(36);

/// How long somebody may hear nothing while a path that works is taken, or that does not is tried.
fn limit(plan: &Plan) -> Duration {
    let milliseconds = match (plan.is_open(), plan.kinds) {
        (true, kinds) if kinds.contains(&Kind::Pjsip) => 200,
        (true, _) => 60,
        // Where one of them hears the other, two that follow what they hear cling to each other.
        (false, [Kind::Pjsip, Kind::Pjsip]) => 1_200,
        (false, _) => 1_000,
    };
    Duration::from_millis(milliseconds)
}

/// Plays a seed.
fn play(seed: u64, plan: Plan) -> Result<(Call, String), String> {
    let mut world = World::through(plan.has_core, seed, plan.kinds.map(Model::Ordinary), plan.place);
    let mut problems: Vec<String> = Vec::new();
    if plan.is_handed {
        world.hand_over_at_times(seed);
    }
    if let Some(ways) = plan.blocked {
        world.cut(ways);
    }
    world.run(Duration::from_millis(600));
    if !world.is_up() {
        problems.push("it is not answered".to_owned());
    }
    let answered = world.answered.unwrap_or(world.now);
    let begin = answered + Duration::from_millis(300);
    world.run(begin.saturating_sub(world.now));
    world.forget_silence();
    world.run((answered + Duration::from_millis(plan.after.max(300))).saturating_sub(world.now));
    let silence_before = world.longest_silence();
    match plan.act {
        Act::Nothing => {}
        Act::Cut(ways) => world.cut(ways),
        Act::Anchor => {
            if plan.has_core && seed % 2 == 1 {
                world.constrain_second(Constraint::MustAnchor);
            } else {
                world.constrain(Constraint::MustAnchor);
            }
            world.run(Duration::from_secs(2));
            if plan.is_of_known() && world.is_silent() {
                problems.push("silent two seconds after policy has called it back".to_owned());
            }
        }
        Act::Hold { by, milliseconds } => {
            world.party_offers(by, "sendonly");
            world.run(Duration::from_millis(milliseconds));
            world.party_offers(by, "sendrecv");
        }
        Act::HangUp { by } => _ = world.hang_up(by),
    }
    let has_hung_up = matches!(plan.act, Act::HangUp { .. });
    world.run(if has_hung_up { Duration::from_secs(1) } else { REST });
    // A party that ends its call because its own offer was refused is not our matter.
    let is_silent = world.is_up() && world.is_silent();
    if is_silent {
        let ears = world.ears();
        problems.push(format!("it ends silent: {ears:?}"));
    }
    let silence = if plan.act == Act::Nothing { world.longest_silence() } else { silence_before };
    if !has_hung_up {
        world.hang_up((seed % 2) as usize);
        world.run(Duration::from_secs(1));
    }
    let call = judge(&world, &plan, silence, is_silent, &mut problems);
    if plan.has_core {
        compare(&world, &mut problems);
    }
    let mut story = format!("seed {seed}: {}\n{plan:?}\n", problems.join("; "));
    for (at, line) in &world.story {
        let _ = writeln!(story, "{:9.3} {line}", at.as_secs_f64() - 100.0);
    }
    if problems.is_empty() { Ok((call, story)) } else { Err(story) }
}

/// The records of both halves tell of one call: the same states for the same reasons, and the same time.
fn compare(world: &World, problems: &mut Vec<String>) {
    let states = |path: &[PathWords]| -> Vec<(String, String)> {
        let is_state = |entry: &&PathWords| {
            ["anchored", "probing", "synchronising", "direct", "returning"].contains(&&*entry.what)
        };
        path.iter().filter(is_state).map(|entry| (entry.what.to_string(), entry.why.to_string())).collect()
    };
    let (one, other) = (states(&world.path), states(&world.second_path));
    if one != other {
        problems.push(format!("the halves tell different stories: {one:?} and {other:?}"));
    }
    match (&world.ended, &world.second_ended) {
        (Some(one), Some(other)) if one.direct.abs_diff(other.direct) <= Duration::from_millis(100) => {}
        (one, other) => {
            let direct = [one, other].map(|ended| ended.as_ref().map(|ended| ended.direct));
            problems.push(format!("the halves were direct for {direct:?}"));
        }
    }
}

/// What its records say, and whether that is true.
fn judge(world: &World, plan: &Plan, silence: Duration, is_silent: bool, problems: &mut Vec<String>) -> Call {
    let states = || {
        world.path.iter().enumerate().filter(|(_, entry)| {
            ["anchored", "probing", "synchronising", "direct", "returning"].contains(&&*entry.what)
        })
    };
    let proven = |before: usize, party: u16| {
        world.path[..before]
            .iter()
            .any(|entry| &*entry.what == "proof" && &*entry.why == "confirmed" && entry.party == Some(party))
    };
    for (index, _) in states().filter(|(_, entry)| &*entry.what == "direct") {
        if !(proven(index, 0) && proven(index, 1)) {
            problems.push("direct without a proof of both ways".to_owned());
        }
    }
    for (index, entry) in world.path.iter().enumerate() {
        if &*entry.what == "proof" && &*entry.why == "refuted" {
            let after = &world.path[index..];
            let is_back = after.iter().any(|entry| {
                (&*entry.what == "returning" && &*entry.why == "refuted") || (&*entry.what == "stays")
            });
            if !is_back {
                problems.push("a refuted path stands".to_owned());
            }
        }
    }
    match &world.ended {
        None => problems.push("no record of its end".to_owned()),
        Some(ended) => {
            let relayed = ended.talked.saturating_sub(ended.direct);
            if relayed + ended.direct != ended.talked {
                problems.push(format!("{:?} direct of {:?}", ended.direct, ended.talked));
            }
            // What is on its way to the relay is not direct any more, and a moment after a move is not yet.
            let moves = states().filter(|(_, entry)| &*entry.what == "synchronising").count() as u32;
            let slack = Duration::from_millis(400) * (moves + 1);
            if plan.is_of_known() && (ended.direct > world.away + slack || ended.direct + slack < world.away)
            {
                problems
                    .push(format!("{:?} direct by the record, {:?} by the phones", ended.direct, world.away));
            }
        }
    }
    if !world.is_clean() {
        problems.push("something is left of it".to_owned());
    }
    let direct_at = states().find(|(_, entry)| &*entry.what == "direct").map(|(_, entry)| entry.after);
    let returned =
        states().filter(|(_, entry)| &*entry.what == "returning").any(|(_, entry)| &*entry.why != "trial");
    let is_measured = plan.is_of_known() && plan.is_open();
    if plan.is_of_known() && plan.act == Act::Nothing && silence > limit(plan) {
        problems.push(format!("{silence:?} of silence"));
    }
    if is_measured && plan.act == Act::Nothing && direct_at.is_none_or(|at| at > Duration::from_secs(12)) {
        problems.push(format!("not direct within 12 s, but at {direct_at:?}"));
    }
    Call {
        phones: plan.kinds,
        place: plan.place,
        direct_at,
        returned,
        is_silent,
        longest: silence,
        gap: is_measured.then_some(silence),
    }
}

fn number_from(name: &str) -> Option<u64> {
    std::env::var(name).ok().and_then(|value| value.parse().ok())
}

/// Plays seeds 0 to `calls`, by turns on all processors, and fails with the first story of a call that went wrong. What each
/// processor's calls came to.
fn played<T: Default + Send>(
    calls: u64,
    play: impl Fn(u64, &mut T) -> Result<String, String> + Sync,
) -> Vec<T> {
    let threads = std::thread::available_parallelism().map_or(2, |number| number.get() as u64);
    let (mut failures, mut sums) = (Vec::new(), Vec::new());
    std::thread::scope(|scope| {
        let play = &play;
        let players: Vec<_> = (0..threads)
            .map(|offset| {
                scope.spawn(move || {
                    let (mut failed, mut sum) = (Vec::new(), T::default());
                    for seed in (0..calls).filter(|seed| seed % threads == offset) {
                        failed.extend(play(seed, &mut sum).err());
                    }
                    (failed, sum)
                })
            })
            .collect();
        for player in players {
            let (failed, sum) = player.join().expect("a player does not panic");
            failures.extend(failed);
            sums.push(sum);
        }
    });
    if let Some(story) = failures.first() {
        let others: Vec<&str> =
            failures.iter().skip(1).take(100).filter_map(|story| story.lines().next()).collect();
        panic!("{story}\n{} more:\n{}", failures.len() - 1, others.join("\n"));
    }
    sums
}

#[test]
fn seeded_calls_are_released_only_when_proven_and_never_end_silent() {
    if let Some(seed) = number_from("RELEASE_SEED") {
        match play(seed, Plan::of(seed)) {
            Ok((_, story)) => println!("{story}"),
            Err(story) => panic!("{story}"),
        }
        return;
    }
    let mut census = Census::default();
    let calls = number_from("RELEASE_CALLS").unwrap_or(600);
    let held = played(calls, |seed, held: &mut Vec<Call>| {
        play(seed, Plan::of(seed)).map(|(call, story)| {
            held.push(call);
            story
        })
    });
    held.into_iter().flatten().for_each(|call| census.add(call));
    println!("{}", census.table());
    if let Ok(path) = std::env::var("RELEASE_OUT") {
        std::fs::write(&path, census.json()).expect("RELEASE_OUT can be written");
    }
}

#[test]
fn seeded_calls_that_a_registrar_in_the_core_leads_back_are_released_as_one() {
    let through = |seed| Plan { has_core: true, ..Plan::of(seed) };
    if let Some(seed) = number_from("CORE_SEED") {
        match play(seed, through(seed)) {
            Ok((_, story)) => println!("{story}"),
            Err(story) => panic!("{story}"),
        }
        return;
    }
    let mut census = Census::default();
    let calls = number_from("RELEASE_CALLS").unwrap_or(300);
    let held = played(calls, |seed, held: &mut Vec<Call>| {
        play(seed, through(seed)).map(|(call, story)| {
            held.push(call);
            story
        })
    });
    held.into_iter().flatten().for_each(|call| census.add(call));
    println!("{}", census.table());
}

#[test]
fn a_phone_that_refuses_to_be_moved_or_says_nothing_is_left_alone_and_its_call_goes_on() {
    let calls = number_from("RELEASE_CALLS").unwrap_or(0).clamp(20, 100);
    let refusing = [488, 491, 500, 501].map(Kind::Refusing).into_iter().chain([Kind::Deaf]);
    for (kind, seed) in refusing.flat_map(|kind| (0..calls).map(move |seed| (kind, seed))) {
        let mut dice = Dice::new(seed);
        let mut kinds = [kind, dice.pick(&KNOWN)];
        kinds.rotate_left(dice.below(2) as usize);
        let place = Place::Apart([dice.pick(&OPEN), dice.pick(&OPEN)]);
        let plan = Plan { kinds, place, blocked: None, after: 300, act: Act::Nothing, ..Plan::of(seed) };
        match play(seed, plan) {
            Ok((call, story)) => {
                let moves = story.lines().filter(|line| line.contains("path synchronising")).count();
                assert!(call.direct_at.is_none() && moves <= 1, "{story}");
                // Two that follow what they hear leave with each other, though one has said nothing, and letting go takes
                // seconds: they only must not end silent.
                let both_follow = kinds.contains(&Kind::Deaf) && kinds.contains(&Kind::Pjsip);
                assert!(both_follow || call.longest <= Duration::from_secs(1), "{:?} {story}", call.longest);
                assert!(!story.contains("ends: Lost"), "{story}");
            }
            Err(story) => panic!("{story}"),
        }
    }
}
