//! Via: what we write into it, what we add to it, and where a response goes (RFC 3261 §18, RFC 3581).

use std::net::IpAddr;

use sip_wire::{Message, Name};

use crate::config::Listener;
use crate::flow::{Flow, Transport};

/// The Via value of a request that leaves over `listener`, asking for the source port (RFC 3581).
pub fn via(listener: &Listener, branch: &str) -> String {
    format!("SIP/2.0/{} {};branch={branch};rport", listener.transport.via_token(), listener.advertised)
}

/// The request with `received` and `rport` in its top Via, so that every response copies them; unchanged where the
/// sent-by says it all. `None` if there is no readable Via.
pub(super) fn stamp(request: Message, flow: &Flow) -> Option<Message> {
    let stamped = {
        let via = request.via().ok()?;
        let source = flow.remote.ip().to_canonical();
        let is_source = literal(via.host.as_bytes()).is_some_and(|host| host == source);
        let asks_port = via.has_rport();
        if is_source && !asks_port && via.received().is_none() {
            None
        } else {
            Some(stamped_value(request.values(Name::Via).next()?, source, flow.remote.port(), asks_port))
        }
    };
    let Some(value) = stamped else { return Some(request) };
    // The other Via values of the same line stay behind it.
    let line = request.lines().find(|line| line.name == Name::Via)?;
    let first = request.values(Name::Via).next()?.len();
    let mut whole = value;
    whole.extend_from_slice(line.value.get(first..)?);
    let index = line.index;
    let mut edit = request.edit();
    edit.replace_line(index, &whole);
    Some(edit.message())
}

/// `value` without any `received` and `rport` of its own, then with ours.
fn stamped_value(value: &[u8], source: IpAddr, port: u16, with_port: bool) -> Vec<u8> {
    let mut out = Vec::with_capacity(value.len().saturating_add(40));
    let mut quoted = false;
    let mut start = 0usize;
    let mut parts = Vec::new();
    for (index, byte) in value.iter().enumerate() {
        match byte {
            b'"' => quoted = !quoted,
            b';' if !quoted => {
                parts.push(value.get(start..index).unwrap_or_default());
                start = index.saturating_add(1);
            }
            _ => {}
        }
    }
    parts.push(value.get(start..).unwrap_or_default());
    for (number, part) in parts.into_iter().enumerate() {
        let name = part.split(|byte| *byte == b'=').next().unwrap_or_default().trim_ascii();
        if number > 0 && (name.eq_ignore_ascii_case(b"received") || name.eq_ignore_ascii_case(b"rport")) {
            continue;
        }
        if number > 0 {
            out.push(b';');
        }
        out.extend_from_slice(part);
    }
    out.truncate(out.trim_ascii_end().len());
    // RFC 3261 §20.42 gives `received` an IPv6 address without brackets.
    out.extend_from_slice(format!(";received={source}").as_bytes());
    if with_port {
        out.extend_from_slice(format!(";rport={port}").as_bytes());
    }
    out
}

/// The port that a datagram response goes to.
///
/// The source port if it was asked for (RFC 3581), and also if the sent-by is another address than the source: then a
/// NAT stands between, and the port it names means nothing outside. Otherwise the port of the sent-by (RFC 3261
/// §18.2.2). A `maddr` is not followed: it would let a stranger aim our responses.
pub(super) fn reply_port(request: &Message, flow: &Flow) -> u16 {
    let Ok(via) = request.via() else { return flow.remote.port() };
    let is_behind_nat =
        literal(via.host.as_bytes()).is_some_and(|host| host != flow.remote.ip().to_canonical());
    if via.has_rport() || is_behind_nat { flow.remote.port() } else { via.port.unwrap_or(5060) }
}

/// The port that a peer listens at by its sent-by, for a response whose connection is gone (RFC 3261 §18.2.2).
pub(super) fn listening_port(request: &Message, transport: Transport) -> u16 {
    let default = if transport == Transport::Tls { 5061 } else { 5060 };
    request.via().ok().and_then(|via| via.port).unwrap_or(default)
}

/// The request with TCP in its top Via, for a request too large for a datagram (RFC 3261 §18.1.1).
pub(super) fn over_tcp(request: &Message, listener: &Listener) -> Option<Message> {
    let branch = std::str::from_utf8(request.via().ok()?.branch()?).ok()?.to_owned();
    let line = request.lines().find(|line| line.name == Name::Via)?;
    let first = request.values(Name::Via).next()?.len();
    let mut value = via(listener, &branch).into_bytes();
    value.extend_from_slice(line.value.get(first..)?);
    let index = line.index;
    let mut edit = request.edit();
    edit.replace_line(index, &value);
    Some(edit.message())
}

/// An IP address as a host is written, with or without brackets.
fn literal(host: &[u8]) -> Option<IpAddr> {
    let host = std::str::from_utf8(host).ok()?;
    let host = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
    host.parse::<IpAddr>().ok().map(|address| address.to_canonical())
}
