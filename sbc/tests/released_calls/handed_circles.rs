//! What calls go through besides: phones that speak ICE, sessions that are refreshed, holds, and transfers. Other processes go on with the
//! engine's part and the worker's at any moment that rests, from text; the judges are those of the records.
//!
//! `HANDED_SEED=17` plays that seed's and tells its story, `HANDED_CALLS=10000` plays so many.

use std::fmt::Write as _;
use std::time::Duration;

use play::Dice;
use play::ground::Place;
use play::phone::device::Model;
use play::phone::plain::Kind;
use sip_engine::event::EndCause;

use crate::circle::{ALICE, Circle, Setting};
use crate::handed_calls::GOES_ON;
use crate::records::{Evidence, TIME};
use crate::{KNOWN, OPEN, number_from, played};

const MS: fn(u64) -> Duration = Duration::from_millis;
const SECOND: Duration = Duration::from_secs(1);
/// A session of 90 s is over a third of that before; a refresh of ours waits 32 s for its answer, and may have been put off before.
const DEATH: Duration = Duration::from_secs(100);

/// What a call is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Shape {
    Held,
    Ice,
    Timed,
    Blind,
    Attended,
}

const SHAPES: [Shape; 5] = [Shape::Held, Shape::Ice, Shape::Timed, Shape::Blind, Shape::Attended];

/// What a seed makes of it.
#[derive(Debug, Clone, Copy)]
struct Plan {
    shape: Shape,
    setting: Setting,
    /// Until something happens, and after it.
    talks: Duration,
    rests: Duration,
    /// Who holds, and for how long.
    hold: Option<(usize, Duration)>,
    /// Who ends it, and whether that is by dying.
    last: usize,
    dies: bool,
}

impl Plan {
    fn of(seed: u64) -> Self {
        let mut dice = Dice::new(seed ^ 0xc1_5c1e);
        let shape = SHAPES[seed as usize % SHAPES.len()];
        let mut models = [0; 3].map(|_| Model::Ordinary(dice.pick(&KNOWN)));
        if shape == Shape::Ice || (shape != Shape::Held && dice.chance(25)) {
            models[..2].fill(Model::Ice);
        }
        if shape == Shape::Ice && dice.chance(20) {
            models[dice.index(2)] = Model::Ordinary(dice.pick(&KNOWN));
        }
        let place = match dice.below(10) {
            0 => Place::OneLan,
            _ => Place::Apart([dice.pick(&OPEN), dice.pick(&OPEN)]),
        };
        let timers = shape == Shape::Timed || dice.chance(20);
        let own_timer = timers && dice.chance(50);
        let update = [0; 3].map(|_| dice.chance(70));
        let hold =
            (shape == Shape::Held || dice.chance(40)).then(|| (dice.index(2), MS(200 + dice.below(9_000))));
        let is_long = shape == Shape::Timed;
        let dies = is_long && (seed / SHAPES.len() as u64) % 2 == 1;
        // There is a timer on his leg.
        let last = if dies { usize::from(!own_timer) } else { dice.index(2) };
        Self {
            shape,
            setting: Setting { models, place, timers, own_timer, update },
            talks: MS(dice.below(if shape == Shape::Ice { 14_000 } else { 20_000 })),
            rests: if is_long { SECOND * (60 + dice.below(90) as u32) } else { SECOND * 12 },
            hold,
            last,
            dies,
        }
    }

    /// How long somebody may hear nothing, while a path that works is taken.
    fn limit(&self) -> Duration {
        let models = &self.setting.models[..2];
        MS(if models.contains(&Model::Ordinary(Kind::Pjsip)) { 200 } else { 60 })
    }
}

/// What calls of a shape came to.
#[derive(Debug, Clone, Copy, Default)]
struct Sum {
    calls: usize,
    handovers: usize,
    /// Those that were direct at some time.
    direct: usize,
    /// UPDATEs that refreshed, from us and from phones.
    refreshes: [usize; 2],
    /// Those whose party had died, and of these those that another process went on with meanwhile.
    deaths: [usize; 2],
}

impl Sum {
    fn add(&mut self, other: &Self) {
        self.calls += other.calls;
        self.handovers += other.handovers;
        self.direct += other.direct;
        for (sum, more) in [(&mut self.refreshes, other.refreshes), (&mut self.deaths, other.deaths)] {
            sum.iter_mut().zip(more).for_each(|(sum, more)| *sum += more);
        }
    }
}

fn play(seed: u64, sums: &mut [Sum; 5]) -> Result<String, String> {
    let plan = Plan::of(seed);
    let mut circle = Circle::new(seed, &plan.setting);
    let sum = &mut sums[plan.shape as usize];
    let main = match plan.shape {
        Shape::Held | Shape::Ice | Shape::Timed => circle.call(ALICE, "bob"),
        Shape::Blind => circle.transfer(false),
        Shape::Attended => circle.transfer(true),
    };
    if circle.problems.is_empty() {
        goes_on(&mut circle, &plan, main, sum);
    }
    let mut problems = std::mem::take(&mut circle.problems);
    judge(&circle, &plan, &mut problems);
    let mut story = format!("seed {seed}: {}\n{plan:?}\n", problems.join("; "));
    for (at, line) in &circle.story {
        let _ = writeln!(story, "{:9.3} {line}", at.as_secs_f64() - 100.0);
    }
    sum.calls += 1;
    sum.handovers += story.matches(GOES_ON).count();
    sum.refreshes.iter_mut().zip(circle.refreshes).for_each(|(sum, more)| *sum += more);
    let ended = circle.calls.get(main).and_then(|call| call.ended.as_ref());
    sum.direct += usize::from(ended.is_some_and(|(_, ended)| ended.direct > SECOND));
    if problems.is_empty() { Ok(story) } else { Err(story) }
}

/// What happens to it once it is up.
fn goes_on(circle: &mut Circle, plan: &Plan, main: usize, sum: &mut Sum) {
    circle.forget_silence(main);
    circle.run(plan.talks);
    let silence = circle.longest_silence(main);
    if silence > plan.limit() {
        circle.problems.push(format!("{silence:?} of silence"));
    }
    if let Some((by, span)) = plan.hold {
        circle.offer((main, by), "sendonly");
        circle.run(span);
        if span > SECOND * 3 && circle.calls[main].lines[by].device.is_hearing() {
            circle.problems.push("it is not held".to_owned());
        }
        circle.offer((main, by), "sendrecv");
    }
    circle.run(plan.rests);
    if !circle.calls[main].is_up() {
        return circle.problems.push("it is over before its time".to_owned());
    }
    if circle.is_silent(main) {
        circle.problems.push("it ends silent".to_owned());
    }
    let before = circle.now;
    if !plan.dies {
        circle.hang_up((main, plan.last));
        return circle.run(SECOND);
    }
    circle.die((main, plan.last));
    while circle.calls[main].ended.is_none() && circle.now < before + DEATH {
        circle.run(SECOND);
    }
    let is_later = circle.last_handover().is_some_and(|at| at > before);
    sum.deaths[0] += 1;
    sum.deaths[1] += usize::from(is_later);
    let cause = circle.calls[main].ended.as_ref().map(|(_, ended)| ended.cause);
    // By a timer, by a refresh in vain, or by who has refreshed in vain himself.
    if !matches!(cause, Some(EndCause::SessionExpired | EndCause::Failed | EndCause::Bye)) {
        circle.problems.push(format!("after a death: {cause:?}"));
    }
    // Until nobody waits for who is dead any more.
    circle.run(SECOND * 40);
}

/// What the records say of each call, and whether that is true.
fn judge(circle: &Circle, plan: &Plan, problems: &mut Vec<String>) {
    // A hold calls phones that speak ICE home one after the other; until they are there the time is the relay's, in one process too.
    let is_held_ice = plan.hold.is_some() && plan.setting.models[..2].contains(&Model::Ice);
    let late = if is_held_ice { TIME + MS(500) } else { TIME };
    for (index, call) in circle.calls.iter().enumerate() {
        let (Some((ended_at, ended)), Some(answered), [one, other]) =
            (&call.ended, call.answered, &*call.lines)
        else {
            problems.push(format!("call {index} has no record of its end"));
            continue;
        };
        let talked = *ended_at - answered;
        if ended.talked.abs_diff(talked) > TIME || ended.direct > ended.talked {
            problems.push(format!("{:?} of talk, {:?} direct, of {talked:?}", ended.talked, ended.direct));
        }
        let logs = [&one.log, &other.log];
        let evidence = Evidence { ended, path: &call.path, logs, answered, ended_at: *ended_at };
        // Of a short one few packets are many of a hundred.
        if ended.talked > SECOND * 20 {
            let (_, wrong) = evidence.judge(late);
            problems.extend(wrong.into_iter().map(|wrong| format!("call {index}: {wrong}")));
        }
    }
    if !circle.is_clean() {
        problems.push("something is left of it".to_owned());
    }
}

#[test]
fn calls_with_ice_timers_holds_and_transfers_go_on_from_process_to_process() {
    if let Some(seed) = number_from("HANDED_SEED") {
        match play(seed, &mut Default::default()) {
            Ok(story) => println!("{story}"),
            Err(story) => panic!("{story}"),
        }
        return;
    }
    let calls = number_from("HANDED_CALLS").unwrap_or(30);
    let mut sums = [Sum::default(); 5];
    for part in played(calls, play) {
        sums.iter_mut().zip(&part).for_each(|(sum, more)| sum.add(more));
    }
    for (shape, sum) in SHAPES.iter().zip(&sums) {
        println!("{shape:?}: {sum:?}");
        assert!(sum.handovers > sum.calls * 4 && sum.direct > 0, "{shape:?}: {sum:?}");
    }
    let Sum { refreshes, deaths, .. } = sums[Shape::Timed as usize];
    assert!(refreshes[0] > 0 && deaths.iter().all(|times| *times > 0), "{sums:?}");
}
