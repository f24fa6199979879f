//! Whole calls of CRUSH endpoints (docs/crush.md): the real agents, engine, media worker and records. They find the direct path
//! while they talk, hand over, and come back when it is cut, when policy wants it or when a party hangs up.
//!
//! `CRUSH_SEED=17` plays that call alone and tells its story, `CRUSH_CALLS=10000` plays so many.

use std::fmt::Write as _;
use std::time::Duration;

use nat_lab::Kind as Nat;
use seam::path::Constraint;

use crate::world::{STEP, World};
use crate::{Act, KNOWN, NATS, number_from, played};
use play::Dice;
use play::ground::Place;
use play::phone::device::Model;

const MS: fn(u64) -> Duration = Duration::from_millis;

/// What a seed makes of a call.
#[derive(Debug, Clone, Copy)]
struct Plan {
    models: [Model; 2],
    place: Place,
    /// After the INVITE, if a party hangs up; otherwise after the answer.
    after: Duration,
    act: Act,
    /// How often policy holds it at the relay and lets it go, if it does, and for how long each.
    holds: u32,
    held: Duration,
}

/// Whether two endpoints behind these always find each other, or never.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Chance {
    Sure,
    /// Ports are guessed.
    Guess,
    /// A router gives the first packet another port if one from outside came before, and no fresh socket mends it.
    Race,
    None,
}

impl Chance {
    fn of(place: Place) -> Self {
        let Place::Apart(nats) = place else { return Self::Sure };
        // Towards these a packet from a port that nobody knew gets through, once they have sent to its address.
        let is_open = |nat: &Option<Nat>| matches!(nat, None | Some(Nat::FullCone | Nat::RestrictedCone));
        let mixes = |nat: &Option<Nat>| {
            matches!(nat, Some(Nat::SymmetricAddress | Nat::SymmetricSequential | Nat::SymmetricRandom))
        };
        let is_random = |nat: &Option<Nat>| matches!(nat, Some(Nat::SymmetricAddress | Nat::SymmetricRandom));
        let leaky = nats.iter().filter(|nat| **nat == Some(Nat::LinuxLeaky)).count();
        if nats.iter().any(is_open) {
            Self::Sure
        } else if nats.iter().all(mixes) && nats.iter().any(is_random) {
            Self::None
        } else if leaky == 2 || (leaky == 1 && nats.iter().any(is_random)) {
            Self::Race
        } else if nats.iter().any(mixes) {
            Self::Guess
        } else {
            Self::Sure
        }
    }
}

impl Plan {
    fn of(seed: u64) -> Self {
        let mut dice = Dice::new(seed ^ 0xc4a5);
        let mut models = [Model::Crush; 2];
        match dice.below(12) {
            0 | 1 => models[dice.below(2) as usize] = Model::Ordinary(dice.pick(&KNOWN)),
            2 => models[dice.below(2) as usize] = Model::Declining,
            _ => {}
        }
        let place = match dice.below(10) {
            0 => Place::OneLan,
            // Where UDP is blocked there is no call.
            _ => Place::Apart([dice.pick(&NATS[..10]), dice.pick(&NATS[..10])]),
        };
        let ways = [[true, true], [true, true], [true, false], [false, true]];
        let by = dice.below(2) as usize;
        let after = if dice.below(3) == 0 { dice.below(1_500) } else { dice.below(10_000) };
        let act = match dice.below(9) {
            0 | 1 => Act::Cut(dice.pick(&ways)),
            2 | 8 => Act::Anchor,
            3 => Act::Hold { by, milliseconds: 200 + dice.below(5_000) },
            4 | 5 => Act::HangUp { by },
            _ => Act::Nothing,
        };
        // Most of them find each other in the first half of a second.
        let after = if act == Act::Anchor && dice.below(2) == 0 { dice.below(500) } else { after };
        let holds = 1 + dice.below(3) as u32;
        let held = MS(if dice.below(2) == 0 { dice.below(400) } else { 1_000 + dice.below(12_000) });
        Self { models, place, after: MS(after), act, holds, held }
    }

    fn is_of_crush(&self) -> bool {
        self.models == [Model::Crush; 2]
    }
}

/// Both have been told of policy after so long.
const HEARD: Duration = Duration::from_secs(1);
/// How long a call has to find its path, ports that are guessed included.
const SEARCH: Duration = Duration::from_secs(35);
/// Both ends send through the relay 160 ms and two round trips after the last packet (docs/crush.md §9), which the playout hides in part.
const RETURN: Duration = Duration::from_millis(400);

#[derive(Debug, Default)]
pub(crate) struct Census {
    /// Calls that nothing happened to, and those that were direct, by chance.
    calls: [[u32; 2]; 4],
    /// Silence after the direct path was cut.
    returns: Vec<Duration>,
    /// Calls in which one does not know CRUSH, and in which one declines it.
    without: [u32; 2],
}

pub(crate) fn play(seed: u64, is_handed: bool, census: &mut Census) -> Result<String, String> {
    let plan = Plan::of(seed);
    census.without[0] += u32::from(plan.models.iter().any(|model| matches!(model, Model::Ordinary(_))));
    census.without[1] += u32::from(plan.models.contains(&Model::Declining));
    let mut world = World::new(seed, plan.models, plan.place);
    if is_handed {
        world.hand_over_at_times(seed);
    }
    let mut problems: Vec<String> = Vec::new();
    if let Act::HangUp { by } = plan.act {
        world.run(plan.after);
        while !world.hang_up(by) && world.now < Duration::from_secs(200) {
            world.run(STEP);
        }
        world.run(Duration::from_secs(1));
    } else {
        // Policy may hold it before anybody has been heard.
        let begun = world.now;
        while world.now < begun + MS(600) && !(plan.act == Act::Anchor && world.is_up()) {
            world.run(STEP);
        }
        if !world.is_up() {
            problems.push("it is not answered".to_owned());
        }
        world.run(plan.after);
        world.forget_silence();
        act(&mut world, &plan, census, &mut problems);
        if world.is_silent() {
            problems.push(format!("it ends silent: {:?}", world.ears()));
        }
        world.hang_up((seed % 2) as usize);
        world.run(Duration::from_secs(1));
    }
    judge(&world, &plan, &mut problems);
    let mut story = format!("seed {seed}: {}\n{plan:?}\n", problems.join("; "));
    for (at, line) in &world.story {
        let _ = writeln!(story, "{:9.3} {line}", at.as_secs_f64() - 100.0);
    }
    if problems.is_empty() { Ok(story) } else { Err(story) }
}

/// What happens to it, and whether it takes that well.
fn act(world: &mut World, plan: &Plan, census: &mut Census, problems: &mut Vec<String>) {
    let was_away = world.is_away;
    match plan.act {
        Act::Nothing => {
            world.run(SEARCH);
            if plan.is_of_crush() {
                let chance = Chance::of(plan.place);
                let count = &mut census.calls[chance as usize];
                count[0] += 1;
                count[1] += u32::from(world.is_away);
                if chance == Chance::Sure && !world.is_away {
                    problems.push(format!("not direct: {:?}", world.ears()));
                }
                if world.longest_silence() > MS(100) {
                    problems.push(format!("{:?} of silence", world.longest_silence()));
                }
            }
        }
        Act::Cut(ways) => {
            world.cut(ways);
            world.run(Duration::from_secs(2));
            if was_away && plan.is_of_crush() && plan.place != Place::OneLan {
                let silence = world.longest_silence();
                census.returns.push(silence);
                if silence > RETURN {
                    problems.push(format!("{silence:?} of silence after the cut"));
                }
            }
            world.run(SEARCH);
        }
        Act::Anchor => {
            for _ in 0..plan.holds {
                world.constrain(Constraint::MustAnchor);
                world.run(plan.held.min(HEARD));
                let astray = world.astray;
                world.run(plan.held.saturating_sub(HEARD));
                if plan.is_of_crush() && world.astray != astray {
                    problems.push(format!("somebody is direct against policy: {:?}", world.ears()));
                }
                world.constrain(Constraint::MayRelease);
                world.run(plan.held.min(HEARD));
            }
            if plan.is_of_crush() && world.longest_silence() > MS(150) {
                problems.push(format!("{:?} of silence", world.longest_silence()));
            }
            world.run(SEARCH);
            if plan.is_of_crush() && Chance::of(plan.place) == Chance::Sure && !world.is_away {
                problems.push(format!("not direct once it may be: {:?}", world.ears()));
            }
        }
        Act::Hold { by, milliseconds } => {
            world.party_offers(by, "sendonly");
            world.run(MS(milliseconds));
            world.party_offers(by, "sendrecv");
            world.run(SEARCH);
            if plan.is_of_crush() && Chance::of(plan.place) == Chance::Sure && !world.is_away {
                problems.push(format!("not direct after a hold: {:?}", world.ears()));
            }
        }
        Act::HangUp { .. } => {}
    }
}

/// What its records say, and whether that is true.
fn judge(world: &World, plan: &Plan, problems: &mut Vec<String>) {
    let moves = world.path.iter().filter(|entry| ["direct", "anchored"].contains(&&*entry.what)).count();
    match &world.ended {
        None => problems.push("no record of its end".to_owned()),
        Some(ended) => {
            if ended.direct > ended.talked {
                problems.push(format!("{:?} direct of {:?}", ended.direct, ended.talked));
            }
            // Each time the media leaves the relay it is a packet that tells.
            let slack = MS(250) + MS(50) * moves as u32;
            // While one party holds, the other says nothing: the relay may be empty before both have handed over.
            let hold = if let Act::Hold { milliseconds, .. } = plan.act { MS(milliseconds) } else { MS(0) };
            let fitting = ended.direct.saturating_sub(slack)..=ended.direct + slack + hold;
            if plan.is_of_crush() && !fitting.contains(&world.quiet) {
                problems.push(format!(
                    "{:?} direct by the record, {:?} by the relay's packets",
                    ended.direct, world.quiet
                ));
            }
        }
    }
    if !plan.is_of_crush() && world.has_looked() {
        problems.push(format!("it looks for nobody: {:?}", world.ears()));
    }
    if !world.is_clean() {
        problems.push("something is left of it".to_owned());
    }
}

#[test]
fn seeded_calls_of_crush_go_direct_wherever_they_can_and_never_end_silent() {
    if let Some(seed) = number_from("CRUSH_SEED") {
        match play(seed, false, &mut Census::default()) {
            Ok(story) => println!("{story}"),
            Err(story) => panic!("{story}"),
        }
        return;
    }
    let calls = number_from("CRUSH_CALLS").unwrap_or(300);
    let censuses = played(calls, |seed, census| play(seed, false, census));
    let mut sum = Census::default();
    for census in censuses {
        for (sum, more) in sum.calls.iter_mut().flatten().zip(census.calls.iter().flatten()) {
            *sum += more;
        }
        sum.returns.extend(census.returns);
        sum.without.iter_mut().zip(census.without).for_each(|(sum, more)| *sum += more);
    }
    println!("calls in which one does not know CRUSH: {}, declines it: {}", sum.without[0], sum.without[1]);
    assert!(sum.without.iter().all(|calls| *calls >= 10), "{:?}", sum.without);
    sum.returns.sort_unstable();
    println!(
        "calls that were left alone, and direct ones: {:?} (sure, guessed, a race, hopeless)",
        sum.calls
    );
    println!(
        "silence after a cut: {} calls, median {:?}, most {:?}",
        sum.returns.len(),
        sum.returns.get(sum.returns.len() / 2),
        sum.returns.last()
    );
    let [_, [guessed, direct], ..] = sum.calls;
    assert!(direct * 100 >= guessed * 90, "{direct} of {guessed} whose ports are guessed");
}
