//! OPTIONS pings of trunks (RFC 3261 §11).

use std::sync::Arc;
use std::time::Duration;

use sip_wire::{Builder, Message, Method, Name};

use crate::core::{Asker, Core, Owner};
use crate::flow::Flow;
use crate::question::{Resolve, ResolvedAddress, TrunkTarget};
use crate::transaction::{self, Hop};

/// Sends the pings that are due.
pub(crate) fn ping(core: &mut Core) {
    let now = core.now.monotonic;
    let due: Vec<Arc<TrunkTarget>> = core
        .trunks
        .known
        .iter_mut()
        .filter(|trunk| !trunk.is_pinged && trunk.next_ping <= now && trunk.target.ping.is_some())
        .map(|trunk| {
            trunk.is_pinged = true;
            trunk.target.clone()
        })
        .collect();
    for target in due {
        let resolve = Resolve {
            host: target.host.clone(),
            port: target.port,
            transport: target.transport,
            secure: false,
        };
        match resolve.literal() {
            Some(address) => send(&target.name, vec![address], core),
            None => core.resolve(Asker::Ping(target.name.clone()), resolve),
        }
    }
}

/// A ping has its addresses; the first that a listener can reach is asked.
pub(crate) fn send(name: &Arc<str>, addresses: Vec<ResolvedAddress>, core: &mut Core) {
    let known = core.trunks.position(name).and_then(|position| core.trunks.known.get(position));
    let Some((number, target)) = known.map(|trunk| (trunk.number, trunk.target.clone())) else { return };
    let way = addresses.into_iter().find_map(|address| {
        let listener = core.config.listener_for(target.realm, address.transport, address.address.ip())?;
        Some((listener, address))
    });
    let Some((listener, address)) = way else {
        finish(name, false, core);
        return;
    };
    let Some(settings) = core.config.listener(listener) else { return };
    let us = format!("<sip:{}>", settings.advertised);
    let via = transaction::via(settings, &core.ids.branch());
    let port = target.port.map(|port| format!(":{port}")).unwrap_or_default();
    let uri = format!("sip:{}{port}", target.host);
    let request = Builder::request(Method::OPTIONS, uri.as_bytes())
        .header(Name::Via, via.as_bytes())
        .header(Name::MaxForwards, b"70")
        .header(Name::From, format!("{us};tag={}", core.ids.tag()).as_bytes())
        .header(Name::To, format!("<{uri}>").as_bytes())
        .header(Name::CallId, core.ids.word(20).as_bytes())
        .header(Name::CSeq, b"1 OPTIONS")
        .header(Name::Contact, us.as_bytes())
        .header(Name::Accept, b"application/sdp")
        .finish();
    let flow = Flow { listener, transport: address.transport, remote: address.address, connection: None };
    let hop = Hop { server_name: Some(address.server_name), ..flow.into() };
    core.send_request(hop, request, Owner::Ping(number));
}

/// A ping's final response, or none.
pub(crate) fn answered(number: u32, response: Option<&Message>, core: &mut Core) {
    let found = core.trunks.by_number.get(&number).and_then(|position| core.trunks.known.get(*position));
    let Some(name) = found.map(|trunk| trunk.target.name.clone()) else { return };
    if let Some(response) = response
        && response.status() == Some(503)
    {
        let now = core.now.monotonic;
        core.trunks.refused(&name, response, now);
    }
    // Any answer but 503 shows that somebody is there, be it 404 or 405.
    let is_alive = response.and_then(Message::status).is_some_and(|status| status != 503);
    finish(&name, is_alive, core);
}

fn finish(name: &Arc<str>, is_alive: bool, core: &mut Core) {
    let now = core.now.monotonic;
    let position = core.trunks.position(name);
    let Some(trunk) = position.and_then(|position| core.trunks.known.get_mut(position)) else { return };
    let was_dead = std::mem::replace(&mut trunk.is_dead, !is_alive);
    trunk.is_pinged = false;
    trunk.next_ping = now.saturating_add(trunk.target.ping.unwrap_or(Duration::from_secs(30)));
    if was_dead == is_alive {
        let (kind, what) = if is_alive {
            ("trunk_up", "answers again")
        } else {
            ("trunk_down", "does not answer OPTIONS: calls go to it last")
        };
        core.notice(kind, None, format!("trunk {name} {what}"));
    }
}
