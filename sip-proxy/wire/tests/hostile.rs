//! What hostile messages cost, in instructions that valgrind counts: twice the message may cost about twice as much, and
//! no byte much more than one of an ordinary message.

#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a test fails by panicking and says why")]

use std::env;
use std::hint::black_box;
use std::process::Command;

use bytes::Bytes;
use sip_wire::{Builder, Message, Name, check_request};

/// Of what a hostile message is made: how the line starts, what is repeated, how the line ends.
const KINDS: [(&str, &str, &str, &str); 7] = [
    ("headers", "", "a:\r\n", ""),
    ("parameters", "Contact: <sip:a@192.0.2.1>", ";a=b", "\r\n"),
    ("Vias", "Via: SIP/2.0/UDP b;branch=z9hG4bKa", ",SIP/2.0/UDP a;branch=z9hG4bKa", "\r\n"),
    ("quotes", "Contact: <sip:a@192.0.2.1>;a=", "\"<,", "\r\n"),
    ("folds", "Subject: a", "\r\n b", "\r\n"),
    ("contacts", "Contact: <sip:a@192.0.2.1>", ",<sip:a@192.0.2.1>", "\r\n"),
    ("lines", "Route: <sip:192.0.2.1;lr>", "\r\nRoute: <sip:192.0.2.2;lr>", "\r\n"),
];

/// A request of about `size` bytes, nearly all of it of one kind.
fn hostile(kind: &str, size: usize) -> Bytes {
    let (_, start, unit, end) = KINDS.iter().find(|known| known.0 == kind).unwrap();
    let head = "OPTIONS sip:a@example.com SIP/2.0\r\nVia: SIP/2.0/UDP 192.0.2.1;branch=z9hG4bK1\r\nFrom: <sip:a@example.com>;tag=1\r\nTo: <sip:b@example.com>\r\nCall-ID: 1\r\nCSeq: 1 OPTIONS\r\nMax-Forwards: 70\r\n";
    let count = (size - head.len() - start.len()) / unit.len();
    [head, start, &unit.repeat(count), end, "\r\n"].concat().into()
}

/// All that a message makes us do here before it is relayed or answered.
fn judge(message: Bytes) {
    match Message::parse(black_box(message)) {
        Ok(message) => {
            black_box(check_request(&message)).ok();
            black_box(message.edit().set(Name::MaxForwards, b"69").finish());
        }
        Err(refused) => {
            black_box(refused.response("tag").map(Builder::finish));
        }
    }
}

#[test]
#[ignore = "the work that the other test has valgrind count"]
fn work() {
    let Ok(order) = env::var("HOSTILE") else { return };
    let words: Vec<&str> = order.split(' ').collect();
    let message = hostile(words[0], words[1].parse().unwrap());
    for _ in 0..words[2].parse().unwrap() {
        judge(message.clone());
    }
}

/// Instructions that one message of a kind and size costs; `None` without valgrind.
fn cost(kind: &str, size: usize) -> Option<u64> {
    let run = |times: u64| -> Option<u64> {
        let output = Command::new("valgrind")
            .args(["--tool=callgrind", "--callgrind-out-file=/dev/null"])
            .arg(env::current_exe().unwrap())
            .args(["--ignored", "--exact", "work", "--test-threads=1"])
            .env("HOSTILE", format!("{kind} {size} {times}"))
            .output()
            .ok()?;
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success(), "{text}");
        text.lines().find_map(|line| line.split("Collected :").nth(1)?.trim().parse().ok())
    };
    Some((run(22)? - run(2)?) / 20)
}

#[test]
fn hostile_messages_cost_no_more_than_their_length() {
    // An ordinary INVITE costs some 20 a byte with a test's optimisation; a quadratic scan of 30 kB would cost thousands.
    const PER_BYTE: u64 = 150;
    for (kind, ..) in KINDS {
        let Some(half) = cost(kind, 15_000) else {
            println!("skipped: valgrind counts the instructions, and is not installed");
            return;
        };
        // Up to the greatest head all of it is read; beyond it is refused, and answered.
        let whole = cost(kind, 30_000).unwrap();
        let refused = cost(kind, 60_000).unwrap();
        println!("{kind}: {half} for 15 kB, {whole} for 30 kB, {refused} for 60 kB");
        assert!(whole <= half * 5 / 2, "{kind}: {half} for 15 kB, {whole} for 30 kB");
        assert!(whole <= 30_000 * PER_BYTE, "{kind}: {whole} for 30 kB");
        assert!(refused <= 60_000 * PER_BYTE, "{kind}: {refused} for 60 kB");
    }
}
