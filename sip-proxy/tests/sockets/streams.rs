//! TCP: framing, keepalives, reuse, bounds, and where responses go.

use std::io::{ErrorKind, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};
use std::time::{Duration, Instant};

use sip_engine::io::Transport;

use crate::node::{ACCESS, CORE, Node, Setup, address};
use crate::peer::{PATIENCE, SDP, Stream, Udp, header, in_dialog, response, status, tcp};

/// A TCP listener for phones, and one towards a trunk on TCP.
struct Place {
    node: Node,
    access: SocketAddr,
    trunk: TcpListener,
}

fn place(setup: impl FnOnce(&mut Setup)) -> Place {
    let access = SocketAddr::new(address(), 5060);
    let core = SocketAddr::new(address(), 5060);
    let trunk = TcpListener::bind(SocketAddr::new(address(), 5060)).unwrap();
    let far = trunk.local_addr().unwrap();
    let mut new = Setup::new(&far.ip().to_string(), Some(far.port()), Some(Transport::Tcp))
        .listen(ACCESS, Transport::Tcp, access)
        .listen(CORE, Transport::Tcp, core);
    setup(&mut new);
    Place { node: new.start(), access, trunk }
}

impl Place {
    fn phone(&self) -> Stream<TcpStream> {
        Stream::connect(address(), self.access)
    }

    /// A connection from there that has been answered.
    fn served(&self, from: IpAddr) -> Stream<TcpStream> {
        let mut connection = Stream::connect(from, self.access);
        assert_eq!(options(&mut connection, self.access), 200);
        connection
    }
}

fn options<S: Read + Write>(phone: &mut Stream<S>, sbc: SocketAddr) -> u16 {
    let options = phone.request("OPTIONS", &format!("sip:{sbc}"), "");
    phone.send(options);
    status(&phone.expect())
}

#[test]
fn a_call_between_two_connections_uses_each_for_all_of_its_messages() {
    let place = place(|_| {});
    let mut phone = place.phone();
    let mut trunk: Option<Stream<_>> = None;
    for _ in 0..2 {
        let invite = phone.request("INVITE", "sip:+4930123@example.net", SDP);
        phone.send(&invite);
        // The second call comes over the connection of the first.
        let trunk = trunk.get_or_insert_with(|| Stream::accepted(place.trunk.accept().unwrap().0));
        let outgoing = trunk.expect();
        assert!(header(&outgoing, "Via").starts_with("SIP/2.0/TCP"), "{outgoing}");
        trunk.send(response(&outgoing, 200, trunk.local, SDP));
        let answer = phone.expect();
        phone.send(in_dialog("ACK", &invite, &answer));
        assert!(trunk.expect().starts_with("ACK "));
        phone.send(in_dialog("BYE", &invite, &answer));
        let bye = trunk.expect();
        trunk.send(response(&bye, 200, trunk.local, ""));
        assert_eq!(status(&phone.expect()), 200);
    }
    assert_eq!(place.node.count(|shard| &shard.streams.open), 2);
    drop((phone, trunk));
    place.node.until_count("no connection left", |shard| &shard.streams.open, 0);
}

#[test]
fn a_trunk_that_closed_its_connection_in_mid_call_is_called_again_for_the_bye() {
    let place = place(|_| {});
    let mut phone = place.phone();
    let invite = phone.request("INVITE", "sip:+4930123@example.net", SDP);
    phone.send(&invite);
    let mut trunk = Stream::accepted(place.trunk.accept().unwrap().0);
    let outgoing = trunk.expect();
    trunk.send(response(&outgoing, 200, place.trunk.local_addr().unwrap(), SDP));
    let answer = phone.expect();
    phone.send(in_dialog("ACK", &invite, &answer));
    assert!(trunk.expect().starts_with("ACK "));
    drop(trunk);
    place.node.until_count("the trunk's connection is gone", |shard| &shard.streams.open, 1);
    phone.send(in_dialog("BYE", &invite, &answer));
    let mut trunk = Stream::accepted(place.trunk.accept().unwrap().0);
    assert!(trunk.expect().starts_with("BYE "));
}

#[test]
fn a_response_whose_connection_is_gone_goes_to_the_port_of_the_via() {
    let place = place(|_| {});
    let from = address();
    let listening = TcpListener::bind(SocketAddr::new(from, 5060)).unwrap();
    let mut phone = Stream::connect(from, place.access);
    let invite = phone.request("INVITE", "sip:+4930123@example.net", SDP);
    // RFC 3261 §18.2.2: a new connection to the source address and the port of the sent-by.
    let invite = invite.replacen(&phone.local.to_string(), &SocketAddr::new(from, 5060).to_string(), 1);
    phone.send(&invite);
    let mut trunk = Stream::accepted(place.trunk.accept().unwrap().0);
    let outgoing = trunk.expect();
    assert_eq!(phone.receive().map_or(0, |trying| status(&trying)), 100);
    drop(phone);
    place.node.until_count("the phone's connection is gone", |shard| &shard.streams.open, 1);
    trunk.send(response(&outgoing, 486, trunk.local, ""));
    let mut phone = Stream::accepted(listening.accept().unwrap().0);
    assert_eq!(status(&phone.expect()), 486);
}

#[test]
fn a_trunk_that_refuses_connections_fails_the_call_at_once() {
    let place = place(|_| {});
    let mut phone = place.phone();
    drop(place.trunk);
    let begun = Instant::now();
    let invite = phone.request("INVITE", "sip:+4930123@example.net", SDP);
    phone.send(invite);
    assert_eq!(status(&phone.expect()), 503);
    assert!(begun.elapsed() < Duration::from_secs(2));
}

#[test]
fn a_ping_gets_its_pong_between_messages_however_the_stream_is_cut() {
    let place = place(|_| {});
    let mut phone = place.phone();
    let message = phone.request("OPTIONS", &format!("sip:{}", place.access), "");
    for byte in message.as_bytes() {
        phone.send([*byte]);
    }
    assert_eq!(status(&phone.expect()), 200);
    phone.send("\r\n\r\n");
    assert_eq!(phone.read().unwrap(), b"\r\n");
    let two = phone.request("OPTIONS", &format!("sip:{}", place.access), "");
    let three = phone.request("OPTIONS", &format!("sip:{}", place.access), "");
    phone.send(format!("{two}{three}"));
    assert_eq!([status(&phone.expect()), status(&phone.expect())], [200, 200]);
}

#[test]
fn who_says_nothing_and_who_never_ends_a_message_is_closed() {
    // The bound is 10 s; three connections wait for it together.
    let place = place(|_| {});
    let silent = tcp(address(), place.access);
    let mut pinging = tcp(address(), place.access);
    let mut slow = place.phone();
    let mut honest = place.served(address());
    assert_eq!(options(&mut slow, place.access), 200);
    let message = slow.request("OPTIONS", &format!("sip:{}", place.access), "");
    let begun = Instant::now();
    let mut bytes = message.bytes();
    let mut is_cut = false;
    while begun.elapsed() < Duration::from_secs(12) && !is_cut {
        let _ = pinging.write_all(b"\r\n\r\n");
        is_cut = slow.stream.write_all(&[bytes.next().unwrap()]).is_err();
        std::thread::sleep(Duration::from_millis(250));
    }
    place.node.until_count("one connection left", |shard| &shard.streams.open, 1);
    assert_eq!(place.node.count(|shard| &shard.streams.idle), 3);
    assert_eq!(options(&mut honest, place.access), 200, "silence between messages is no fault");
    drop(silent);
}

#[test]
fn a_silent_connection_is_closed_after_the_idle_time() {
    let place = place(|setup| setup.adjust = |settings| settings.idle = Duration::from_millis(300));
    let mut phone = place.served(address());
    assert!(phone.receive().is_none());
    assert_eq!(place.node.count(|shard| &shard.streams.idle), 1);
}

/// Whether the other side has ended a connection, or does so now.
fn is_closed(connection: &mut Stream<TcpStream>) -> bool {
    let mut octet = [0];
    connection.stream.set_read_timeout(Some(Duration::from_millis(300))).unwrap();
    let end = connection.stream.read(&mut octet);
    connection.stream.set_read_timeout(Some(PATIENCE)).unwrap();
    match end {
        Ok(length) => length == 0,
        Err(error) => !matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut),
    }
}

#[test]
fn of_strangers_who_holds_most_gives_its_oldest_connection_to_the_newcomer() {
    let place = place(|setup| {
        setup.adjust = |settings| {
            settings.connections_per_source = 3;
            settings.connections_unproven = 5;
        };
    });
    let (greedy, modest) = (address(), address());
    let mut held: Vec<_> = (0..4).map(|_| place.served(greedy)).collect();
    assert!(is_closed(&mut held[0]), "one source has its share");
    let mut first = [place.served(modest), place.served(modest)];
    let mut newcomer = place.served(address());
    assert!(is_closed(&mut held[1]), "three of one source, two of the other");
    assert!(!held.iter_mut().skip(2).chain(&mut first).any(is_closed));
    assert_eq!(options(&mut newcomer, place.access), 200);
    assert_eq!(place.node.count(|shard| &shard.streams.evicted), 2);
    assert_eq!(place.node.count(|shard| &shard.streams.open), 5);
}

#[test]
fn who_has_registered_and_trunks_keep_their_connections_however_many_strangers_come() {
    let from = address();
    let place = place(|setup| {
        setup.policy.aors = vec!["bob@example.net".into()];
        setup.policy.sources = vec![from];
        setup.adjust = |settings| {
            settings.connections_unproven = 3;
            settings.connections = 6;
            settings.unproven = Duration::from_secs(1);
        };
    });
    let mut trunk = place.served(from);
    let mut bob = place.phone();
    register(&mut bob, "bob");
    let begun = Instant::now();
    let mut strangers: Vec<_> = (0..20).map(|_| place.served(address())).collect();
    // Nor is there room for strangers only: a call still goes to the trunk, by a connection of our own.
    bob.send(bob.request("INVITE", "sip:+4930123@example.net", SDP));
    let mut far = Stream::accepted(place.trunk.accept().unwrap().0);
    assert!(far.expect().starts_with("INVITE "));
    std::thread::sleep(Duration::from_millis(1500).saturating_sub(begun.elapsed()));
    assert!(strangers.iter_mut().all(is_closed), "a second is all that a stranger gets");
    assert!(![&mut trunk, &mut bob].into_iter().any(|known| {
        known.stream.set_nonblocking(true).unwrap();
        let end = known.stream.peek(&mut [0]);
        known.stream.set_nonblocking(false).unwrap();
        matches!(end, Ok(0))
    }));
    assert_eq!(options(&mut trunk, place.access), 200);
    assert_eq!(place.node.count(|shard| &shard.streams.open), 3);
}

#[test]
fn what_a_stranger_goes_on_saying_keeps_no_connection_open() {
    let place = place(|setup| setup.adjust = |settings| settings.unproven = Duration::from_millis(800));
    let mut chatty = place.phone();
    let begun = Instant::now();
    let ask = chatty.request("OPTIONS", &format!("sip:{}", place.access), "");
    while chatty.stream.write_all(ask.as_bytes()).is_ok() && begun.elapsed() < PATIENCE {
        std::thread::sleep(Duration::from_millis(50));
    }
    assert!(begun.elapsed() < Duration::from_secs(2), "{:?}", begun.elapsed());
    assert_eq!(place.node.count(|shard| &shard.streams.idle), 1);
}

#[test]
fn connections_that_are_all_proven_leave_no_room_for_one_more() {
    let from = address();
    let place = place(|setup| {
        setup.policy.sources = vec![from];
        setup.adjust = |settings| {
            settings.connections = 2;
            settings.connections_unproven = 1;
        };
    });
    // One after the other: at the door there is room for one.
    let held = [(); 2].map(|()| place.served(from));
    let mut refused = place.phone();
    refused.send("\r\n\r\n");
    assert!(is_closed(&mut refused));
    assert_eq!(place.node.count(|shard| &shard.streams.refused), 1);
    drop(held);
    place.node.until_count("room again", |shard| &shard.streams.open, 0);
    assert_eq!(options(&mut place.phone(), place.access), 200);
}

#[test]
fn who_knocks_and_says_nothing_does_not_shut_the_door() {
    let place = place(|setup| setup.adjust = |settings| settings.connections_unproven = 50);
    // Each of them comes again when it is sent away.
    let (stop, sbc) = (std::sync::Arc::new(std::sync::atomic::AtomicBool::new(false)), place.access);
    let idlers: Vec<_> = (0..4)
        .map(|_| {
            let (from, stop) = (address(), stop.clone());
            std::thread::spawn(move || {
                let mut held = std::collections::VecDeque::new();
                while !stop.load(std::sync::atomic::Ordering::Relaxed) {
                    held.push_back(tcp(from, sbc));
                    if held.len() > 40 {
                        held.pop_front();
                    }
                }
            })
        })
        .collect();
    place.node.until("they are sent away", PATIENCE, |node| node.count(|shard| &shard.streams.evicted) > 200);
    for _ in 0..10 {
        let mut phone = place.phone();
        std::thread::sleep(Duration::from_millis(20));
        assert_eq!(options(&mut phone, place.access), 200);
    }
    stop.store(true, std::sync::atomic::Ordering::Relaxed);
    idlers.into_iter().for_each(|idler| idler.join().unwrap());
    assert_eq!(place.node.count(|shard| &shard.streams.refused), 0);
}

#[test]
fn a_peer_that_does_not_read_is_closed_and_others_are_served_meanwhile() {
    let place = place(|_| {});
    let mut deaf = place.phone();
    deaf.stream.set_write_timeout(Some(Duration::from_millis(100))).unwrap();
    socket2::SockRef::from(&deaf.stream).set_recv_buffer_size(4096).unwrap();
    let mut honest = place.phone();
    let begun = Instant::now();
    let uri = format!("sip:{}", place.access);
    let long = format!("X-Long: {}\r\n\r\n", "x".repeat(1000));
    loop {
        // Via is copied into the answer: what is asked for is larger than what any buffer on the way holds.
        let ask =
            deaf.request("OPTIONS", &uri, "").replace(";rport", &format!(";rport;x={}", "y".repeat(2000)));
        let ask = ask.replace("\r\n\r\n", &format!("\r\n{long}"));
        match deaf.stream.write_all(ask.as_bytes()) {
            Ok(()) => {}
            Err(error) if error.kind() == ErrorKind::WouldBlock => {}
            Err(_) => break,
        }
        if begun.elapsed() > Duration::from_secs(30) {
            panic!("still open");
        }
        if place.node.count(|shard| &shard.streams.stalled) == 1 {
            break;
        }
        assert_eq!(options(&mut honest, place.access), 200);
    }
    place.node.until("counted", PATIENCE, |node| {
        node.count(|shard| &shard.streams.stalled) == 1 && node.count(|shard| &shard.streams.open) == 1
    });
    assert_eq!(options(&mut honest, place.access), 200);
}

#[test]
fn a_broken_message_is_answered_and_its_connection_closed() {
    let place = place(|_| {});
    let mut phone = place.phone();
    let message = phone.request("OPTIONS", &format!("sip:{}", place.access), "");
    phone.send(message.replace("Content-Length: 0", "Content-Length: -1"));
    assert_eq!(status(&phone.expect()), 400);
    assert!(phone.receive().is_none());

    let mut large = place.phone();
    let message = large.request("OPTIONS", &format!("sip:{}", place.access), "");
    large.send(message.replace("Content-Length: 0", "Content-Length: 99999999"));
    assert_eq!(status(&large.expect()), 413);
    assert!(large.receive().is_none());

    let mut junk = place.phone();
    junk.send("GET / HTTP/1.1\r\nHost: x\r\n\r\n");
    assert!(junk.receive().is_none(), "what is no SIP gets no answer");
    place.node.until("nothing left", PATIENCE, |node| {
        node.count(|shard| &shard.streams.open) == 0 && node.count(|shard| &shard.dropped.refused) == 3
    });
}

#[test]
fn a_registered_phone_is_called_over_the_connection_it_registered_by() {
    let place = place(|setup| {
        setup.policy.aors = vec!["bob@example.net".into()];
        let udp = SocketAddr::new(setup.listeners[0].address.ip(), 5070);
        setup.open(ACCESS, Transport::Udp, udp);
    });
    let mut bob = place.phone();
    register(&mut bob, "bob");
    // Its Contact names a port at which nobody listens: the flow is what counts (RFC 5626 §5.3).
    let caller = Udp::new(address(), SocketAddr::new(place.access.ip(), 5070));
    caller.send(&caller.request("INVITE", "sip:bob@example.net", SDP));
    let outgoing = bob.expect();
    assert!(outgoing.starts_with("INVITE sip:bob@"), "{outgoing}");
    bob.send(response(&outgoing, 486, bob.local, ""));
    assert_eq!(status(&caller.expect()), 486);
    assert_eq!(place.node.count(|shard| &shard.held.bindings), 1);
    drop(bob);
    place.node.until_count("the binding went with its connection", |shard| &shard.held.bindings, 0);
    caller.send(&caller.request("INVITE", "sip:bob@example.net", SDP));
    // Its own ACK to the first refusal was never sent, so that may come once more.
    let mut answer = status(&caller.expect());
    if answer == 486 {
        answer = status(&caller.expect());
    }
    assert_eq!(answer, 480);
}

/// REGISTER with digest.
pub(crate) fn register<S: Read + Write>(phone: &mut Stream<S>, user: &str) {
    let challenged = phone.request("REGISTER", "sip:example.net", "");
    let challenged = challenged
        .replace("To: <sip:example.net>", &format!("To: <sip:{user}@example.net>"))
        .replace("sip:alice@example.net", &format!("sip:{user}@example.net"))
        .replace("sip:alice@", &format!("sip:{user}@"));
    // It is reached over this flow or not at all (RFC 5626 §4.3).
    let contact = challenged.find("Contact: <").and_then(|at| Some(at + challenged.get(at..)?.find('>')?));
    let challenged = match contact {
        Some(end) => format!("{};ob{}", &challenged[..end], &challenged[end..]),
        None => challenged,
    };
    phone.send(&challenged);
    let challenge = phone.expect();
    assert_eq!(status(&challenge), 401, "{challenge}");
    phone.send(authorized(&challenged, &challenge, user));
    let answer = phone.expect();
    assert_eq!(status(&answer), 200, "{answer}");
}

/// The request once more, with credentials.
pub(crate) fn authorized(request: &str, challenge: &str, user: &str) -> String {
    use sip_engine::ids::Ids;
    let parsed = sip_wire::Message::parse(challenge.to_owned().into()).unwrap();
    let method = request.split(' ').next().unwrap();
    let uri = request.split(' ').nth(1).unwrap();
    let (name, value) = sip_engine::digest::answer(
        &parsed,
        sip_wire::Method::new(method.as_bytes()),
        uri.as_bytes(),
        sip_engine::digest::Login { username: user, password: "secret" },
        &mut Ids::new([1; 32], 9),
    )
    .unwrap();
    let name = if name == sip_wire::Name::Authorization { "Authorization" } else { "Proxy-Authorization" };
    request
        .replace("CSeq: 1 ", "CSeq: 2 ")
        .replace("z9hG4bK", "z9hG4bKauth")
        .replace("Content-Length:", &format!("{name}: {value}\r\nContent-Length:"))
}
