//! Trials of which reports tell nothing, because they come too early or too late: they prove nothing, refute nothing, and are few.

use std::time::Duration;

use seam::path::Stay;

use crate::world::World;
use crate::{CONES, second};
use play::phone::plain::Kind;

/// A PJSIP's report is gone before anything of the trial can have come, or comes when its counts have begun anew at home.
const UNTELLING: [Duration; 2] = [Duration::from_millis(15), Duration::from_secs(3)];

fn world(seed: u64, kinds: [Kind; 2], first_report: Duration) -> World {
    let mut world = World::new(seed, kinds, CONES);
    world.phones.iter_mut().for_each(|phone| phone.first_report = first_report);
    world
}

#[test]
fn trials_that_tell_nothing_are_two_at_most_and_the_timeline_says_why_the_call_stays() {
    for (seed, first_report) in (0..20).flat_map(|seed| UNTELLING.map(|after| (seed, after))) {
        for ways in [[true, true], [true, false], [false, true]] {
            let mut world = world(seed, [Kind::Pjsip; 2], first_report);
            world.ground.cut(ways);
            world.settle_and_run(second(300));
            let silence = world.longest_silence();
            let outcomes = world.outcomes();
            let story = || format!("{seed} {first_report:?} {ways:?} {silence:?} {:?}", world.timeline);
            let trials = world.trials();
            assert!(trials.len() == 2 && trials[1] >= trials[0] + second(5), "{}", story());
            assert!(world.stays(Stay::Inconclusive), "{}", story());
            assert!(silence <= Duration::from_millis(1_250) && !world.is_silent(), "{}", story());
            assert!(outcomes.is_empty(), "nothing was learnt of it: {outcomes:?} {}", story());
        }
    }
}

#[test]
fn a_report_that_comes_too_early_refutes_no_path_that_works() {
    let pairs = [[Kind::Pjsip; 2], [Kind::Pjsip, Kind::Baresip], [Kind::Linphone, Kind::Pjsip]];
    for (seed, kinds) in (0..20).flat_map(|seed| pairs.map(|kinds| (seed, kinds))) {
        for first_report in UNTELLING {
            let mut world = world(seed, kinds, first_report);
            world.settle_and_run(second(60));
            let silence = world.longest_silence();
            let outcomes = world.outcomes();
            let story = || format!("{kinds:?} {seed} {first_report:?} {silence:?} {:?}", world.timeline);
            assert!(!world.stays(Stay::Failed), "{}", story());
            assert!(outcomes.iter().all(|outcome| outcome.has_worked), "{}", story());
            assert!(world.trials().len() <= 3, "{}", story());
            assert!(silence <= Duration::from_millis(250) && !world.is_silent(), "{}", story());
        }
    }
}

#[test]
fn what_one_sends_while_the_other_still_owes_an_answer_refutes_no_path() {
    for (seed, late) in (0..40).map(|seed| (seed, seed as usize % 2)) {
        let mut world = World::new(seed, [Kind::Pjsip, Kind::Linphone], CONES);
        // It was asked to show its NAT, and has: its media has moved, and only its answer is late. The next re-INVITE must wait for it.
        world.lost_answer[late] = Duration::from_millis(500);
        world.settle_and_run(second(60));
        let silence = world.longest_silence();
        let story = || format!("{seed} {silence:?} {:?}", world.timeline);
        assert!(world.moves.first_direct.is_some() && !world.stays(Stay::Failed), "{}", story());
        // Half a second, and what re-INVITEs take.
        assert!(silence <= Duration::from_millis(700) && !world.is_silent(), "{}", story());
    }
}
