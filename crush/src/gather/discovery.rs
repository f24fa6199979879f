//! RFC 5780, in the order of docs/crush.md §3.2, for one socket that will carry media and one that only asks about filtering.

use std::net::SocketAddr;
use std::time::Duration;

use media_wire::sdp::crush::{NatBehaviour, NatKind, PortPattern};
use media_wire::stun::{CHANGE_ADDRESS, CHANGE_PORT, Incoming};

use super::pattern::{different, pattern};
use crate::agent::SocketId;
use crate::count::Count;
use crate::random::Random;

const RTO: Duration = Duration::from_millis(200);
const TRANSMISSIONS: u8 = 4;
/// Filtering is asked about so much later: what it tells is not needed for a path, and new flows are dear at the beginning.
const FILTER_DELAY: Duration = Duration::from_millis(400);
/// Questions about another family wait so long for the answers to these.
const TURN: Duration = Duration::from_millis(300);
/// How long an answer through the filter is waited for.
const FILTER_WAIT: Duration = Duration::from_millis(500);

/// A request that is to be sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Ask {
    pub(crate) socket: SocketId,
    pub(crate) to: SocketAddr,
    pub(crate) transaction: u128,
    /// CHANGE-REQUEST, if not 0.
    pub(crate) change: u32,
}

#[derive(Debug)]
struct Question {
    ask: Ask,
    sent: u8,
    last_sent: Duration,
    next: Duration,
    mapped: Option<SocketAddr>,
    over: bool,
}

/// One run of discovery.
#[derive(Debug)]
pub(crate) struct Discovery {
    local: SocketAddr,
    server: SocketAddr,
    socket: SocketId,
    probe: Option<SocketId>,
    /// Mapping questions in the order of their making: A1:P1, A2:P1, A2:P2, A1:P2.
    mapping: Vec<Question>,
    /// Filtering questions: address and port, port.
    filtering: Vec<Question>,
    probe_since: Option<Duration>,
    started: Duration,
}

impl Discovery {
    /// Begins with the first question. The second socket comes later, or never.
    pub(crate) fn new(
        socket: SocketId,
        local: SocketAddr,
        server: SocketAddr,
        random: &mut Random,
        now: Duration,
    ) -> Self {
        let mut discovery = Self {
            local,
            server,
            socket,
            probe: None,
            mapping: Vec::new(),
            filtering: Vec::new(),
            probe_since: None,
            started: now,
        };
        discovery.mapping.push(question(socket, server, 0, random, now));
        discovery
    }

    /// The second socket.
    pub(crate) fn probe_with(&mut self, socket: SocketId, random: &mut Random, now: Duration) {
        self.probe = Some(socket);
        for change in [CHANGE_ADDRESS | CHANGE_PORT, CHANGE_PORT] {
            let at = now.saturating_add(FILTER_DELAY);
            self.filtering.push(question(socket, self.server, change, random, at));
        }
    }

    pub(crate) fn probe(&self) -> Option<SocketId> {
        self.probe
    }

    /// The next request that is due. The caller sends it, or asks again when its pace allows.
    pub(crate) fn due(&mut self, now: Duration) -> Option<Ask> {
        for question in self.mapping.iter_mut().chain(&mut self.filtering) {
            question.over |= question.sent == TRANSMISSIONS && question.next <= now;
        }
        self.open()
            .filter(|question| question.next <= now)
            .min_by_key(|question| question.next)
            .map(|q| q.ask)
    }

    /// It was sent.
    pub(crate) fn sent(&mut self, transaction: u128, now: Duration) {
        if self.filtering.iter().any(|question| question.ask.transaction == transaction) {
            self.probe_since.get_or_insert(now);
        }
        let all = self.mapping.iter_mut().chain(&mut self.filtering);
        for question in all.filter(|question| question.ask.transaction == transaction) {
            question.next = now.saturating_add(
                RTO.saturating_mul(1_u32.checked_shl(question.sent.into()).unwrap_or(u32::MAX)),
            );
            question.sent.up();
            question.last_sent = now;
        }
    }

    /// Whether this response belongs to the run. Sources are not compared: an answer from the other address is the point
    /// of CHANGE-REQUEST.
    pub(crate) fn answer(
        &mut self,
        socket: SocketId,
        message: &Incoming<'_>,
        random: &mut Random,
        now: Duration,
    ) -> bool {
        let transaction = message.transaction();
        let all = self.mapping.iter_mut().chain(&mut self.filtering);
        let mut all =
            all.filter(|question| question.ask.transaction == transaction && question.ask.socket == socket);
        let Some(question) = all.next() else {
            return false;
        };
        question.over = true;
        question.mapped = message.mapped_address();
        drop(all);
        // The other three as soon as the first has told the other address.
        if self.mapping.len() == 1
            && let Some(other) = message.other_address()
            && other.is_ipv4() == self.server.is_ipv4()
        {
            let address_other = SocketAddr::new(other.ip(), self.server.port());
            let port_other = SocketAddr::new(self.server.ip(), other.port());
            // A millisecond apart, so that they are made in this order.
            for (place, to) in [address_other, other, port_other].into_iter().enumerate() {
                let at = now.saturating_add(Duration::from_millis(place as u64));
                self.mapping.push(question_at(self.socket, to, random, at));
            }
        }
        true
    }

    fn open(&self) -> impl Iterator<Item = &Question> {
        self.mapping.iter().chain(&self.filtering).filter(|question| !question.over)
    }

    /// The socket's address as the server sees it.
    pub(crate) fn mapped(&self) -> Option<SocketAddr> {
        self.mapping.first()?.mapped
    }

    /// Nothing more will be learnt.
    pub(crate) fn is_over(&self, now: Duration) -> bool {
        let mapping_over = self.mapping.iter().all(|question| question.over);
        let filtering_over = self.filtering.iter().all(|question| question.over)
            || self.probe_since.is_some_and(|since| now >= since.saturating_add(FILTER_WAIT))
            || (self.filtering.is_empty() && now >= self.started.saturating_add(FILTER_WAIT));
        mapping_over && filtering_over
    }

    /// When others may ask, too: once its questions about mapping are answered, or have had their time.
    pub(crate) fn leaves_off(&self) -> Duration {
        if self.knows_mapping() { self.started } else { self.started.saturating_add(TURN) }
    }

    /// Mapping is known; filtering may still be open.
    pub(crate) fn knows_mapping(&self) -> bool {
        self.mapped().is_some() && self.mapping.len() > 1 && self.mapping.iter().all(|question| question.over)
    }

    /// What is known. Before the filtering questions have been answered, the strictest filter is assumed.
    pub(crate) fn behaviour(&self) -> Option<NatBehaviour> {
        let first = self.mapped()?;
        let seen: Vec<SocketAddr> = self.mapping.iter().filter_map(|question| question.mapped).collect();
        let mapping = if first == self.local || seen.iter().all(|mapped| *mapped == first) {
            NatKind::EndpointIndependent
        } else {
            match &*self.mapping {
                [_, address, both, ..] if address.mapped.is_some() && address.mapped == both.mapped => {
                    NatKind::AddressDependent
                }
                _ => NatKind::AddressAndPortDependent,
            }
        };
        let filtering = match &self.filtering[..] {
            [both, _] if both.mapped.is_some() => NatKind::EndpointIndependent,
            [_, port] if port.mapped.is_some() => NatKind::AddressDependent,
            _ => NatKind::AddressAndPortDependent,
        };
        let (ports, last) = self.ports()?;
        Some(NatBehaviour { ipv6: first.is_ipv6(), mapping, filtering, ports, last, round: 0 })
    }

    /// The rule of the mapped ports, and the newest.
    fn ports(&self) -> Option<(PortPattern, u16)> {
        let read = |answered: Vec<&Question>| {
            let seen: Vec<u16> = answered.iter().filter_map(|one| Some(one.mapped?.port())).collect();
            Some((pattern(self.local.port(), &seen), *different(&seen).last()?))
        };
        let in_order = read(self.mapping.iter().collect())?;
        if in_order.0 != PortPattern::Random {
            return Some(in_order);
        }
        // Where a request was lost before the NAT its repetition made the mapping, after those of others.
        let mut repeated: Vec<&Question> = self.mapping.iter().collect();
        repeated.sort_by_key(|question| question.last_sent);
        read(repeated).filter(|(ports, _)| *ports != PortPattern::Random).or(Some(in_order))
    }

    pub(crate) fn timeout(&self) -> Option<Duration> {
        // The end of the wait for filtering matters when nothing else is open.
        let wait = self.mapping.iter().all(|question| question.over);
        let wait = wait.then(|| self.probe_since.unwrap_or(self.started).saturating_add(FILTER_WAIT));
        self.open().map(|question| question.next).chain(wait).min()
    }
}

fn question(socket: SocketId, to: SocketAddr, change: u32, random: &mut Random, at: Duration) -> Question {
    let ask = Ask { socket, to, transaction: random.transaction(), change };
    Question { ask, sent: 0, last_sent: at, next: at, mapped: None, over: false }
}

fn question_at(socket: SocketId, to: SocketAddr, random: &mut Random, at: Duration) -> Question {
    question(socket, to, 0, random, at)
}

#[cfg(test)]
mod tests {
    use super::*;
    use media_wire::stun::{Class, Method, OTHER_ADDRESS, Outgoing};

    const MEDIA: SocketId = SocketId(1);
    const PROBE: SocketId = SocketId(2);

    fn address(text: &str) -> SocketAddr {
        text.parse().unwrap()
    }

    /// Runs discovery against a NAT that maps as `map` says and lets `passes` of the filtering answers in.
    fn run(map: impl Fn(usize) -> SocketAddr, passes: &[u32]) -> NatBehaviour {
        let mut random = Random::new([3; 32]);
        let server = address("203.0.113.5:3478");
        let mut discovery =
            Discovery::new(MEDIA, address("10.0.0.2:5004"), server, &mut random, Duration::ZERO);
        discovery.probe_with(PROBE, &mut random, Duration::ZERO);
        let mut made = Vec::new();
        let mut now = Duration::ZERO;
        while !discovery.is_over(now) {
            while let Some(ask) = discovery.due(now) {
                discovery.sent(ask.transaction, now);
                if ask.socket == PROBE && !passes.contains(&ask.change) {
                    continue;
                }
                if !made.contains(&ask.to) {
                    made.push(ask.to);
                }
                let place = made.iter().position(|to| *to == ask.to).unwrap();
                let other = [&[0, 1][..], &3479u16.to_be_bytes(), &[203, 0, 113, 6]].concat();
                let packet = Outgoing::new(Method::Binding, Class::Success, ask.transaction)
                    .mapped_address(map(place))
                    .with(OTHER_ADDRESS, &other)
                    .plain();
                let message = Incoming::read(&packet).unwrap();
                assert!(discovery.answer(ask.socket, &message, &mut random, now));
            }
            now += Duration::from_millis(1);
        }
        discovery.behaviour().unwrap()
    }

    #[test]
    fn cones_counters_and_dice_are_told_apart() {
        let cone = run(|_| address("198.51.100.7:5004"), &[]);
        assert_eq!(
            (cone.mapping, cone.filtering),
            (NatKind::EndpointIndependent, NatKind::AddressAndPortDependent)
        );
        let full = run(|_| address("198.51.100.7:5004"), &[CHANGE_ADDRESS | CHANGE_PORT, CHANGE_PORT]);
        assert_eq!(full.filtering, NatKind::EndpointIndependent);
        let restricted = run(|_| address("198.51.100.7:5004"), &[CHANGE_PORT]);
        assert_eq!(restricted.filtering, NatKind::AddressDependent);
        let counting = run(|flow| SocketAddr::from(([198, 51, 100, 7], 40_000 + flow as u16)), &[]);
        assert_eq!(counting.mapping, NatKind::AddressAndPortDependent);
        assert_eq!((counting.ports, counting.last), (PortPattern::Sequential(1), 40_003));
        let by_address = run(|flow| SocketAddr::from(([198, 51, 100, 7], [10, 9000, 9000, 10][flow])), &[]);
        assert_eq!((by_address.mapping, by_address.ports), (NatKind::AddressDependent, PortPattern::Random));
    }

    #[test]
    fn a_request_that_is_lost_on_its_way_out_hides_no_counting_nat() {
        for lost in 0..4 {
            let mut random = Random::new([3; 32]);
            let server = address("203.0.113.5:3478");
            let mut discovery =
                Discovery::new(MEDIA, address("10.0.0.2:5004"), server, &mut random, Duration::ZERO);
            let (mut now, mut sent, mut made) = (Duration::ZERO, 0, 0);
            while !discovery.is_over(now) {
                while let Some(ask) = discovery.due(now) {
                    discovery.sent(ask.transaction, now);
                    sent += 1;
                    if sent - 1 == lost {
                        continue;
                    }
                    made += 1;
                    let other = [&[0, 1][..], &3479u16.to_be_bytes(), &[203, 0, 113, 6]].concat();
                    let packet = Outgoing::new(Method::Binding, Class::Success, ask.transaction)
                        .mapped_address(SocketAddr::from(([198, 51, 100, 7], 40_000 + made)))
                        .with(OTHER_ADDRESS, &other)
                        .plain();
                    discovery.answer(ask.socket, &Incoming::read(&packet).unwrap(), &mut random, now);
                }
                now += Duration::from_millis(1);
            }
            let nat = discovery.behaviour().unwrap();
            assert_eq!((nat.ports, nat.last), (PortPattern::Sequential(1), 40_004), "request {lost} lost");
        }
    }

    #[test]
    fn a_silent_server_ends_the_run_without_a_result() {
        let mut random = Random::new([3; 32]);
        let server = address("203.0.113.5:3478");
        let mut discovery =
            Discovery::new(MEDIA, address("10.0.0.2:5004"), server, &mut random, Duration::ZERO);
        let mut now = Duration::ZERO;
        let mut sent = 0;
        while !discovery.is_over(now) {
            while let Some(ask) = discovery.due(now) {
                discovery.sent(ask.transaction, now);
                sent += 1;
            }
            now += Duration::from_millis(10);
            assert!(now < Duration::from_secs(10));
        }
        assert_eq!((sent, discovery.behaviour()), (4, None));
    }
}
