//! One leg's agent: answers the phone's checks, checks back, nominates where it controls (RFC 8445 §7, §8).

use std::net::SocketAddr;
use std::time::Duration;

use hmac::{Hmac, Mac};
use media_wire::sdp::crush::reflexive_priority;
use media_wire::sdp::ice::Credentials;
use media_wire::stun::{
    Class, ICE_CONTROLLED, ICE_CONTROLLING, Incoming, Key, Method, Outgoing, PRIORITY, USE_CANDIDATE,
};
use serde::{Deserialize, Serialize};
use sha1::Sha1;
use smallvec::SmallVec;

use crate::clock::timed;
use crate::ports::{PortPair, SocketId, Transmit};

/// Component conflict (RFC 8445 §7.3.1.1).
const ROLE_CONFLICT: u16 = 487;
/// A check is repeated after so long, twice that, and so on, so often in all (RFC 8489 §6.2.1 with ICE's shorter start).
const REPEAT: (Duration, u8) = (Duration::from_millis(100), 7);
/// Of a peer-reflexive candidate of RTP; RTCP's is one less (RFC 8445 §5.1.2.1).
const REFLEXIVE: u32 = reflexive_priority();
/// Places that a phone may be checked at; it has no more than two that work.
const MOST_CHECKS: usize = 8;

/// What an agent's random values are made from: a core draws none of its own.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub(crate) struct Seed {
    /// Known to nobody else, and written down nowhere.
    #[serde(skip)]
    pub(crate) secret: [u8; 32],
    pub(crate) session: u64,
    pub(crate) party: u16,
}

impl Seed {
    fn derive(&self, purpose: u8, number: u32) -> [u8; 20] {
        let Ok(mut code) = Hmac::<Sha1>::new_from_slice(&self.secret) else { return [0; 20] };
        code.update(&self.session.to_be_bytes());
        code.update(&self.party.to_be_bytes());
        code.update(&[purpose]);
        code.update(&number.to_be_bytes());
        code.finalize().into_bytes().into()
    }

    fn credentials(&self, generation: u32) -> Credentials {
        let text = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
        Credentials {
            ufrag: text(&self.derive(0, generation)[..4]),
            password: text(&self.derive(1, generation)[..12]),
        }
    }
}

/// A socket of a stream: its m-line and component.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Port {
    pub(crate) line: u16,
    pub(crate) is_rtcp: bool,
    pub(crate) socket: SocketId,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
struct Check {
    port: Port,
    remote: SocketAddr,
    #[serde(with = "halves")]
    transaction: u128,
    sent: u8,
    /// When it is repeated; `None`: it succeeded, or was given up.
    due: Option<Duration>,
    is_good: bool,
}

timed!(Check { due; port, remote, transaction, sent, is_good });

/// What a STUN message meant.
#[derive(Debug, Default)]
pub(crate) struct Heard {
    /// An answer to it.
    pub(crate) reply: Option<Vec<u8>>,
    /// Its author has shown who it is.
    pub(crate) is_authentic: bool,
    /// Media of this port goes there from now on.
    pub(crate) nominated: Option<(Port, SocketAddr)>,
}

/// Its credentials, and the key that they make.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(from = "Credentials", into = "Credentials")]
struct Own {
    credentials: Credentials,
    key: Key,
}

impl From<Credentials> for Own {
    fn from(credentials: Credentials) -> Self {
        Self { key: Key::new(&credentials.password), credentials }
    }
}

impl From<Own> for Credentials {
    fn from(own: Own) -> Self {
        own.credentials
    }
}

/// A number of 128 bits as two of 64: not every format has the greater ones.
mod halves {
    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    pub(super) fn serialize<S: Serializer>(number: &u128, to: S) -> Result<S::Ok, S::Error> {
        ((number >> 64) as u64, *number as u64).serialize(to)
    }

    pub(super) fn deserialize<'a, D: Deserializer<'a>>(from: D) -> Result<u128, D::Error> {
        let (high, low) = <(u64, u64)>::deserialize(from)?;
        Ok((u128::from(high) << 64) | u128::from(low))
    }
}

/// See the module.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Agent {
    seed: Seed,
    /// How often it has restarted (RFC 8445 §9).
    generation: u32,
    ours: Own,
    /// By m-line, as its last agreed description said.
    theirs: SmallVec<[Option<Credentials>; 1]>,
    is_controlling: bool,
    tie_breaker: u64,
    checks: SmallVec<[Check; 2]>,
    transactions: u32,
}

timed!(Agent { checks; seed, generation, ours, theirs, is_controlling, tie_breaker, transactions });

impl Agent {
    /// The one that offers controls (RFC 8445 §6.1.1).
    pub(crate) fn new(seed: Seed, is_controlling: bool) -> Self {
        let tie_breaker = u64::from_be_bytes(*seed.derive(2, 0).first_chunk().unwrap_or(&[0; 8]));
        Self {
            seed,
            generation: 0,
            ours: seed.credentials(0).into(),
            theirs: SmallVec::new(),
            is_controlling,
            tie_breaker,
            checks: SmallVec::new(),
            transactions: 0,
        }
    }

    /// For another branch of the same INVITE, which has the same offer.
    pub(crate) fn of_branch(&self) -> Self {
        Self { theirs: SmallVec::new(), checks: SmallVec::new(), ours: self.ours.clone(), ..*self }
    }

    /// In another process, which has the same ports as other sockets: what it restarts with is made of that one's secret.
    pub(crate) fn settle_in(&mut self, secret: [u8; 32], ports: impl Fn(u16) -> Option<PortPair>) {
        self.seed.secret = secret;
        for Check { port, .. } in &mut self.checks {
            let Some(pair) = ports(port.line) else { continue };
            port.socket = if port.is_rtcp { pair.rtcp } else { pair.rtp };
        }
    }

    /// New credentials: whatever was checked is forgotten.
    pub(crate) fn restart(&mut self, is_controlling: bool) {
        self.generation = self.generation.wrapping_add(1);
        self.ours = self.seed.credentials(self.generation).into();
        self.is_controlling = is_controlling;
        self.theirs.clear();
        self.checks.clear();
    }

    pub(crate) fn ours(&self) -> &Credentials {
        &self.ours.credentials
    }

    pub(crate) fn theirs(&self, line: usize) -> Option<&Credentials> {
        self.theirs.get(line)?.as_ref()
    }

    /// Whether these are other credentials than those that it has: the phone has restarted.
    pub(crate) fn is_restart(&self, theirs: &[Option<Credentials>]) -> bool {
        self.theirs.iter().zip(theirs).any(|(old, new)| old.is_some() && new.is_some() && old != new)
    }

    /// The phone's credentials; checks that waited for them go out with the next [`poll`](Self::poll).
    pub(crate) fn agree(&mut self, theirs: SmallVec<[Option<Credentials>; 1]>) {
        self.theirs = theirs;
    }

    /// Whether a request is for it.
    pub(crate) fn is_for(&self, username: &str) -> bool {
        username.split_once(':').is_some_and(|(ours, _)| ours == self.ours.credentials.ufrag)
    }

    /// Whether a response is to a check of it.
    pub(crate) fn has_sent(&self, transaction: u128) -> bool {
        self.checks.iter().any(|check| check.transaction == transaction)
    }

    /// A check of the phone (RFC 8445 §7.3).
    pub(crate) fn request(
        &mut self,
        port: Port,
        source: SocketAddr,
        message: &Incoming<'_>,
        now: Duration,
    ) -> Heard {
        if !message.authentic(&self.ours.key) {
            return Heard::default();
        }
        let answer = |class| Outgoing::new(Method::Binding, class, message.transaction());
        let unknown = message.unknown();
        if !unknown.is_empty() {
            let reply = answer(Class::Error).not_understood(&unknown).sealed(&self.ours.key);
            return Heard { reply: Some(reply), is_authentic: true, nominated: None };
        }
        // RFC 8445 §7.3.1.1.
        let conflict = if self.is_controlling { ICE_CONTROLLING } else { ICE_CONTROLLED };
        if let Some(theirs) = message.long(conflict) {
            if (self.tie_breaker >= theirs) == self.is_controlling {
                let reply = answer(Class::Error).error_code(ROLE_CONFLICT).sealed(&self.ours.key);
                return Heard { reply: Some(reply), is_authentic: true, nominated: None };
            }
            self.is_controlling = !self.is_controlling;
            self.checks.iter_mut().for_each(|check| check.is_good = false);
        }
        let is_nominated = !self.is_controlling && message.value(USE_CANDIDATE).is_some();
        let known = self.checks.iter().find(|check| check.port == port && check.remote == source);
        let is_good = known.is_some_and(|check| check.is_good);
        if known.is_none() || (!is_good && known.is_some_and(|check| check.due.is_none())) {
            self.checks.retain(|check| check.port != port || check.remote != source);
            if self.checks.len() < MOST_CHECKS {
                let transaction = self.transaction();
                let check =
                    Check { port, remote: source, transaction, sent: 0, due: Some(now), is_good: false };
                self.checks.push(check);
            }
        }
        Heard {
            reply: Some(answer(Class::Success).mapped_address(source).sealed(&self.ours.key)),
            is_authentic: true,
            nominated: is_nominated.then_some((port, source)),
        }
    }

    /// A response to a check of ours (RFC 8445 §7.2.5).
    pub(crate) fn response(&mut self, source: SocketAddr, message: &Incoming<'_>, now: Duration) -> Heard {
        let transaction = message.transaction();
        let position = self.checks.iter().position(|check| check.transaction == transaction);
        let line = position.and_then(|position| self.checks.get(position)).map(|check| check.port.line);
        let (Some(position), Some(line)) = (position, line) else { return Heard::default() };
        let theirs = self.theirs(usize::from(line));
        let Some(key) = theirs.map(|theirs| Key::new(&theirs.password)) else { return Heard::default() };
        let is_authentic = message.authentic(&key);
        let next = self.transaction();
        let Some(check) = self.checks.get_mut(position) else { return Heard::default() };
        if !is_authentic || check.remote != source {
            return Heard::default();
        }
        if message.class() == Class::Error {
            check.due = None;
            if message.error_code() == Some(ROLE_CONFLICT) {
                (check.sent, check.due, check.transaction) = (0, Some(now), next);
                self.is_controlling = !self.is_controlling;
            }
            return Heard { is_authentic, ..Heard::default() };
        }
        (check.due, check.is_good) = (None, true);
        let nominated = self.is_controlling.then_some((check.port, check.remote));
        Heard { reply: None, is_authentic, nominated }
    }

    fn transaction(&mut self) -> u128 {
        self.transactions = self.transactions.wrapping_add(1);
        let bytes = self.seed.derive(3, self.transactions);
        bytes.iter().take(12).fold(0, |number, byte| (number << 8) | u128::from(*byte))
    }

    /// When [`poll`](Self::poll) has something to send; `None` while the phone's credentials are not known.
    pub(crate) fn due(&self) -> Option<Duration> {
        let known = self.checks.iter().filter(|check| self.theirs(usize::from(check.port.line)).is_some());
        known.filter_map(|check| check.due).min()
    }

    /// Checks whose time has come. With each, the one that controls nominates: there is one candidate to choose.
    pub(crate) fn poll(&mut self, now: Duration, transmits: &mut impl Extend<Transmit>) {
        for check in &mut self.checks {
            let Some(theirs) = self.theirs.get(usize::from(check.port.line)).and_then(Option::as_ref) else {
                continue;
            };
            if check.due.is_none_or(|due| due > now) {
                continue;
            }
            if check.sent == REPEAT.1 {
                check.due = None;
                continue;
            }
            check.due = Some(now.saturating_add(REPEAT.0.saturating_mul(1 << check.sent.min(REPEAT.1))));
            check.sent = check.sent.saturating_add(1);
            let role = if self.is_controlling { ICE_CONTROLLING } else { ICE_CONTROLLED };
            let priority = REFLEXIVE.saturating_sub(check.port.is_rtcp.into());
            let mut request = Outgoing::new(Method::Binding, Class::Request, check.transaction)
                .username(&theirs.ufrag, &self.ours.credentials.ufrag)
                .with(PRIORITY, &priority.to_be_bytes())
                .with(role, &self.tie_breaker.to_be_bytes());
            if self.is_controlling {
                request = request.with(USE_CANDIDATE, &[]);
            }
            let packet = request.sealed(&Key::new(&theirs.password));
            transmits.extend([(check.port.socket, check.remote, packet)]);
        }
    }
}
