//! Requests to phones that are larger than a datagram's path: they arrive over the flow that was registered, at once, on an
//! Ethernet of 1,500 octets and behind a path of 1,492 that lets no ICMP out to tell of it.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test's own helpers")]

use std::net::{SocketAddr, UdpSocket};
use std::time::{Duration, Instant};

use crush_tests::process::run;
use crush_tests::sbc::{Sbc, open_core, phone_realm, subscribers};
use crush_tests::socket::udp;
use crush_tests::{Lab, Network, skip_unless_possible};
use sip_engine::digest::{Login, answer};
use sip_engine::ids::Ids;
use sip_wire::{Message, Method, Name};

/// Far below the four seconds in which a swallowed SYN would be waited for.
const AT_ONCE: Duration = Duration::from_secs(1);

fn receive(socket: &UdpSocket) -> Option<Message> {
    let mut buffer = vec![0; 65_535];
    let end = Instant::now() + Duration::from_secs(3);
    while Instant::now() < end {
        let Ok((length, _)) = socket.recv_from(&mut buffer) else { continue };
        // Keepalives are answered by nobody here.
        let message = Message::parse(buffer[..length].to_vec().into()).ok();
        if let Some(message) = message.filter(|message| message.method() != Some(Method::OPTIONS)) {
            return Some(message);
        }
    }
    None
}

/// Registers a phone with the password "secret".
fn register(phone: &UdpSocket, user: &str, contact: &str) {
    let domain = Network::Access.address(1);
    let sbc: SocketAddr = format!("{domain}:5060").parse().unwrap();
    let request = |cseq: u32, more: &str| {
        format!(
            "REGISTER sip:{domain} SIP/2.0\r\nVia: SIP/2.0/UDP {contact};branch=z9hG4bK-{user}{cseq};rport\r\nMax-Forwards: 70\r\n\
             From: <sip:{user}@{domain}>;tag=t\r\nTo: <sip:{user}@{domain}>\r\nCall-ID: register-{user}\r\nCSeq: {cseq} REGISTER\r\n\
             Contact: <sip:{user}@{contact}>\r\nExpires: 600\r\n{more}Content-Length: 0\r\n\r\n"
        )
    };
    phone.send_to(request(1, "").as_bytes(), sbc).unwrap();
    let challenge = receive(phone).expect("a challenge");
    let mut ids = Ids::new([1; 32], 1);
    let uri = format!("sip:{domain}");
    let (name, value) = answer(
        &challenge,
        Method::REGISTER,
        uri.as_bytes(),
        Login { username: user, password: "secret" },
        &mut ids,
    )
    .unwrap();
    phone.send_to(request(2, &format!("{}: {value}\r\n", name.as_str())).as_bytes(), sbc).unwrap();
    assert_eq!(receive(phone).and_then(|answer| answer.status()), Some(200));
}

/// An INVITE from the core, with a description of about this many octets.
fn invite(caller: &UdpSocket, user: &str, octets: usize) {
    let (own, core) = (caller.local_addr().unwrap(), Network::Core.address(1));
    let filler = "a=x-filler:................................................\r\n".repeat(octets / 60);
    let sdp = format!(
        "v=0\r\no=- 1 1 IN IP4 {0}\r\ns=-\r\nc=IN IP4 {0}\r\nt=0 0\r\nm=audio 4000 RTP/AVP 0\r\n{filler}",
        own.ip()
    );
    let invite = format!(
        "INVITE sip:{user}@{} SIP/2.0\r\nVia: SIP/2.0/UDP {own};branch=z9hG4bK-{user}{octets}\r\nMax-Forwards: 70\r\n\
         From: <sip:caller@{core}>;tag={user}{octets}\r\nTo: <sip:{user}@{core}>\r\nCall-ID: large-{octets}-{user}\r\nCSeq: 1 INVITE\r\n\
         Contact: <sip:caller@{own}>\r\nContent-Type: application/sdp\r\nContent-Length: {}\r\n\r\n{sdp}",
        Network::Access.address(1),
        sdp.len()
    );
    caller.send_to(invite.as_bytes(), format!("{core}:5060").parse::<SocketAddr>().unwrap()).unwrap();
}

#[test]
fn a_large_request_reaches_its_phone_in_fragments_over_the_flow_that_it_registered() {
    skip_unless_possible!("conntrack");
    let mut lab = Lab::new("large").unwrap();
    let plain = lab.host("plain", Network::Access, 31).unwrap();
    let narrow = lab.host_behind_nat("narrow", 32, Duration::from_secs(300)).unwrap();
    let core = lab.host("core", Network::Core, 33).unwrap();
    let router = lab.namespace("narrow-nat");
    run(&["ip", "-n", &router, "link", "set", "lan", "mtu", "1492"]).unwrap();
    run(&["ip", "-n", &lab.namespace("narrow"), "link", "set", "eth0", "mtu", "1492"]).unwrap();
    let silence =
        "table ip silence { chain out { type filter hook output priority 0; ip protocol icmp drop; }; }";
    run(&["ip", "netns", "exec", &router, "nft", silence]).unwrap();
    let realms = phone_realm("access", &Network::Access.address(1), [5060, 5061], "") + "\n" + &open_core();
    let users = subscribers(&[("plain", Network::Access), ("narrow", Network::Access)]);
    let _sbc = Sbc::start(&lab, &realms, &users).unwrap();
    let caller = udp(&lab, "core", &format!("{core}:5060")).unwrap();
    for (user, address) in [("plain", plain), ("narrow", narrow)] {
        let phone = udp(&lab, user, &format!("{address}:5060")).unwrap();
        register(&phone, user, &format!("{address}:5060"));
        for octets in [600, 1_000, 1_500, 4_000, 9_000] {
            let asked = Instant::now();
            invite(&caller, user, octets);
            let rings = receive(&phone).unwrap_or_else(|| panic!("{user} hears nothing of {octets} octets"));
            assert!(asked.elapsed() < AT_ONCE, "{user} rings after {:?}", asked.elapsed());
            assert_eq!(rings.method(), Some(Method::INVITE));
            assert!(rings.value(Name::Via).unwrap().starts_with(b"SIP/2.0/UDP"));
            assert!(rings.body().len() >= octets / 2, "{} of {octets} octets", rings.body().len());
            let busy = "SIP/2.0 486 Busy Here\r\n".to_owned()
                + &[Name::Via, Name::From, Name::To, Name::CallId, Name::CSeq]
                    .map(|name| {
                        format!(
                            "{}: {}\r\n",
                            name.as_str(),
                            String::from_utf8_lossy(rings.value(name).unwrap())
                        )
                    })
                    .concat()
                + "Content-Length: 0\r\n\r\n";
            let busy = busy.replacen(">\r\nCall-ID", ">;tag=b\r\nCall-ID", 1);
            phone.send_to(busy.as_bytes(), format!("{}:5060", Network::Access.address(1))).unwrap();
            // The ACK, so that it is not taken for the next INVITE.
            while receive(&phone).is_some_and(|message| message.method() != Some(Method::ACK)) {}
        }
    }
}
