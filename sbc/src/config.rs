//! The configuration file: read, checked, and turned into what the planes need.

use std::net::{IpAddr, SocketAddr};
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use media_core::worker::Settings as MediaSettings;
use media_relay::{Address, RealmMedia, RelaySettings};
use serde::Deserialize;
use sip_engine::config::{
    Authentication, Config, Expiry, IdentityPolicy, Keepalive, Limits, Listener, Realm, RegistrarMode,
    SessionTimer, TimerValues,
};
use sip_engine::digest::Algorithm;
use sip_engine::io::{RealmId, Transport};
use sip_engine::question::TrunkTarget;
use sip_proxy::filter::{FilterSettings, Rate};
use sip_proxy::tls::{TlsIdentity, TlsSettings};
use sip_proxy::{ListenerSettings, PlaneSettings};
use toml::Spanned;

/// A mistake in the file: where, what, and how to mend it.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file can't be read.
    #[error("{path}: {source}")]
    Unreadable {
        /// Which.
        path: PathBuf,
        /// What the system says.
        source: std::io::Error,
    },
    /// It is no TOML, or names what does not exist.
    #[error("{path}: {text}")]
    Syntax {
        /// Which.
        path: PathBuf,
        /// With line and column.
        text: String,
    },
    /// A value makes no sense.
    #[error("{path}:{line}: {text}")]
    Value {
        /// Which.
        path: PathBuf,
        /// Line, from 1.
        line: usize,
        /// What, and how to mend it.
        text: String,
    },
}

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
    /// The relay.
    #[serde(default)]
    pub media: Media,
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
    /// What Server and User-Agent say; empty leaves them out.
    pub product: String,
}

impl Default for Node {
    fn default() -> Self {
        Self { id: 1, data: "/var/lib/crush-sbc".into(), drain_seconds: 30, product: "crush-sbc".to_owned() }
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
}

impl Default for Http {
    fn default() -> Self {
        Self { listen: SocketAddr::from(([127, 0, 0, 1], 8080)) }
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
}

impl Default for Media {
    fn default() -> Self {
        Self { workers: 1, inactivity_seconds: 300, follow_rebinding: true }
    }
}

/// `[limits]`
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct LimitsFile {
    /// Calls, ringing ones included.
    pub calls: usize,
    /// Transactions.
    pub transactions: usize,
    /// Bindings of one address of record.
    pub bindings_per_aor: usize,
}

impl Default for LimitsFile {
    fn default() -> Self {
        let limits = Limits::default();
        Self {
            calls: limits.calls,
            transactions: limits.transactions,
            bindings_per_aor: limits.bindings_per_aor,
        }
    }
}

/// `[[realm]]`
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
    /// `none`, `local` or `forward`.
    #[serde(default)]
    pub registrar: RegistrarKind,
    /// The core's registrar for `forward`: `sip:host[:port][;transport=tcp]`-like `host[:port][/transport]`.
    pub forward_to: Option<Spanned<String>>,
    /// The realm that the core's registrar is in.
    pub forward_realm: Option<Spanned<String>>,
    /// Who must show what.
    pub authentication: AuthenticationKind,
    /// `md5`, `sha-256`, or both, preferred first; many phones fail on anything but `md5` alone.
    #[serde(default = "md5")]
    pub digest: Vec<DigestKind>,
    /// What becomes of a From that is somebody else's.
    #[serde(default)]
    pub identity: IdentityKind,
    /// Inside the trust domain of RFC 3325.
    #[serde(default)]
    pub trusted: bool,
    /// Peers, not phones.
    #[serde(default)]
    pub trunks: bool,
    /// Passes unknown Require options.
    #[serde(default)]
    pub pass_unknown_require: bool,
    /// Seconds between keepalives to UDP phones behind NAT; 0 none.
    #[serde(default = "twenty")]
    pub keepalive_seconds: u64,
    /// `crlf` or `options`.
    #[serde(default)]
    pub keepalive: KeepaliveKind,
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
    /// PEM files for TLS listeners.
    pub certificate: Option<PathBuf>,
    /// Its key.
    pub key: Option<PathBuf>,
    /// Authority that clients' certificates must be signed by.
    pub client_ca: Option<PathBuf>,
    /// Authority of the servers that we connect to; the system's without it.
    pub peer_ca: Option<PathBuf>,
}

fn media_ports() -> Spanned<String> {
    Spanned::new(0..0, "20000-29999".to_owned())
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

/// `keepalive`
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum KeepaliveKind {
    /// CRLF CRLF.
    #[default]
    Crlf,
    /// OPTIONS.
    Options,
}

/// The file, checked, as the planes take it.
#[derive(Debug, Clone)]
pub struct Settings {
    /// As written.
    pub file: File,
    /// Of the signalling plane.
    pub plane: PlaneSettings,
    /// Of the media plane.
    pub relay: RelaySettings,
}

impl Settings {
    /// Reads and checks a file.
    pub fn load(path: &Path) -> Result<Self, ConfigError> {
        let text = std::fs::read_to_string(path)
            .map_err(|source| ConfigError::Unreadable { path: path.to_owned(), source })?;
        Self::parse(&text, path)
    }

    /// Checks a text; `path` is for messages.
    pub fn parse(text: &str, path: &Path) -> Result<Self, ConfigError> {
        let file: File = toml::from_str(text)
            .map_err(|error| ConfigError::Syntax { path: path.to_owned(), text: error.to_string() })?;
        let fault = |at: usize, what: String| ConfigError::Value {
            path: path.to_owned(),
            line: text.get(..at).unwrap_or(text).matches('\n').count() + 1,
            text: what,
        };
        let mut realms = Vec::new();
        let mut listeners = Vec::new();
        let mut listener_settings = Vec::new();
        let mut media = Vec::new();
        for (index, entry) in file.realm.iter().enumerate() {
            let at = entry.span().start;
            let realm = entry.get_ref();
            if file.realm[..index].iter().any(|other| other.get_ref().name == realm.name) {
                return Err(fault(
                    at,
                    format!("a second realm `{}`: every realm needs a name of its own", realm.name),
                ));
            }
            let id = RealmId(index as u16);
            let tls = match (&realm.certificate, &realm.key) {
                (Some(certificate), Some(key)) => {
                    let identity = TlsIdentity::load(TlsSettings {
                        certificate: certificate.clone(),
                        key: key.clone(),
                        client_ca: realm.client_ca.clone(),
                        require_client_certificate: realm.client_ca.is_some(),
                        peer_ca: realm.peer_ca.clone(),
                    })
                    .map_err(|error| fault(at, error.to_string()))?;
                    Some(Arc::new(identity))
                }
                (None, None) => None,
                _ => return Err(fault(at, "`certificate` and `key` belong together: set both".to_owned())),
            };
            for text in &realm.listen {
                let listener =
                    read_listener(text.get_ref(), id).map_err(|what| fault(text.span().start, what))?;
                if listener.transport == Transport::Tls && tls.is_none() {
                    return Err(fault(
                        text.span().start,
                        "a TLS listener needs `certificate` and `key` in its realm".to_owned(),
                    ));
                }
                let mut filter = FilterSettings::default();
                if realm.rate_per_source > 0 {
                    let per_second = f64::from(realm.rate_per_source);
                    filter.rate = Some(Rate { per_second, burst: 2.0 * per_second });
                }
                let tls = tls.clone().filter(|_| listener.transport == Transport::Tls);
                listeners.push(listener);
                listener_settings.push(ListenerSettings { filter, tls });
            }
            let mut addresses = Vec::new();
            for text in &realm.media {
                addresses
                    .push(read_media_address(text.get_ref()).map_err(|what| fault(text.span().start, what))?);
            }
            let ports = read_range(realm.media_ports.get_ref())
                .map_err(|what| fault(realm.media_ports.span().start, what))?;
            media.push(RealmMedia { addresses, ports });
            realms.push(read_realm(&file, realm, id, at, &fault)?);
        }
        if listeners.is_empty() {
            return Err(fault(0, "no listener: give at least one realm a `listen` entry".to_owned()));
        }
        let product = (!file.node.product.is_empty()).then(|| Arc::from(file.node.product.as_str()));
        let limits = Limits {
            calls: file.limits.calls,
            transactions: file.limits.transactions,
            bindings_per_aor: file.limits.bindings_per_aor,
            ..Limits::default()
        };
        let config =
            Config { node: file.node.id, realms, listeners, timers: TimerValues::default(), limits, product };
        let plane = PlaneSettings::new(Arc::new(config), listener_settings);
        let inactivity =
            (file.media.inactivity_seconds > 0).then(|| Duration::from_secs(file.media.inactivity_seconds));
        let relay = RelaySettings {
            workers: file.media.workers,
            realms: media,
            sessions: MediaSettings { inactivity, follows_rebinding: file.media.follow_rebinding },
            cname: "anchor".to_owned(),
        };
        Ok(Self { file, plane, relay })
    }

    /// The database's URL, wherever it comes from.
    pub fn database_url(&self) -> Result<String, String> {
        let url = &self.file.database.url;
        if let Some(name) = url.strip_prefix('$') {
            return std::env::var(name)
                .map_err(|_| format!("database.url: the environment has no {name}; set it"));
        }
        if let Some(path) = url.strip_prefix('@') {
            return std::fs::read_to_string(path)
                .map(|text| text.trim().to_owned())
                .map_err(|error| format!("database.url: {path}: {error}"));
        }
        Ok(url.clone())
    }
}

fn read_realm(
    file: &File,
    realm: &RealmFile,
    id: RealmId,
    at: usize,
    fault: &impl Fn(usize, String) -> ConfigError,
) -> Result<Realm, ConfigError> {
    let expiry = Expiry {
        minimum: Duration::from_secs(30),
        default: Duration::from_secs(realm.max_expires_seconds.min(3600)),
        maximum: Duration::from_secs(realm.max_expires_seconds),
        nat: Duration::from_secs(realm.nat_expires_seconds),
    };
    let registrar = match realm.registrar {
        RegistrarKind::None => RegistrarMode::None,
        RegistrarKind::Local if realm.domains.is_empty() => {
            return Err(fault(
                at,
                "a local registrar needs `domains`: what phones register under".to_owned(),
            ));
        }
        RegistrarKind::Local => RegistrarMode::Local(expiry),
        RegistrarKind::Forward => {
            let (Some(to), Some(core)) = (&realm.forward_to, &realm.forward_realm) else {
                return Err(fault(
                    at,
                    "a forwarding registrar needs `forward_to` and `forward_realm`".to_owned(),
                ));
            };
            let found = file.realm.iter().position(|other| other.get_ref().name == *core.get_ref());
            let found = found.ok_or_else(|| {
                fault(core.span().start, format!("no realm is called `{}`", core.get_ref()))
            })?;
            let (host, port, transport) =
                read_target(to.get_ref()).map_err(|what| fault(to.span().start, what))?;
            let registrar = TrunkTarget {
                name: "registrar".into(),
                realm: RealmId(found as u16),
                host: host.into(),
                port,
                transport,
                credentials: None,
                timeout: None,
            };
            RegistrarMode::Forward {
                phone: expiry,
                registrar: Arc::new(registrar),
                upstream: Duration::from_secs(3600),
            }
        }
    };
    Ok(Realm {
        id,
        name: realm.name.as_str().into(),
        domains: realm.domains.iter().map(|domain| domain.to_ascii_lowercase().into()).collect(),
        registrar,
        authentication: match realm.authentication {
            AuthenticationKind::Digest => Authentication::Digest,
            AuthenticationKind::Address => Authentication::KnownSource,
            AuthenticationKind::Registered => Authentication::RegisteredFlow,
            AuthenticationKind::Open => Authentication::Open,
        },
        digest: realm
            .digest
            .iter()
            .map(|kind| match kind {
                DigestKind::Md5 => Algorithm::Md5,
                DigestKind::Sha256 => Algorithm::Sha256,
            })
            .collect(),
        identity: match realm.identity {
            IdentityKind::Refuse => IdentityPolicy::Refuse,
            IdentityKind::Correct => IdentityPolicy::Correct,
            IdentityKind::Pass => IdentityPolicy::Pass,
        },
        trusted: realm.trusted,
        keepalive: (realm.keepalive_seconds > 0).then(|| Keepalive {
            interval: Duration::from_secs(realm.keepalive_seconds),
            options: realm.keepalive == KeepaliveKind::Options,
        }),
        pass_unknown_require: realm.pass_unknown_require,
        session_timer: (realm.session_seconds > 0).then(|| SessionTimer {
            interval: Duration::from_secs(realm.session_seconds.max(90)),
            minimum: Duration::from_secs(90),
        }),
        is_trunk_side: realm.trunks,
    })
}

fn read_transport(text: &str) -> Option<Transport> {
    match text.to_ascii_lowercase().as_str() {
        "udp" => Some(Transport::Udp),
        "tcp" => Some(Transport::Tcp),
        "tls" => Some(Transport::Tls),
        _ => None,
    }
}

fn read_listener(text: &str, realm: RealmId) -> Result<Listener, String> {
    let wrong = || {
        format!("`{text}` is no listener: write `udp:192.0.2.1:5060`, `tcp:...` or `tls:[2001:db8::1]:5061`")
    };
    let (transport, rest) = text.split_once(':').ok_or_else(wrong)?;
    let transport = read_transport(transport).ok_or_else(wrong)?;
    let (address, advertised) = rest.split_once('=').unwrap_or((rest, rest));
    let address: SocketAddr = address.parse().map_err(|_| wrong())?;
    let advertised: SocketAddr = advertised.parse().map_err(|_| wrong())?;
    if advertised.ip().is_unspecified() {
        return Err(format!(
            "`{text}`: phones can't call back to {}; name the address itself",
            advertised.ip()
        ));
    }
    Ok(Listener { realm, transport, address, advertised, datagram_limit: 1300 })
}

fn read_media_address(text: &str) -> Result<Address, String> {
    let wrong = || {
        format!(
            "`{text}` is no media address: write `192.0.2.1`, or `10.0.0.1=192.0.2.1` behind a one-to-one NAT"
        )
    };
    let (bind, advertised) = text.split_once('=').unwrap_or((text, text));
    let bind: IpAddr = bind.parse().map_err(|_| wrong())?;
    let advertised: IpAddr = advertised.parse().map_err(|_| wrong())?;
    if advertised.is_unspecified() || bind.is_ipv4() != advertised.is_ipv4() {
        return Err(wrong());
    }
    Ok(Address { bind, advertised })
}

fn read_range(text: &str) -> Result<RangeInclusive<u16>, String> {
    let range = text
        .split_once('-')
        .and_then(|(first, last)| Some(first.trim().parse::<u16>().ok()?..=last.trim().parse::<u16>().ok()?));
    range
        .filter(|range| *range.start() >= 1024 && range.end().saturating_sub(*range.start()) >= 3)
        .ok_or_else(|| {
            format!(
                "`{text}` is no range of ports: write `20000-29999`, from 1024 up, with four ports at least"
            )
        })
}

fn read_target(text: &str) -> Result<(String, Option<u16>, Option<Transport>), String> {
    let wrong = || format!("`{text}` is no target: write `host`, `host:5060` or `192.0.2.9:5060/tcp`");
    let (place, transport) = match text.split_once('/') {
        Some((place, transport)) => (place, Some(read_transport(transport).ok_or_else(wrong)?)),
        None => (text, None),
    };
    if let Ok(address) = place.parse::<SocketAddr>() {
        return Ok((address.ip().to_string(), Some(address.port()), transport));
    }
    match place.rsplit_once(':') {
        Some((host, port)) => Ok((host.to_owned(), Some(port.parse().map_err(|_| wrong())?), transport)),
        None if place.is_empty() => Err(wrong()),
        None => Ok((place.to_owned(), None, transport)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = "[database]\nurl = \"postgres:///sbc\"\n\n[[realm]]\nname = \"access\"\ndomains = [\"example.net\"]\nregistrar = \"local\"\nauthentication = \"digest\"\nlisten = [\"udp:127.0.0.1:5060\"]\nmedia = [\"127.0.0.1\"]\n";

    fn message(text: &str) -> String {
        Settings::parse(text, Path::new("sbc.toml")).map(|_| ()).unwrap_err().to_string()
    }

    #[test]
    fn a_small_file_is_enough() {
        let settings = Settings::parse(GOOD, Path::new("sbc.toml")).unwrap();
        assert_eq!(settings.plane.engine.listeners.len(), 1);
        assert_eq!(settings.relay.realms[0].ports, 20000..=29999);
    }

    #[test]
    fn a_mistake_is_named_with_its_line_and_its_cure() {
        let listen = message(&GOOD.replace("udp:127.0.0.1:5060", "127.0.0.1"));
        assert!(listen.starts_with("sbc.toml:9: ") && listen.contains("write `udp:"), "{listen}");
        let unknown = message(&GOOD.replace("domains", "domain"));
        assert!(unknown.contains("line 6") && unknown.contains("domain"), "{unknown}");
        let tls = message(&GOOD.replace("udp:", "tls:"));
        assert!(tls.contains("certificate"), "{tls}");
        let any = message(&GOOD.replace("udp:127.0.0.1", "udp:0.0.0.0"));
        assert!(any.contains("name the address itself"), "{any}");
    }
}
