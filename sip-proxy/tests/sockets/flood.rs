//! Floods: of one source, and of more calls than the machine bears.

use std::net::{SocketAddr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use sip_engine::io::Transport;
use sip_proxy::filter::Rate;

use crate::datagrams::call;
use crate::node::{ACCESS, CORE, Setup, address};
use crate::peer::{PATIENCE, SDP, Udp, header, in_dialog, request, response, status};

/// Runs `step` on a thread until dropped.
struct Running {
    stop: Arc<AtomicBool>,
    thread: Option<std::thread::JoinHandle<()>>,
}

fn run(mut step: impl FnMut() + Send + 'static) -> Running {
    let stop = Arc::new(AtomicBool::new(false));
    let seen = stop.clone();
    let thread = std::thread::spawn(move || {
        while !seen.load(Ordering::Relaxed) {
            step();
        }
    });
    Running { stop, thread: Some(thread) }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        let _ = self.thread.take().map(std::thread::JoinHandle::join);
    }
}

#[test]
fn a_flood_of_one_source_is_dropped_and_does_not_delay_others() {
    let (access, core) = (SocketAddr::new(address(), 5060), SocketAddr::new(address(), 5060));
    let far = SocketAddr::new(address(), 5060);
    let mut setup = Setup::new(&far.ip().to_string(), Some(5060), Some(Transport::Udp))
        .listen(ACCESS, Transport::Udp, access)
        .listen(CORE, Transport::Udp, core);
    setup.settings[0].filter.rate = Some(Rate { per_second: 100.0, burst: 200.0 });
    let node = setup.start();
    let trunk = Udp::at(far, core);
    let (caller, pinging) = (Udp::new(address(), access), Udp::new(address(), access));

    let flooder = UdpSocket::bind(SocketAddr::new(address(), 0)).unwrap();
    flooder.set_nonblocking(true).unwrap();
    let local = flooder.local_addr().unwrap();
    let message = request("OPTIONS", &format!("sip:{access}"), "UDP", local, "");
    let flood = run(move || {
        for _ in 0..64 {
            let _ = flooder.send_to(message.as_bytes(), access);
        }
        // A pause that a real sender's line would make: the receiver shares its cores with this thread.
        std::thread::sleep(Duration::from_micros(500));
    });
    node.until("the flood is on", PATIENCE, |node| node.count(|shard| &shard.dropped.limited) > 1000);
    let mut delays: Vec<_> = (0..100)
        .map(|turn| {
            // Below the rate of the realm.
            std::thread::sleep(Duration::from_millis(12));
            if turn % 10 == 0 {
                call(&caller, &trunk);
            }
            let asked = Instant::now();
            assert_eq!(pinging.ping(), 200);
            asked.elapsed()
        })
        .collect();
    let limited = node.count(|shard| &shard.dropped.limited);
    drop(flood);
    delays.sort();
    println!("limited {limited}, median {:?}, worst {:?}", delays[50], delays[99]);
    assert!(delays[50] < Duration::from_millis(20), "{delays:?}");
    assert!(limited > 5_000, "{limited}");
    assert_eq!(node.ended(), 10);
}

#[test]
fn a_trunk_is_never_limited() {
    let access = SocketAddr::new(address(), 5060);
    let from = address();
    let mut setup = Setup::new("127.0.0.1", None, None).listen(ACCESS, Transport::Udp, access);
    setup.settings[0].filter.rate = Some(Rate { per_second: 1.0, burst: 2.0 });
    setup.policy.sources = vec![from];
    let node = setup.start();
    let trunk = Udp::new(from, access);
    assert!((0..50).all(|_| trunk.ping() == 200));
    let phone = Udp::new(address(), access);
    phone.within(Duration::from_millis(100));
    assert_eq!((0..5).filter(|_| phone.ping() == 200).count(), 2);
    assert_eq!(node.count(|shard| &shard.dropped.limited), 3);
}

#[test]
fn scanners_and_those_on_the_list_get_no_answer() {
    let access = SocketAddr::new(address(), 5060);
    let denied = address();
    let mut setup = Setup::new("127.0.0.1", None, None).listen(ACCESS, Transport::Udp, access);
    setup.settings[0].filter.deny = [ipnet::IpNet::from(denied)].into_iter().collect();
    let node = setup.start();
    let phone = Udp::new(address(), access);
    let scan = phone.request("OPTIONS", &format!("sip:100@{access}"), "");
    phone.send(&scan.replace("Max-Forwards", "User-Agent: friendly-scanner\r\nMax-Forwards"));
    let stranger = Udp::new(denied, access);
    stranger.within(Duration::from_millis(300));
    assert_eq!(stranger.ping(), 0);
    assert!(phone.within(Duration::from_millis(50)).receive().is_none());
    assert_eq!(node.count(|shard| &shard.dropped.scanners), 1);
    assert_eq!(node.count(|shard| &shard.dropped.denied), 1);
    assert_eq!(phone.within(PATIENCE).ping(), 200);
}

#[test]
fn more_calls_than_the_shard_bears_get_503_while_dialogs_are_served() {
    let (access, core) = (SocketAddr::new(address(), 5060), SocketAddr::new(address(), 5060));
    let far = SocketAddr::new(address(), 5060);
    let mut setup = Setup::new(&far.ip().to_string(), Some(5060), Some(Transport::Udp))
        .listen(ACCESS, Transport::Udp, access)
        .listen(CORE, Transport::Udp, core);
    // 200 calls a second are all that this shard can start.
    setup.busy = Duration::from_millis(5);
    let node = setup.start();
    let trunk = Udp::at(far, core);
    let phone = Udp::new(address(), access);
    let invite = phone.request("INVITE", "sip:+4930123@example.net", SDP);
    phone.send(&invite);
    let outgoing = trunk.expect();
    trunk.send(&response(&outgoing, 200, trunk.local, SDP));
    let answer = phone.expect();
    phone.send(&in_dialog("ACK", &invite, &answer));
    assert!(trunk.expect().starts_with("ACK "));

    let flooder = Udp::new(address(), access);
    let refused = flooder.socket.try_clone().unwrap();
    let flood = run(move || {
        flooder.send(&flooder.request("INVITE", "sip:+49301@example.net", SDP));
        std::thread::sleep(Duration::from_micros(700));
    });
    node.until_count("behind", |shard| &shard.is_behind, 1);
    let said = Instant::now();
    phone.send(&in_dialog("BYE", &invite, &answer));
    while !trunk.expect().starts_with("BYE ") {}
    let reached = said.elapsed();
    println!("a BYE took {reached:?}");
    assert!(reached < Duration::from_secs(2), "{reached:?}");
    let mut buffer = [0; 4096];
    let answer = loop {
        let length = refused.recv(&mut buffer).expect("a refusal");
        let answer = String::from_utf8_lossy(&buffer[..length]).into_owned();
        if status(&answer) == 503 {
            break answer;
        }
    };
    assert!(header(&answer, "Retry-After").parse::<u32>().unwrap() > 0);
    drop(flood);
    // What the flood left in the socket may put the shard behind once more: who is refused tries again.
    let late = Udp::new(address(), access);
    node.until("a caller is served again", PATIENCE, |_| {
        late.send(&late.request("INVITE", "sip:+49302@example.net", SDP));
        status(&late.receive().unwrap()) == 100
    });
    node.until_count("caught up", |shard| &shard.is_behind, 0);
}
