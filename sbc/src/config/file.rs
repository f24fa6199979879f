//! The file as it is written: sections, keys and their defaults. Unknown keys are refused.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;

use serde::Deserialize;
use sip_engine::config::Limits;
use toml::Spanned;

use super::release_file::{IceKind, ReleaseFile, ReleaseKind, TemperKind};

/// The file as written.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct File {
    /// This node.
    #[serde(default)]
    pub node: Node,
    /// The store.
    pub database: Database,
    /// Metrics and health.
    #[serde(default)]
    pub http: Http,
    /// SIP.
    #[serde(default)]
    pub signalling: Signalling,
    /// The relay.
    #[serde(default)]
    pub media: Media,
    /// What may leave the relay.
    #[serde(default)]
    pub release: ReleaseFile,
    /// The discovery service; without it there is none.
    pub discovery: Option<DiscoveryFile>,
    /// Bounds.
    #[serde(default)]
    pub limits: LimitsFile,
    /// Networks.
    pub realm: Vec<Spanned<RealmFile>>,
}

/// `[node]`
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Node {
    /// 0 to 255, different on each node that shares a database.
    pub id: u8,
    /// Where the journal lives.
    pub data: PathBuf,
    /// How long SIGTERM waits for running calls, seconds.
    pub drain_seconds: u64,
    /// A part of the process that says nothing for so long ends it, so that it starts anew, seconds; 0: it is only told. One
    /// that computes in circles ends it within a second whatever this says.
    pub silence_seconds: u64,
    /// What Server and User-Agent say; empty leaves them out.
    pub product: String,
}

impl Default for Node {
    fn default() -> Self {
        Self {
            id: 1,
            data: "/var/lib/crush-sbc".into(),
            drain_seconds: 30,
            silence_seconds: 10,
            product: "crush-sbc".to_owned(),
        }
    }
}

/// `[database]`
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Database {
    /// `postgres://user@host/name`; `$NAME` takes it from the environment, `@/path` from a file.
    pub url: String,
    /// Connections.
    #[serde(default = "four")]
    pub connections: u32,
}

fn four() -> u32 {
    4
}

/// `[http]`
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Http {
    /// Where `/metrics`, `/healthz` and `/readyz` are.
    pub listen: SocketAddr,
    /// Other machines are meant to reach that address; without this an address that is no loopback is warned of. The pages tell names of
    /// trunks and numbers of calls, and ask nobody who he is.
    pub exposed: bool,
}

impl Default for Http {
    fn default() -> Self {
        Self { listen: SocketAddr::from(([127, 0, 0, 1], 8080)), exposed: false }
    }
}

/// `[signalling]`
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Signalling {
    /// Threads; calls and registrations are spread over them.
    pub shards: usize,
}

impl Default for Signalling {
    fn default() -> Self {
        Self { shards: 1 }
    }
}

/// `[media]`
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Media {
    /// Threads.
    pub workers: usize,
    /// A call without a packet for so long is ended; 0 never.
    pub inactivity_seconds: u64,
    /// Whether media is followed when a NAT rebinds without signalling.
    pub follow_rebinding: bool,
    /// Whether the ports of an address share a socket where the kernel allows it.
    pub steering: bool,
}

impl Default for Media {
    fn default() -> Self {
        Self { workers: 1, inactivity_seconds: 300, follow_rebinding: true, steering: true }
    }
}

/// `[discovery]`
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DiscoveryFile {
    /// Of this machine, two of a family, primary first: of one family, or of both.
    pub addresses: Vec<IpAddr>,
    /// Two, primary first.
    #[serde(default = "discovery_ports")]
    pub ports: [u16; 2],
}

impl DiscoveryFile {
    /// Its services, one a family: primary and other address.
    pub fn services(&self) -> impl Iterator<Item = [IpAddr; 2]> + '_ {
        [true, false].into_iter().filter_map(|ipv4| {
            let mut own = self.addresses.iter().filter(|address| address.is_ipv4() == ipv4);
            Some([*own.next()?, *own.next()?])
        })
    }
}

/// STUN's own (RFC 8489 §18.6), and the next.
fn discovery_ports() -> [u16; 2] {
    [3478, 3479]
}

/// `[limits]`
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct LimitsFile {
    /// Calls, ringing ones included.
    pub calls: usize,
    /// Transactions. Strangers have none; a part is kept for trunks and registered phones.
    pub transactions: usize,
    /// Bindings of one address of record.
    pub bindings_per_aor: usize,
    /// SIP connections (TCP, TLS) that peers opened.
    pub connections: usize,
    /// Of these, connections of peers that have not registered, authenticated or come from a trunk's address; each is closed
    /// after a minute. The rest is for those who have.
    pub connections_unproven: usize,
    /// Of the latter, connections of one source: an IPv4 address or an IPv6 /64.
    pub connections_per_source: usize,
    /// SIP connections that we open, to trunks for the most part.
    pub connections_dialled: usize,
    /// TLS handshakes of peers that begin in a second; others wait for their turn.
    pub handshakes_per_second: usize,
    /// Memory that the program may use, MiB, where the unit allows more or says nothing; 0: as the unit says. Near it what is new
    /// is refused.
    pub memory_mib: u64,
    /// Calls that one user may have at once, and five times as many subscriptions; 0 any number.
    pub calls_per_user: usize,
    /// After so long a call is ended, seconds; 0: never.
    pub call_seconds: u64,
    /// Requests of one user a second that begin something (calls, registrations, messages); ten seconds' worth may come at
    /// once; 0 any number.
    pub requests_per_user: u32,
    /// Requests a second of one source address that prove nothing (of who is registered: of its flow); four seconds' worth
    /// may come at once; 0 any number. Trunks are not limited, nor is what shows the right password.
    pub unproven_per_source: u32,
}

impl Default for LimitsFile {
    fn default() -> Self {
        let limits = Limits::default();
        Self {
            calls: limits.calls,
            transactions: limits.transactions,
            bindings_per_aor: limits.bindings_per_aor,
            connections: 10_000,
            connections_unproven: 2_000,
            connections_per_source: 1_000,
            connections_dialled: 10_000,
            handshakes_per_second: 1_000,
            memory_mib: 0,
            calls_per_user: limits.calls_per_user,
            call_seconds: limits.longest_call.as_secs(),
            requests_per_user: limits.requests_per_user,
            unproven_per_source: limits.unproven_per_source,
        }
    }
}

/// `[[realm]]`. One struct for its many keys: serde's `flatten` would part them, and lose the places ([`Spanned`]) by which mistakes are told,
/// and that unknown keys are refused.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RealmFile {
    /// In records, metrics and routes.
    pub name: String,
    /// What phones of it register under.
    #[serde(default)]
    pub domains: Vec<String>,
    /// `udp:192.0.2.1:5060`, `tcp:...`, `tls:[2001:db8::1]:5061`, with `=advertised` behind a one-to-one NAT.
    pub listen: Vec<Spanned<String>>,
    /// Media addresses, with `=advertised` behind a one-to-one NAT.
    pub media: Vec<Spanned<String>>,
    /// `20000-29999`
    #[serde(default = "media_ports")]
    pub media_ports: Spanned<String>,
    /// How routers are to treat media (RFC 2474); 46 is expedited forwarding.
    #[serde(default = "expedited")]
    pub media_dscp: u8,
    /// `none`, `local` or `forward`.
    #[serde(default)]
    pub registrar: RegistrarKind,
    /// The core's registrar for `forward`: `sip:host[:port][;transport=tcp]`-like `host[:port][/transport]`.
    pub forward_to: Option<Spanned<String>>,
    /// The realm that the core's registrar is in.
    pub forward_realm: Option<Spanned<String>>,
    /// Phones or PBXs of it run on this machine: descriptions, candidates and Contacts may name ports of this machine that are
    /// not the program's own.
    #[serde(default)]
    pub local_peers: bool,
    /// Who teaches where the media of its parties is, beside the address that their description names and who has proven
    /// himself: `strict` nobody, `host` the host of that address and that of the signalling, `any` others too where the description
    /// cannot be right.
    #[serde(default)]
    pub latching: LatchingKind,
    /// Who must show what.
    pub authentication: AuthenticationKind,
    /// `md5`, `sha-256`, or both, preferred first; many phones fail on anything but `md5` alone.
    #[serde(default = "md5")]
    pub digest: Vec<DigestKind>,
    /// Calls of a trunk of this realm may go back to that same trunk: `true` for all trunks, or a list of names.
    #[serde(default)]
    pub hairpin: HairpinKind,
    /// Who, beside the parties of a call, may take it over by Replaces: `domain` (users of the same domain, and who is
    /// subscribed to the dialogs of one of the parties), `subscribed` or `own` (nobody else).
    #[serde(default)]
    pub pickup: PickupKind,
    /// Refuses digest answers without `qop` (RFC 2069), which some phones give and which are good once each.
    #[serde(default)]
    pub require_qop: bool,
    /// What becomes of a From that is somebody else's.
    #[serde(default)]
    pub identity: IdentityKind,
    /// Inside the trust domain of RFC 3325.
    #[serde(default)]
    pub trusted: bool,
    /// Peers, not phones.
    #[serde(default)]
    pub trunks: bool,
    /// Headers that pass from its users beside those that always do, though it is not trusted: `P-Charge-Info`, `P-*`. Each names what can
    /// pass, and would not without it.
    #[serde(default)]
    pub pass_headers: Vec<Spanned<String>>,
    /// What becomes of the display names of its users: `pass`, `strip`, or `replace` by the user part.
    #[serde(default)]
    pub display_names: DisplayNamesKind,
    /// What its users may have each other's phones do, though it is not trusted: `notify` (restart, read another
    /// configuration), `refer` (call somebody).
    #[serde(default)]
    pub allow_commands: Vec<CommandKind>,
    /// Passes unknown Require options.
    #[serde(default)]
    pub pass_unknown_require: bool,
    /// Seconds between keepalives to UDP phones behind NAT; 0 none.
    #[serde(default = "twenty")]
    pub keepalive_seconds: u64,
    /// `options`, or `crlf` where all phones answer it (RFC 5626 §4.4.1 does not ask it of them over UDP): only what a phone
    /// sends holds a NAT open that nothing from outside refreshes (RFC 4787 REQ-6).
    #[serde(default)]
    pub keepalive: KeepaliveKind,
    /// Whether media of its calls may leave the relay, if the other end's realm says so as well: `anchor`, `video`,
    /// `allow`, `prefer`.
    #[serde(default)]
    pub release: ReleaseKind,
    /// Two phones behind one address may be pointed at each other's local address, if their descriptions and Contacts
    /// show one LAN.
    #[serde(default)]
    pub lan_release: bool,
    /// Whether ICE is spoken with its phones: `off`, `answer` or `offer`; without it `offer` where media may leave the relay, else
    /// `off`.
    pub ice: Option<IceKind>,
    /// How many new flows its network bears, told to endpoints in CRUSH whose users have said nothing: `fast` (200 a second, only where nothing
    /// in front of the endpoints punishes that), `normal` (25), `stealth` (20). Without it nothing is said, and they go at `normal`.
    pub temper: Option<TemperKind>,
    /// Session timer, seconds; 0 none of our own.
    #[serde(default)]
    pub session_seconds: u64,
    /// What phones behind NAT are told to refresh after, seconds.
    #[serde(default = "sixty")]
    pub nat_expires_seconds: u64,
    /// What other phones may be registered for at most, seconds.
    #[serde(default = "hour")]
    pub max_expires_seconds: u64,
    /// Messages a second that one source may send; 0 any number.
    #[serde(default)]
    pub rate_per_source: u32,
    /// Networks or addresses that may send at all; empty: everybody.
    #[serde(default)]
    pub allow: Vec<Spanned<String>>,
    /// Networks or addresses that may not, whatever `allow` says.
    #[serde(default)]
    pub deny: Vec<Spanned<String>>,
    /// Networks or addresses that `rate_per_source` does not limit, beside the trunks.
    #[serde(default)]
    pub unlimited: Vec<Spanned<String>>,
    /// PEM files for TLS listeners.
    pub certificate: Option<PathBuf>,
    /// Its key.
    pub key: Option<PathBuf>,
    /// Authority that clients' certificates must be signed by.
    pub client_ca: Option<PathBuf>,
    /// Whether a client without a certificate is refused, where `client_ca` is set.
    #[serde(default = "yes")]
    pub require_client_certificate: bool,
    /// Authority of the servers that we connect to; the system's without it.
    pub peer_ca: Option<PathBuf>,
}

fn media_ports() -> Spanned<String> {
    Spanned::new(0..0, "20000-29999".to_owned())
}
/// What RFC 4594 §4.1 wants for speech.
fn expedited() -> u8 {
    46
}
fn yes() -> bool {
    true
}
fn twenty() -> u64 {
    20
}
fn sixty() -> u64 {
    60
}
fn hour() -> u64 {
    3600
}

fn md5() -> Vec<DigestKind> {
    vec![DigestKind::Md5]
}

/// `digest`
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
pub enum DigestKind {
    /// MD5.
    #[serde(rename = "md5")]
    Md5,
    /// SHA-256.
    #[serde(rename = "sha-256")]
    Sha256,
}

/// `pickup`
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum PickupKind {
    /// Users of the same domain, and subscribers.
    #[default]
    Domain,
    /// Subscribers to the dialogs of a party.
    Subscribed,
    /// The parties.
    Own,
}

/// `registrar`
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum RegistrarKind {
    /// 405.
    #[default]
    None,
    /// We are it.
    Local,
    /// The core's.
    Forward,
}

/// `latching`
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LatchingKind {
    /// Nobody.
    Strict,
    /// Their hosts.
    #[default]
    Host,
    /// Strangers too.
    Any,
}

/// `authentication`
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum AuthenticationKind {
    /// By digest.
    Digest,
    /// By source address.
    Address,
    /// By the flow it registered over.
    Registered,
    /// Anyone.
    Open,
}

/// `identity`
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum IdentityKind {
    /// 403.
    Refuse,
    /// Replaced.
    #[default]
    Correct,
    /// Left.
    Pass,
}

/// `display_names`
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum DisplayNamesKind {
    /// They pass.
    #[default]
    Pass,
    /// They do not.
    Strip,
    /// By the user part.
    Replace,
}

/// `allow_commands`
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum CommandKind {
    /// NOTIFY outside a subscription.
    Notify,
    /// REFER outside a dialog.
    Refer,
}

/// `hairpin`
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(untagged)]
pub enum HairpinKind {
    /// All trunks, or none.
    All(bool),
    /// Trunks by name.
    Trunks(Vec<String>),
}

impl Default for HairpinKind {
    fn default() -> Self {
        Self::All(false)
    }
}

/// `keepalive`
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum KeepaliveKind {
    /// CRLF CRLF.
    Crlf,
    /// OPTIONS.
    #[default]
    Options,
}
