//! Records against captures: calls of half a minute to a minute and a half with voice activity detection, loss, holds, cuts and policy,
//! and CRUSH endpoints that tell where they send or do not. What the record says of each must be what the phones' interfaces saw.
//!
//! `RECORD_CALLS=800` plays so many, `RECORD_SEED=17` that one alone, `RECORD_OUT=FILE` writes a row for each as JSON.

use std::fmt::Write as _;
use std::time::Duration;

use seam::path::{Constraint, PathWords};
use serde_json::{Value, json};
use sip_engine::event::CallEnded;

use crate::world::World;
use crate::{Act, KNOWN, OPEN, number_from, played};
use play::Dice;
use play::ground::Place;
use play::phone::device::Model;
use play::truth::{Log, direct_stretches, direct_time, gap_like, loss, score};

const SECOND: Duration = Duration::from_secs(1);
/// What a record may be wrong by.
pub(crate) const TIME: Duration = Duration::from_millis(100);
const GAP: Duration = Duration::from_millis(20);
const SCORE: f64 = 0.2;
/// Reports of the project's own endpoint are so far apart at most.
const LAST_REPORT: Duration = Duration::from_millis(5_500);
const SHARE: f64 = 0.01;

#[derive(Debug, Clone, Copy)]
struct Plan {
    models: [Model; 2],
    place: Place,
    seconds: u64,
    /// Of each line, each way.
    loss: f64,
    /// Whose codec is silent when nobody talks.
    vad: [bool; 2],
    /// At a second.
    act: (u64, Act),
    is_blocked: bool,
}

impl Plan {
    fn of(seed: u64) -> Self {
        let mut dice = Dice::new(seed ^ 0x0ec0);
        let crush = [Model::Crush, Model::Crush, Model::Untold];
        let models = if dice.below(4) == 0 {
            [dice.pick(&crush), dice.pick(&crush)]
        } else {
            [0, 1].map(|_| Model::Ordinary(dice.pick(&KNOWN)))
        };
        let seconds = 30 + dice.below(61);
        let by = dice.below(2) as usize;
        let ways = [[true, true], [true, false], [false, true]];
        let act = match dice.below(6) {
            0 => Act::Hold { by, milliseconds: 1_000 + dice.below(9_000) },
            1 => Act::Cut(dice.pick(&ways)),
            2 => Act::Anchor,
            _ => Act::Nothing,
        };
        Self {
            models,
            place: Place::Apart([dice.pick(&OPEN), dice.pick(&OPEN)]),
            seconds,
            loss: if dice.below(3) == 0 { 0.01 } else { 0.0 },
            vad: [0, 1].map(|_| dice.below(5) == 0),
            act: (8 + dice.below(8), act),
            is_blocked: dice.below(10) == 0,
        }
    }
}

fn play(seed: u64, rows: &mut Vec<Value>) -> Result<String, String> {
    let plan = Plan::of(seed);
    let mut world = World::lossy(seed, plan.models, plan.place, plan.loss);
    let mut dice = Dice::new(seed);
    if plan.is_blocked {
        world.cut([true; 2]);
    }
    let begun = world.now;
    let (when, act) = plan.act;
    let end = begun + SECOND * plan.seconds as u32;
    let mut acts = match act {
        Act::Hold { milliseconds, .. } => {
            let at = begun + SECOND * when as u32;
            vec![at, at + Duration::from_millis(milliseconds)]
        }
        Act::Nothing | Act::HangUp { .. } => Vec::new(),
        Act::Cut(_) | Act::Anchor => vec![begun + SECOND * when as u32],
    };
    // Who has said nothing yet is not found behind its NAT: that is no matter of records.
    let mut spurts = [begun + SECOND; 2];
    while world.now < end {
        world.run(Duration::from_millis(20));
        for (side, spurt) in spurts.iter_mut().enumerate() {
            if plan.vad[side] && world.now >= *spurt {
                world.talks[side] = !world.talks[side];
                *spurt = world.now + Duration::from_millis(300 + dice.below(3_000));
            }
        }
        if acts.first().is_some_and(|at| world.now >= *at) {
            acts.remove(0);
            match act {
                Act::Hold { by, .. } => {
                    world.party_offers(by, if acts.is_empty() { "sendrecv" } else { "sendonly" });
                }
                Act::Cut(ways) => world.cut(ways),
                Act::Anchor => world.constrain(Constraint::MustAnchor),
                Act::Nothing | Act::HangUp { .. } => {}
            }
        }
    }
    world.hang_up((seed % 2) as usize);
    world.run(SECOND);
    let (mut row, problems) = judge(&world, &plan);
    row["seed"] = seed.into();
    rows.push(row);
    let mut story = format!("seed {seed}: {}\n{plan:?}\n", problems.join("; "));
    for (at, line) in &world.story {
        let _ = writeln!(story, "{:9.3} {line}", at.as_secs_f64() - 100.0);
    }
    let [one, other] = &world.logs;
    for stretch in direct_stretches(&[one, other], world.answered.unwrap_or_default(), world.ended_at) {
        let times = [stretch.relayed[0], stretch.direct[0], stretch.direct[1], stretch.relayed[1]];
        let _ =
            writeln!(story, "relayed, direct ... relayed: {:.3?}", times.map(|at| at.as_secs_f64() - 100.0));
    }
    if problems.is_empty() { Ok(story) } else { Err(story) }
}

/// What is recorded of a call, and what its phones' interfaces saw.
pub(crate) struct Evidence<'a> {
    pub(crate) ended: &'a CallEnded,
    pub(crate) path: &'a [PathWords],
    pub(crate) logs: [&'a Log; 2],
    /// When.
    pub(crate) answered: Duration,
    pub(crate) ended_at: Duration,
}

/// The record beside the captures, and where it is wrong.
fn judge(world: &World, plan: &Plan) -> (Value, Vec<String>) {
    let (Some(ended), Some(answered)) = (&world.ended, world.answered) else {
        let problems = vec!["it has no record".to_owned()];
        return (json!({ "kind": "virtual", "wrong": problems }), problems);
    };
    let (path, logs, ended_at) = (&world.path, world.logs.each_ref(), world.ended_at);
    let evidence = Evidence { ended, path, logs, answered, ended_at };
    let (least, _) = direct_time(&logs, answered, ended_at);
    // Of two that never tell only their reports do, every five seconds: what lies after the last one may be missed, and where one is lost
    // what lies between two comparisons.
    let late = match (plan.models == [Model::Untold; 2], plan.loss > 0.0) {
        (true, true) => least.mul_f64(0.3),
        (true, false) => LAST_REPORT,
        (false, _) => TIME,
    };
    let (mut row, problems) = evidence.judge(late);
    let about = json!({
        "kind": "virtual", "phones": plan.models.map(|model| format!("{model:?}")), "act": format!("{:?}", plan.act.1),
        "line_loss": plan.loss, "vad": plan.vad,
    });
    for (name, value) in about.as_object().into_iter().flatten() {
        row[name] = value.clone();
    }
    (row, problems)
}

impl Evidence<'_> {
    /// Where the record is wrong, and by how much it is `off`; of the direct time so much may be missed.
    pub(crate) fn judge(&self, late: Duration) -> (Value, Vec<String>) {
        let Self { ended, path, logs, answered, ended_at } = *self;
        let mut problems = Vec::new();
        let (least, most) = direct_time(&logs, answered, ended_at);
        let off_time = least.saturating_sub(ended.direct).max(ended.direct.saturating_sub(most));
        let (mut off_loss, mut off_score, mut off_gap) = (0.0_f64, 0.0_f64, Duration::ZERO);
        if ended.direct + late < least || ended.direct > most + TIME {
            problems.push(format!(
                "{:?} direct by the record, {least:?} to {most:?} by the phones",
                ended.direct
            ));
        }
        let mut streams = Vec::new();
        for stream in &ended.media {
            let from = usize::from(stream.endpoint.party != 0);
            let (sender, receiver) = (logs[from], logs[1 - from]);
            let (sent, lost) = loss(sender, receiver, Duration::ZERO, ended_at);
            let share = |part: u64, whole: u64| part as f64 / whole.max(1) as f64;
            if let Some(whole) = stream.whole {
                // Of both the share, so that what is not accounted for weighs nothing.
                let wrong = (share(whole.lost, whole.packets) - share(lost, sent)).abs();
                let off = (wrong - share(whole.unknown, whole.packets)).max(0.0);
                off_loss = off_loss.max(off);
                if off > SHARE {
                    problems.push(format!("of {from} {whole:?}, but {lost} of {sent} lost by the phones"));
                }
                if let Some(mos) = stream.mos {
                    let truth = score(share(lost, sent), share(whole.lost, whole.packets), f64::from(mos));
                    off_score = off_score.max((truth - f64::from(mos)).abs());
                    if (truth - f64::from(mos)).abs() > SCORE {
                        problems.push(format!("MOS {mos} of {from}, but {truth} by the phones"));
                    }
                }
            }
            streams.push(json!({
                "party": from, "sent": sent, "lost": lost, "mos": stream.mos,
                "record": stream.whole.map(|whole| json!({"packets": whole.packets, "lost": whole.lost})),
            }));
        }
        let mut gaps = Vec::new();
        for entry in path {
            match &*entry.what {
                "lie" => problems.push(format!("a lie ({}) of honest {:?}", entry.why, entry.party)),
                "gap" if &*entry.why == "measured" => {
                    let said: u64 = entry.evidence.trim_end_matches(" ms").parse().unwrap_or(0);
                    let receiver = logs[usize::from(entry.party == Some(0))];
                    let told = answered + entry.after;
                    let said_gap = Duration::from_millis(said);
                    let heard = gap_like(said_gap, receiver, told.saturating_sub(8 * SECOND), told);
                    let off = heard.abs_diff(said_gap);
                    off_gap = off_gap.max(off);
                    if off > GAP {
                        problems.push(format!("a gap of {said} ms was measured, {heard:?} heard"));
                    }
                    gaps.push(json!({"record": said, "capture": heard.as_millis() as u64}));
                }
                _ => {}
            }
        }
        let row = json!({
            "seconds": ended.talked.as_secs_f64(),
            "direct_s": {"record": ended.direct.as_secs_f64(), "capture": [least.as_secs_f64(), most.as_secs_f64()]},
            "relayed_s": ended.talked.saturating_sub(ended.direct).as_secs_f64(),
            "off": {
                "time_ms": off_time.as_millis() as u64, "loss": off_loss, "mos": off_score, "gap_ms": off_gap.as_millis() as u64,
            },
            "streams": streams, "measured_gaps_ms": gaps, "wrong": problems,
        });
        (row, problems)
    }
}

#[test]
fn records_say_what_the_phones_have_seen() {
    if let Some(seed) = number_from("RECORD_SEED") {
        match play(seed, &mut Vec::new()) {
            Ok(story) => println!("{story}"),
            Err(story) => panic!("{story}"),
        }
        return;
    }
    let out = std::env::var("RECORD_OUT").ok();
    // Who wants rows gets those of calls that are wrong, too.
    let rows: Vec<Value> = played(number_from("RECORD_CALLS").unwrap_or(160), |seed, rows| {
        let result = play(seed, rows);
        if out.is_some() { Ok(result.unwrap_or_else(|story| story)) } else { result }
    })
    .into_iter()
    .flatten()
    .collect();
    if let Some(path) = out {
        let text = serde_json::to_string_pretty(&rows).expect("rows are JSON");
        std::fs::write(path, text).expect("RECORD_OUT can be written");
    }
    let wrong: Vec<&Value> = rows.iter().filter(|row| row["wrong"] != json!([])).collect();
    assert!(
        wrong.is_empty(),
        "{} of {}: {:#?}",
        wrong.len(),
        rows.len(),
        wrong.iter().take(5).collect::<Vec<_>>()
    );
}
