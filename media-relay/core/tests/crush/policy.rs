//! Policy that changes in mid call.

use std::time::Duration;

use media_core::policy::Mode;
use media_core::worker::SocketId;
use media_wire::handoff::Sending;
use media_wire::sdp::crush::{Policy, Support};
use play::settings::media::ENDS;
use seam::path::{Constraint, PathState};
use seam::{Action, Endpoint, Event, Renegotiated};

use crate::world::{MS, SEEN, World, rtp, states};

/// Re-INVITEs of ours: the wish, for whom, and what it says of policy.
pub(crate) fn wishes(events: &[Event]) -> Vec<(u32, Endpoint, Policy)> {
    let of = |event: &Event| match event {
        Event::Renegotiate { wish, legs, .. } => {
            let sdp = String::from_utf8(legs[0].1.as_ref().unwrap().to_vec()).unwrap();
            assert!(sdp.contains("m=audio 100"), "the relay's ports: {sdp}");
            Some((*wish, legs[0].0, Support::find(&sdp).unwrap().policy))
        }
        _ => None,
    };
    events.iter().filter_map(of).collect()
}

#[test]
fn policy_that_changes_in_mid_call_is_told_to_both_until_they_know_and_blocks_candidates() {
    let mut world = World::call();
    world.both_send(1, Sending::Direct);
    world.wait(MS(1000));
    world.act(Action::Constrain(Constraint::MustAnchor));
    assert_eq!(world.trickle(0, &[]), None);
    let first = wishes(&world.wait(MS(100)));
    assert_eq!(
        first.iter().map(|one| (one.1, one.2)).collect::<Vec<_>>(),
        ENDS.map(|end| (end, Policy::Relay))
    );
    let outcome = Renegotiated::Accepted(World::sdp(0, true).into());
    world.act(Action::Renegotiated { wish: first[0].0, endpoint: ENDS[0], outcome });
    world.act(Action::Renegotiated {
        wish: first[1].0,
        endpoint: ENDS[1],
        outcome: Renegotiated::Superseded,
    });
    let again = wishes(&world.wait(MS(1000)));
    assert_eq!(again.iter().map(|one| one.1).collect::<Vec<_>>(), [ENDS[1]]);
    let outcome = Renegotiated::Accepted(World::sdp(1, true).into());
    world.act(Action::Renegotiated { wish: again[0].0, endpoint: ENDS[1], outcome });
    assert_eq!(wishes(&world.wait(MS(3000))), []);
    world.both_send(2, Sending::Relay);
    assert_eq!(states(&world.wait(MS(100))), [PathState::Returning, PathState::Anchored]);
    world.act(Action::Constrain(Constraint::MayRelease));
    let back = wishes(&world.wait(MS(100)));
    assert_eq!(back.iter().map(|one| one.2).collect::<Vec<_>>(), [Policy::Direct; 2]);
}

#[test]
fn an_operator_says_of_a_running_call_whatever_a_realm_may_say_and_leaves_it_to_its_realms_again() {
    for (mode, own) in [(Mode::Allow, Policy::Direct), (Mode::Video, Policy::VideoOnly)] {
        let mut world = World::new(mode);
        world.has_video = true;
        world.connect([true, true]);
        let says = |constraint| Action::Constrain(constraint);
        let words = [
            (says(Constraint::MustAnchor), Policy::Relay),
            (says(Constraint::VideoOnly), Policy::VideoOnly),
            (says(Constraint::MayRelease), Policy::Direct),
            (says(Constraint::VideoOnly), Policy::VideoOnly),
            (says(Constraint::PreferRelease), Policy::Direct),
            (says(Constraint::MustAnchor), Policy::Relay),
            (Action::Unconstrain, own),
        ];
        for (word, policy) in words {
            let what = format!("{word:?}");
            world.act(word);
            let told = wishes(&world.wait(MS(100)));
            assert_eq!(told.iter().map(|one| one.2).collect::<Vec<_>>(), [policy; 2], "{mode:?} {what}");
            for (wish, endpoint, _) in told {
                let side = usize::from(endpoint == ENDS[1]);
                let outcome = Renegotiated::Accepted(World::sdp(side, true).into());
                world.act(Action::Renegotiated { wish, endpoint, outcome });
            }
        }
    }
}

/// The socket that a description names for an m-line.
fn socket_in(sdp: &str, kind: &str) -> SocketId {
    let port = sdp.lines().find_map(|line| line.strip_prefix(&format!("m={kind} "))?.split(' ').next());
    port.unwrap().parse::<SocketId>().unwrap() - 10_000
}

#[test]
fn where_policy_lets_video_go_it_is_direct_while_audio_keeps_each_second_relayed() {
    let mut world = World::new(Mode::Video);
    world.has_video = true;
    let [offered, answered] = world.connect([true, true]);
    assert!(world.told.iter().all(|told| told.as_ref().unwrap().policy == Policy::VideoOnly));
    // What A sends to is in what it was told.
    let audio = [&answered, &offered].map(|sdp| socket_in(sdp, "audio"));
    let video = [&answered, &offered].map(|sdp| socket_in(sdp, "video"));
    let speak = |world: &mut World| {
        for side in 0..2 {
            world.sequence[0] += 1;
            let packet = rtp(world.sequence[0], 7);
            let sent = world.send(audio[side], SEEN[side], &packet);
            assert_eq!(sent.iter().filter(|(_, _, bytes)| *bytes == packet).count(), 1, "audio is relayed");
        }
    };
    (0..2).for_each(|_| speak(&mut world));
    assert!(world.trickle(0, &["1 1 UDP 2130706431 192.168.20.10 4000 typ host"]).is_some());
    assert!(world.trickle(1, &[]).is_some());
    for (sequence, sending) in [(1, Sending::Both), (2, Sending::Direct)] {
        for side in 0..2 {
            let request = world.binding(side, sequence, sending);
            assert_eq!(world.send(video[side], SEEN[side], &request).len(), 1);
        }
    }
    let mut events = Vec::new();
    for _ in 0..100 {
        speak(&mut world);
        events.extend(world.wait(MS(20)));
    }
    let ways = [PathState::Anchored, PathState::Probing, PathState::Synchronising, PathState::Direct];
    assert_eq!(states(&events), ways, "the video's");
    for side in 0..2 {
        let request = world.binding(side, 3, Sending::Relay);
        world.send(video[side], SEEN[side], &request);
    }
    assert_eq!(states(&world.wait(MS(1000))), [PathState::Returning, PathState::Anchored]);
    assert_eq!(world.direct(), Duration::ZERO);
}
