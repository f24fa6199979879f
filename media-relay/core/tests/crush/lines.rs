//! What each end is told of CRUSH in its description.

use media_core::policy::Mode;
use media_wire::sdp::crush::{Policy, Temper};
use media_wire::stun::{Class, Method, Outgoing};

use crate::world::{PWD, SEEN, UFRAGS, World, at};

#[test]
fn each_leg_has_a_line_of_its_own_and_nothing_of_the_other_ends() {
    let mut world = World::new(Mode::Allow);
    let [offered, answered] = world.connect([true, true]);
    let [alice, bob] = world.told.clone().map(Option::unwrap);
    assert!(alice.ufrag != bob.ufrag && alice.pwd != bob.pwd);
    for (sdp, support) in [(&offered, &bob), (&answered, &alice)] {
        assert_eq!(sdp.matches("a=crush").count(), 1, "{sdp}");
        assert!(!sdp.contains(PWD) && !UFRAGS.iter().any(|ufrag| sdp.contains(ufrag)), "{sdp}");
        assert!(sdp.find("a=crush") < sdp.find("m="), "at session level: {sdp}");
        assert_eq!((support.policy, &support.servers[..]), (Policy::Direct, &[at("203.0.113.5:3478")][..]));
    }
}

#[test]
fn who_does_not_take_part_sees_nothing_and_his_peer_is_told() {
    let mut world = World::new(Mode::Allow);
    let [offered, answered] = world.connect([false, false]);
    assert!(!offered.contains("crush") && !answered.contains("crush"));
    let mut world = World::new(Mode::Allow);
    let [offered, answered] = world.connect([true, false]);
    assert!(offered.contains("a=crush:1 ") && !answered.contains("crush"));
    let plain = Outgoing::new(Method::Binding, Class::Request, 5).plain();
    assert_eq!(world.send(0, SEEN[0], &plain), [], "no STUN for an ordinary call");
}

#[test]
fn realms_that_anchor_and_parties_that_want_privacy_are_told_so_and_show_no_candidates() {
    let mut anchored = World::new(Mode::Anchor);
    let mut private = World::new(Mode::Allow);
    private.parties[0].is_private = true;
    for world in [&mut anchored, &mut private] {
        world.connect([true, true]);
        assert!(world.told.iter().all(|told| told.as_ref().unwrap().policy == Policy::Relay));
        world.talk(0);
        assert_eq!(world.trickle(0, &["1 1 UDP 2130706431 192.168.20.10 4000 typ host"]), None);
    }
}

#[test]
fn an_endpoint_is_told_the_pace_that_the_operator_of_its_own_realm_has_said() {
    for (realms, said) in [([0, 1], [None, Some(Temper::Fast)]), ([1, 1], [Some(Temper::Fast); 2])] {
        let mut world = World::new(Mode::Allow);
        world.set_realms(realms);
        world.connect([true, true]);
        let told = world.told.each_ref().map(|told| told.as_ref().unwrap().temper);
        assert_eq!(told, said, "{realms:?}");
    }
}
