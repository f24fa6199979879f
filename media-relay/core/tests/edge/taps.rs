//! Who listens to a call hears every packet of it once and in order, whatever its parties negotiate.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use media_core::consumers::Overheard;
use media_core::worker::Settings;
use play::Dice;
use seam::{Action, Endpoint, ExchangeId, Listener, Role};

use super::world::{A, anchor, at, audio, connected, rtcp, rtp};
use play::anchor::Anchor;

const TAP: Listener = Listener { number: 1, role: Role::Tap };
const RECORDER: Listener = Listener { number: 1, role: Role::Recorder };

/// A phone: where it is, the relay's ports that face it, and how far it has counted.
struct Phone {
    at: SocketAddr,
    ports: Vec<SocketAddr>,
    sequence: u16,
    ssrc: u32,
}

/// A call as its seed tells it.
pub(crate) struct Story {
    pub(crate) world: Anchor,
    dice: Dice,
    is_tapped: bool,
    phones: BTreeMap<Endpoint, Phone>,
    /// Who A speaks with.
    far: Endpoint,
    exchanges: u32,
    parties: u16,
    /// What the relay took, and what those who listen heard of it.
    taken: Vec<Vec<u8>>,
    pub(crate) heard: Vec<Vec<u8>>,
    census: BTreeMap<&'static str, u32>,
    /// All that anybody was told or sent.
    pub(crate) journal: Vec<String>,
}

impl Story {
    pub(crate) fn new(seed: u64, is_tapped: bool) -> Self {
        Self {
            world: anchor(Settings::default()),
            dice: Dice::new(seed),
            is_tapped,
            phones: BTreeMap::new(),
            far: Endpoint { party: 1, branch: 0 },
            exchanges: ExchangeId::INITIAL.0,
            parties: 1,
            taken: Vec::new(),
            heard: Vec::new(),
            census: BTreeMap::new(),
            journal: Vec::new(),
        }
    }

    /// Some time of it.
    pub(crate) fn goes_on(&mut self) {
        match self.below(5) {
            0 => self.is_transferred(),
            // Another listener comes and goes, and is nothing to the tap.
            1 => {
                let action = if self.below(2) == 0 { Action::Attach } else { Action::Detach };
                self.world.act(action(RECORDER));
                self.speak();
            }
            _ => self.negotiates(),
        }
    }

    pub(crate) fn below(&mut self, bound: u32) -> u32 {
        self.dice.below(bound.into()) as u32
    }

    fn counts(&mut self, what: &'static str) {
        *self.census.entry(what).or_default() += 1;
    }

    /// What it says, at a place of its own.
    fn says(&mut self, end: Endpoint, more: &str) -> String {
        let phone = self.phones.entry(end).or_insert_with(|| {
            let number = u16::from(end != A) + 4 * end.party + end.branch;
            let host = if end == A { "203.0.113.1" } else { "198.51.100.1" };
            let at = at(&format!("{host}:{}", 4_000 + 100 * number));
            Phone { at, ports: Vec::new(), sequence: 1, ssrc: 1_000 + u32::from(number) }
        });
        audio(&phone.at.to_string(), more)
    }

    /// The ports in a description for it are those that it sends to.
    fn is_told(&mut self, end: Endpoint, sdp: &str) {
        let value = |start: &str| sdp.lines().find_map(|line| line.strip_prefix(start));
        let ip = value("c=IN IP4 ").and_then(|ip| ip.parse().ok()).expect("an address");
        let port = |line: &str| line.strip_prefix("m=")?.split(' ').nth(1)?.parse::<u16>().ok();
        let ports = sdp.lines().filter_map(port).filter(|port| *port != 0);
        let ports = ports.map(|port| SocketAddr::new(ip, port)).collect();
        self.phones.get_mut(&end).expect("a phone").ports = ports;
        self.journal.push(format!("{end:?} {sdp}"));
    }

    fn offers(&mut self, exchange: u32, from: Endpoint, to: Endpoint, more: &str) {
        let sdp = self.says(from, more);
        let offered = self.world.offer(exchange, from, to, sdp).expect("a good offer");
        self.says(to, "");
        self.is_told(to, &offered);
    }

    fn answers(&mut self, exchange: u32, from: Endpoint, to: Endpoint, more: &str) {
        let sdp = self.says(from, more);
        let answered = self.world.answer(exchange, from, to, sdp).expect("a good answer");
        self.is_told(to, &answered);
        self.speak();
    }

    /// Everybody speaks for a while, now and then with a report or from nowhere.
    fn speak(&mut self) {
        let ends: Vec<Endpoint> = self.phones.keys().copied().collect();
        for _ in 0..=self.below(6) {
            let pause = 5 + self.below(40);
            self.world.now += Duration::from_millis(pause.into());
            let end = ends[self.below(ends.len() as u32) as usize];
            let (is_report, is_stranger) = (self.below(5) == 0, self.below(12) == 0);
            let phone = self.phones.get_mut(&end).expect("a phone");
            phone.sequence += 1;
            let Some(socket) = phone.ports.first().and_then(|at| self.world.ports.socket(*at)) else {
                continue;
            };
            let (packet, port) =
                if is_report { (rtcp(phone.ssrc), 1) } else { (rtp(phone.sequence, phone.ssrc), 0) };
            let mut source = SocketAddr::new(phone.at.ip(), phone.at.port() + port);
            if is_stranger {
                source = at("192.0.2.200:9");
            }
            let before = self.world.worker.dropped;
            let flow = self.world.worker.flow(socket).filter(|flow| !is_report && flow.source == source);
            let sent = self.world.send(socket + u32::from(port), &source.to_string(), &packet);
            for (from, to, packet) in &sent {
                self.journal.push(format!("{:?} {to} {}", self.world.ports.address(*from), packet.len()));
            }
            if let Some(flow) = flow {
                let sent: Vec<_> = sent.iter().map(|sent| (sent.0, sent.1)).collect();
                let said: Vec<_> = flow.hops.iter().flatten().map(|hop| (hop.socket, hop.to)).collect();
                assert_eq!(sent, said);
                self.counts("flow");
            }
            if self.world.worker.dropped == before {
                self.taken.push(packet);
            }
            self.listen();
        }
    }

    pub(crate) fn listen(&mut self) {
        while let Some(Overheard { listener, packet, .. }) = self.world.worker.poll_overheard() {
            if listener == TAP {
                self.heard.push(packet);
            }
        }
    }

    /// One to three branches answer, or as many parties are rung at once; the last one wins.
    pub(crate) fn begins(&mut self) {
        let (branches, are_parties) = (1 + self.below(3) as u16, self.below(2) == 0);
        let party = self.parties;
        let ends: Vec<Endpoint> = (0..branches)
            .map(|index| match are_parties {
                true => Endpoint { party: party + index, branch: 0 },
                false => Endpoint { party, branch: index },
            })
            .collect();
        self.parties += branches;
        if branches > 1 {
            self.counts("fork");
        }
        for (index, end) in ends.iter().enumerate() {
            if are_parties || index == 0 {
                self.offers(ExchangeId::INITIAL.0, A, *end, "");
            } else {
                self.says(*end, "");
                let first = self.phones[&ends[0]].ports.clone();
                self.phones.get_mut(end).expect("a phone").ports = first;
            }
        }
        if self.is_tapped {
            self.world.act(Action::Attach(TAP));
        }
        for end in &ends {
            self.answers(ExchangeId::INITIAL.0, *end, A, "");
        }
        self.far = ends[ends.len() - 1];
        self.world.act(Action::Select(self.far));
        self.answers(ExchangeId::INITIAL.0, self.far, A, "");
        let far = self.far;
        self.phones.retain(|end, _| *end == A || *end == far);
        self.speak();
    }

    /// One of them offers: at another port, on hold, or what it said before; the other agrees, refuses, or it thinks better of it.
    fn negotiates(&mut self) {
        self.exchanges += 1;
        let exchange = self.exchanges;
        let (from, to) = if self.below(2) == 0 { (A, self.far) } else { (self.far, A) };
        let holds = ["a=sendonly\r\n", "a=inactive\r\n", "a=recvonly\r\n", ""];
        let hold = holds[self.below(4) as usize];
        self.counts(if hold.is_empty() { "re-INVITE" } else { "hold" });
        if self.below(3) == 0 {
            let phone = self.phones.get_mut(&from).expect("a phone");
            phone.at.set_port(phone.at.port() + 2);
        }
        self.offers(exchange, from, to, hold);
        self.speak();
        match self.below(6) {
            0 => {
                self.world.act(Action::Reject { exchange: ExchangeId(exchange), from: to });
            }
            1 => {
                self.world.act(Action::Cancel(ExchangeId(exchange)));
            }
            _ => {
                let answer = if hold == "a=sendonly\r\n" { "a=recvonly\r\n" } else { "" };
                self.answers(exchange, to, from, answer);
            }
        }
        self.speak();
    }

    /// A is led to somebody else.
    fn is_transferred(&mut self) {
        self.counts("transfer");
        self.begins();
    }

    fn ends(mut self) -> (usize, BTreeMap<&'static str, u32>) {
        self.world.act(Action::Delete);
        assert_eq!(self.heard, if self.is_tapped { self.taken } else { Vec::new() });
        (self.heard.len(), self.census)
    }
}

#[test]
fn a_tap_hears_each_packet_of_a_thousand_calls_once_and_in_order_through_whatever_they_negotiate() {
    let (mut packets, mut census) = (0, BTreeMap::<&str, u32>::new());
    for seed in 0..1_000 {
        let mut story = Story::new(seed, true);
        story.begins();
        for _ in 0..4 + story.below(8) {
            story.goes_on();
        }
        let (heard, counts) = story.ends();
        assert!(heard >= 10, "seed {seed}: {heard} packets");
        packets += heard;
        for (what, count) in counts {
            *census.entry(what).or_default() += count;
        }
    }
    for what in ["fork", "re-INVITE", "hold", "transfer"] {
        assert!(census[what] >= 500, "{census:?} in {packets} packets");
    }
}

#[test]
fn what_a_port_needs_is_told_so_that_another_plane_would_pass_the_same() {
    let mut flows = 0;
    for seed in 0..300 {
        let mut story = Story::new(seed, false);
        story.begins();
        for _ in 0..8 {
            if story.below(5) == 0 { story.is_transferred() } else { story.negotiates() }
        }
        let (heard, census) = story.ends();
        assert_eq!(heard, 0);
        flows += census.get("flow").copied().unwrap_or_default();
    }
    assert!(flows >= 3_000, "{flows}");
}

#[test]
fn who_is_told_to_go_hears_nothing_more_and_who_hangs_takes_no_more_than_a_bound() {
    let mut world = connected(Settings::default(), "203.0.113.1:4000", "198.51.100.1:5000", "");
    world.act(Action::Attach(TAP));
    world.act(Action::Attach(TAP));
    for sequence in 0..20_000 {
        world.send(0, "203.0.113.1:4000", &rtp(sequence, 1));
    }
    let heard = std::iter::from_fn(|| world.worker.poll_overheard()).count() as u64;
    assert_eq!(heard + world.worker.unheard_copies(), 20_000);
    assert!(heard < 20_000);
    world.act(Action::Detach(TAP));
    world.send(0, "203.0.113.1:4000", &rtp(20_001, 1));
    assert_eq!(world.worker.poll_overheard(), None);
}
