//! A phone that changes its network in mid-call.

use crush_tests::Network;
use crush_tests::phone::{Event, Kind};
use crush_tests::skip_unless_possible;

use crate::cast::{call, hang_up, hear_each_other, phone, stage};

/// No address of a phone of a stage.
const ELSEWHERE: u8 = 77;

#[test]
fn our_own_phone_goes_on_from_another_address_and_the_far_bye_finds_it() {
    skip_unless_possible!("phone", "curl", "openssl");
    let mut stage = stage("moving");
    let mut one = phone(&mut stage, Kind::Softphone, "a1", "udp");
    let mut other = phone(&mut stage, Kind::Softphone, "c1", "udp");
    call(&mut one, &mut other);
    let address = Network::Access.address(ELSEWHERE);
    one.address = stage.knows(Network::Access, &address).unwrap();
    stage.lab.readdress("a1", Network::Access, ELSEWHERE).unwrap();
    hear_each_other(&mut one, &mut other);
    one.records(&other).unwrap();
    other.records(&one).unwrap();
    hang_up(&mut other, &mut one);
    // It is called at its new address.
    other.dial("a1").unwrap();
    one.wait(Event::Incoming).unwrap();
    one.phone.refuse().unwrap();
    other.wait(Event::Ended).unwrap();
    stage.close([one, other]).unwrap();
}
