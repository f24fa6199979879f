//! Work for an instruction counter: `cost OPERATION TIMES [SIZE]`. What one operation costs is the difference between
//! two runs, divided by the difference of their TIMES (`bench/instructions.py`, `tests/hostile.rs`).

use std::hint::black_box;

use bytes::Bytes;
use sip_wire::{Builder, Message, Name, Refused, check_request};

/// An INVITE with a description, 900 bytes.
static INVITE: &[u8] = include_bytes!("../tests/messages/invite.sip");

fn main() {
    let mut arguments = std::env::args().skip(1);
    let operation = arguments.next().unwrap_or_default();
    let mut number = || arguments.next().and_then(|text| text.parse::<usize>().ok());
    let (times, size) = (number().unwrap_or(1), number().unwrap_or(60_000));
    let message = match operation.as_str() {
        "parse" | "serialise" | "edit" | "check" => Bytes::from_static(INVITE),
        kind => match hostile(kind, size) {
            Some(text) => text.into(),
            None => {
                eprintln!(
                    "usage: cost parse|check|serialise|edit|headers|parameters|vias|quotes|folds TIMES [SIZE]"
                );
                std::process::exit(2);
            }
        },
    };
    let parsed = Message::parse(message.clone());
    for _ in 0..times {
        match (operation.as_str(), &parsed) {
            ("serialise", Ok(parsed)) => {
                black_box(parsed.edit().finish());
            }
            ("edit", Ok(parsed)) => {
                let mut edit = parsed.edit();
                edit.remove(Name::Contact).set(Name::MaxForwards, b"69").prepend(Name::Via, b"SIP/2.0/UDP h");
                black_box(edit.finish());
            }
            ("check", Ok(parsed)) => {
                black_box(check_request(parsed)).ok();
            }
            ("parse", _) => {
                black_box(Message::parse(black_box(message.clone()))).ok();
            }
            _ => judge(message.clone()),
        }
    }
}

/// All that a hostile message makes us do before it is answered or relayed.
fn judge(message: Bytes) {
    match Message::parse(black_box(message)) {
        Ok(parsed) => {
            black_box(check_request(&parsed)).ok();
            black_box(parsed.edit().set(Name::MaxForwards, b"69").finish());
        }
        Err(refused) => {
            black_box(Refused::response(&refused, "tag").map(Builder::finish));
        }
    }
}

/// A request of `size` bytes, mostly of one thing.
fn hostile(kind: &str, size: usize) -> Option<String> {
    let (line_start, unit, line_end) = match kind {
        "headers" => ("", "a:\r\n", ""),
        "parameters" => ("Contact: <sip:a@192.0.2.1>", ";a=b", "\r\n"),
        "vias" => ("Via: SIP/2.0/UDP b;branch=z9hG4bKa", ",SIP/2.0/UDP a;branch=z9hG4bKa", "\r\n"),
        "quotes" => ("Contact: <sip:a@192.0.2.1>;a=", "\"<,", "\r\n"),
        "folds" => ("Subject: a", "\r\n b", "\r\n"),
        _ => return None,
    };
    let head = "OPTIONS sip:a@example.com SIP/2.0\r\nVia: SIP/2.0/UDP 192.0.2.1;branch=z9hG4bK1\r\nFrom: <sip:a@example.com>;tag=1\r\nTo: <sip:b@example.com>\r\nCall-ID: 1\r\nCSeq: 1 OPTIONS\r\nMax-Forwards: 70\r\n";
    let count = (size - head.len() - line_start.len()) / unit.len();
    Some([head, line_start, &unit.repeat(count), line_end, "\r\n"].concat())
}
