//! A registrar in the core (Kamailio): a call from phone to phone comes back to the SBC, and is two calls of ours. Both halves leave the
//! relay as one call, between the phones, and come back as one.

use std::time::Duration;

use crush_tests::phone::Kind;
use crush_tests::place::Place;
use crush_tests::{Failure, Result, skip_unless_possible};

use crate::matrix::{name, none_missed, row, runs, write};
use crate::scene::{Scene, now};
use crate::story::{Run, called_back, cut, held};
use crate::{BARESIP, LINPHONE, PJSIP, apart};

/// What both records must say of a call that was direct for more than a second.
const BOTH_DIRECT: &str = "SELECT count(*) = 2 AND bool_and(relayed_ms + direct_ms = duration_ms AND direct_ms > 1000) \
    AND max(direct_ms) - min(direct_ms) < 200 FROM call WHERE cause = 'bye'";
/// Both halves have left once, and neither was moved to an address of ours.
const BOTH_LEFT: &str = "SELECT count(DISTINCT call) = 2 FROM call_path WHERE what = 'direct'";
const NONE_ALONE: &str = "SELECT count(*) = 0 FROM call_path WHERE what = 'stays'";

/// What became of a call, and whether it ended silent.
type Played = (Result<Run>, bool);

/// Two calls: one goes off the relay, both halves, is called back by policy of one of them, or held and resumed; the next one's path breaks.
fn play(kinds: [Kind; 2], place: Place, is_held: bool) -> [Played; 2] {
    let mut scene = match Scene::through_the_core(kinds, place) {
        Ok(scene) => scene,
        Err(failure) => return [(Err(failure.clone()), true), (Err(failure), true)],
    };
    let first = returns(&mut scene, is_held);
    if first.0.is_err() {
        let unplayed = Failure("not played, since the call before it failed".into());
        return [first, (Err(unplayed), false)];
    }
    let second = breaks(&mut scene);
    [first, second]
}

fn returns(scene: &mut Scene, is_held: bool) -> Played {
    let result = scene.call().and_then(|mark| {
        let run = if is_held { held(scene, &mark)? } else { called_back(scene, &mark)? };
        holds(scene, BOTH_LEFT)?;
        holds(scene, NONE_ALONE)?;
        Ok(run)
    });
    let is_heard = scene.is_heard();
    let is_silent = is_heard.is_err();
    let result = result.and_then(|run| {
        is_heard?;
        scene.hang_up()?;
        scene.stage.sbc.eventually_sql(BOTH_DIRECT, "t", Duration::from_secs(10)).map_err(|_| {
            let records = scene.stage.sbc.sql("SELECT cause, duration_ms, relayed_ms, direct_ms FROM call");
            scene.failure(&format!("the records of both halves: {records:?}"))
        })?;
        Ok(run)
    });
    (result, is_silent)
}

fn breaks(scene: &mut Scene) -> Played {
    let result = scene.call().and_then(|mark| cut(scene, &mark));
    let is_heard = scene.is_heard();
    let is_silent = is_heard.is_err();
    let result = result.and_then(|run| {
        is_heard?;
        scene.hang_up()?;
        // Neither half is asked for anything once the other has ended.
        let ended = now();
        std::thread::sleep(Duration::from_secs(1));
        if scene.has("returning", ended)? {
            return Err(scene.failure("a half that has ended was moved"));
        }
        Ok(run)
    });
    (result, is_silent)
}

fn holds(scene: &Scene, query: &str) -> Result<()> {
    if scene.stage.sbc.sql(query)? == "t" { Ok(()) } else { Err(scene.failure(query)) }
}

fn leaves_as_one(kinds: [Kind; 2], place: Place, is_held: bool) {
    skip_unless_possible!(kinds[0].program(), kinds[1].program(), "kamailio", "conntrack", "curl", "openssl");
    for (result, _) in play(kinds, place, is_held) {
        match result {
            Ok(run) => println!("{kinds:?}, {place} through the core: {run:?}"),
            Err(Failure(text)) => panic!("{text}"),
        }
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

/// Both places of a pair, and its rows: a third of the runs of calls that one half makes alone, at least one.
fn play_all(kinds: [Kind; 2]) {
    skip_unless_possible!(kinds[0].program(), kinds[1].program(), "kamailio", "conntrack", "curl", "openssl");
    let mut table = Vec::new();
    for (place, is_held) in [(Place::Open, true), (apart("cone", "cone"), false)] {
        let runs: Vec<[Played; 2]> = (0..runs().div_ceil(3)).map(|_| play(kinds, place, is_held)).collect();
        let (first, second): (Vec<Played>, Vec<Played>) = runs.into_iter().map(<(_, _)>::from).unzip();
        let story = if is_held { "core: held" } else { "core: called back" };
        table.extend([(story, first), ("core: cut", second)].map(|(story, results)| {
            let failures = results.iter().filter_map(|(result, _)| result.as_ref().err());
            failures.for_each(|failure| println!("{story}: {failure}"));
            row(kinds, place.names(), story, &results)
        }));
        write(&format!("core-{}-{}", name(kinds[0]), name(kinds[1])), &table);
    }
    none_missed(&table);
}

pairs! {
    play_all;
    two_baresips_of_a_registrar_in_the_core_in_full: BARESIP, BARESIP;
    baresip_and_linphone_of_a_registrar_in_the_core_in_full: BARESIP, LINPHONE;
    baresip_and_pjsip_of_a_registrar_in_the_core_in_full: BARESIP, PJSIP;
    linphone_and_baresip_of_a_registrar_in_the_core_in_full: LINPHONE, BARESIP;
    two_linphones_of_a_registrar_in_the_core_in_full: LINPHONE, LINPHONE;
    linphone_and_pjsip_of_a_registrar_in_the_core_in_full: LINPHONE, PJSIP;
    pjsip_and_baresip_of_a_registrar_in_the_core_in_full: PJSIP, BARESIP;
    pjsip_and_linphone_of_a_registrar_in_the_core_in_full: PJSIP, LINPHONE;
    two_pjsips_of_a_registrar_in_the_core_in_full: PJSIP, PJSIP;
}
