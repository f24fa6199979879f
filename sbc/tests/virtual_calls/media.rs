//! The real media plane's worker over virtual ports, answering when it pleases.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use media_core::Worker;
use media_core::session::{Action, Refusal, Reply};
use media_core::worker::{PortPair, Ports, Settings};
use sip_engine::media::MediaRequest;

use crate::dice::Dice;
use crate::plan::MediaPlan;
use crate::setup::media_address;

/// Sockets by number: what is open, and at which address.
#[derive(Debug, Default)]
pub(crate) struct VirtualPorts {
    next: u32,
    open: BTreeMap<u32, PortPair>,
}

impl Ports for VirtualPorts {
    fn open(&mut self, realm: u16, _: bool) -> Option<PortPair> {
        let number = self.next;
        self.next += 2;
        let address = SocketAddr::new(media_address(realm), 20_000 + number as u16);
        let pair = PortPair { rtp: number, rtcp: number + 1, address };
        self.open.insert(number, pair);
        Some(pair)
    }

    fn open_elsewhere(&mut self, _: u16, _: IpAddr) -> Option<PortPair> {
        None
    }

    fn close(&mut self, pair: PortPair) {
        assert!(self.open.remove(&pair.rtp).is_some(), "{pair:?} was not open");
    }
}

/// A reply that is not given yet.
type Pending = Reverse<(Duration, u32, u64)>;

#[derive(Debug)]
pub(crate) struct Media {
    worker: Worker,
    ports: VirtualPorts,
    plan: MediaPlan,
    dice: Dice,
    pending: BinaryHeap<Pending>,
    replies: BTreeMap<(u64, u32), Reply>,
    numbers: BTreeMap<u64, u32>,
    /// Of offers and answers: refused or never answered by plan.
    pub(crate) has_failed: bool,
    pub(crate) problems: Vec<String>,
}

impl Media {
    pub(crate) fn new(plan: MediaPlan, seed: u64) -> Self {
        let settings = Settings { inactivity: None, ..Settings::default() };
        Self {
            worker: Worker::new(settings, "virtual".to_owned()),
            ports: VirtualPorts::default(),
            plan,
            dice: Dice::new(seed, 1),
            pending: BinaryHeap::new(),
            replies: BTreeMap::new(),
            numbers: BTreeMap::new(),
            has_failed: false,
            problems: Vec::new(),
        }
    }

    pub(crate) fn handle(&mut self, request: MediaRequest, now: Duration) {
        let (session, number) = (request.session.0, request.number);
        let last = self.numbers.insert(session, number).unwrap_or_default();
        if number <= last {
            self.problems.push(format!("media request {number} after {last}"));
        }
        let action = sbc::planes::action(request.action, number);
        let describes = matches!(action, Action::Offer { .. } | Action::Answer { .. });
        if describes && self.dice.chance(self.plan.refused) {
            self.has_failed = true;
            self.reply(session, number, Reply::Description(Err(Refusal::NotAcceptable)), now);
            return;
        }
        let Some(reply) = self.worker.handle(session, action, now, &mut self.ports) else { return };
        if describes && self.dice.chance(self.plan.ignored) {
            self.has_failed = true;
            return;
        }
        if matches!(reply, Reply::Description(Err(_))) {
            self.has_failed = true;
        }
        self.reply(session, number, reply, now);
    }

    fn reply(&mut self, session: u64, number: u32, reply: Reply, now: Duration) {
        let at = now + Duration::from_millis(1 + self.dice.below(self.plan.slowest));
        self.replies.insert((session, number), reply);
        self.pending.push(Reverse((at, number, session)));
    }

    pub(crate) fn next(&self) -> Option<Duration> {
        self.pending.peek().map(|pending| pending.0.0)
    }

    pub(crate) fn pop(&mut self, now: Duration) -> Option<media_relay::Event> {
        if self.next()? > now {
            return None;
        }
        let Reverse((_, number, session)) = self.pending.pop()?;
        let reply = self.replies.remove(&(session, number))?;
        Some(media_relay::Event::Reply { session, number, reply })
    }

    /// What is left of sessions and ports.
    pub(crate) fn leftovers(&self) -> Option<String> {
        (!self.worker.is_empty() || !self.ports.open.is_empty())
            .then(|| format!("{} sessions, {} port pairs", self.worker.len(), self.ports.open.len()))
    }

    /// Where a packet goes that `source` sends to a port of ours: from which address, and to which.
    pub(crate) fn relay(
        &mut self,
        source: SocketAddr,
        to: SocketAddr,
        now: Duration,
    ) -> Result<Vec<(SocketAddr, SocketAddr)>, String> {
        let pair = self.ports.open.values().find(|pair| pair.address == to);
        let socket = pair.map(|pair| pair.rtp).ok_or_else(|| format!("{to} is not open"))?;
        let mut out = Vec::new();
        let mut packet = [0u8; 172];
        packet[0] = 0x80;
        packet[3] = (now.as_millis() % 251) as u8;
        self.worker
            .packet(socket, source, &packet, now, |socket, destination, _| out.push((socket, destination)));
        out.into_iter()
            .map(|(socket, destination)| {
                let pair =
                    self.ports.open.get(&socket).ok_or_else(|| format!("socket {socket} is not open"))?;
                Ok((pair.address, destination))
            })
            .collect()
    }
}
