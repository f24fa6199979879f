//! What an operator configured, as the engine sees it: immutable, swapped whole.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use crate::digest::Algorithm;
use crate::flow::{ListenerId, RealmId, Transport};
use crate::question::TrunkTarget;

/// The whole configuration of one engine.
#[derive(Debug, Clone)]
pub struct Config {
    /// This node's number, part of all that the engine mints.
    pub node: u8,
    /// Realms, indexed by [`RealmId`].
    pub realms: Vec<Realm>,
    /// Listeners, indexed by [`ListenerId`].
    pub listeners: Vec<Listener>,
    /// Protocol timers.
    pub timers: TimerValues,
    /// Bounds that keep an overload from becoming a collapse.
    pub limits: Limits,
    /// What the Server and User-Agent headers of messages of our own say; `None` leaves them out.
    pub product: Option<Arc<str>>,
    /// Where peers may say that packets are to go: whatever a message names is judged before anything is sent there.
    pub addresses: Arc<martian::Rules>,
}

impl Config {
    /// The realm, if configured.
    pub fn realm(&self, id: RealmId) -> Option<&Realm> {
        self.realms.get(usize::from(id.0))
    }

    /// The listener, if configured.
    pub fn listener(&self, id: ListenerId) -> Option<&Listener> {
        self.listeners.get(usize::from(id.0))
    }

    /// The realm that a listener belongs to.
    pub fn realm_of(&self, id: ListenerId) -> Option<&Realm> {
        self.listener(id).and_then(|listener| self.realm(listener.realm))
    }

    /// The listener of a realm for a transport and the address family of `remote`.
    pub fn listener_for(&self, realm: RealmId, transport: Transport, remote: IpAddr) -> Option<ListenerId> {
        let found = self.listeners.iter().position(|listener| {
            listener.realm == realm
                && listener.transport == transport
                && listener.address.is_ipv4() == remote.is_ipv4()
        })?;
        u16::try_from(found).ok().map(ListenerId)
    }

    /// The host that messages to a realm, over this listener, name us and all that is behind us by.
    pub(crate) fn host_of(&self, realm: RealmId, listener: ListenerId) -> String {
        if let Some(domain) = self.realm(realm).and_then(|realm| realm.domains.first()) {
            return domain.to_string();
        }
        match self.listener(listener).map(|listener| listener.advertised.ip()) {
            Some(IpAddr::V6(address)) => format!("[{address}]"),
            Some(IpAddr::V4(address)) => address.to_string(),
            None => "anonymous.invalid".to_owned(),
        }
    }

    /// The host, with its port and transport, by which who is in a realm reaches us: its domain, or this listener.
    pub(crate) fn reached_at(&self, realm: &Realm, listener: ListenerId) -> String {
        if let Some(domain) = realm.domains.first() {
            return domain.to_string();
        }
        let Some(listener) = self.listener(listener) else { return String::new() };
        let transport = match listener.transport {
            Transport::Udp => "",
            Transport::Tcp => ";transport=tcp",
            Transport::Tls => ";transport=tls",
        };
        format!("{}{transport}", listener.advertised)
    }

    /// Whether `host:port` is one of our own listeners (RFC 3261 §16.4: a Route or Request-URI that names us).
    pub fn is_own_address(&self, address: SocketAddr) -> bool {
        self.listeners.iter().any(|listener| listener.address == address || listener.advertised == address)
    }
}

/// What a realm's challenges ask for (RFC 8760).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Digest {
    /// What challenges offer, preferred first. Many phones (libre, and with it baresip, among them) give up on a
    /// challenge that names anything but MD5, even beside it.
    pub algorithms: Vec<Algorithm>,
    /// Refuse digest answers without `qop` (RFC 2069), which old phones give; they are good once each.
    pub demands_qop: bool,
}

/// One realm: a network that the SBC has a foot in.
#[derive(Debug, Clone)]
pub struct Realm {
    /// Its place in [`Config::realms`].
    pub id: RealmId,
    /// Its name in records, metrics and routes.
    pub name: Arc<str>,
    /// The domains that phones of this realm register under; the first is the default.
    pub domains: Vec<Arc<str>>,
    /// How REGISTER is served.
    pub registrar: RegistrarMode,
    /// Whether requests from this realm's users must authenticate.
    pub authentication: Authentication,
    /// What its challenges ask for.
    pub digest: Digest,
    /// Whose calls, of its trunks, may go back to the trunk that they came from.
    pub hairpin: Hairpin,
    /// Who may take over whose call.
    pub pickup: Pickup,
    /// What becomes of a From or Contact that claims to be somebody else.
    pub identity: IdentityPolicy,
    /// Inside the trust domain of RFC 3325: P-Asserted-Identity is believed from it, and sent to it.
    pub trusted: bool,
    /// Keepalive towards UDP phones behind NAT.
    pub keepalive: Option<Keepalive>,
    /// Pass unknown Require and Proxy-Require options instead of answering 420.
    pub pass_unknown_require: bool,
    /// Session timers offered on this realm's legs (RFC 4028); `None` neither asks nor refreshes of itself.
    pub session_timer: Option<SessionTimer>,
    /// Peers, not phones: glare gets a plain 491 with the RFC's timers.
    pub is_trunk_side: bool,
    /// What of its messages passes, beside what always does.
    pub passing: Passing,
}

/// What of a realm's messages passes to others, beside what always does.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Passing {
    /// Headers that pass though the realm is not trusted: names in any case, `X-*` stands for all that begin so.
    pub headers: Vec<Arc<str>>,
    /// What becomes of display names.
    pub display_names: DisplayNames,
    /// NOTIFY outside a subscription, which reboots or reconfigures phones, from a realm that is not trusted.
    pub notify: bool,
    /// REFER outside a dialog, which makes a phone call somebody, from a realm that is not trusted.
    pub refer: bool,
}

impl Passing {
    /// Whether the operator has named this header.
    pub(crate) fn allows(&self, name: &[u8]) -> bool {
        self.headers.iter().any(|pattern| match pattern.strip_suffix('*') {
            Some(start) => {
                name.get(..start.len()).is_some_and(|name| name.eq_ignore_ascii_case(start.as_bytes()))
            }
            None => name.eq_ignore_ascii_case(pattern.as_bytes()),
        })
    }
}

/// What becomes of the display names that a realm's users give themselves.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum DisplayNames {
    /// They pass.
    #[default]
    Pass,
    /// They do not.
    Strip,
    /// The user part of the address stands in their place.
    Replace,
}

/// RFC 4028 values.
#[derive(Debug, Clone, Copy)]
pub struct SessionTimer {
    /// The interval asked for.
    pub interval: Duration,
    /// The least accepted (Min-SE, at least 90 s).
    pub minimum: Duration,
}

/// How a realm serves REGISTER.
#[derive(Debug, Clone)]
pub enum RegistrarMode {
    /// 405 to REGISTER.
    None,
    /// We are the registrar.
    Local(Expiry),
    /// A registrar in another realm decides; we cache.
    Forward {
        /// Towards the phone.
        phone: Expiry,
        /// The core's registrar.
        registrar: Arc<TrunkTarget>,
        /// The expiry we ask it for.
        upstream: Duration,
    },
}

/// Bounds of a binding's life.
#[derive(Debug, Clone, Copy)]
pub struct Expiry {
    /// Below it: 423.
    pub minimum: Duration,
    /// When the phone names none.
    pub default: Duration,
    /// Above it: cut.
    pub maximum: Duration,
    /// What a UDP phone behind NAT gets, whatever it asks for.
    pub nat: Duration,
}

/// Who must show credentials.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Authentication {
    /// Nobody: the realm is a trunk network; a source address must be known (`Question::Source`).
    KnownSource,
    /// Users, by digest (RFC 7616, RFC 8760).
    Digest,
    /// A registrar behind us has authenticated who is registered over this flow; others are refused.
    RegisteredFlow,
    /// Anyone may call (lab use).
    Open,
}

/// The trunks of a realm whose own calls may go back to them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Hairpin {
    /// None: such a call would come again.
    #[default]
    None,
    /// All.
    All,
    /// These, by name.
    Trunks(Vec<Arc<str>>),
}

impl Hairpin {
    pub(crate) fn allows(&self, trunk: &str) -> bool {
        match self {
            Self::None => false,
            Self::All => true,
            Self::Trunks(names) => names.iter().any(|name| **name == *trunk),
        }
    }
}

/// Who, beside the parties of a dialog, may replace it (RFC 3891).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Pickup {
    /// Users of the same domain, as in a PBX, and who is subscribed to the dialogs of one of its ends.
    #[default]
    Domain,
    /// Who is subscribed to the dialogs of one of its ends.
    Subscribed,
    /// Nobody else.
    Own,
}

/// What becomes of a From that is not the authenticated user.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum IdentityPolicy {
    /// 403.
    Refuse,
    /// The From is replaced by the authenticated identity.
    Correct,
    /// Left as it is; the asserted identity says who it was.
    Pass,
}

/// How a NAT binding is held open.
#[derive(Debug, Clone, Copy)]
pub struct Keepalive {
    /// Time between two.
    pub interval: Duration,
    /// OPTIONS (true) or CRLF (false).
    pub options: bool,
}

/// One listener.
#[derive(Debug, Clone)]
pub struct Listener {
    /// The realm it serves.
    pub realm: RealmId,
    /// Its transport.
    pub transport: Transport,
    /// Where it is bound.
    pub address: SocketAddr,
    /// What Via and Contact say: `address` unless a one-to-one NAT stands before us.
    pub advertised: SocketAddr,
    /// Greatest datagram sent over UDP before TCP is tried (RFC 3261 §18.1.1: path MTU less 200).
    pub datagram_limit: usize,
}

/// RFC 3261 §17 and the timers of our own.
#[derive(Debug, Clone, Copy)]
pub struct TimerValues {
    /// Round trip estimate.
    pub t1: Duration,
    /// Greatest retransmission interval for non-INVITE requests and INVITE responses.
    pub t2: Duration,
    /// Greatest time a message stays in the network.
    pub t4: Duration,
    /// How long an INVITE may ring before we give up (RFC 3261 §16.6 timer C: more than 3 minutes).
    pub ringing: Duration,
    /// How long a failing target gets before the next is tried, when no response comes at all.
    pub failover: Duration,
    /// How long the media plane may take to reply before the exchange fails with 500.
    pub media: Duration,
    /// How long a phone's re-INVITE that crosses ours waits before 491.
    pub glare: Duration,
}

impl Default for TimerValues {
    fn default() -> Self {
        Self {
            t1: Duration::from_millis(500),
            t2: Duration::from_secs(4),
            t4: Duration::from_secs(5),
            ringing: Duration::from_secs(185),
            failover: Duration::from_secs(4),
            media: Duration::from_secs(2),
            glare: Duration::from_secs(2),
        }
    }
}

/// Bounds; beyond them 503 with Retry-After to what is new, never to what is in a dialog.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Server and client transactions. The last eighth is for trunks and who is registered over the flow that a request
    /// comes by, another eighth for who has shown a password; what is in a known dialog may go to twice the limit.
    pub transactions: usize,
    /// Calls, ringing ones included.
    pub calls: usize,
    /// Bindings of one AOR.
    pub bindings_per_aor: usize,
    /// Branches of one call.
    pub branches: usize,
    /// Calls of one user at once, and five times as many subscriptions; 0 any number.
    pub calls_per_user: usize,
    /// After so long a call is ended; zero: never.
    pub longest_call: Duration,
    /// Requests of one user a second that are in no dialog, REGISTER among them, and ten seconds' worth at once; 0 any
    /// number.
    pub requests_per_user: u32,
    /// Requests a second that prove nothing, of one source address or, if somebody is registered over it, of one flow;
    /// four seconds' worth at once; 0 any number.
    pub unproven_per_source: u32,
    /// What Retry-After says.
    pub retry_after: Duration,
}

impl Limits {
    /// Registrations of phones that are not registered yet which may wait for a registrar behind us: with their two transactions
    /// each a third of what strangers may take of the table, so that one that is silent does not fill it.
    pub fn registrations(&self) -> usize {
        self.transactions / 8
    }
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            transactions: 100_000,
            calls: 20_000,
            bindings_per_aor: 10,
            branches: 12,
            calls_per_user: 100,
            longest_call: Duration::from_secs(12 * 3600),
            requests_per_user: 30,
            unproven_per_source: 500,
            retry_after: Duration::from_secs(5),
        }
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// A realm of phones with one domain.
    pub(crate) fn realm(domain: &str) -> Realm {
        Realm {
            id: RealmId(0),
            name: "realm".into(),
            domains: vec![domain.into()],
            registrar: RegistrarMode::None,
            authentication: Authentication::Digest,
            digest: Digest { algorithms: vec![Algorithm::Md5], demands_qop: false },
            identity: IdentityPolicy::Correct,
            trusted: false,
            keepalive: None,
            pass_unknown_require: false,
            hairpin: Default::default(),
            pickup: Default::default(),
            session_timer: None,
            is_trunk_side: false,
            passing: Passing::default(),
        }
    }
}
