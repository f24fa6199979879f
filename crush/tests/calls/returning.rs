//! The way back to the relay, other networks, and policy (docs/crush.md §8 and §9).

use std::time::Duration;

use crate::support::gaps::{cut, direct, gap, network_switch, spread};
use crate::support::{CONE, MS, Options, RANDOM, Talk, World};
use crush::agent::{Event, Input, StreamId};
use media_wire::handoff::{Path, Reason};
use media_wire::sdp::crush::Policy;
use nat_lab::Kind;
use seam::path::{Constraint, PathState};

fn returned(world: &World, side: usize, why: &[Reason]) -> bool {
    world.phones[side]
        .when(|event| matches!(event, Event::Returned { reason, .. } if why.contains(reason)))
        .is_some()
}

#[test]
fn a_path_cut_one_way_or_both_costs_at_most_300_ms_of_voice() {
    let mut gaps = Vec::new();
    for seed in 0..30 {
        let (world, both) = cut(seed);
        for side in 0..2 {
            assert!(returned(&world, side, &[Reason::Missing]), "seed {seed}");
            assert_eq!(world.phones[side].agent.receiving_on(StreamId(0)), Path::Relay);
        }
        gaps.extend(both);
    }
    let (median, p95) = spread(gaps);
    assert!(median <= MS(300) && p95 <= MS(300), "median {median:?}, p95 {p95:?}");
}

#[test]
fn what_an_application_is_shown_has_the_figures_of_the_call() {
    let mut world = direct(&Options::new(5, CONE, CONE));
    let was_direct = world.now();
    world.run_until(was_direct + MS(5000));
    world.cut(0, 1);
    world.cut(1, 0);
    world.run_until(was_direct + MS(5400));
    for phone in &world.phones {
        let direct_at = phone.direct_at().unwrap();
        let figures = |at: Duration, event: &Event| match event {
            // 20 ms each way of a NAT: 40 to the relay and back, 80 to the peer, and a first packet through two of them.
            Event::Relayed { after, round_trip } => {
                assert!((MS(40)..MS(80)).contains(after) && *round_trip == Some(MS(40)), "{event:?}");
                "relayed"
            }
            Event::Direct { after, round_trip, effort } => {
                assert!(*after == at && *after == direct_at && *round_trip >= MS(80), "{event:?}");
                assert!(effort.probes > 0 && effort.flows > 4 && effort.sockets == 2, "{event:?}");
                "direct"
            }
            Event::Returned { reason: Reason::Missing, lasted, gap } => {
                // One direction leaves before the other.
                assert!((at - direct_at..at - direct_at + MS(500)).contains(lasted), "{event:?}");
                assert!(gap.is_some_and(|gap| (MS(100)..MS(250)).contains(&gap)), "{event:?}");
                "returned"
            }
            _ => "",
        };
        let shown: Vec<&str> = phone.events.iter().map(|(at, event)| figures(*at, event)).collect();
        assert!(
            ["relayed", "direct", "returned"].iter().all(|one| shown.contains(one)),
            "{:?}",
            phone.events
        );
    }
    let mut hopeless = World::new(&Options::new(1, RANDOM, RANDOM));
    hopeless.run_until(Duration::from_secs(20));
    for phone in &hopeless.phones {
        let cost = |event: &Event| match event {
            Event::Probing { effort, .. } | Event::GaveUp { effort, .. } => Some(effort.probes),
            _ => None,
        };
        let probes: Vec<u64> = phone.events.iter().filter_map(|(_, event)| cost(event)).collect();
        assert!(probes.len() == 2 && probes[0] > 0 && probes[1] > probes[0], "{:?}", phone.events);
    }
}

#[test]
fn a_path_that_dies_in_silence_is_noticed_before_anybody_speaks_again() {
    for seed in 0..20 {
        let options = Options { talk: [Talk::Spurts(8000, 4000); 2], ..Options::new(seed, CONE, CONE) };
        let mut world = direct(&options);
        // Into the silence.
        world.run_until(Duration::from_secs(9));
        assert!(
            world.phones.iter().all(|phone| phone.agent.receiving_on(StreamId(0)) == Path::Direct),
            "seed {seed}"
        );
        let from = world.now();
        world.cut(seed as usize % 2, 1 - seed as usize % 2);
        world.run_until(from + MS(300));
        for phone in &world.phones {
            assert_eq!(phone.agent.sending_on(StreamId(0)), Path::Relay, "seed {seed}");
        }
    }
}

#[test]
fn loss_and_silence_alone_do_not_end_a_direct_path() {
    for seed in 0..10 {
        let talk = [Talk::Spurts(1500, 2500), Talk::Spurts(700, 900)];
        let mut world =
            direct(&Options { talk, loss: 0.02, jitter: MS(10), ..Options::new(seed, CONE, CONE) });
        let from = world.now();
        world.run_until(from + Duration::from_secs(40));
        let events = world.phones.iter().map(|phone| &phone.events).collect::<Vec<_>>();
        assert!((0..2).all(|side| !returned(&world, side, &[Reason::Missing])), "seed {seed}: {events:?}");
    }
}

#[test]
fn after_a_return_the_path_is_tried_again_once_it_carries() {
    let mut world = direct(&Options::new(4, CONE, CONE));
    world.cut(0, 1);
    let from = world.now();
    world.run_until(from + MS(1000));
    let (a, b) = (world.network.nat(world.nats[0].unwrap()).externals()[0], {
        let nat = world.nats[1].unwrap();
        world.network.nat(nat).externals()[0]
    });
    world.network.restore(a, b);
    world.run_until(from + Duration::from_secs(30));
    for phone in &world.phones {
        assert_eq!(phone.agent.receiving_on(StreamId(0)), Path::Direct);
        assert!(phone.events.iter().filter(|(_, event)| matches!(event, Event::Direct { .. })).count() >= 2);
    }
}

#[test]
fn a_phone_on_another_network_is_heard_within_500_ms_and_goes_direct_again() {
    let mut gaps = Vec::new();
    for seed in 0..20 {
        let (world, both) = network_switch(seed);
        for phone in &world.phones {
            assert_eq!(phone.agent.receiving_on(StreamId(0)), Path::Direct, "seed {seed} {:?}", phone.events);
        }
        gaps.extend(both);
    }
    let (median, p95) = spread(gaps);
    assert!(p95 <= MS(500), "median {median:?}, p95 {p95:?}");
}

#[test]
fn policy_calls_media_back_in_mid_call_and_lets_it_go_again() {
    let mut world = direct(&Options::new(2, CONE, CONE));
    let from = world.now();
    world.describe(0, Policy::Relay);
    world.run_until(from + MS(1000));
    for side in 0..2 {
        assert_eq!(world.phones[side].paths(), (Path::Relay, Path::Relay));
        assert!(gap(&world, side, from) <= MS(100));
    }
    let before = world.relay.rtp;
    world.run_until(from + MS(3000));
    assert!(world.relay.rtp >= before + 190);
    assert!(returned(&world, 0, &[Reason::Policy]));
    world.describe(0, Policy::Direct);
    world.run_until(from + Duration::from_secs(40));
    for phone in &world.phones {
        assert_eq!(phone.paths(), (Path::Direct, Path::Direct), "{:?}", phone.events);
    }
}

#[test]
fn with_policy_relay_nothing_is_looked_for() {
    let mut world = World::new(&Options { policy: Policy::Relay, ..Options::new(2, CONE, CONE) });
    world.run_until(Duration::from_secs(5));
    assert!(world.phones.iter().all(|phone| phone.infos == 0 && phone.agent.effort().probes == 0));
    assert!(world.relay.rtp > 480);
}

#[test]
fn video_alone_goes_direct_at_a_key_frame_where_audio_must_stay() {
    let mut world =
        direct(&Options { video: true, policy: Policy::VideoOnly, ..Options::new(6, CONE, CONE) });
    let (relayed, from) = (world.relay.rtp, world.now());
    world.run_until(from + MS(5000));
    // Audio of both sides, no video.
    let audio = world.relay.rtp - relayed;
    assert!((495..=505).contains(&audio), "{audio}");
    for phone in &world.phones {
        assert_eq!(phone.agent.receiving_on(StreamId(1)), Path::Direct);
        let numbers: Vec<u16> = phone.video.iter().map(|(_, number)| *number).collect();
        assert!(numbers.windows(2).all(|pair| pair[1] == pair[0] + 1), "{numbers:?}");
    }
}

#[test]
fn audio_and_video_leave_the_relay_and_leave_it_idle() {
    let mut world = direct(&Options { video: true, ..Options::new(7, CONE, CONE) });
    let before = world.relay.rtp;
    let from = world.now();
    world.run_until(from + MS(5000));
    assert_eq!(world.relay.rtp, before);
    world.input(0, Input::Policy(Policy::Relay));
    world.run_until(from + MS(8000));
    assert!(world.relay.rtp > before + 400);
}

#[test]
fn without_audio_test_packets_synchronise() {
    let options = Options { talk: [Talk::Never; 2], video: true, ..Options::new(8, CONE, CONE) };
    let mut world = World::new(&options);
    assert!(world.run_while(Duration::from_secs(10), |world| !world.both_direct()));
}

#[test]
fn an_sbc_that_must_anchor_calls_the_media_back_and_its_record_says_so() {
    let mut world = direct(&Options::new(31, CONE, CONE));
    let later = world.now() + MS(3000);
    world.run_until(later);
    world.constrain(Constraint::MustAnchor);
    let later = world.now() + MS(3000);
    world.run_until(later);
    for phone in &world.phones {
        assert_eq!(phone.agent.sending_on(StreamId(0)), Path::Relay);
    }
    world.constrain(Constraint::MayRelease);
    let deadline = world.now() + Duration::from_secs(60);
    let has_left =
        |world: &World| world.phones.iter().all(|phone| phone.agent.sending_on(StreamId(0)) == Path::Direct);
    assert!(world.run_while(deadline, |world| !has_left(world)), "direct again");
    let left = world.now();
    world.run_until(left + MS(5000));
    use PathState::{Anchored, Direct, Probing, Returning, Synchronising};
    let (relayed, direct) = world.relay.end(world.now());
    let states = &world.relay.states;
    assert_eq!(states[..6], [Anchored, Probing, Synchronising, Direct, Returning, Anchored]);
    assert_eq!(states.last(), Some(&Direct));
    assert!(direct > MS(7000) && relayed > MS(3000), "{relayed:?} {direct:?}");
}

#[test]
fn the_first_return_holds_off_for_two_seconds_in_every_order_of_events() {
    let held_off = |world: &World, since: Duration, what: &str| {
        for phone in &world.phones {
            let after = |at: Duration, wanted: fn(&Event) -> bool| {
                phone.events.iter().find(|(time, event)| *time > at && wanted(event)).unwrap().0
            };
            let returned = after(since, |event| matches!(event, Event::Returned { .. }));
            let again = after(returned, |event| matches!(event, Event::Synchronised(_))) - returned;
            assert!((MS(2000)..MS(2700)).contains(&again), "{what}: {again:?}");
        }
    };
    // Both return, the one before it hears of the other or afterwards.
    for apart in [0, 10, 30, 70, 300] {
        let mut world = direct(&Options::new(7, CONE, CONE));
        let from = world.now() + MS(1000);
        world.run_until(from);
        world.input(0, Input::Policy(Policy::Relay));
        world.run_until(from + MS(apart));
        world.input(1, Input::Policy(Policy::Relay));
        world.run_until(from + MS(600));
        (0..2).for_each(|side| world.input(side, Input::Policy(Policy::Direct)));
        world.run_until(from + MS(6000));
        held_off(&world, from - MS(1), &format!("{apart} ms apart"));
    }
    // One returns, and begins anew.
    for side in 0..2 {
        let mut world = direct(&Options::new(7, CONE, CONE));
        let from = world.now() + MS(1000);
        world.run_until(from);
        world.switch_network(side, Kind::Cone);
        world.run_until(from + MS(6000));
        held_off(&world, from - MS(1), &format!("{side} on another network"));
    }
}
