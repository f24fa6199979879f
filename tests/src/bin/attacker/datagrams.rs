//! Floods of datagrams.

use std::io::Result;
use std::net::{SocketAddr, UdpSocket};

use play::Dice;

use crate::{Pace, Plan};

/// Of a Via that fills a datagram.
const LONG: usize = 28_000;

pub(crate) fn send(kind: &str, plan: &Plan) -> Result<u64> {
    let sockets: Vec<UdpSocket> = (0..u64::from(plan.addresses))
        .map(|number| {
            let socket = UdpSocket::bind(SocketAddr::new(plan.source(number), 0))?;
            socket.set_nonblocking(true)?;
            // Answers are not read; the interface has counted them.
            let _ = rustix::net::sockopt::set_socket_recv_buffer_size(&socket, 2048);
            Ok(socket)
        })
        .collect::<Result<_>>()?;
    let long = "v".repeat(LONG);
    let (mut pace, mut dice, mut sent) = (Pace::new(plan), Dice::new(0x5eed), 0_u64);
    while let Some(due) = pace.due() {
        for _ in 0..due {
            let Some(socket) = sockets.get((sent % sockets.len().max(1) as u64) as usize) else { break };
            let (one, two) = (dice.roll(), dice.roll());
            let datagram = match kind {
                "junk" => junk(&mut dice),
                "stun" => stun(one, two),
                "rtp" => rtp(sent),
                "tagged" => invite(socket, plan.target, one, &format!(";tag={two:x}"), ""),
                "vias" => {
                    let via = format!("Via: SIP/2.0/UDP 10.66.0.9:5060;branch=z9hG4bK{two:x};x={long}\r\n");
                    invite(socket, plan.target, one, "", &via)
                }
                _ => invite(socket, plan.target, one, "", ""),
            };
            // What the kernel refuses is not counted.
            sent += u64::from(socket.send_to(&datagram, plan.target).is_ok());
        }
    }
    Ok(sent)
}

fn junk(dice: &mut Dice) -> Vec<u8> {
    let length = 16 + dice.roll() % 400;
    (0..length.div_ceil(8)).flat_map(|_| dice.roll().to_be_bytes()).collect()
}

/// A Binding request (RFC 8489) without attributes.
fn stun(one: u64, two: u64) -> Vec<u8> {
    let id = [one.to_be_bytes(), two.to_be_bytes()].concat();
    [&[0, 1, 0, 0, 0x21, 0x12, 0xa4, 0x42], id.get(..12).unwrap_or_default()].concat()
}

/// G.711 that nobody asked for.
fn rtp(number: u64) -> Vec<u8> {
    let [.., high, low] = number.to_be_bytes();
    let mut packet = vec![0xd5; 172];
    packet.splice(..12, [0x80, 0, high, low, 0, 0, high, low, 0xde, 0xad, 0xbe, 0xef]);
    packet
}

/// An INVITE of somebody who shows no credentials.
fn invite(socket: &UdpSocket, target: SocketAddr, id: u64, tag: &str, via: &str) -> Vec<u8> {
    let local = socket.local_addr().map_or_else(|_| "10.66.0.1:5060".to_owned(), |local| local.to_string());
    let host = target.ip();
    format!(
        "INVITE sip:+1{}@{host} SIP/2.0\r\n\
         Via: SIP/2.0/UDP {local};branch=z9hG4bK{id:016x};rport\r\n{via}\
         From: <sip:p{}@{host}>;tag={id:x}\r\nTo: <sip:+1555@{host}>{tag}\r\nCall-ID: {id:016x}\r\n\
         CSeq: 1 INVITE\r\nMax-Forwards: 70\r\nContact: <sip:x@{local}>\r\nContent-Length: 0\r\n\r\n",
        id % 10_000,
        id % 1000,
    )
    .into_bytes()
}
