//! The configuration file: read, checked, and turned into what the planes need.

mod check;
pub mod database;
mod file;
mod own;
mod release;
mod release_file;
#[cfg(test)]
mod tests;
mod text;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use media_core::worker::Settings as MediaSettings;
use media_relay::{RealmMedia, RelaySettings};
use sip_engine::config::{
    Authentication, Config, Digest, DisplayNames, Expiry, Hairpin, IdentityPolicy, Keepalive, Limits,
    Passing, Pickup, Realm, RegistrarMode, SessionTimer, TimerValues,
};
use sip_engine::digest::Algorithm;
use sip_engine::io::{RealmId, Transport};
use sip_engine::question::TrunkTarget;
use sip_proxy::address_list::AddressList;
use sip_proxy::filter::{FilterSettings, Rate};
use sip_proxy::tls::{TlsIdentity, TlsSettings};
use sip_proxy::{ListenerSettings, PlaneSettings};
use vitals::Vitals;

pub use file::{
    AuthenticationKind, CommandKind, Database, DigestKind, DiscoveryFile, DisplayNamesKind, File,
    HairpinKind, Http, IdentityKind, KeepaliveKind, LatchingKind, LimitsFile, Media, Node, PickupKind,
    RealmFile, RegistrarKind, Signalling,
};
pub use release_file::{IceKind, PairFile, ReleaseFile, ReleaseKind, TemperKind};
use text::{read_listener, read_media_address, read_network, read_range, read_target};

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
    /// Something in it is no TOML, is not known, or makes no sense.
    #[error("{path}:{line}: {text}")]
    Mistake {
        /// Which.
        path: PathBuf,
        /// Line, from 1.
        line: usize,
        /// What, and how to mend it.
        text: String,
    },
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
    /// The parts of the process.
    pub vitals: Vitals,
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
        let fault = |at: usize, what: String| fault(path, text, at, what);
        let file: File = toml::from_str(text).map_err(|error| {
            let at = error.span().map_or(0, |span| span.start);
            fault(at, error.message().replace('\n', " "))
        })?;
        check::whole(&file).map_err(|(at, what)| fault(at, what))?;
        let release = release::read(&file.release, &file.realm).map_err(|(at, what)| fault(at, what))?;
        let mut realms = Vec::new();
        let mut listeners = Vec::new();
        let mut listener_settings = Vec::new();
        let mut media = Vec::new();
        for (index, entry) in file.realm.iter().enumerate() {
            let at = entry.span().start;
            let realm = entry.get_ref();
            if file.realm.iter().take(index).any(|other| other.get_ref().name == realm.name) {
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
                        require_client_certificate: realm.client_ca.is_some()
                            && realm.require_client_certificate,
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
                let networks = |list: &[toml::Spanned<String>]| {
                    list.iter()
                        .map(|text| {
                            read_network(text.get_ref()).map_err(|what| fault(text.span().start, what))
                        })
                        .collect::<Result<AddressList, _>>()
                };
                let mut filter = FilterSettings {
                    allow: networks(&realm.allow)?,
                    deny: networks(&realm.deny)?,
                    unlimited: networks(&realm.unlimited)?,
                    rate: None,
                };
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
            media.push(RealmMedia { addresses, ports, dscp: realm.media_dscp });
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
            calls_per_user: file.limits.calls_per_user,
            longest_call: Duration::from_secs(file.limits.call_seconds),
            requests_per_user: file.limits.requests_per_user,
            unproven_per_source: file.limits.unproven_per_source,
            ..Limits::default()
        };
        let addresses = Arc::new(own::rules(&file, &listeners, &media));
        let config = Config {
            node: file.node.id,
            realms,
            listeners,
            timers: TimerValues::default(),
            limits,
            product,
            addresses: addresses.clone(),
        };
        let mut plane = PlaneSettings::new(Arc::new(config), listener_settings);
        plane.shards = file.signalling.shards;
        let vitals = Vitals::default();
        plane.vitals = vitals.clone();
        plane.connections = file.limits.connections;
        plane.connections_unproven = file.limits.connections_unproven;
        plane.connections_per_source = file.limits.connections_per_source;
        plane.connections_dialled = file.limits.connections_dialled;
        plane.handshakes_per_second = file.limits.handshakes_per_second;
        let inactivity =
            (file.media.inactivity_seconds > 0).then(|| Duration::from_secs(file.media.inactivity_seconds));
        let relay = RelaySettings {
            workers: file.media.workers,
            realms: media,
            sessions: MediaSettings {
                inactivity,
                follows_rebinding: file.media.follow_rebinding,
                release: Some(Arc::new(release)),
                addresses,
                latching: file.realm.iter().map(|entry| entry.get_ref().latching.into()).collect(),
                ..MediaSettings::default()
            },
            cname: "anchor".to_owned(),
            steering: file.media.steering,
            vitals: vitals.clone(),
        };
        Ok(Self { file, plane, relay, vitals })
    }

    /// The database's URL, wherever it comes from.
    pub fn database_url(&self) -> Result<String, String> {
        self.file.database.url()
    }
}

/// A mistake at this octet of the file.
fn fault(path: &Path, file: &str, at: usize, text: String) -> ConfigError {
    let line = file.get(..at).unwrap_or(file).matches('\n').count().saturating_add(1);
    ConfigError::Mistake { path: path.to_owned(), line, text }
}

fn read_realm(
    file: &File,
    realm: &RealmFile,
    id: RealmId,
    at: usize,
    fault: &impl Fn(usize, String) -> ConfigError,
) -> Result<Realm, ConfigError> {
    let expiry = Expiry {
        minimum: Duration::from_secs(60),
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
                ping: None,
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
        digest: Digest {
            algorithms: realm
                .digest
                .iter()
                .map(|kind| match kind {
                    DigestKind::Md5 => Algorithm::Md5,
                    DigestKind::Sha256 => Algorithm::Sha256,
                })
                .collect(),
            demands_qop: realm.require_qop,
        },
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
        hairpin: match &realm.hairpin {
            HairpinKind::All(false) => Hairpin::None,
            HairpinKind::All(true) => Hairpin::All,
            HairpinKind::Trunks(names) => Hairpin::Trunks(names.iter().map(|name| (**name).into()).collect()),
        },
        pickup: match realm.pickup {
            PickupKind::Domain => Pickup::Domain,
            PickupKind::Subscribed => Pickup::Subscribed,
            PickupKind::Own => Pickup::Own,
        },
        session_timer: (realm.session_seconds > 0).then(|| SessionTimer {
            interval: Duration::from_secs(realm.session_seconds),
            minimum: Duration::from_secs(90),
        }),
        is_trunk_side: realm.trunks,
        passing: Passing {
            headers: realm.pass_headers.iter().map(|name| name.get_ref().as_str().into()).collect(),
            display_names: match realm.display_names {
                DisplayNamesKind::Pass => DisplayNames::Pass,
                DisplayNamesKind::Strip => DisplayNames::Strip,
                DisplayNamesKind::Replace => DisplayNames::Replace,
            },
            notify: realm.allow_commands.contains(&CommandKind::Notify),
            refer: realm.allow_commands.contains(&CommandKind::Refer),
        },
    })
}
