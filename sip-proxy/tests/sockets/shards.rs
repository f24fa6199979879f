//! Two shards on one set of addresses: wherever a message arrives, its call's home gets it.

use std::net::{SocketAddr, TcpListener};
use std::time::Duration;

use sip_engine::config::Authentication;
use sip_engine::digest::{Algorithm, Ha1};
use sip_engine::io::Transport;
use sip_proxy::counters::{Count, ShardCounters};

use crate::datagrams::call;
use crate::node::{ACCESS, CORE, Node, Setup, address, realm};
use crate::peer::{SDP, Stream, Udp, header, in_dialog, response, status};
use crate::streams::register;

/// Enough calls, connections or phones that none of two shards is left out but once in a million times.
const MANY: usize = 20;

struct Place {
    node: Node,
    access: SocketAddr,
    core: SocketAddr,
    far: SocketAddr,
}

fn place(transport: Transport) -> Place {
    let [access, core, far] = [(); 3].map(|()| SocketAddr::new(address(), 5060));
    let mut setup = Setup::new(&far.ip().to_string(), Some(5060), Some(transport))
        .listen(ACCESS, Transport::Udp, access)
        .listen(ACCESS, Transport::Tcp, access)
        .listen(CORE, Transport::Udp, core)
        .listen(CORE, Transport::Tcp, core);
    setup.adjust = |settings| settings.shards = 2;
    setup.policy.aors = vec!["bob@example.net".into()];
    setup.policy.sources = vec![far.ip()];
    Place { node: setup.start(), access, core, far }
}

impl Place {
    fn each(&self, pick: fn(&ShardCounters) -> &Count) -> Vec<u64> {
        self.node.plane.counters().iter().map(|shard| pick(shard).get()).collect()
    }
}

#[test]
fn calls_of_many_phones_to_one_trunk_run_on_both_shards() {
    let place = place(Transport::Udp);
    let trunk = Udp::at(place.far, place.core);
    for _ in 0..MANY {
        call(&Udp::new(address(), place.access), &trunk);
    }
    assert_eq!(place.node.ended(), MANY);
    place.node.until_count("nothing left", |shard| &shard.held.calls, 0);
    assert!(place.each(|shard| &shard.received).iter().all(|received| *received > 0));
    assert!(place.each(|shard| &shard.held.transactions).iter().all(|transactions| *transactions > 0));
    // The trunk is one 4-tuple: one shard reads all that it sends, and hands over what is the other's.
    assert!(place.node.count(|shard| &shard.forwarded) > 0);
    assert_eq!(place.node.count(|shard| &shard.dropped.inbox_full), 0);
}

#[test]
fn a_bye_from_the_trunk_over_any_connection_finds_the_call_and_its_answer_the_way_back() {
    let place = place(Transport::Tcp);
    let listening = TcpListener::bind(place.far).unwrap();
    listening.set_nonblocking(true).unwrap();
    let mut trunks: Vec<Stream<_>> = Vec::new();
    // A connection of the trunk's own, which belongs to one of the shards.
    let mut own = Stream::connect(place.far.ip(), place.core);
    for _ in 0..MANY {
        let phone = Udp::new(address(), place.access);
        let invite = phone.request("INVITE", "sip:+4930123@example.net", SDP);
        phone.send(&invite);
        // Each shard opens one connection to the trunk.
        let outgoing = loop {
            if let Ok((stream, _)) = listening.accept() {
                stream.set_nonblocking(false).unwrap();
                trunks.push(Stream::accepted(stream));
            }
            let waiting = trunks.iter_mut().position(|trunk| trunk.has_message());
            if let Some(index) = waiting {
                let outgoing = trunks[index].expect();
                let answer = response(&outgoing, 200, place.far, SDP);
                trunks[index].send(answer);
                let phone_answer = phone.expect();
                assert_eq!(status(&phone_answer), 200);
                phone.send(&in_dialog("ACK", &invite, &phone_answer));
                assert!(trunks[index].expect().starts_with("ACK "));
                break outgoing;
            }
        };
        own.send(bye_of_callee(&outgoing, own.local));
        let bye = phone.expect();
        assert!(bye.starts_with("BYE "), "{bye}");
        phone.send(&response(&bye, 200, phone.local, ""));
        assert_eq!(status(&own.expect()), 200);
    }
    assert_eq!(trunks.len(), 2);
    assert_eq!(place.node.ended(), MANY);
}

/// A BYE from who got `invite` and answered it with the tag `callee`.
fn bye_of_callee(invite: &str, local: SocketAddr) -> String {
    let uri = header(invite, "Contact").trim_start_matches('<').split('>').next().unwrap();
    format!(
        "BYE {uri} SIP/2.0\r\nVia: SIP/2.0/TCP {local};branch=z9hG4bK{}\r\nMax-Forwards: 70\r\n\
         From: {};tag=callee\r\nTo: {}\r\nCall-ID: {}\r\nCSeq: 1 BYE\r\nContent-Length: 0\r\n\r\n",
        header(invite, "Call-ID").len() + invite.len(),
        header(invite, "To"),
        header(invite, "From"),
        header(invite, "Call-ID"),
    )
    .replace("z9hG4bK", &format!("z9hG4bK{}", header(invite, "Call-ID")))
}

#[test]
fn a_registered_phone_is_reached_from_both_shards_over_its_one_connection() {
    let place = place(Transport::Udp);
    let mut bob = Stream::connect(address(), place.access);
    register(&mut bob, "bob");
    place.node.until_count("one binding, and its replica not counted", |shard| &shard.held.bindings, 1);
    for _ in 0..MANY {
        let caller = Udp::new(address(), place.access);
        caller.send(&caller.request("INVITE", "sip:bob@example.net", SDP));
        let outgoing = bob.expect();
        assert!(outgoing.starts_with("INVITE sip:bob@"), "{outgoing}");
        let answer = response(&outgoing, 486, bob.local, "");
        bob.send(answer);
        assert!(bob.expect().starts_with("ACK "));
        assert_eq!(status(&caller.expect()), 486);
    }
    assert!(place.each(|shard| &shard.held.transactions).iter().all(|transactions| *transactions > 0));
    drop(bob);
    place.node.until_count("no binding left", |shard| &shard.held.bindings, 0);
    for _ in 0..MANY {
        let caller = Udp::new(address(), place.access);
        caller.send(&caller.request("INVITE", "sip:bob@example.net", SDP));
        assert_eq!(status(&caller.expect()), 480, "both shards have forgotten it");
    }
}

#[test]
fn an_invite_that_replaces_a_call_of_the_other_shard_names_it_as_the_trunk_knows_it() {
    let place = place(Transport::Udp);
    let trunk = Udp::at(place.far, place.core);
    let alice = Udp::new(address(), place.access);
    let invite = alice.request("INVITE", "sip:+4930123@example.net", SDP);
    alice.send(&invite);
    let outgoing = trunk.expect();
    trunk.send(&response(&outgoing, 200, trunk.local, SDP));
    let answer = alice.expect();
    alice.send(&in_dialog("ACK", &invite, &answer));
    assert!(trunk.expect().starts_with("ACK "));
    let tag = |value: &str| value.split(";tag=").nth(1).unwrap().to_owned();
    let replaces = format!(
        "Replaces: {};to-tag={};from-tag={}\r\n",
        header(&invite, "Call-ID"),
        tag(header(&answer, "To")),
        tag(header(&invite, "From"))
    );
    let expected =
        format!("{};to-tag=callee;from-tag={}", header(&outgoing, "Call-ID"), tag(header(&outgoing, "From")));
    for _ in 0..MANY {
        let carol = Udp::new(address(), place.access);
        let joining = carol.request("INVITE", "sip:+4930123@example.net", SDP);
        carol.send(&joining.replace("Content-Type", &format!("{replaces}Content-Type")));
        let outgoing = trunk.expect();
        assert_eq!(header(&outgoing, "Replaces"), expected);
        trunk.send(&response(&outgoing, 486, trunk.local, ""));
        assert!(trunk.expect().starts_with("ACK "));
        assert_eq!(status(&carol.expect()), 486);
    }
}

/// A MESSAGE with the answer to a nonce, counted.
fn authorised(phone: &Udp, nonce: &str, count: usize) -> String {
    // The hash of three texts with colons between them, whatever they are.
    let hash = |one: &str, two: &str, three: &str| Ha1::of(Algorithm::Md5, one, two, three).value.to_string();
    let secret = hash("alice", "example.net", "secret");
    let counted = format!("{nonce}:{count:08x}:c:auth");
    let response = hash(&secret, &counted, &hash("MESSAGE", "sip", "bob@example.net"));
    let credentials = format!(
        "Proxy-Authorization: Digest username=\"alice\", realm=\"example.net\", nonce=\"{nonce}\", \
         uri=\"sip:bob@example.net\", qop=auth, nc={count:08x}, cnonce=\"c\", response=\"{response}\"\r\n"
    );
    phone.request("MESSAGE", "sip:bob@example.net", "").replace("Contact:", &format!("{credentials}Contact:"))
}

#[test]
fn a_nonce_is_good_in_both_shards_and_each_of_its_counts_once_in_all() {
    let [access, far] = [(); 2].map(|()| SocketAddr::new(address(), 5060));
    let mut setup = Setup::new(&far.ip().to_string(), Some(5060), Some(Transport::Udp)).listen(
        ACCESS,
        Transport::Udp,
        access,
    );
    setup.realms = vec![realm(ACCESS, Authentication::Digest), realm(CORE, Authentication::KnownSource)];
    setup.adjust = |settings| settings.shards = 2;
    setup.policy.aors = vec!["alice@example.net".into(), "bob@example.net".into()];
    let _node = setup.start();
    let phone = Udp::new(address(), access);
    phone.send(&phone.request("MESSAGE", "sip:bob@example.net", ""));
    let challenge = phone.expect();
    assert_eq!(status(&challenge), 407);
    let nonce = challenge.split("nonce=\"").nth(1).unwrap().split('"').next().unwrap();
    for count in 1..=2 * MANY {
        phone.send(&authorised(&phone, nonce, count));
        assert_eq!(
            status(&phone.expect()),
            480,
            "bob is not there, and alice need not show her password again"
        );
    }
    for count in 1..=2 * MANY {
        phone.send(&authorised(&phone, nonce, count));
        let answer = phone.expect();
        assert_eq!(status(&answer), 407, "used before, perhaps in the other shard");
        assert!(answer.contains("stale=true"));
    }
}

#[test]
fn a_second_program_on_the_same_address_is_refused_though_shards_share_theirs() {
    let place = place(Transport::Udp);
    let other = std::net::UdpSocket::bind(place.access);
    assert!(other.is_err());
    let setup = Setup::new("127.0.0.1", None, None).listen(ACCESS, Transport::Udp, place.access);
    let failed = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        Setup { adjust: |settings| settings.shards = 2, ..setup }.start()
    }));
    assert!(failed.is_err());
    let phone = Udp::new(address(), place.access);
    assert_eq!(phone.within(Duration::from_secs(1)).ping(), 200);
}
