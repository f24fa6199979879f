//! Whom TLS trusts.

use std::path::Path;
use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{WebPkiSupportedAlgorithms, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{ClientConfig, DigitallySignedStruct, Error, RootCertStore, SignatureScheme};
use tokio_rustls::TlsConnector;

/// Why TLS can't be set up.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Fault {
    #[error("{0}: no certificates in PEM form")]
    NoCertificates(String),
    #[error("the registrar's name is no name that a certificate could bear")]
    Name,
}

/// A connector for a host, and the name that its certificate must bear: signed by an authority of the file, or by one of the
/// system's; or, in a laboratory, by anybody.
pub(crate) fn connector(
    ca: Option<&Path>,
    anybody: bool,
    host: &str,
) -> Result<(TlsConnector, ServerName<'static>), Fault> {
    let host = host.trim_start_matches('[').trim_end_matches(']').to_owned();
    let name = ServerName::try_from(host).map_err(|_| Fault::Name)?;
    let config = if anybody {
        let algorithms = rustls::crypto::ring::default_provider().signature_verification_algorithms;
        let verifier = Arc::new(Anybody(algorithms));
        ClientConfig::builder().dangerous().with_custom_certificate_verifier(verifier).with_no_client_auth()
    } else {
        ClientConfig::builder().with_root_certificates(roots(ca)?).with_no_client_auth()
    };
    Ok((TlsConnector::from(Arc::new(config)), name))
}

fn roots(ca: Option<&Path>) -> Result<RootCertStore, Fault> {
    let mut roots = RootCertStore::empty();
    let whose = ca.map_or("the system".to_owned(), |path| path.display().to_string());
    match ca {
        Some(path) => {
            let certificates = CertificateDer::pem_file_iter(path);
            let certificates = certificates.map_err(|_| Fault::NoCertificates(whose.clone()))?;
            roots.add_parsable_certificates(certificates.flatten());
        }
        None => drop(roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs)),
    }
    if roots.is_empty() { Err(Fault::NoCertificates(whose)) } else { Ok(roots) }
}

/// Takes every certificate; that its owner is at the other end is still checked.
#[derive(Debug)]
struct Anybody(WebPkiSupportedAlgorithms);

impl ServerCertVerifier for Anybody {
    fn verify_server_cert(
        &self,
        _certificate: &CertificateDer<'_>,
        _chain: &[CertificateDer<'_>],
        _name: &ServerName<'_>,
        _ocsp: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, certificate, signed, &self.0)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, certificate, signed, &self.0)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.supported_schemes()
    }
}
