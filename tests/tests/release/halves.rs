//! A registrar in the core (Kamailio): a call from phone to phone comes back to the SBC, and is two calls of ours. Both halves leave the
//! relay as one call, between the phones, and come back as one.

use std::time::Duration;

use crush_tests::phone::Kind;
use crush_tests::place::Place;
use crush_tests::{Failure, Result, skip_unless_possible};

use crate::scene::{Scene, now};
use crate::story::{called_back, cut, held};
use crate::{BARESIP, LINPHONE, PJSIP, apart};

/// What both records must say of a call that was direct for more than a second.
const BOTH_DIRECT: &str = "SELECT count(*) = 2 AND bool_and(relayed_ms + direct_ms = duration_ms AND direct_ms > 1000) \
    AND max(direct_ms) - min(direct_ms) < 200 FROM call WHERE cause = 'bye'";
/// Both halves have left once, and neither was moved to an address of ours.
const BOTH_LEFT: &str = "SELECT count(DISTINCT call) = 2 FROM call_path WHERE what = 'direct'";
const NONE_ALONE: &str = "SELECT count(*) = 0 FROM call_path WHERE what = 'stays'";

/// Off the relay, both halves; called back by policy of one of them; off and back by a cut or a hold; and hung up.
fn play(kinds: [Kind; 2], place: Place, is_held: bool) -> Result<()> {
    let mut scene = Scene::through_the_core(kinds, place)?;
    let mark = scene.call()?;
    let run = if is_held { held(&mut scene, &mark)? } else { called_back(&mut scene, &mark)? };
    println!("{kinds:?}, {place} through the core: {run:?}");
    holds(&scene, BOTH_LEFT)?;
    holds(&scene, NONE_ALONE)?;
    scene.is_heard()?;
    scene.hang_up()?;
    scene.stage.sbc.eventually_sql(BOTH_DIRECT, "t", Duration::from_secs(10)).map_err(|_| {
        let records = scene.stage.sbc.sql("SELECT cause, duration_ms, relayed_ms, direct_ms FROM call");
        scene.failure(&format!("the records of both halves: {records:?}"))
    })?;
    // The next call of the same phones, whose path breaks.
    let mark = scene.call()?;
    let run = cut(&mut scene, &mark)?;
    println!("{kinds:?}, {place} through the core, cut: {run:?}");
    scene.hang_up()?;
    // Neither half is asked for anything once the other has ended.
    let ended = now();
    std::thread::sleep(Duration::from_secs(1));
    if scene.has("returning", ended)? {
        return Err(scene.failure("a half that has ended was moved"));
    }
    Ok(())
}

fn holds(scene: &Scene, query: &str) -> Result<()> {
    if scene.stage.sbc.sql(query)? == "t" { Ok(()) } else { Err(scene.failure(query)) }
}

fn leaves_as_one(kinds: [Kind; 2], place: Place, is_held: bool) {
    skip_unless_possible!(kinds[0].program(), kinds[1].program(), "kamailio", "conntrack", "curl", "openssl");
    if let Err(Failure(text)) = play(kinds, place, is_held) {
        panic!("{text}");
    }
}

#[test]
fn baresip_and_linphone_of_a_registrar_in_the_core_leave_as_one_call() {
    leaves_as_one([BARESIP, LINPHONE], Place::Open, false);
}

#[test]
fn pjsip_and_baresip_of_a_registrar_in_the_core_leave_as_one_call() {
    leaves_as_one([PJSIP, BARESIP], apart("cone", "full-cone"), false);
}

#[test]
#[ignore = "make release-matrix"]
fn each_pair_of_a_registrar_in_the_core_in_full() {
    let kinds = [BARESIP, LINPHONE, PJSIP];
    skip_unless_possible!(
        BARESIP.program(),
        LINPHONE.program(),
        PJSIP.program(),
        "kamailio",
        "conntrack",
        "curl",
        "openssl"
    );
    let mut failures = Vec::new();
    for pair in kinds.into_iter().flat_map(|one| kinds.map(|other| [one, other])) {
        for (place, is_held) in [(Place::Open, true), (apart("cone", "cone"), false)] {
            failures.extend(play(pair, place, is_held).err());
        }
    }
    for Failure(text) in &failures {
        println!("{text}");
    }
    assert!(failures.is_empty(), "{} of 18", failures.len());
}
