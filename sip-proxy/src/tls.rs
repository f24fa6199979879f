//! Certificates: loaded from files, checked, and replaced without a restart.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

use arc_swap::ArcSwap;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::{ClientConfig, RootCertStore, ServerConfig};
use tokio_rustls::{TlsAcceptor, TlsConnector};
use webpki::EndEntityCert;

/// Files of one TLS listener.
#[derive(Debug, Clone)]
pub struct TlsSettings {
    /// Our certificate chain, PEM, leaf first.
    pub certificate: PathBuf,
    /// Its private key, PEM.
    pub key: PathBuf,
    /// Who may sign clients' certificates. `None` asks for no certificate.
    pub client_ca: Option<PathBuf>,
    /// Refuse clients without a certificate. Needs `client_ca`.
    pub require_client_certificate: bool,
    /// Who may sign the servers that we connect to. `None`: the system's authorities.
    pub peer_ca: Option<PathBuf>,
}

/// Why TLS can't be set up, and what to mend.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file can't be read or holds no PEM of the kind wanted.
    #[error("{what} {path}: {reason}; give a PEM file that the SBC's user may read")]
    File {
        /// Which of the files.
        what: &'static str,
        /// Its path.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// Certificate and key don't match, or the key's kind is not supported.
    #[error(
        "certificate {path}: {source}; certificate and key must belong together (RSA 2048+, ECDSA P-256/P-384 or Ed25519)"
    )]
    Pair {
        /// The certificate's path.
        path: PathBuf,
        /// What rustls says.
        source: rustls::Error,
    },
    /// A client verifier can't be built.
    #[error("client_ca {path}: {reason}; give the PEM of the authority that signs clients' certificates")]
    Authority {
        /// The authority's path.
        path: PathBuf,
        /// What rustls says.
        reason: String,
    },
}

/// A listener's certificates in force.
#[derive(Debug)]
pub struct TlsIdentity {
    settings: TlsSettings,
    server: ArcSwap<ServerConfig>,
    client: ArcSwap<ClientConfig>,
    modified: ArcSwap<Vec<Option<SystemTime>>>,
}

impl TlsIdentity {
    /// Loads and checks all files.
    pub fn load(settings: TlsSettings) -> Result<Self, TlsError> {
        let modified = modification_times(&settings);
        let (server, client) = build(&settings)?;
        Ok(Self {
            settings,
            server: ArcSwap::from_pointee(server),
            client: ArcSwap::from_pointee(client),
            modified: ArcSwap::from_pointee(modified),
        })
    }

    /// Loads the files again if one has changed. On an error the certificates in force stay.
    ///
    /// Returns whether new ones are in force. Connections that stand keep the old ones.
    pub fn reload_if_changed(&self) -> Result<bool, TlsError> {
        let modified = modification_times(&self.settings);
        if modified == **self.modified.load() {
            return Ok(false);
        }
        let (server, client) = build(&self.settings)?;
        self.server.store(Arc::new(server));
        self.client.store(Arc::new(client));
        self.modified.store(Arc::new(modified));
        Ok(true)
    }

    pub(crate) fn acceptor(&self) -> TlsAcceptor {
        TlsAcceptor::from(self.server.load_full())
    }

    pub(crate) fn connector(&self) -> TlsConnector {
        TlsConnector::from(self.client.load_full())
    }
}

/// The names that a peer's certificate bears (RFC 5922 §7.1): of its SIP URIs the hosts, and if there are none, its DNS
/// names. In lower case; empty without a certificate, which was verified before.
pub(crate) fn peer_names(chain: Option<&[CertificateDer<'_>]>) -> Arc<[Arc<str>]> {
    let Some(leaf) = chain.and_then(<[_]>::first) else { return Arc::default() };
    let Ok(leaf) = EndEntityCert::try_from(leaf) else { return Arc::default() };
    let domain = |uri: &str| {
        let uri = sip_wire::Uri::parse(uri.as_bytes()).ok()?;
        // A URI with a user part names a person, not a host.
        let is_domain = uri.user().is_empty() && !uri.host().as_bytes().is_empty();
        is_domain.then(|| String::from_utf8_lossy(uri.host().as_bytes()).to_ascii_lowercase().into())
    };
    let by_uri: Arc<[Arc<str>]> = leaf.valid_uri_names().filter_map(domain).collect();
    if !by_uri.is_empty() {
        return by_uri;
    }
    leaf.valid_dns_names().map(|name| name.to_ascii_lowercase().into()).collect()
}

fn modification_times(settings: &TlsSettings) -> Vec<Option<SystemTime>> {
    [Some(&settings.certificate), Some(&settings.key), settings.client_ca.as_ref(), settings.peer_ca.as_ref()]
        .into_iter()
        .flatten()
        .map(|path| std::fs::metadata(path).and_then(|metadata| metadata.modified()).ok())
        .collect()
}

fn build(settings: &TlsSettings) -> Result<(ServerConfig, ClientConfig), TlsError> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let pair = |source| TlsError::Pair { path: settings.certificate.clone(), source };
    let chain = certificates("certificate", &settings.certificate)?;
    let key = PrivateKeyDer::from_pem_file(&settings.key).map_err(|error| TlsError::File {
        what: "key",
        path: settings.key.clone(),
        reason: error.to_string(),
    })?;

    let builder = ServerConfig::builder_with_provider(provider.clone())
        .with_safe_default_protocol_versions()
        .map_err(pair)?;
    let builder = match &settings.client_ca {
        None => builder.with_no_client_auth(),
        Some(path) => {
            let authority = |reason: String| TlsError::Authority { path: path.clone(), reason };
            let mut verifier = WebPkiClientVerifier::builder_with_provider(
                Arc::new(authorities("client_ca", path)?),
                provider.clone(),
            );
            if !settings.require_client_certificate {
                verifier = verifier.allow_unauthenticated();
            }
            builder.with_client_cert_verifier(verifier.build().map_err(|error| authority(error.to_string()))?)
        }
    };
    let server = builder.with_single_cert(chain.clone(), key.clone_key()).map_err(pair)?;

    let roots = match &settings.peer_ca {
        Some(path) => authorities("peer_ca", path)?,
        None => system_authorities(),
    };
    let client = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(pair)?
        .with_root_certificates(roots)
        .with_client_auth_cert(chain, key)
        .map_err(pair)?;
    Ok((server, client))
}

fn certificates(what: &'static str, path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let fault = |reason: String| TlsError::File { what, path: path.to_path_buf(), reason };
    let chain = CertificateDer::pem_file_iter(path)
        .and_then(Iterator::collect::<Result<Vec<_>, _>>)
        .map_err(|error| fault(error.to_string()))?;
    if chain.is_empty() {
        return Err(fault("holds no certificate".to_owned()));
    }
    Ok(chain)
}

fn authorities(what: &'static str, path: &Path) -> Result<RootCertStore, TlsError> {
    let mut store = RootCertStore::empty();
    let (added, _) = store.add_parsable_certificates(certificates(what, path)?);
    if added == 0 {
        return Err(TlsError::File {
            what,
            path: path.to_path_buf(),
            reason: "holds no usable authority".to_owned(),
        });
    }
    Ok(store)
}

/// The system's own bundle; without one, no server of a public authority can be verified, and each connection says so.
fn system_authorities() -> RootCertStore {
    let mut store = RootCertStore::empty();
    store.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    store
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(directory: &Path, name: &str) -> TlsSettings {
        let made = rcgen::generate_simple_self_signed(vec![name.to_owned()]).unwrap();
        let settings = TlsSettings {
            certificate: directory.join("cert.pem"),
            key: directory.join("key.pem"),
            client_ca: None,
            require_client_certificate: false,
            peer_ca: None,
        };
        std::fs::write(&settings.certificate, made.cert.pem()).unwrap();
        std::fs::write(&settings.key, made.signing_key.serialize_pem()).unwrap();
        settings
    }

    fn scratch(name: &str) -> PathBuf {
        let directory = std::env::temp_dir().join(format!("sip-proxy-tls-{name}-{}", std::process::id()));
        std::fs::create_dir_all(&directory).unwrap();
        directory
    }

    #[test]
    fn a_changed_certificate_is_taken_and_a_broken_one_leaves_the_old_in_force() {
        let directory = scratch("reload");
        let identity = TlsIdentity::load(written(&directory, "one.example")).unwrap();
        assert!(!identity.reload_if_changed().unwrap());
        let before = identity.server.load_full();

        std::thread::sleep(std::time::Duration::from_millis(20));
        written(&directory, "two.example");
        assert!(identity.reload_if_changed().unwrap());
        let after = identity.server.load_full();
        assert!(!Arc::ptr_eq(&before, &after));

        std::thread::sleep(std::time::Duration::from_millis(20));
        std::fs::write(directory.join("cert.pem"), "not a certificate").unwrap();
        let error = identity.reload_if_changed().unwrap_err().to_string();
        assert!(error.contains("cert.pem"), "{error}");
        assert!(Arc::ptr_eq(&after, &identity.server.load_full()));
        std::fs::remove_dir_all(directory).unwrap();
    }

    #[test]
    fn a_key_that_does_not_belong_to_the_certificate_is_named() {
        let directory = scratch("pair");
        let settings = written(&directory, "one.example");
        let other = rcgen::generate_simple_self_signed(vec!["two.example".to_owned()]).unwrap();
        std::fs::write(&settings.key, other.signing_key.serialize_pem()).unwrap();
        let error = TlsIdentity::load(settings).unwrap_err().to_string();
        assert!(error.contains("belong together"), "{error}");
        std::fs::remove_dir_all(directory).unwrap();
    }
}
