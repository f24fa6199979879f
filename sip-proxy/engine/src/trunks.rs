//! Which trunks are worth trying: what OPTIONS pings find (RFC 3261 §11), and what trunks say of themselves (503 with
//! Retry-After, RFC 3261 §21.5.4).

use std::sync::Arc;
use std::time::Duration;

use ahash::AHashMap;
use sip_wire::{Builder, Message, Method, Name};

use crate::core::{Asker, Core, Owner};
use crate::io::Flow;
use crate::question::{Resolve, ResolvedAddress, TrunkTarget};
use crate::times::LONGEST_REST;
use crate::transaction::{self, Hop};

/// What is known of the trunks of the present snapshot.
#[derive(Debug)]
pub(crate) struct Trunks {
    known: Vec<Trunk>,
    /// Where each is in `known`: a call asks for its trunk alone, however many there are.
    by_name: AHashMap<Arc<str>, usize>,
    by_number: AHashMap<u32, usize>,
    /// What is followed now.
    followed: Arc<[Arc<TrunkTarget>]>,
    next_number: u32,
}

#[derive(Debug)]
struct Trunk {
    /// Names it in the owner of a ping's transaction; never used twice.
    number: u32,
    target: Arc<TrunkTarget>,
    /// Its last ping went unanswered.
    is_dead: bool,
    /// It wants nothing before.
    rests_until: Duration,
    next_ping: Duration,
    is_pinged: bool,
}

impl Default for Trunks {
    fn default() -> Self {
        Self {
            known: Vec::new(),
            by_name: AHashMap::new(),
            by_number: AHashMap::new(),
            followed: Arc::default(),
            next_number: 0,
        }
    }
}

impl Trunks {
    /// A new snapshot: what is known of a trunk stays, unless it is another one now.
    pub(crate) fn follow(&mut self, targets: Arc<[Arc<TrunkTarget>]>, now: Duration) {
        if Arc::ptr_eq(&self.followed, &targets) {
            return;
        }
        let mut known: AHashMap<Arc<str>, Trunk> = AHashMap::new();
        for trunk in self.known.drain(..) {
            known.insert(trunk.target.name.clone(), trunk);
        }
        (self.by_name, self.by_number) = (AHashMap::new(), AHashMap::new());
        for target in targets.iter().cloned() {
            let same = known.remove(&target.name).filter(|trunk| trunk.target.host == target.host);
            let trunk = match same {
                Some(trunk) => Trunk { target, ..trunk },
                None => Trunk {
                    number: {
                        self.next_number = self.next_number.wrapping_add(1);
                        self.next_number
                    },
                    target,
                    is_dead: false,
                    rests_until: Duration::ZERO,
                    next_ping: now,
                    is_pinged: false,
                },
            };
            self.by_name.insert(trunk.target.name.clone(), self.known.len());
            self.by_number.insert(trunk.number, self.known.len());
            self.known.push(trunk);
        }
        self.followed = targets;
    }

    /// Whether a call may be tried there; of a trunk that is not known nothing bad is known.
    pub(crate) fn is_up(&self, name: &str, now: Duration) -> bool {
        let known = self.position(name).and_then(|position| self.known.get(position));
        known.is_none_or(|trunk| !trunk.is_dead && trunk.rests_until <= now)
    }

    /// A 503 of it: with Retry-After it rests so long.
    pub(crate) fn refused(&mut self, name: &str, response: &Message, now: Duration) {
        let Some(Ok(seconds)) = response.number(Name::RetryAfter) else { return };
        let rest = Duration::from_secs(u64::from(seconds)).min(LONGEST_REST);
        let position = self.position(name);
        if let Some(trunk) = position.and_then(|position| self.known.get_mut(position)) {
            trunk.rests_until = now.saturating_add(rest);
        }
    }

    fn position(&self, name: &str) -> Option<usize> {
        self.by_name.get(name).copied()
    }
}

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
