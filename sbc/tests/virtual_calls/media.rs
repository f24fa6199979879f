//! The real media plane's worker over virtual ports, answering when it pleases.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use media_core::Worker;
use media_core::worker::Settings;
use play::Dice;
use play::clock::Post;
use play::ports::Counted;
use seam::{Action, Refusal, Replied, Reply, Request, SessionId};

use crate::plan::MediaPlan;
use crate::setup::media_address;

#[derive(Debug)]
pub(crate) struct Media {
    worker: Worker,
    ports: Counted,
    plan: MediaPlan,
    dice: Dice,
    replies: Post<(u64, u32, Reply)>,
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
            ports: Counted::of_realm(|realm, _| media_address(realm)).from_port(20_000),
            plan,
            dice: Dice::of(seed, 1),
            replies: Post::default(),
            numbers: BTreeMap::new(),
            has_failed: false,
            problems: Vec::new(),
        }
    }

    pub(crate) fn handle(&mut self, request: Request, now: Duration) {
        let (session, number) = (request.session.0, request.number);
        let last = self.numbers.insert(session, number).unwrap_or_default();
        if number <= last {
            self.problems.push(format!("media request {number} after {last}"));
        }
        let action = request.action;
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
        self.replies.post(at, (session, number, reply));
    }

    pub(crate) fn next(&self) -> Option<Duration> {
        self.replies.next()
    }

    pub(crate) fn pop(&mut self, now: Duration) -> Option<media_relay::Event> {
        let (session, number, reply) = self.replies.take(now)?;
        Some(media_relay::Event::Reply(Replied { session: SessionId(session), number, reply }))
    }

    /// What is left of sessions and ports.
    pub(crate) fn leftovers(&self) -> Option<String> {
        let pairs = self.ports.open_pairs();
        (!self.worker.is_empty() || pairs > 0)
            .then(|| format!("{} sessions, {pairs} port pairs", self.worker.len()))
    }

    /// Where a packet goes that `source` sends to a port of ours: from which address, and to which.
    pub(crate) fn relay(
        &mut self,
        source: SocketAddr,
        to: SocketAddr,
        now: Duration,
    ) -> Result<Vec<(SocketAddr, SocketAddr)>, String> {
        let socket = self.ports.socket(to).ok_or_else(|| format!("{to} is not open"))?;
        let mut out = Vec::new();
        let mut packet = [0u8; 172];
        packet[0] = 0x80;
        packet[3] = (now.as_millis() % 251) as u8;
        self.worker.packet(
            media_core::worker::Arrival { socket, source, now },
            &packet,
            |socket, destination, _| out.push((socket, destination)),
        );
        out.into_iter()
            .map(|(socket, destination)| {
                let from =
                    self.ports.address(socket).ok_or_else(|| format!("socket {socket} is not open"))?;
                Ok((from, destination))
            })
            .collect()
    }
}
