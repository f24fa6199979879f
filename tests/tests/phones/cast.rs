//! The cast of most scenarios: phones on both sides, registered.

use crush_tests::Network;
use crush_tests::phone::{Account, Event, Kind};
use crush_tests::sbc;
use crush_tests::stage::{Extension, Stage};

/// All ordered pairs of transports: access side first.
pub(crate) const TRANSPORTS: [[&str; 2]; 9] = [
    ["udp", "udp"],
    ["udp", "tcp"],
    ["udp", "tls"],
    ["tcp", "udp"],
    ["tcp", "tcp"],
    ["tcp", "tls"],
    ["tls", "udp"],
    ["tls", "tcp"],
    ["tls", "tls"],
];

/// Users of the access side are `a1`, `a2` ..., those of the core side `c1`, `c2` ...
const USERS: [(&str, Network); 6] = [
    ("a1", Network::Access),
    ("a2", Network::Access),
    ("a3", Network::Access),
    ("c1", Network::Core),
    ("c2", Network::Core),
    ("c3", Network::Core),
];

/// A stage with both realms and their subscribers.
pub(crate) fn stage(name: &str) -> Stage {
    stage_with(name, &sbc::phones())
}

/// The same with realms of its own.
pub(crate) fn stage_with(name: &str, realms: &str) -> Stage {
    Stage::new(name, realms, &sbc::subscribers(&USERS)).unwrap()
}

/// A registered phone of one of the users.
pub(crate) fn phone(stage: &mut Stage, kind: Kind, user: &str, transport: &'static str) -> Extension {
    let network = if user.starts_with('a') { Network::Access } else { Network::Core };
    let mut phone = stage.phone(kind, network, &Account::of(user, network, transport)).unwrap();
    phone.registered().unwrap();
    phone
}

/// One calls, the other answers; both hear each other, on the wire and in their recordings.
pub(crate) fn call(caller: &mut Extension, callee: &mut Extension) {
    connect(caller, callee);
    caller.records(callee).unwrap();
    callee.records(caller).unwrap();
}

/// The same on the wire alone: linphone records one call only.
pub(crate) fn connect(caller: &mut Extension, callee: &mut Extension) {
    caller.dial(&callee.user.clone()).unwrap();
    callee.wait(Event::Incoming).unwrap();
    caller.wait(Event::Ringing).unwrap();
    callee.phone.answer().unwrap();
    caller.wait(Event::Established).unwrap();
    callee.wait(Event::Established).unwrap();
    hear_each_other(caller, callee);
}

/// Tones both ways, on the wire to each.
pub(crate) fn hear_each_other(one: &mut Extension, other: &mut Extension) {
    one.hears(other).unwrap();
    other.hears(one).unwrap();
}

/// One hangs up; both know.
pub(crate) fn hang_up(one: &mut Extension, other: &mut Extension) {
    one.phone.hang_up().unwrap();
    other.wait(Event::Ended).unwrap();
    one.wait(Event::Ended).unwrap();
}
