//! The SBC's part of CRUSH (docs/crush.md) on media ports: what moves media, what never does, and what is known of the path.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use media_core::Worker;
use media_core::handoff::HandoffSettings;
use media_core::policy::{Mode, RealmRelease};
use media_core::worker::{Settings, SocketId};
use media_wire::handoff::{Indication, PATH, Reason, Report, SEQUENCE, Sending};
use media_wire::sdp::crush::{Candidate, Fragment, Policy, Support, Temper};
use media_wire::stun::{Class, Incoming, Key, Method, Outgoing};
use play::ports::Counted;
use play::settings::media::{ENDS, party, release};
use proptest::prelude::*;
use seam::path::{Constraint, Entry, PathEntry, PathState};
use seam::{Action, Endpoint, Event, ExchangeId, Party, Renegotiated, Reply, Side};

/// Where the two are seen, and where they say that they are.
const SEEN: [&str; 2] = ["198.51.100.20:4000", "198.51.100.21:5000"];
const LOCAL: [(&str, u16); 2] = [("192.168.20.10", 4000), ("192.168.21.10", 5000)];
const UFRAGS: [&str; 2] = ["aliceUfr", "bobbyUfr"];
const PWD: &str = "endpointPasswordEndpoint";
const MS: fn(u64) -> Duration = Duration::from_millis;

fn at(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

struct World {
    worker: Worker,
    ports: Counted,
    now: Duration,
    /// Realms of the two, and whether one wants privacy.
    realms: [u16; 2],
    is_private: bool,
    /// Their calls have video, too.
    has_video: bool,
    /// What each was told of CRUSH.
    told: [Option<Support>; 2],
    sequence: [u16; 2],
}

impl World {
    fn new(mode: Mode) -> Self {
        let realm = RealmRelease { mode, ..RealmRelease::default() };
        let handoff = HandoffSettings {
            secret: [7; 32],
            discovery: vec![at("203.0.113.5:3478")],
            tempers: vec![None, Some(Temper::Fast)],
        };
        let settings = Settings {
            release: Some(release(vec![realm; 2])),
            handoff: Some(Arc::new(handoff)),
            inactivity: Some(Duration::from_secs(20)),
            ..Settings::default()
        };
        Self {
            worker: Worker::new(settings, "anchor".to_owned()),
            ports: Counted::at([[203, 0, 113, 5]]),
            now: Duration::from_secs(1),
            realms: [0, 0],
            is_private: false,
            has_video: false,
            told: [None, None],
            sequence: [0; 2],
        }
    }

    /// Two CRUSH endpoints in a call, heard at the relay: A at sockets 0 and 1, B at 2 and 3.
    fn call() -> Self {
        let mut world = Self::new(Mode::Allow);
        world.connect([true, true]);
        world.talk(0);
        world.talk(1);
        world
    }

    fn party(&self, side: usize) -> Party {
        Party {
            contact: Some(SocketAddr::new(LOCAL[side].0.parse().unwrap(), 5060)),
            is_private: self.is_private && side == 0,
            ..party(self.realms[side], SocketAddr::new(at(SEEN[side]).ip(), 5060))
        }
    }

    fn act(&mut self, action: Action) -> Option<Reply> {
        self.worker.handle(9, action, self.now, &mut self.ports)
    }

    fn described(&mut self, action: Action) -> String {
        let Some(Reply::Description(Ok(described))) = self.act(action) else { panic!("no description") };
        String::from_utf8(described.sdp.to_vec()).unwrap()
    }

    fn sdp(side: usize, is_crush: bool) -> String {
        let (address, port) = LOCAL[side];
        let line =
            if is_crush { format!("a=crush:1 ufrag={} pwd={PWD}\r\n", UFRAGS[side]) } else { String::new() };
        format!(
            "v=0\r\no=- 1 1 IN IP4 {address}\r\ns=-\r\nc=IN IP4 {address}\r\nt=0 0\r\n{line}m=audio {port} RTP/AVP 0\r\na=ptime:20\r\n"
        )
    }

    /// Offer and answer with or without CRUSH; the descriptions that went to B and to A.
    fn connect(&mut self, crush: [bool; 2]) -> [String; 2] {
        let [from_party, to_party] = [0, 1].map(|side| self.party(side));
        let [from, to] = ENDS;
        let video = |side: usize| {
            let line = format!("m=video {} RTP/AVP 96\r\na=rtpmap:96 VP8/90000\r\n", LOCAL[side].1 + 2);
            if self.has_video { line } else { String::new() }
        };
        let sdps = [0, 1].map(|side| Bytes::from(Self::sdp(side, crush[side]) + &video(side)));
        let [sdp, answer] = sdps;
        let offered = self.described(Action::Offer {
            exchange: ExchangeId(1),
            from,
            to,
            from_party,
            to_party: to_party.clone(),
            sdp,
        });
        self.act(Action::Select(to));
        let answered = self.described(Action::Answer {
            exchange: ExchangeId(1),
            from: to,
            to: from,
            from_party: to_party,
            sdp: answer,
        });
        self.told = [&answered, &offered].map(|sdp| Support::find(sdp));
        [offered, answered]
    }

    fn send(
        &mut self,
        socket: SocketId,
        source: &str,
        packet: &[u8],
    ) -> Vec<(SocketId, SocketAddr, Vec<u8>)> {
        let mut out = Vec::new();
        self.worker.packet(socket, at(source), packet, self.now, |socket, to, bytes| {
            out.push((socket, to, bytes.to_vec()));
        });
        out
    }

    /// A packet of one side's speech from where it was seen first; where it went.
    fn talk(&mut self, side: usize) -> Option<SocketAddr> {
        self.talk_from(side, SEEN[side])
    }

    fn talk_from(&mut self, side: usize, source: &str) -> Option<SocketAddr> {
        self.sequence[side] += 1;
        let mut packet = vec![0x80, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, side as u8 + 1];
        packet[2..4].copy_from_slice(&self.sequence[side].to_be_bytes());
        packet.extend([0xff; 160]);
        self.send(2 * side as u32, source, &packet).first().map(|sent| sent.1)
    }

    /// A sender report of one side: so many packets in all.
    fn count(&mut self, side: usize, packets: u32) {
        let mut packet = vec![0x80, 200, 0, 6];
        for word in [side as u32 + 1, 0, 0, 0, packets, 160 * packets] {
            packet.extend(word.to_be_bytes());
        }
        let source = at(SEEN[side]);
        let source = SocketAddr::new(source.ip(), source.port() + 1).to_string();
        self.send(2 * side as u32 + 1, &source, &packet);
    }

    fn wait(&mut self, time: Duration) -> Vec<Event> {
        let end = self.now + time;
        while let Some(due) = self.worker.poll_timeout().filter(|due| *due <= end) {
            self.now = due.max(self.now);
            self.worker.handle_timeout(self.now, &mut self.ports);
        }
        self.now = end;
        self.events()
    }

    fn events(&mut self) -> Vec<Event> {
        std::iter::from_fn(|| self.worker.poll_event()).map(|(_, event)| event).collect()
    }

    /// A Binding request of one side to the relay.
    fn binding(&self, side: usize, sequence: u32, sending: Sending) -> Vec<u8> {
        let support = self.told[side].as_ref().unwrap();
        let report = Report { sending, reason: Reason::Synchronised };
        Outgoing::new(Method::Binding, Class::Request, 1000 + u128::from(sequence))
            .username(&support.ufrag, UFRAGS[side])
            .with(SEQUENCE, &sequence.to_be_bytes())
            .with(PATH, &report.write())
            .sealed(&Key::new(&support.pwd))
    }

    /// Both tell where their packets go from now on.
    fn both_send(&mut self, sequence: u32, sending: Sending) {
        for (side, source) in SEEN.into_iter().enumerate() {
            let request = self.binding(side, sequence, sending);
            let answer = self.send(2 * side as u32, source, &request);
            assert_eq!(answer.len(), 1, "answered");
        }
    }

    fn direct(&mut self) -> Duration {
        let Some(Reply::Deleted { direct, .. }) = self.act(Action::Delete) else { panic!() };
        direct
    }

    fn trickle(&mut self, side: usize, candidates: &[&str]) -> Option<Fragment> {
        let lines: String = candidates.iter().map(|line| format!("a=candidate:{line}\r\n")).collect();
        let text = format!(
            "a=ice-ufrag:8hhYabcd\r\na=ice-pwd:asd88fgpdd777uzjYhagZg\r\nm=audio 9 RTP/AVP 0\r\na=mid:0\r\n{lines}a=end-of-candidates\r\n"
        );
        let (from, to) = (ENDS[side], ENDS[1 - side]);
        match self.act(Action::Trickle { from, to, fragment: Bytes::from(text) }) {
            Some(Reply::Fragment(fragment)) => {
                let text = String::from_utf8(fragment?.to_vec()).unwrap();
                Some(Fragment::read(&text).expect(&text))
            }
            other => panic!("{other:?}"),
        }
    }
}

fn states(events: &[Event]) -> Vec<PathState> {
    let state = |event: &Event| match event {
        Event::Path(PathEntry { entry: Entry::State { to, .. } | Entry::Handoff { to, .. }, .. }) => {
            Some(*to)
        }
        _ => None,
    };
    events.iter().filter_map(state).collect()
}

fn addresses(fragment: &Fragment) -> Vec<String> {
    fragment.candidates.iter().map(|candidate| candidate.address.to_string()).collect()
}

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
    private.is_private = true;
    for world in [&mut anchored, &mut private] {
        world.connect([true, true]);
        assert!(world.told.iter().all(|told| told.as_ref().unwrap().policy == Policy::Relay));
        world.talk(0);
        assert_eq!(world.trickle(0, &["1 1 UDP 2130706431 192.168.20.10 4000 typ host"]), None);
    }
}

#[test]
fn a_request_without_a_name_is_answered_and_moves_nothing() {
    let mut world = World::call();
    let plain = Outgoing::new(Method::Binding, Class::Request, 5).plain();
    let stranger = "198.51.100.99:7777";
    let sent = world.send(0, stranger, &plain);
    assert_eq!((sent.len(), sent[0].0, sent[0].1), (1, 0, at(stranger)));
    let answer = Incoming::read(&sent[0].2).unwrap();
    assert_eq!((answer.class(), answer.transaction()), (Class::Success, 5));
    assert_eq!(answer.mapped_address(), Some(at(stranger)));
    assert_eq!(world.talk(1), Some(at(SEEN[0])));
}

#[test]
fn a_mover_that_proves_who_it_is_is_followed_at_once_and_its_new_address_told() {
    let mut world = World::call();
    let moved = "192.0.2.77:9000";
    let request = world.binding(0, 1, Sending::Relay);
    let sent = world.send(0, moved, &request);
    let answer = Incoming::read(&sent[0].2).unwrap();
    assert_eq!(answer.mapped_address(), Some(at(moved)));
    assert!(answer.authentic(&Key::new(&world.told[0].as_ref().unwrap().pwd)));
    assert_eq!(world.talk(1), Some(at(moved)));
    assert_eq!(world.talk_from(0, moved), Some(at(SEEN[1])));
    assert_eq!(world.talk(0), None, "stragglers of the old network");
    assert_eq!(world.talk(1), Some(at(moved)));
}

#[test]
fn forged_foreign_stray_and_replayed_requests_move_nothing() {
    let mut world = World::call();
    let thief = "192.0.2.66:6666";
    let good = world.binding(0, 5, Sending::Relay);
    assert_eq!(world.send(0, SEEN[0], &good).len(), 1);
    let [alice, bob] = world.told.clone().map(Option::unwrap);
    let named = |to: &str, from: &str, pwd: &str| {
        Outgoing::new(Method::Binding, Class::Request, 77)
            .username(to, from)
            .with(SEQUENCE, &9_u32.to_be_bytes())
            .sealed(&Key::new(pwd))
    };
    let mut bent = world.binding(0, 6, Sending::Relay);
    bent[45] ^= 1;
    let unsigned =
        Outgoing::new(Method::Binding, Class::Request, 78).username(&alice.ufrag, UFRAGS[0]).plain();
    let unnumbered = Outgoing::new(Method::Binding, Class::Request, 79)
        .username(&alice.ufrag, UFRAGS[0])
        .sealed(&Key::new(&alice.pwd));
    let response = Outgoing::new(Method::Binding, Class::Success, 80).sealed(&Key::new(&alice.pwd));
    let attempts = [
        ("replayed", good.clone()),
        ("overtaken", world.binding(0, 4, Sending::Relay)),
        ("a wrong password", named(&alice.ufrag, UFRAGS[0], "wrongPasswordWrongPassword")),
        ("the endpoint's own password", named(&alice.ufrag, UFRAGS[0], PWD)),
        ("the other leg's credentials", named(&bob.ufrag, UFRAGS[1], &bob.pwd)),
        ("another endpoint's name", named(&alice.ufrag, "someOther", &alice.pwd)),
        ("another call's name", named("someOther", UFRAGS[0], &alice.pwd)),
        ("bent", bent),
        ("unsigned", unsigned),
        ("without a number", unnumbered),
        ("a response", response),
        ("half a message", good[..30].to_vec()),
    ];
    for (what, packet) in attempts {
        for reply in world.send(0, thief, &packet) {
            let reply = Incoming::read(&reply.2).unwrap();
            assert_eq!((reply.class(), reply.error_code()), (Class::Error, Some(401)), "{what}");
        }
        assert_eq!(world.talk(1), Some(at(SEEN[0])), "{what}");
        assert_eq!(world.talk_from(0, thief), None, "{what}");
        assert_eq!(world.talk(0), Some(at(SEEN[1])), "{what}");
    }
    assert_eq!(world.send(1, thief, &world.binding(0, 7, Sending::Relay)), [], "to the port of RTCP");
    assert_eq!(world.send(0, SEEN[0], &good).len(), 1, "repeated from its own address, it is answered again");
}

#[test]
fn handoff_messages_pass_unaltered_between_the_two_and_from_nobody_else() {
    let mut world = World::call();
    let key = Key::new("betweenTheEndpointsOnly22");
    let message = Indication::Keepalive.write(3, 17, "receiver", "sender", &key);
    assert_eq!(world.send(0, SEEN[0], &message), [(2, at(SEEN[1]), message.clone())]);
    assert_eq!(world.send(2, SEEN[1], &message), [(0, at(SEEN[0]), message.clone())]);
    assert_eq!(world.send(0, "192.0.2.66:6666", &message), [], "a stranger");
    assert_eq!(world.send(1, SEEN[0], &message), [], "the port of RTCP");
    let mut ordinary = World::new(Mode::Allow);
    ordinary.connect([true, false]);
    ordinary.talk(0);
    ordinary.talk(1);
    assert_eq!(ordinary.send(0, SEEN[0], &message), [], "to who does not know it");
}

#[test]
fn candidates_pass_as_far_as_they_may_be_the_endpoints_and_the_relay_adds_what_it_saw() {
    let mut world = World::call();
    let candidates = [
        "1 1 UDP 2130706431 192.168.20.10 4000 typ host",
        "2 1 UDP 2130706430 203.0.113.5 10002 typ host",
        "3 1 UDP 1694498815 192.0.2.200 53 typ srflx raddr 192.168.20.10 rport 4000",
        "4 1 TCP 1694498815 192.168.20.10 9 typ host tcptype active",
        "5 2 UDP 1694498815 192.168.20.10 4001 typ host",
        "6 1 UDP 1694498815 127.0.0.1 4001 typ host",
    ];
    let fragment = world.trickle(0, &candidates).unwrap();
    assert_eq!(addresses(&fragment), ["192.168.20.10:4000", SEEN[0]]);
    assert!(fragment.ended);
    let own = "2 1 UDP 1694498815 198.51.100.20 4321 typ srflx raddr 192.168.20.10 rport 4000";
    let fragment = world.trickle(0, &[candidates[0], own]).unwrap();
    assert_eq!(addresses(&fragment), ["192.168.20.10:4000", "198.51.100.20:4321"], "it is there already");
    assert!(fragment.candidates[1].related.is_some());
}

#[test]
fn what_passes_is_bounded_for_a_generation_and_for_a_minute_and_not_for_each_message() {
    let mut world = World::call();
    let mut passed = std::collections::HashSet::new();
    // More at a time than anybody needs.
    for message in 0..20_u32 {
        let lines: Vec<String> = (0..25)
            .map(|line| format!("1 1 UDP 2130706431 192.168.{message}.{line} 4000 typ host"))
            .collect();
        let lines: Vec<&str> = lines.iter().map(String::as_str).collect();
        passed.extend(addresses(&world.trickle(0, &lines).unwrap()));
    }
    // And what the relay has seen.
    assert!(passed.len() <= 33, "{}", passed.len());
    // One generation after the other: the first of the call, and twelve.
    let mut world = World::call();
    let (from, to) = (ENDS[0], ENDS[1]);
    let taken = (0..24).filter(|number| {
        let text = format!(
            "a=ice-ufrag:8hhYabc{number:04}\r\na=ice-pwd:asd88fgpdd777uzjYhagZg\r\nm=audio 9 RTP/AVP 0\r\n"
        );
        let reply = world.act(Action::Trickle { from, to, fragment: Bytes::from(text) });
        matches!(reply, Some(Reply::Fragment(Some(_))))
    });
    assert_eq!(taken.count(), 13);
}

#[test]
fn between_two_realms_local_addresses_stay_hidden() {
    let mut world = World::new(Mode::Allow);
    world.realms = [0, 1];
    world.connect([true, true]);
    world.talk(0);
    let own = "2 1 UDP 1694498815 198.51.100.20 4321 typ srflx raddr 192.168.20.10 rport 4000";
    let fragment = world.trickle(0, &["1 1 UDP 2130706431 192.168.20.10 4000 typ host", own]).unwrap();
    let expected = Candidate::read("a=candidate:2 1 UDP 1694498815 198.51.100.20 4321 typ srflx").unwrap();
    assert_eq!(fragment.candidates, [expected], "nor as a related address");
}

#[test]
fn the_path_is_known_by_what_both_say_and_by_the_packets_that_come_or_do_not() {
    let mut world = World::call();
    let mut events = world.wait(MS(980));
    for side in 0..2 {
        world.trickle(side, &[]).unwrap();
    }
    world.both_send(1, Sending::Both);
    events.extend(world.wait(MS(20)));
    world.talk(0);
    world.both_send(2, Sending::Direct);
    // Since its last packet, one second after the answer.
    events.extend(world.wait(MS(5000)));
    assert_eq!(
        states(&events),
        [PathState::Anchored, PathState::Probing, PathState::Synchronising, PathState::Direct]
    );
    // A comparison of one second: relayed again, but no return.
    for _ in 0..50 {
        world.talk(0);
        events.extend(world.wait(MS(20)));
    }
    events.extend(world.wait(MS(2000)));
    assert_eq!(states(&events).last(), Some(&PathState::Direct));
    world.talk(1);
    world.both_send(3, Sending::Relay);
    events.extend(world.wait(MS(500)));
    assert_eq!(states(&events).last(), Some(&PathState::Anchored));
    let direct = world.direct();
    assert!((MS(6950)..=MS(7050)).contains(&direct), "{direct:?}");
}

#[test]
fn one_direction_on_the_relay_keeps_the_call_relayed_and_so_does_talk_of_a_liar() {
    let mut world = World::call();
    let request = world.binding(0, 1, Sending::Direct);
    world.send(0, SEEN[0], &request);
    let mut events = Vec::new();
    for _ in 0..150 {
        world.talk(1);
        events.extend(world.wait(MS(20)));
    }
    assert_eq!(states(&events), [PathState::Anchored, PathState::Synchronising]);
    let request = world.binding(1, 1, Sending::Direct);
    world.send(2, SEEN[1], &request);
    for _ in 0..100 {
        world.talk(1);
        world.wait(MS(20));
    }
    assert!(world.direct() < MS(50), "what it says is one thing, its packets another");
}

/// Whom the timeline says that nothing, or the wrong thing, was heard of.
fn unsaid(events: &[Event]) -> Vec<(Side, bool)> {
    let unsaid = |event: &Event| match event {
        Event::Path(PathEntry { entry: Entry::Unsaid { party, contradicts }, .. }) => {
            Some((*party, *contradicts))
        }
        _ => None,
    };
    events.iter().filter_map(unsaid).collect()
}

#[test]
fn one_end_that_says_so_is_enough_and_what_the_other_says_is_noted() {
    for (other, contradicts) in [(None, false), (Some(Sending::Relay), true)] {
        let mut world = World::call();
        let mut events = Vec::new();
        let request = world.binding(0, 1, Sending::Direct);
        world.send(0, SEEN[0], &request);
        if let Some(sending) = other {
            let request = world.binding(1, 1, sending);
            world.send(2, SEEN[1], &request);
        }
        events.extend(world.wait(MS(20_000)));
        assert_eq!(states(&events), [PathState::Anchored, PathState::Synchronising, PathState::Direct]);
        assert_eq!(unsaid(&events), [(Side::Second, contradicts)]);
        // It comes home by the packets alone.
        for side in [0, 1].repeat(250) {
            world.talk(side);
            events.extend(world.wait(MS(10)));
        }
        let request = world.binding(0, 2, Sending::Relay);
        world.send(0, SEEN[0], &request);
        events.extend(world.wait(MS(1_500)));
        assert_eq!(states(&events).last(), Some(&PathState::Anchored));
        let direct = world.direct();
        assert!((MS(19_950)..=MS(20_050)).contains(&direct), "{direct:?}");
    }
}

#[test]
fn two_ends_that_never_tell_are_metered_by_what_their_reports_count() {
    for says_relay in [false, true] {
        let mut world = World::call();
        let mut events = Vec::new();
        if says_relay {
            world.both_send(1, Sending::Relay);
        }
        world.count(0, 1);
        world.count(1, 1);
        for second in 1..=4 {
            events.extend(world.wait(MS(5_000)));
            world.count(0, 1 + 250 * second);
        }
        events.extend(world.wait(MS(2_000)));
        world.sequence[0] += 1_100;
        assert_eq!(states(&events), [PathState::Anchored, PathState::Direct]);
        assert_eq!(unsaid(&events), Side::BOTH.map(|party| (party, says_relay)));
        for side in [0, 1].repeat(250) {
            world.talk(side);
            events.extend(world.wait(MS(10)));
        }
        assert_eq!(states(&events).last(), Some(&PathState::Anchored), "home by the packets alone");
        let Some(Reply::Deleted { direct, streams }) = world.act(Action::Delete) else { panic!() };
        assert!((MS(21_950)..=MS(22_050)).contains(&direct), "{direct:?}");
        assert!(streams.iter().all(|stream| stream.lost == 0), "{streams:?}");
        assert_eq!(streams[0].whole, None, "its receiver has said nothing");
    }
}

#[test]
fn a_call_that_is_silent_at_the_relay_is_relayed_however_its_ends_report() {
    let mut world = World::call();
    world.both_send(1, Sending::Relay);
    let mut events = Vec::new();
    for _ in 0..6 {
        for side in 0..2 {
            world.count(side, 1);
        }
        events.extend(world.wait(MS(5_000)));
    }
    assert_eq!((states(&events), unsaid(&events)), (vec![PathState::Anchored], Vec::new()));
    assert_eq!(world.direct(), Duration::ZERO);
}

#[test]
fn a_direct_call_is_inactive_only_when_nobody_keeps_the_relay_warm() {
    let mut world = World::call();
    world.both_send(1, Sending::Direct);
    for sequence in 2..10 {
        let events = world.wait(Duration::from_secs(15));
        assert!(!events.contains(&Event::Inactive));
        world.both_send(sequence, Sending::Direct);
    }
    let events = world.wait(Duration::from_secs(59));
    assert!(!events.contains(&Event::Inactive));
    let events = world.wait(Duration::from_secs(3));
    assert!(events.contains(&Event::Inactive));
}

/// Re-INVITEs of ours: the wish, for whom, and what it says of policy.
fn wishes(events: &[Event]) -> Vec<(u32, Endpoint, Policy)> {
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

#[test]
fn who_showed_candidates_in_a_moment_of_policy_that_nobody_was_told_of_is_asked_for_them_again() {
    let mut world = World::call();
    world.wait(MS(1000));
    world.act(Action::Constrain(Constraint::MustAnchor));
    assert_eq!(world.trickle(1, &[]), None);
    world.act(Action::Constrain(Constraint::MayRelease));
    let asked = wishes(&world.wait(MS(100)));
    assert_eq!(asked.iter().map(|one| (one.1, one.2)).collect::<Vec<_>>(), [(ENDS[1], Policy::Direct)]);
    // It is busy with an offer of its own, and is asked again.
    let answer = |wish, outcome| Action::Renegotiated { wish, endpoint: ENDS[1], outcome };
    world.act(answer(asked[0].0, Renegotiated::Superseded));
    let again = wishes(&world.wait(MS(300)));
    assert_eq!(again.iter().map(|one| one.1).collect::<Vec<_>>(), [ENDS[1]]);
    world.act(answer(again[0].0, Renegotiated::Accepted(World::sdp(1, true).into())));
    assert!(world.trickle(1, &[]).is_some());
    assert_eq!(wishes(&world.wait(MS(3000))), []);
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
            let mut packet = vec![0x80, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 7];
            packet[2..4].copy_from_slice(&world.sequence[0].to_be_bytes());
            packet.extend([0xff; 160]);
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

#[test]
fn a_call_without_video_shows_no_candidates_where_policy_lets_only_video_go() {
    let mut world = World::new(Mode::Video);
    world.connect([true, true]);
    world.talk(0);
    assert_eq!(world.trickle(0, &["1 1 UDP 2130706431 192.168.20.10 4000 typ host"]), None);
    world.act(Action::Constrain(Constraint::MayRelease));
    assert!(world.trickle(0, &["1 1 UDP 2130706431 192.168.20.10 4000 typ host"]).is_some());
}

/// A line that a hostile endpoint may write, with an address that must not pass.
fn hostile_line() -> impl Strategy<Value = String> {
    let address = prop_oneof![Just("203.0.113.5"), Just("192.0.2.200"), Just("127.0.0.1"), Just("0.0.0.0")];
    let form = prop_oneof![
        Just("a=candidate:1 1 UDP 5 {} 53 typ srflx"),
        Just("a=candidate:1 1 UDP 5 192.168.20.10 53 typ srflx raddr {} rport 9"),
        Just("a=candidate:1 2 UDP 5 {} 53 typ host"),
        Just("a=candidate:1 1 TCP 5 {} 53 typ host tcptype passive"),
        Just("a=candidate:1 1 UDP 5 {} 53 typ relay raddr {} rport 9"),
        Just("a=remote-candidates:1 {} 53"),
        Just("c=IN IP4 {}"),
        Just("o=- 1 1 IN IP4 {}"),
        Just("a=candidate:1 1 udp 5 {}"),
        Just("a=x:{}"),
    ];
    prop_oneof![
        3 => (form, address).prop_map(|(form, address)| form.replace("{}", address)),
        1 => "[ -~]{0,40}".prop_filter("without digits of addresses", |text| !text.contains('.')),
    ]
}

proptest! {
    #[test]
    fn whatever_a_fragment_holds_no_address_passes_that_is_not_the_endpoints(
        lines in proptest::collection::vec(hostile_line(), 0..40)
    ) {
        let mut world = World::call();
        let body = lines.join("\r\n");
        let text = format!("a=ice-ufrag:8hhYabcd\r\na=ice-pwd:asd88fgpdd777uzjYhagZg\r\nm=audio 9 RTP/AVP 0\r\n{body}");
        let (from, to) = (ENDS[0], ENDS[1]);
        let reply = world.act(Action::Trickle { from, to, fragment: Bytes::from(text) });
        if let Some(Reply::Fragment(Some(fragment))) = reply {
            let text = String::from_utf8(fragment.to_vec()).unwrap();
            for hidden in ["203.0.113.5", "192.0.2.200", "127.0.0.1", "0.0.0.0"] {
                prop_assert!(!text.contains(hidden), "{text}");
            }
        }
    }

    #[test]
    fn no_stun_that_is_not_signed_moves_media_or_is_reflected_larger_than_twice(
        bytes in proptest::collection::vec(any::<u8>(), 0..200), kind in 0u16..0x0400
    ) {
        let mut world = World::call();
        let mut packet = kind.to_be_bytes().to_vec();
        packet.extend((bytes.len() as u16).to_be_bytes());
        packet.extend([0x21, 0x12, 0xa4, 0x42]);
        packet.extend([7; 12]);
        packet.extend(&bytes);
        let stranger = "192.0.2.66:6666";
        for sent in world.send(0, stranger, &packet) {
            prop_assert_eq!(sent.1, at(stranger));
            prop_assert!(sent.2.len() <= 2 * packet.len());
        }
        prop_assert_eq!(world.talk(1), Some(at(SEEN[0])));
        prop_assert_eq!(world.talk_from(0, stranger), None);
    }
}

#[test]
fn an_endpoint_is_told_the_pace_that_the_operator_of_its_own_realm_has_said() {
    for (realms, said) in [([0, 1], [None, Some(Temper::Fast)]), ([1, 1], [Some(Temper::Fast); 2])] {
        let mut world = World::new(Mode::Allow);
        world.realms = realms;
        world.connect([true, true]);
        let told = world.told.each_ref().map(|told| told.as_ref().unwrap().temper);
        assert_eq!(told, said, "{realms:?}");
    }
}
