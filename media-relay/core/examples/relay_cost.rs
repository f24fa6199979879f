//! Work for an instruction counter: `relay_cost rtp|rtcp TIMES` relays so many packets of one call. What one costs is the difference
//! between two runs, divided by the difference of their TIMES (`bench/instructions.py`).

use std::hint::black_box;
use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use media_core::Worker;
use media_core::worker::Settings;
use play::ports::Counted;
use play::settings::media::{ENDS, party};
use seam::{Action, Endpoint, ExchangeId};

const CALLER: Endpoint = ENDS[0];
const CALLEE: Endpoint = ENDS[1];
const PACKET_TIME: Duration = Duration::from_millis(20);

/// A side's address and description.
fn side(host: u8) -> (SocketAddr, Bytes) {
    let sdp = format!(
        "v=0\r\no=- 1 1 IN IP4 10.0.0.{host}\r\ns=-\r\nc=IN IP4 10.0.0.{host}\r\nt=0 0\r\nm=audio 4000 RTP/AVP 0\r\n"
    );
    (([10, 0, 0, host], 4000).into(), sdp.into())
}

/// A call of two sides that have agreed: sockets 0 and 1 for the caller, 2 and 3 for the callee.
fn call(now: Duration) -> Worker {
    let mut worker = Worker::new(Settings::default(), "anchor".to_owned());
    let mut ports = Counted::default();
    let ((a, offer), (b, answer)) = (side(5), side(6));
    let (from_party, to_party) = (party(1, a), party(2, b));
    for action in [
        Action::Offer { exchange: ExchangeId(1), from: CALLER, to: CALLEE, from_party, to_party, sdp: offer },
        Action::Select(CALLEE),
        Action::Answer {
            exchange: ExchangeId(1),
            from: CALLEE,
            to: CALLER,
            from_party: party(2, b),
            sdp: answer,
        },
    ] {
        worker.handle(1, action, now, &mut ports);
    }
    worker
}

/// G.711 of 20 ms.
fn rtp(sequence: u32) -> [u8; 172] {
    let mut packet = [0xff; 172];
    packet[..2].copy_from_slice(&[0x80, 0]);
    packet[2..4].copy_from_slice(&(sequence as u16).to_be_bytes());
    packet[4..8].copy_from_slice(&(sequence * 160).to_be_bytes());
    packet[8..12].copy_from_slice(&7_u32.to_be_bytes());
    packet
}

/// A receiver report with one block, and a name.
fn rtcp(sequence: u32) -> [u8; 48] {
    let mut packet = [0; 48];
    packet[..8].copy_from_slice(&[0x81, 201, 0, 7, 0, 0, 0, 7]);
    packet[16..20].copy_from_slice(&sequence.to_be_bytes());
    packet[32..44].copy_from_slice(&[0x81, 202, 0, 3, 0, 0, 0, 7, 1, 2, b'a', b'b']);
    packet
}

fn main() {
    let mut arguments = std::env::args().skip(1);
    let operation = arguments.next().unwrap_or_default();
    let times = arguments.next().and_then(|text| text.parse::<u32>().ok());
    let (Some(times), "rtp" | "rtcp") = (times, operation.as_str()) else {
        eprintln!("usage: relay_cost rtp|rtcp TIMES");
        std::process::exit(2);
    };
    let mut now = Duration::from_secs(1);
    let mut worker = call(now);
    let mut sent = 0_u32;
    let mut relay = |socket, source, packet: &[u8], now| {
        worker.packet(media_core::worker::Arrival { socket, source, now }, packet, |_, to, bytes| {
            black_box((to, bytes));
            sent += 1;
        });
    };
    // Both are heard before anything is counted: nothing is learnt any more.
    let [(a, _), (b, _)] = [side(5), side(6)];
    for (socket, source) in [(0, a), (2, b)] {
        relay(socket, source, &rtp(1), now);
        relay(socket + 1, SocketAddr::new(source.ip(), 4001), &rtcp(1), now);
    }
    for count in 2..times + 2 {
        now += PACKET_TIME;
        match operation.as_str() {
            "rtp" => relay(0, a, &rtp(count), now),
            _ => relay(1, SocketAddr::new(a.ip(), 4001), &rtcp(count), now),
        }
    }
    assert_eq!(sent, times + 4, "every packet goes on");
}
