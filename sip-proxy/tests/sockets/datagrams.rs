//! UDP: responses, keepalives, families, sizes.

use std::net::{SocketAddr, TcpListener};
use std::time::Duration;

use sip_engine::io::Transport;

use crate::node::{ACCESS, CORE, Node, Setup, address};
use crate::peer::{SDP, Stream, Udp, header, in_dialog, response, status};

/// Phones on one address, a trunk on another.
struct Place {
    node: Node,
    phone: Udp,
    trunk: Udp,
}

fn place(setup: impl FnOnce(&mut Setup)) -> Place {
    let (access, core, far) = (address(), address(), address());
    let (access, core) = (SocketAddr::new(access, 5060), SocketAddr::new(core, 5060));
    let far = SocketAddr::new(far, 5060);
    let mut new = Setup::new(&far.ip().to_string(), Some(5060), None)
        .listen(ACCESS, Transport::Udp, access)
        .listen(CORE, Transport::Udp, core);
    setup(&mut new);
    let node = new.start();
    Place { node, phone: Udp::new(address(), access), trunk: Udp::at(far, core) }
}

/// INVITE to BYE between the two. Returns what the trunk received as INVITE.
pub(crate) fn call(phone: &Udp, trunk: &Udp) -> String {
    let invite = phone.request("INVITE", "sip:+4930123@example.net", SDP);
    phone.send(&invite);
    let outgoing = trunk.expect();
    assert!(outgoing.starts_with("INVITE sip:+4930123@"), "{outgoing}");
    trunk.send(&response(&outgoing, 180, trunk.local, ""));
    assert_eq!(status(&phone.expect()), 180);
    trunk.send(&response(&outgoing, 200, trunk.local, SDP));
    let answer = phone.expect();
    assert_eq!(status(&answer), 200);
    phone.send(&in_dialog("ACK", &invite, &answer));
    assert!(trunk.expect().starts_with("ACK "));
    phone.send(&in_dialog("BYE", &invite, &answer));
    let bye = trunk.expect();
    assert!(bye.starts_with("BYE "), "{bye}");
    trunk.send(&response(&bye, 200, trunk.local, ""));
    assert_eq!(status(&phone.expect()), 200);
    outgoing
}

#[test]
fn a_call_runs_between_two_listeners_and_leaves_nothing() {
    let place = place(|_| {});
    call(&place.phone, &place.trunk);
    assert_eq!(place.node.ended(), 1);
    place.node.until_count("no call left", |shard| &shard.held.calls, 0);
}

#[test]
fn responses_follow_rport_and_without_it_the_port_of_the_via() {
    let place = place(|_| {});
    let phone = &place.phone;
    let with = phone.request("OPTIONS", &format!("sip:{}", phone.sbc), "");
    phone.send(&with);
    let answer = phone.receive().unwrap();
    let via = header(&answer, "Via");
    assert!(via.contains(&format!("rport={}", phone.local.port())), "{via}");

    // RFC 3261 §18.2.2: the source address, and the port that the Via names.
    let listening = Udp::new(phone.local.ip(), phone.sbc);
    let without = listening.request("OPTIONS", &format!("sip:{}", phone.sbc), "").replace(";rport", "");
    phone.send(&without);
    assert_eq!(status(&listening.receive().unwrap()), 200);

    // A Via of another address: a NAT stands between, and its port means nothing outside.
    let behind = with.replace(&phone.local.to_string(), "10.1.2.3:5060").replace(";rport", "");
    phone.send(&behind.replace("z9hG4bK", "z9hG4bKnat"));
    let answer = phone.receive().unwrap();
    assert!(header(&answer, "Via").contains(&format!("received={}", phone.local.ip())), "{answer}");
}

#[test]
fn keepalives_are_counted_and_stun_is_answered_with_the_address_seen() {
    use stun_types::attribute::XorMappedAddress;
    use stun_types::message::{BINDING, Message, MessageWriteVec};
    use stun_types::prelude::*;

    let place = place(|_| {});
    let phone = &place.phone;
    phone.send("\r\n\r\n");
    phone.send("\r\n");
    phone.send("\0");
    place
        .node
        .until("three keepalives", Duration::from_secs(2), |node| node.count(|shard| &shard.keepalives) == 3);
    let request = Message::builder_request(BINDING, MessageWriteVec::new());
    let id = request.transaction_id();
    phone.socket.send_to(&request.finish(), phone.sbc).unwrap();
    let mut answer = [0; 1500];
    let (length, _) = phone.socket.recv_from(&mut answer).unwrap();
    let answer = Message::from_bytes(&answer[..length]).unwrap();
    assert_eq!(answer.attribute::<XorMappedAddress>().unwrap().addr(id), phone.local);
    assert_eq!(place.node.count(|shard| &shard.dropped.refused), 0);
}

#[test]
fn listeners_of_both_families_serve_one_realm() {
    let ip = address();
    let four = SocketAddr::new(ip, 5060);
    let six: SocketAddr = format!("[::1]:{}", 20_000 + std::process::id() % 20_000).parse().unwrap();
    let node = Setup::new("127.0.0.1", None, None)
        .listen(ACCESS, Transport::Udp, four)
        .listen(ACCESS, Transport::Udp, SocketAddr::new(ip, 5070))
        .listen(ACCESS, Transport::Udp, six)
        .listen(ACCESS, Transport::Tcp, six)
        .start();
    for sbc in [four, SocketAddr::new(ip, 5070), six] {
        let phone = Udp::new(if sbc.is_ipv4() { address() } else { six.ip() }, sbc);
        assert_eq!(phone.ping(), 200, "{sbc}");
    }
    let mut phone = Stream::connect(six.ip(), six);
    let options = phone.request("OPTIONS", &format!("sip:{six}"), "");
    phone.send(options);
    assert_eq!(status(&phone.expect()), 200);
    drop(node);
}

#[test]
fn behind_a_one_to_one_nat_the_advertised_address_is_named_and_the_bound_one_never() {
    let place = place(|setup| {
        setup.listeners[1].advertised = "203.0.113.9:5060".parse().unwrap();
    });
    let outgoing = call(&place.phone, &place.trunk);
    assert!(header(&outgoing, "Via").contains("203.0.113.9:5060"), "{outgoing}");
    assert!(header(&outgoing, "Contact").contains("203.0.113.9:5060"), "{outgoing}");
    assert!(!outgoing.contains(&place.trunk.sbc.ip().to_string()), "{outgoing}");
}

/// An SDP that makes an INVITE greater than a datagram should be.
fn large() -> String {
    let line = format!("a=X-filler:{}\r\n", "x".repeat(80));
    format!("{SDP}{}", line.repeat(20))
}

#[test]
fn a_request_near_the_mtu_goes_over_tcp() {
    let place = place(|setup| {
        let core = setup.listeners[1].address;
        setup.open(CORE, Transport::Tcp, core);
    });
    let listening = TcpListener::bind(place.trunk.local).unwrap();
    place.phone.send(&place.phone.request("INVITE", "sip:+4930123@example.net", &large()));
    let (stream, _) = listening.accept().unwrap();
    let mut trunk = Stream::accepted(stream);
    let outgoing = trunk.expect();
    assert!(header(&outgoing, "Via").starts_with("SIP/2.0/TCP"), "{outgoing}");
    assert!(outgoing.contains("X-filler"));
    trunk.send(response(&outgoing, 486, place.trunk.local, ""));
    assert_eq!(status(&place.phone.expect()), 486);
}

#[test]
fn a_request_near_the_mtu_falls_back_to_udp_where_tcp_is_refused() {
    let place = place(|setup| {
        let core = setup.listeners[1].address;
        setup.open(CORE, Transport::Tcp, core);
    });
    place.phone.send(&place.phone.request("INVITE", "sip:+4930123@example.net", &large()));
    let outgoing = place.trunk.within(Duration::from_secs(2)).expect();
    assert!(header(&outgoing, "Via").starts_with("SIP/2.0/UDP"), "{outgoing}");
    place.trunk.send(&response(&outgoing, 486, place.trunk.local, ""));
    assert_eq!(status(&place.phone.expect()), 486);
}
