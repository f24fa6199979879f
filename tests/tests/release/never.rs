//! What is never tried, with real phones: no move, and no silence.

use std::time::Duration;

use crush_tests::phone::{Account, Kind};
use crush_tests::place::Place;
use crush_tests::{Failure, Result, skip_unless_possible};

use crate::matrix::{name, none_missed, row, write};
use crate::scene::Scene;
use crate::story::Run;
use crate::{BARESIP, LINPHONE, PJSIP};

/// A pause that any phone makes between two packets on a busy machine.
const PAUSE: Duration = Duration::from_millis(100);
const CALL: Duration = Duration::from_secs(12);

/// The call stays for this reason, nobody is asked anything, and nothing of it is heard.
fn stays(scene: &mut Scene, why: &str) -> Result<Run> {
    let mark = scene.call()?;
    scene.path("stays", why, scene.answered, CALL)?;
    std::thread::sleep(CALL);
    let gap = scene.gap(&mark)?;
    if gap.longest() > PAUSE {
        return Err(scene.failure(&format!("a call that stays has a gap: {gap:?}")));
    }
    for what in ["probing", "synchronising", "returning"] {
        if scene.has(what, scene.answered)? {
            return Err(scene.failure(&format!("{what} where nothing can work")));
        }
    }
    Ok(Run { gap: gap.longest(), ..Run::default() })
}

/// What became of it, and whether it ended silent.
fn play(scene: Result<Scene>, why: &str) -> (Result<Run>, bool) {
    let mut scene = match scene {
        Ok(scene) => scene,
        Err(failure) => return (Err(failure), true),
    };
    let result = stays(&mut scene, why);
    let is_heard = scene.is_heard();
    let is_silent = is_heard.is_err();
    (result.and_then(|run| is_heard.and_then(|()| scene.hang_up()).map(|()| run)), is_silent)
}

fn across_realms(kinds: [Kind; 2]) -> (Result<Run>, bool) {
    play(Scene::across_realms(kinds), "unroutable")
}

fn goes_well((result, _): (Result<Run>, bool)) {
    if let Err(Failure(text)) = result {
        panic!("{text}");
    }
}

#[test]
fn a_phone_at_a_private_address_of_another_realm_is_never_moved() {
    skip_unless_possible!(BARESIP.program(), LINPHONE.program(), "conntrack", "curl", "openssl");
    goes_well(across_realms([BARESIP, LINPHONE]));
}

/// The caller speaks ICE, the called does not.
fn speaks_ice_alone(callee: Kind) -> (Result<Run>, bool) {
    let with_ice = |account: Account| Account { ice: account.user == "a1", ..account };
    play(Scene::of([PJSIP, callee], Place::Open, with_ice), "ice")
}

#[test]
fn a_pjsip_that_speaks_ice_with_a_phone_that_does_not_is_never_moved() {
    skip_unless_possible!(PJSIP.program(), LINPHONE.program(), "conntrack", "curl", "openssl");
    goes_well(speaks_ice_alone(LINPHONE));
}

/// What is never tried of a caller of one kind, and its rows.
fn play_all(one: Kind) {
    let all = [BARESIP, LINPHONE, PJSIP];
    skip_unless_possible!(
        all[0].program(),
        all[1].program(),
        all[2].program(),
        "conntrack",
        "curl",
        "openssl"
    );
    let mut table = Vec::new();
    let mut keep = |kinds, nats: [&str; 2], story, played: (Result<Run>, bool)| {
        if let Err(failure) = &played.0 {
            println!("{story}: {failure}");
        }
        table.push(row(kinds, nats.map(str::to_owned), story, &[played]));
        write(&format!("never-{}", name(one)), &table);
    };
    for other in all {
        let played = across_realms([one, other]);
        keep([one, other], ["none", "another realm"], "across realms", played);
        if one == PJSIP {
            keep([one, other], ["none"; 2], "ICE of one alone", speaks_ice_alone(other));
        }
    }
    none_missed(&table);
}

#[test]
#[ignore = "make release-matrix"]
fn a_baresip_with_each_across_realms_in_full() {
    play_all(BARESIP);
}

#[test]
#[ignore = "make release-matrix"]
fn a_linphone_with_each_across_realms_in_full() {
    play_all(LINPHONE);
}

#[test]
#[ignore = "make release-matrix"]
fn a_pjsip_with_each_across_realms_and_with_ice_to_each_without_in_full() {
    play_all(PJSIP);
}
