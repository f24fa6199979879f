//! What is never tried, with real phones: no move, and no silence.

use std::time::Duration;

use crush_tests::phone::{Account, Kind};
use crush_tests::place::Place;
use crush_tests::{Failure, Result, skip_unless_possible};

use crate::scene::Scene;
use crate::{BARESIP, LINPHONE, PJSIP};

/// A pause that any phone makes between two packets on a busy machine.
const PAUSE: Duration = Duration::from_millis(100);
const CALL: Duration = Duration::from_secs(12);

/// The call stays for this reason, nobody is asked anything, and nothing of it is heard.
fn stays(mut scene: Scene, why: &str) -> Result<()> {
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
    scene.is_heard()?;
    scene.hang_up()
}

fn goes_well(result: Result<()>) {
    if let Err(Failure(text)) = result {
        panic!("{text}");
    }
}

fn is_across_realms(kinds: [Kind; 2]) {
    skip_unless_possible!(kinds[0].program(), kinds[1].program(), "conntrack", "curl", "openssl");
    goes_well(Scene::across_realms(kinds).and_then(|scene| stays(scene, "unroutable")));
}

#[test]
fn a_phone_at_a_private_address_of_another_realm_is_never_moved() {
    is_across_realms([BARESIP, LINPHONE]);
}

fn speaks_ice_alone(callee: Kind) {
    skip_unless_possible!(PJSIP.program(), callee.program(), "conntrack", "curl", "openssl");
    let with_ice = |account: Account| Account { ice: account.user == "a1", ..account };
    let scene = Scene::of([PJSIP, callee], Place::Open, with_ice);
    goes_well(scene.and_then(|scene| stays(scene, "ice")));
}

#[test]
fn a_pjsip_that_speaks_ice_with_a_phone_that_does_not_is_never_moved() {
    speaks_ice_alone(LINPHONE);
}

#[test]
#[ignore = "make release-matrix"]
fn each_pair_across_realms_and_a_pjsip_with_ice_to_each_without_in_full() {
    for one in [BARESIP, LINPHONE, PJSIP] {
        for other in [BARESIP, LINPHONE, PJSIP] {
            is_across_realms([one, other]);
        }
        speaks_ice_alone(one);
    }
}
