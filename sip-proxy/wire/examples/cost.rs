//! Work for an instruction counter: `cost parse|check|serialise|edit TIMES`. What one operation costs is the difference
//! between two runs, divided by the difference of their TIMES (`bench/instructions.py`).

use std::hint::black_box;

use bytes::Bytes;
use sip_wire::{Message, Name, check_request};

/// An INVITE with a description, 900 bytes.
static INVITE: &[u8] = include_bytes!("../tests/messages/invite.sip");

fn main() {
    let mut arguments = std::env::args().skip(1);
    let operation = arguments.next().unwrap_or_default();
    let times = arguments.next().and_then(|text| text.parse::<usize>().ok());
    let (Some(times), Ok(message)) = (times, Message::parse(Bytes::from_static(INVITE))) else {
        eprintln!("usage: cost parse|check|serialise|edit TIMES");
        std::process::exit(2);
    };
    for _ in 0..times {
        match operation.as_str() {
            "parse" => {
                black_box(Message::parse(black_box(Bytes::from_static(INVITE)))).ok();
            }
            "check" => {
                black_box(check_request(&message)).ok();
            }
            "serialise" => {
                black_box(message.edit().finish());
            }
            _ => {
                let mut edit = message.edit();
                edit.remove(Name::Contact).set(Name::MaxForwards, b"69").prepend(Name::Via, b"SIP/2.0/UDP h");
                black_box(edit.finish());
            }
        }
    }
}
