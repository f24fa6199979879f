//! The relay over real sockets of the loopback.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

use std::mem::MaybeUninit;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use media_relay::{Address, Event, RealmMedia, Relay, RelaySettings, Unavailable, steering_works};
use play::settings::media::{ENDS, party};
use seam::{Action, Endpoint, ExchangeId, Refusal, Reply, Request, SessionId};
use socket2::{MaybeUninitSlice, MsgHdrMut, SockRef};

const A: Endpoint = ENDS[0];
const B: Endpoint = ENDS[1];

struct World {
    local: IpAddr,
    relay: Relay,
    events: Receiver<Event>,
}

/// Two ends of a call, and the relay's port towards the first.
struct Call {
    caller: UdpSocket,
    answerer: UdpSocket,
    relay: SocketAddr,
}

impl World {
    /// `None` (and it says so) where ports can't be steered.
    fn new(local: &str, first: u16, last: u16, steering: bool) -> Option<Self> {
        Self::with(1, local, (first, last), steering)
    }

    fn with(workers: usize, local: &str, (first, last): (u16, u16), steering: bool) -> Option<Self> {
        let local = local.parse().unwrap();
        let realm = RealmMedia {
            addresses: vec![Address { bind: local, advertised: local }],
            ports: first..=last,
            dscp: 46,
        };
        let (tell, events) = channel();
        let peers = martian::Realm { is_loopback: true, has_local_peers: true };
        let settings = RelaySettings {
            workers,
            realms: vec![realm],
            sessions: media_core::worker::Settings {
                addresses: martian::Rules::new(martian::Own::default(), vec![peers]).into(),
                ..Default::default()
            },
            cname: "anchor".to_owned(),
            steering,
            vitals: Default::default(),
        };
        let relay = Relay::start(&settings, move |event| drop(tell.send(event))).unwrap();
        if relay.is_steered() != steering {
            match steering_works(&settings.realms) {
                Err(reason @ (Unavailable::NotBuilt | Unavailable::Load(_) | Unavailable::Program(_))) => {
                    eprintln!("SKIPPED with steered ports: {reason}");
                    return None;
                }
                other => panic!("ports should be steered here: {other:?}"),
            }
        }
        Some(Self { local, relay, events })
    }

    fn reply(&self) -> Reply {
        match self.events.recv_timeout(Duration::from_secs(10)).unwrap() {
            Event::Reply(replied) => replied.reply,
            other => panic!("{other:?}"),
        }
    }

    fn ask(&self, session: u64, number: u32, action: Action) -> Reply {
        self.relay.handle(Request { session: SessionId(session), number, action });
        self.reply()
    }

    fn call(&self, session: u64) -> Result<Call, Refusal> {
        let end = || {
            let socket = UdpSocket::bind((self.local, 0)).unwrap();
            socket.set_nonblocking(true).unwrap();
            socket
        };
        let (caller, answerer) = (end(), end());
        let sdp = |socket: &UdpSocket| {
            let port = socket.local_addr().unwrap().port();
            let at = format!("IN {} {}", if self.local.is_ipv4() { "IP4" } else { "IP6" }, self.local);
            bytes(&format!("v=0\r\no=- 1 1 {at}\r\ns=-\r\nc={at}\r\nt=0 0\r\nm=audio {port} RTP/AVP 0\r\n"))
        };
        let party = |socket: &UdpSocket| party(0, socket.local_addr().unwrap());
        let (exchange, from_party, to_party) = (ExchangeId(1), party(&caller), party(&answerer));
        let offer = Action::Offer { exchange, from: A, to: B, from_party, to_party, sdp: sdp(&caller) };
        let Reply::Description(offered) = self.ask(session, 1, offer) else { panic!() };
        offered?;
        let (from_party, sdp) = (party(&answerer), sdp(&answerer));
        let answer = Action::Answer { exchange, from: B, to: A, from_party, sdp };
        let Reply::Description(Ok(described)) = self.ask(session, 2, answer) else { panic!() };
        let text = String::from_utf8(described.sdp.to_vec()).unwrap();
        let port = text.split_once("m=audio ").unwrap().1.split(' ').next().unwrap();
        Ok(Call { caller, answerer, relay: SocketAddr::new(self.local, port.parse().unwrap()) })
    }
}

fn bytes(text: &str) -> bytes::Bytes {
    bytes::Bytes::copy_from_slice(text.as_bytes())
}

fn rtp(sequence: u16) -> [u8; 172] {
    let mut packet = [0xd5; 172];
    packet[..12].copy_from_slice(&[0x80, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 7]);
    packet[2..4].copy_from_slice(&sequence.to_be_bytes());
    packet
}

/// Packets that wait at the answerers.
fn drain(calls: &[Call]) -> usize {
    let mut buffer = [0; 256];
    calls.iter().map(|call| std::iter::from_fn(|| call.answerer.recv(&mut buffer).ok()).count()).sum()
}

/// What follows is true whether each port has a socket, or all of them share one.
fn each_way(local: &str, first: u16, last: u16, check: impl Fn(World)) {
    for steering in [false, true] {
        World::new(local, first, last, steering).into_iter().for_each(&check);
    }
}

/// Sends a packet from the caller every millisecond, to one call after the other: how many came out at the answerers.
fn at_a_thousand_a_second(calls: &[Call], packets: usize) -> usize {
    let (mut received, mut due) = (0, Instant::now());
    for number in 0..packets {
        let call = &calls[number % calls.len()];
        call.caller.send_to(&rtp((number / calls.len()) as u16), call.relay).unwrap();
        due += Duration::from_millis(1);
        std::thread::sleep(due.saturating_duration_since(Instant::now()));
        received += drain(calls);
    }
    let patience = Instant::now() + Duration::from_secs(5);
    while received < packets && Instant::now() < patience {
        std::thread::sleep(Duration::from_millis(1));
        received += drain(calls);
    }
    received
}

#[test]
fn packets_come_out_as_they_went_in() {
    for local in ["127.0.0.1", "::1"] {
        each_way(local, 42_400, 42_499, |world| {
            let call = world.call(1).unwrap();
            for length in [12, 13, 172, 1400, 2048] {
                let mut packet = vec![0x5a; length];
                packet[..12].copy_from_slice(&rtp(length as u16)[..12]);
                call.caller.send_to(&packet, call.relay).unwrap();
                call.answerer.set_nonblocking(false).unwrap();
                call.answerer.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
                let mut buffer = [0; 4096];
                let (count, from) = call.answerer.recv_from(&mut buffer).unwrap();
                assert_eq!(buffer[..count], packet[..]);
                assert!((42_400..=42_499).contains(&from.port()), "it comes from a media port: {from}");
            }
        });
    }
}

/// The traffic class of the next packet, as its receiver sees it.
fn traffic_class(socket: &UdpSocket) -> u8 {
    let socket = SockRef::from(socket);
    let (mut data, mut control) = ([MaybeUninit::zeroed(); 2048], [MaybeUninit::zeroed(); 64]);
    let mut buffers = [MaybeUninitSlice::new(&mut data)];
    let mut message = MsgHdrMut::new().with_buffers(&mut buffers).with_control(&mut control);
    socket.recvmsg(&mut message, 0).unwrap();
    assert!(message.control_len() > 16, "the kernel said nothing of it");
    // Behind the header of the control message; its low byte, or all of it.
    // SAFETY: zeroed above.
    #[allow(unsafe_code, reason = "socket2 hands out what it may not have written")]
    unsafe {
        control[16].assume_init()
    }
}

#[test]
fn media_is_marked_for_the_routers() {
    for local in ["127.0.0.1", "::1"] {
        each_way(local, 42_700, 42_799, |world| {
            let call = world.call(1).unwrap();
            call.answerer.set_nonblocking(false).unwrap();
            call.answerer.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
            let answerer = SockRef::from(&call.answerer);
            match world.local {
                IpAddr::V4(_) => answerer.set_recv_tos_v4(true).unwrap(),
                IpAddr::V6(_) => answerer.set_recv_tclass_v6(true).unwrap(),
            }
            call.caller.send_to(&rtp(1), call.relay).unwrap();
            assert_eq!(traffic_class(&call.answerer), 46 << 2);
        });
    }
}

#[test]
fn a_port_of_another_program_stays_its_own() {
    each_way("127.0.0.1", 42_500, 42_503, |world| {
        let other = UdpSocket::bind("127.0.0.1:42501").unwrap();
        let end = UdpSocket::bind("127.0.0.1:0").unwrap();
        assert_eq!(world.call(1).err(), Some(Refusal::NoPorts), "one of the two pairs is not whole");
        end.send_to(b"for the other", "127.0.0.1:42501").unwrap();
        let mut buffer = [0; 64];
        other.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
        assert_eq!(other.recv(&mut buffer).unwrap(), 13);
    });
}

#[test]
fn a_flood_at_one_port_costs_the_other_calls_nothing() {
    each_way("127.0.0.1", 42_600, 42_699, |world| {
        let (flooded, calls) = (world.call(0).unwrap(), [world.call(1).unwrap(), world.call(2).unwrap()]);
        let is_over = AtomicBool::new(false);
        let received = std::thread::scope(|scope| {
            scope.spawn(|| {
                while !is_over.load(Ordering::Relaxed) {
                    let _ = flooded.caller.send_to(&rtp(1), flooded.relay);
                }
            });
            let received = at_a_thousand_a_second(&calls, 2000);
            is_over.store(true, Ordering::Relaxed);
            received
        });
        assert_eq!(received, 2000);
    });
}

#[test]
fn after_three_seconds_far_beyond_its_maximum_a_relay_loses_nothing_at_ten_thousand_a_second() {
    each_way("127.0.0.1", 42_000, 42_199, |world| {
        let calls: Vec<Call> = (0..40).map(|session| world.call(session).unwrap()).collect();
        let end = Instant::now() + Duration::from_secs(3);
        let mut sequence = 0u16;
        // Two senders against one worker, and nobody reads what comes out.
        std::thread::scope(|scope| {
            for half in calls.chunks(20) {
                scope.spawn(move || {
                    let mut sequence = 0u16;
                    while Instant::now() < end {
                        sequence = sequence.wrapping_add(1);
                        for call in half {
                            let _ = call.caller.send_to(&rtp(sequence), call.relay);
                        }
                    }
                });
            }
        });
        std::thread::sleep(Duration::from_millis(500));
        drain(&calls);
        let (start, mut sent, mut received) = (Instant::now(), 0usize, 0usize);
        while sent < 10_000 {
            let due = (start.elapsed().as_micros() / 100) as usize;
            while sent < due.min(10_000) {
                sequence = sequence.wrapping_add(1);
                let call = &calls[sent % calls.len()];
                call.caller.send_to(&rtp(sequence), call.relay).unwrap();
                sent += 1;
            }
            received += drain(&calls);
            std::thread::sleep(Duration::from_millis(1));
        }
        let patience = Instant::now() + Duration::from_secs(5);
        while received < sent && Instant::now() < patience {
            received += drain(&calls);
        }
        assert_eq!(received, sent);
    });
}

impl World {
    fn delete(&self, session: u64) {
        assert!(matches!(self.ask(session, 3, Action::Delete), Reply::Deleted { .. }));
    }
}

/// The sequence numbers of what has come to a socket after a moment.
fn heard(socket: &UdpSocket) -> Vec<u16> {
    std::thread::sleep(Duration::from_millis(100));
    let mut buffer = [0; 256];
    let packets = std::iter::from_fn(|| socket.recv(&mut buffer).ok().map(|_| [buffer[2], buffer[3]]));
    packets.map(u16::from_be_bytes).collect()
}

/// A packet each way.
fn talk(call: &Call) {
    call.caller.send_to(&rtp(1), call.relay).unwrap();
    call.answerer.set_nonblocking(false).unwrap();
    call.answerer.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
    let (_, back) = call.answerer.recv_from(&mut [0; 256]).unwrap();
    call.answerer.send_to(&rtp(1), back).unwrap();
    assert_eq!(heard(&call.caller), [1]);
}

#[test]
fn no_call_is_refused_while_a_pair_rests_and_the_one_that_rested_longest_is_taken() {
    // Six pairs, two a call.
    each_way("127.0.0.1", 42_200, 42_211, |world| {
        let calls = [1, 2, 3].map(|session| world.call(session).unwrap());
        assert!(calls.iter().all(|call| call.relay.port() % 2 == 0));
        assert_eq!(world.call(4).err(), Some(Refusal::NoPorts), "all are in use");
        talk(&calls[0]);
        talk(&calls[1]);
        for session in [2, 1, 3] {
            world.delete(session);
        }
        let of = |call: &Call| (call.relay.port() - 42_200) / 4;
        assert_eq!(of(&world.call(5).unwrap()), 2, "nobody was heard there: it need not rest");
        assert_eq!(of(&world.call(6).unwrap()), 1, "it has rested longest");
        assert_eq!(of(&world.call(7).unwrap()), 0);
        assert_eq!(world.call(8).err(), Some(Refusal::NoPorts));
    });
}

#[test]
fn who_goes_on_sending_after_its_call_is_heard_in_none_after_it_at_its_port() {
    each_way("127.0.0.1", 42_210, 42_213, |world| {
        let old = world.call(1).unwrap();
        for sequence in 1..4 {
            old.caller.send_to(&rtp(sequence), old.relay).unwrap();
        }
        assert_eq!(heard(&old.answerer), [1, 2, 3]);
        world.delete(1);
        let mut sequence = 3;
        for session in 2..6 {
            // The parties are behind the same host.
            let new = world.call(session).unwrap();
            for _ in 0..5 {
                sequence += 1;
                old.caller.send_to(&rtp(sequence), old.relay).unwrap();
            }
            for end in [&new.answerer, &new.caller] {
                assert_eq!(heard(end), [0; 0], "it is over");
            }
            new.caller.send_to(&rtp(77), new.relay).unwrap();
            assert_eq!(heard(&new.answerer), [77]);
            world.delete(session);
        }
    });
}

/// A second.
const STRANGERS: u64 = 20_000;
/// At once.
const BURST: u64 = 50;

#[test]
fn strangers_at_a_port_in_use_cost_its_call_nothing() {
    for (local, other) in [("127.0.0.1", "127.0.0.2"), ("::1", "::1")] {
        // Where ports are not steered this is true as long as the worker reads as fast as they send.
        each_way(local, 42_220, 42_239, |world| {
            let calls = [world.call(1).unwrap()];
            let (call, is_over) = (&calls[0], AtomicBool::new(false));
            let stranger = UdpSocket::bind((other.parse::<IpAddr>().unwrap(), 0)).unwrap();
            let (received, strangers) = std::thread::scope(|scope| {
                let flood = scope.spawn(|| {
                    let (mut last, mut sent) = (Instant::now(), 0);
                    while !is_over.load(Ordering::Relaxed) {
                        let due = last.elapsed().as_micros() as u64 * STRANGERS / 1_000_000;
                        last = Instant::now();
                        // Who was kept from sending does not make up for it: that would be another, much faster flood.
                        for _ in 0..due.min(BURST) {
                            let _ = stranger.send_to(&rtp(9), call.relay);
                            sent += 1;
                        }
                        std::thread::sleep(Duration::from_micros(500));
                    }
                    sent
                });
                let received = at_a_thousand_a_second(&calls, 3000);
                is_over.store(true, Ordering::Relaxed);
                (received, flood.join().unwrap())
            });
            assert_eq!(received, 3000, "beside {strangers} of a stranger's");
            assert!(strangers > STRANGERS, "{strangers} are no flood");
        });
    }
}

#[test]
fn the_further_halves_of_a_call_that_is_led_back_live_where_the_first_one_does() {
    let world = World::with(3, "127.0.0.1", (46_000, 46_099), false).unwrap();
    let party = |port| party(0, SocketAddr::new(world.local, port));
    let offer = |session: u64, sdp: bytes::Bytes| {
        let (from_party, to_party) = (party(5060), party(5070));
        let exchange = ExchangeId(1);
        match world.ask(session, 1, Action::Offer { exchange, from: A, to: B, from_party, to_party, sdp }) {
            Reply::Description(Ok(described)) => described.sdp,
            other => panic!("{other:?}"),
        }
    };
    let sessions = |expected: [u64; 3]| {
        let end = Instant::now() + Duration::from_secs(10);
        loop {
            let seen: Vec<u64> = world.relay.counters().map(|worker| worker.snapshot().sessions).collect();
            if seen == expected || Instant::now() > end {
                return assert_eq!(seen, expected);
            }
            std::thread::sleep(Duration::from_millis(10));
        }
    };
    let plain = bytes(
        "v=0\r\no=- 1 1 IN IP4 127.0.0.1\r\ns=-\r\nc=IN IP4 127.0.0.1\r\nt=0 0\r\nm=audio 4000 RTP/AVP 0\r\n",
    );
    let mut led = offer(4, plain.clone());
    sessions([0, 1, 0]);
    // A chain: each half is offered what was written for the one before.
    for session in [12, 14, 15] {
        led = offer(session, led);
    }
    offer(6, plain);
    sessions([1, 4, 0]);
    for session in [12, 14, 15] {
        let counted = world.ask(session, 2, Action::Query);
        assert!(matches!(counted, Reply::Statistics(streams) if streams.len() == 2), "{session}");
        world.delete(session);
    }
    sessions([1, 1, 0]);
}
