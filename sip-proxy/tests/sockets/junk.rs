//! Junk: mutated messages by the thousand, on UDP and TCP. Calls go on, and nothing is left.

use std::io::{Read, Write};
use std::net::{SocketAddr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use play::Dice;
use sip_engine::config::TimerValues;
use sip_engine::io::Transport;

use crate::node::{ACCESS, CORE, Setup, address};
use crate::peer::{SDP, Udp, header, in_dialog, request, response, status, tcp};

/// One of the messages that a phone sends, broken in one to four ways.
fn junk(dice: &mut Dice, local: SocketAddr, transport: &str) -> Vec<u8> {
    let methods = ["INVITE", "REGISTER", "BYE", "OPTIONS", "CANCEL", "ACK", "UPDATE", "NOTIFY", "FOO"];
    let method = methods[dice.index(methods.len())];
    let body = if dice.index(2) == 0 { SDP } else { "" };
    let whole = request(method, "sip:junk@example.net", transport, local, body);
    let mut bytes = match dice.index(6) {
        0 => response(&whole, 100 + dice.index(600) as u16, local, body).into_bytes(),
        1 => (0..dice.index(1500)).map(|_| dice.index(256) as u8).collect(),
        _ => whole.into_bytes(),
    };
    for _ in 0..=dice.index(4) {
        let at = dice.index(bytes.len());
        let until = at + dice.index(bytes.len() - at);
        match dice.index(8) {
            0 => bytes.truncate(at),
            1 => drop(bytes.drain(at..until)),
            2 => bytes.insert(at, dice.index(256) as u8),
            3 => bytes.extend_from_within(at..until),
            4 => bytes.splice(at..at, std::iter::repeat_n(b'a', dice.index(60_000))).for_each(drop),
            5 => bytes.splice(at..at, *b"\r\n").for_each(drop),
            6 => bytes.splice(at..at, *b"99999999999").for_each(drop),
            _ if at < bytes.len() => bytes[at] ^= 1 << dice.index(8),
            _ => {}
        }
    }
    bytes.truncate(65_507);
    bytes
}

/// A trunk that answers every call. (After a refusal our transaction would stay for 32 s whatever T1 is: timer D.)
fn answer(trunk: &UdpSocket, message: &str, from: SocketAddr) {
    let local = trunk.local_addr().unwrap();
    let reply = match message.split(' ').next().unwrap_or_default() {
        "SIP/2.0" | "ACK" => return,
        "INVITE" => response(message, 200, local, SDP),
        _ => response(message, 200, local, ""),
    };
    let _ = trunk.send_to(reply.as_bytes(), from);
}

/// A whole call in which messages may get lost: repeated until it succeeds, at most `tries` times.
fn call(phone: &Udp, tries: usize) -> bool {
    let next = |wanted: u16, call_id: &str| {
        while let Some(message) = phone.receive() {
            if status(&message) == wanted && header(&message, "Call-ID") == call_id {
                return Some(message);
            }
        }
        None
    };
    phone.within(Duration::from_millis(500));
    (0..tries).any(|_| {
        let invite = phone.request("INVITE", "sip:1@example.net", SDP);
        let call_id = header(&invite, "Call-ID");
        phone.send(&invite);
        let Some(answer) = next(200, call_id) else { return false };
        phone.send(&in_dialog("ACK", &invite, &answer));
        phone.send(&in_dialog("BYE", &invite, &answer));
        next(200, call_id).is_some()
    })
}

#[test]
fn mutated_messages_on_udp_and_tcp_leave_nothing_and_calls_go_on() {
    let seed = std::env::var("JUNK_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or(20_051_124);
    let seconds = std::env::var("JUNK_SECONDS").ok().and_then(|text| text.parse().ok()).unwrap_or(4);
    println!("JUNK_SEED={seed} JUNK_SECONDS={seconds}");
    let (access, core) = (SocketAddr::new(address(), 5060), SocketAddr::new(address(), 5060));
    let far = SocketAddr::new(address(), 5060);
    let mut setup = Setup::new(&far.ip().to_string(), Some(5060), Some(Transport::Udp))
        .listen(ACCESS, Transport::Udp, access)
        .listen(ACCESS, Transport::Tcp, access)
        .listen(CORE, Transport::Udp, core);
    // Transactions and unanswered calls end within 64·T1, here 1.3 s.
    setup.timers = TimerValues {
        t1: Duration::from_millis(20),
        t2: Duration::from_millis(80),
        t4: Duration::from_millis(100),
        ringing: Duration::from_secs(3),
        ..TimerValues::default()
    };
    let node = setup.start();
    let (stop, end) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicBool::new(false)));
    let (datagrams, connections) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));

    let trunk = UdpSocket::bind(far).unwrap();
    trunk.set_read_timeout(Some(Duration::from_millis(100))).unwrap();
    let over = end.clone();
    let answering = std::thread::spawn(move || {
        let mut buffer = [0; 65_535];
        while !over.load(Ordering::Relaxed) {
            if let Ok((length, from)) = trunk.recv_from(&mut buffer) {
                answer(&trunk, &String::from_utf8_lossy(&buffer[..length]), from);
            }
        }
    });
    let (over, sent) = (stop.clone(), datagrams.clone());
    let on_udp = std::thread::spawn(move || {
        let socket = UdpSocket::bind(SocketAddr::new(address(), 0)).unwrap();
        let local = socket.local_addr().unwrap();
        let mut dice = Dice::new(seed);
        while !over.load(Ordering::Relaxed) {
            for _ in 0..10 {
                let _ = socket.send_to(&junk(&mut dice, local, "UDP"), access);
                sent.fetch_add(1, Ordering::Relaxed);
            }
            std::thread::sleep(Duration::from_millis(3));
        }
    });
    let (over, sent) = (stop.clone(), connections.clone());
    let on_tcp = std::thread::spawn(move || {
        let from = address();
        let mut dice = Dice::new(seed ^ 0xabcd);
        while !over.load(Ordering::Relaxed) {
            let mut stream = tcp(from, access);
            let local = stream.local_addr().unwrap();
            for _ in 0..=dice.index(4) {
                if stream.write_all(&junk(&mut dice, local, "TCP")).is_err() {
                    break;
                }
            }
            if dice.index(2) == 0 {
                stream.set_read_timeout(Some(Duration::from_millis(5))).unwrap();
                let _ = stream.read(&mut [0; 4096]);
            }
            sent.fetch_add(1, Ordering::Relaxed);
        }
    });

    let phone = Udp::new(address(), access);
    let begun = Instant::now();
    let (mut calls, mut first_tries) = (0, 0);
    while begun.elapsed() < Duration::from_secs(seconds) {
        if call(&phone, 1) {
            first_tries += 1;
        } else {
            assert!(call(&phone, 5), "a call fails in spite of repetition");
        }
        calls += 1;
        std::thread::sleep(Duration::from_millis(20));
    }
    stop.store(true, Ordering::Relaxed);
    on_udp.join().unwrap();
    on_tcp.join().unwrap();
    node.until("all has ended", Duration::from_secs(30), |node| {
        node.count(|shard| &shard.streams.open) == 0
            && node.count(|shard| &shard.held.calls) == 0
            && node.count(|shard| &shard.held.transactions) == 0
    });
    let (datagrams, connections) = (datagrams.load(Ordering::Relaxed), connections.load(Ordering::Relaxed));
    let refused = node.count(|shard| &shard.dropped.refused);
    println!(
        "{datagrams} datagrams, {connections} connections, {refused} refused; {first_tries} of {calls} calls at the first try"
    );
    assert!(datagrams > 1000 && connections > 100 && refused > 500);
    assert!(first_tries * 10 >= calls * 9);
    assert!(call(&phone, 1), "and afterwards as ever");
    node.until("that too", Duration::from_secs(10), |node| node.count(|shard| &shard.held.transactions) == 0);
    end.store(true, Ordering::Relaxed);
    answering.join().unwrap();
}
