//! What calls go through, and what of it must hold.

use std::time::Duration;

use crush_tests::phone::Kind;
use crush_tests::place::Place;
use crush_tests::{Failure, Result};

use crate::scene::{Gap, Mark, Scene, gap_limit, now};

/// From answer to proof.
const TO_DIRECT: Duration = Duration::from_secs(12);
/// Two trials that tell nothing, 10 s apart.
const UNTOLD: Duration = Duration::from_secs(40);
/// Policy's word, looked at by the SBC in its database, and both phones heard through it.
const CALLED_BACK: Duration = Duration::from_secs(1);
/// A path that fails in mid-call shows in the next report; the longest interval of these phones is 5 s.
const CUT: Duration = Duration::from_secs(7);

/// A story.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Story {
    /// Off the relay, proven, and called back by policy.
    CalledBack,
    /// Off the relay, and the path is cut.
    Cut,
    /// The path was never there.
    Blocked,
    /// A NAT is known beforehand to let nothing directly.
    NeverMoved,
    /// Off the relay, held and resumed by a party, and off the relay again.
    Held,
}

/// What was measured.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Run {
    /// From answer to proof.
    pub(crate) to_direct: Option<Duration>,
    /// It was called back, or came back by itself, and was heard.
    pub(crate) has_returned: bool,
    /// The longest gap in a move between working paths.
    pub(crate) gap: Duration,
    /// The longest silence of a path that did not work.
    pub(crate) silence: Duration,
}

impl Story {
    /// Its name in tables.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Story::CalledBack => "called back",
            Story::Cut => "cut",
            Story::Blocked => "blocked",
            Story::NeverMoved => "never moved",
            Story::Held => "held",
        }
    }

    /// Plays it; the call is up still at its end.
    pub(crate) fn play(self, scene: &mut Scene) -> Result<Run> {
        if self == Story::Blocked {
            scene.ground.cut(&scene.stage.lab)?;
        }
        let mark = scene.call()?;
        match self {
            Story::NeverMoved => never_moved(scene, &mark),
            Story::Blocked => blocked(scene, &mark),
            Story::CalledBack => called_back(scene, &mark),
            Story::Cut => cut(scene, &mark),
            Story::Held => held(scene, &mark),
        }
    }
}

/// Plays a story with two phones in a place, whose call ends as calls do; and whether they heard each other to the end.
pub(crate) fn play(kinds: [Kind; 2], place: Place, story: Story) -> (Result<Run>, bool) {
    let mut scene = match Scene::new(kinds, place) {
        Ok(scene) => scene,
        Err(failure) => return (Err(failure), true),
    };
    let result = story.play(&mut scene);
    let is_heard = scene.is_heard();
    let result = result.and_then(|run| is_heard.clone().and_then(|()| scene.hang_up()).map(|()| run));
    (result, is_heard.is_err())
}

fn within(scene: &Scene, what: &str, gap: Gap, limit: Duration) -> Result<()> {
    if gap.longest() <= limit {
        return Ok(());
    }
    Err(scene.failure(&format!("{what} of more than {} ms: {gap:?}", limit.as_millis())))
}

/// Waits for the proof; the moves to it must not be heard.
fn leaves(scene: &mut Scene, mark: &Mark, since: Duration) -> Result<Run> {
    let proven = scene.path("direct", "proven|trial", since, TO_DIRECT)?;
    scene.settled(proven);
    let gap = scene.gap(mark)?;
    let to_direct = proven.saturating_sub(since);
    if to_direct > TO_DIRECT {
        return Err(scene.failure(&format!("proven only after {to_direct:?}")));
    }
    within(scene, "gap on release", gap, gap_limit(scene.kinds))?;
    scene.is_direct()?;
    Ok(Run { to_direct: Some(to_direct), gap: gap.longest(), ..Run::default() })
}

pub(crate) fn called_back(scene: &mut Scene, mark: &Mark) -> Result<Run> {
    let run = leaves(scene, mark, scene.answered)?;
    let mark = scene.mark()?;
    scene.stage.sbc.sql("SELECT sbc_call_release(id, 'anchor') FROM call")?;
    let back = scene.heard_again(&mark, CALLED_BACK)?;
    scene.settled(mark.at + back);
    let gap = scene.gap(&mark)?;
    within(scene, "gap when called back", gap, gap_limit(scene.kinds).max(Duration::from_millis(150)))?;
    scene.is_home()?;
    scene.path("returning", "policy", mark.at, Duration::ZERO)?;
    Ok(Run { has_returned: true, gap: run.gap.max(gap.longest()), ..run })
}

pub(crate) fn cut(scene: &mut Scene, mark: &Mark) -> Result<Run> {
    let run = leaves(scene, mark, scene.answered)?;
    let mark = scene.mark()?;
    scene.ground.cut(&scene.stage.lab)?;
    let back = scene.heard_again(&mark, CUT)?;
    scene.settled(mark.at + back);
    scene.path("returning", "refuted|reports_stopped|quality", mark.at, Duration::ZERO)?;
    scene.is_home()?;
    Ok(Run { has_returned: true, silence: back, ..run })
}

fn blocked(scene: &mut Scene, mark: &Mark) -> Result<Run> {
    scene.path("synchronising", "try", scene.answered, TO_DIRECT)?;
    // Two PJSIPs have forgotten what they lost: where they said nothing in time, their trial has told nothing and is made once more.
    let (why, longest) = match scene.kinds {
        [Kind::Pjsua, Kind::Pjsua] => ("failed|inconclusive", UNTOLD),
        _ => ("failed", TO_DIRECT),
    };
    let home = scene.path("stays", why, scene.answered, longest)?;
    scene.settled(home);
    let trials = scene.count("synchronising", scene.answered)?;
    if trials > 2 {
        return Err(scene.failure(&format!("{trials} trials over a path that is blocked")));
    }
    let silence = scene.gap(mark)?;
    let has_baresip = scene.kinds.contains(&Kind::Baresip);
    let limit = Duration::from_millis(if has_baresip { 1_000 } else { 3_500 });
    within(scene, "silence of a try", silence, limit)?;
    scene.is_home()?;
    if scene.has("direct", scene.answered)? {
        return Err(scene.failure("proven over a path that is blocked"));
    }
    Ok(Run { has_returned: true, silence: silence.longest(), ..Run::default() })
}

fn never_moved(scene: &mut Scene, mark: &Mark) -> Result<Run> {
    let stays = scene.path("stays", "dependent_mapping", scene.answered, TO_DIRECT)?;
    scene.settled(stays);
    let gap = scene.gap(mark)?;
    within(scene, "gap while its NAT was learnt", gap, gap_limit(scene.kinds))?;
    if scene.has("synchronising", scene.answered)? {
        return Err(scene.failure("moved where it could not work"));
    }
    scene.is_home()?;
    Ok(Run { gap: gap.longest(), ..Run::default() })
}

pub(crate) fn held(scene: &mut Scene, mark: &Mark) -> Result<Run> {
    let run = leaves(scene, mark, scene.answered)?;
    let start = now();
    scene.phones[0].phone.hold()?;
    scene.path("returning", "renegotiated", start, Duration::from_secs(3))?;
    // The one who is held hears nothing, or what the holder plays; either way it comes through the SBC.
    scene.is_quiet_between_them()?;
    let start = now();
    scene.phones[0].phone.resume()?;
    scene.is_home()?;
    let proven = scene.path("direct", "proven|trial", start, TO_DIRECT)?;
    scene.settled(proven);
    scene.is_direct()?;
    Ok(Run { has_returned: true, ..run })
}

/// Both hear each other to the end, and it ends as it should.
pub(crate) fn goes_well(kinds: [Kind; 2], place: Place, story: Story) {
    let (result, is_silent) = play(kinds, place, story);
    match result {
        Ok(run) => println!("{kinds:?}, {place}: {run:?}"),
        Err(Failure(text)) => {
            panic!("{text}{}", if is_silent { "\nand they do not hear each other" } else { "" })
        }
    }
}
