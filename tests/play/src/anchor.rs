//! One session on a worker, for tests that say each step of it: what is offered and answered, and which packet goes where.

use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use media_core::Worker;
use media_core::state::NotSteady;
use media_core::worker::{Settings, SocketId};
use seam::{Action, Endpoint, Event, ExchangeId, Party, Refusal, Reply, StreamStatistics};

use crate::Dice;
use crate::handover::{Origin, written};
use crate::ports::Counted;

/// What came out: socket, destination, bytes.
pub type Sent = Vec<(SocketId, SocketAddr, Vec<u8>)>;

/// The address that a text names.
pub fn at(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

/// 20 ms of PCMU.
pub fn rtp(sequence: u16, ssrc: u32) -> Vec<u8> {
    let mut packet = vec![0x80, 0];
    packet.extend(sequence.to_be_bytes());
    packet.extend((u32::from(sequence) * 160).to_be_bytes());
    packet.extend(ssrc.to_be_bytes());
    packet.resize(172, 0xff);
    packet
}

/// A worker, its ports and the time. Endpoints are counted as they come: the first has sockets 0 and 1, the second 2 and 3.
#[derive(Debug)]
pub struct Anchor {
    /// The worker.
    pub worker: Worker,
    /// Its ports.
    pub ports: Counted,
    /// Virtual time.
    pub now: Duration,
    /// The session's number.
    pub session: u64,
    /// Who they are, by [`Endpoint::party`]; the last stands for all that follow.
    pub parties: Vec<Party>,
}

impl Anchor {
    /// Without a session yet.
    pub fn new(settings: Settings, ports: Counted, parties: Vec<Party>) -> Self {
        let worker = Worker::new(settings, "anchor".to_owned());
        Self { worker, ports, now: Duration::from_secs(1), session: 9, parties }
    }

    /// Who is at an endpoint.
    pub fn party(&self, endpoint: Endpoint) -> Party {
        self.parties[usize::from(endpoint.party).min(self.parties.len() - 1)].clone()
    }

    /// Another process goes on with the session, with these settings: its clock shows another time, its sockets have other numbers, and what
    /// is closed meanwhile is opened again.
    pub fn hand_over(&mut self, settings: Settings, dice: &mut Dice) -> Result<(), NotSteady> {
        let stored = self.worker.take_out(self.session, self.now, &mut self.ports)?;
        assert!(self.worker.is_empty(), "something stays behind");
        self.worker = Worker::new(settings, "anchor".to_owned());
        self.ports = std::mem::take(&mut self.ports).successor();
        self.now = Origin::drawn(self.now, dice).shows(self.now);
        let stored = written(&stored);
        self.worker.take_in(self.session, stored, self.now, &mut self.ports).expect("its ports are free");
        Ok(())
    }

    /// Signalling says something.
    pub fn act(&mut self, action: Action) -> Option<Reply> {
        self.worker.handle(self.session, action, self.now, &mut self.ports)
    }

    /// The description that it gets for it.
    pub fn described(&mut self, action: Action) -> Result<String, Refusal> {
        match self.act(action) {
            Some(Reply::Description(result)) => {
                result.map(|described| String::from_utf8(described.sdp.to_vec()).unwrap())
            }
            other => panic!("{other:?}"),
        }
    }

    /// What `to` is offered.
    pub fn offer(
        &mut self,
        exchange: u32,
        from: Endpoint,
        to: Endpoint,
        sdp: impl Into<Bytes>,
    ) -> Result<String, Refusal> {
        let (from_party, to_party) = (self.party(from), self.party(to));
        let exchange = ExchangeId(exchange);
        self.described(Action::Offer { exchange, from, to, from_party, to_party, sdp: sdp.into() })
    }

    /// What `to` is answered.
    pub fn answer(
        &mut self,
        exchange: u32,
        from: Endpoint,
        to: Endpoint,
        sdp: impl Into<Bytes>,
    ) -> Result<String, Refusal> {
        let (exchange, from_party) = (ExchangeId(exchange), self.party(from));
        self.described(Action::Answer { exchange, from, to, from_party, sdp: sdp.into() })
    }

    /// One offers and the other answers: what that one is offered, and what this one is answered.
    pub fn agree(&mut self, exchange: u32, ends: [Endpoint; 2], sdps: [impl Into<Bytes>; 2]) -> [String; 2] {
        let ([from, to], [offer, answer]) = (ends, sdps);
        let offered = self.offer(exchange, from, to, offer).expect("a good offer");
        if exchange == ExchangeId::INITIAL.0 {
            self.act(Action::Select(to));
        }
        [offered, self.answer(exchange, to, from, answer).expect("a good answer")]
    }

    /// A packet comes to a socket.
    pub fn send(&mut self, socket: SocketId, source: &str, packet: &[u8]) -> Sent {
        let mut out = Vec::new();
        let arrival = media_core::worker::Arrival { socket, source: at(source), now: self.now };
        self.worker.packet(arrival, packet, |socket, to, bytes| {
            out.push((socket, to, bytes.to_vec()));
        });
        out
    }

    /// Where it goes.
    pub fn places(&mut self, socket: SocketId, source: &str, packet: &[u8]) -> Vec<(SocketId, SocketAddr)> {
        self.send(socket, source, packet).into_iter().map(|(socket, to, _)| (socket, to)).collect()
    }

    /// What has been counted so far.
    pub fn statistics(&mut self) -> Vec<StreamStatistics> {
        match self.act(Action::Query) {
            Some(Reply::Statistics(streams)) => streams,
            other => panic!("{other:?}"),
        }
    }

    /// Lets time pass; what was told.
    pub fn wait(&mut self, time: Duration) -> Vec<Event> {
        let end = self.now + time;
        while let Some(due) = self.worker.poll_timeout().filter(|due| *due <= end) {
            self.now = due.max(self.now);
            self.worker.handle_timeout(self.now, &mut self.ports);
        }
        self.now = end;
        self.events()
    }

    /// What was told since somebody asked.
    pub fn events(&mut self) -> Vec<Event> {
        std::iter::from_fn(|| self.worker.poll_event()).map(|(_, event)| event).collect()
    }
}
