//! TLS: who is shown what certificate, who is believed, and what becomes of handshakes that never end.

use std::io::{Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rcgen::{CertificateParams, CertifiedIssuer, IsCa, KeyPair, SanType};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, ServerConfig, ServerConnection, StreamOwned};
use sip_engine::io::Transport;
use sip_proxy::tls::{TlsIdentity, TlsSettings};

use crate::node::{ACCESS, CORE, Node, Setup, address};
use crate::peer::{PATIENCE, SDP, Stream, Udp, header, response, status, tcp};
use crate::streams::register;

/// An authority, and files that it signed.
struct Authority {
    directory: PathBuf,
    issuer: CertifiedIssuer<'static, KeyPair>,
}

impl Authority {
    fn new() -> Self {
        let directory = std::env::temp_dir().join(format!("sip-proxy-{}", address()));
        std::fs::create_dir_all(&directory).unwrap();
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        params.distinguished_name.push(rcgen::DnType::CommonName, "authority");
        let issuer = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
        std::fs::write(directory.join("ca.pem"), issuer.pem()).unwrap();
        Self { directory, issuer }
    }

    fn file(&self, name: &str) -> PathBuf {
        self.directory.join(name)
    }

    /// Writes `name.pem` and `name.key` for DNS names, addresses, or `sip:` URIs.
    fn sign(&self, name: &str, subjects: &[&str]) {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        for subject in subjects {
            let text = (*subject).try_into().unwrap();
            params.subject_alt_names.push(match subject.parse::<IpAddr>() {
                Ok(address) => SanType::IpAddress(address),
                Err(_) if subject.starts_with("sip:") => SanType::URI(text),
                Err(_) => SanType::DnsName(text),
            });
        }
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        std::fs::write(self.file(&format!("{name}.pem")), certificate.pem()).unwrap();
        std::fs::write(self.file(&format!("{name}.key")), key.serialize_pem()).unwrap();
    }

    fn identity(&self, name: &str, clients: Clients) -> Arc<TlsIdentity> {
        let settings = TlsSettings {
            certificate: self.file(&format!("{name}.pem")),
            key: self.file(&format!("{name}.key")),
            client_ca: (clients != Clients::Unasked).then(|| self.file("ca.pem")),
            require_client_certificate: clients == Clients::Required,
            peer_ca: Some(self.file("ca.pem")),
        };
        Arc::new(TlsIdentity::load(settings).unwrap())
    }

    fn roots(&self) -> RootCertStore {
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_file(self.file("ca.pem")).unwrap()).unwrap();
        roots
    }

    fn pair(&self, name: &str) -> (Vec<CertificateDer<'static>>, PrivateKeyDer<'static>) {
        let chain = CertificateDer::from_pem_file(self.file(&format!("{name}.pem"))).unwrap();
        let key = PrivateKeyDer::from_pem_file(self.file(&format!("{name}.key"))).unwrap();
        (vec![chain], key)
    }

    /// A phone or trunk that connects, expecting `expected` in our certificate and showing `shown`, if any.
    fn connect(&self, from: IpAddr, to: SocketAddr, expected: &str, shown: Option<&str>) -> Secure {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(self.roots());
        let config = match shown {
            Some(name) => {
                let (chain, key) = self.pair(name);
                builder.with_client_auth_cert(chain, key).unwrap()
            }
            None => builder.with_no_client_auth(),
        };
        let name = ServerName::try_from(expected.to_owned()).unwrap();
        let connection = ClientConnection::new(Arc::new(config), name).unwrap();
        let stream = tcp(from, to);
        let local = stream.local_addr().unwrap();
        Stream::over(StreamOwned::new(connection, stream), local, "TLS")
    }
}

impl Drop for Authority {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.directory);
    }
}

type Secure = Stream<StreamOwned<ClientConnection, TcpStream>>;

#[derive(PartialEq, Eq, Clone, Copy)]
enum Clients {
    Unasked,
    Asked,
    Required,
}

/// A TLS listener in each realm, and plain UDP for phones at port 5060.
struct Place {
    authority: Authority,
    node: Node,
    access: SocketAddr,
    core: SocketAddr,
    identity: Arc<TlsIdentity>,
}

fn place(clients: Clients, setup: impl FnOnce(&mut Setup)) -> Place {
    let (access, core) = (SocketAddr::new(address(), 5061), SocketAddr::new(address(), 5061));
    let authority = Authority::new();
    authority.sign("sbc", &["sbc.example.net", &access.ip().to_string()]);
    authority.sign("carrier", &["sip:carrier.example", "other.example"]);
    authority.sign("stranger", &["stranger.example"]);
    let mut new = Setup::new("127.0.0.1", None, None)
        .listen(ACCESS, Transport::Tls, access)
        .listen(CORE, Transport::Tls, core)
        .listen(ACCESS, Transport::Udp, SocketAddr::new(access.ip(), 5060));
    let identity = authority.identity("sbc", Clients::Unasked);
    new.settings[0].tls = Some(identity.clone());
    new.settings[1].tls = Some(authority.identity("sbc", clients));
    new.policy.certificates = vec!["carrier.example".into()];
    setup(&mut new);
    Place { node: new.start(), authority, access, core, identity }
}

/// A call to nobody from the core side: 403 if we don't believe who it is, else what routing says.
fn dial<S: Read + Write>(trunk: &mut Stream<S>) -> u16 {
    let invite = trunk.request("INVITE", "sip:nobody@example.net", SDP);
    trunk.send(invite);
    status(&trunk.expect())
}

fn options<S: Read + Write>(phone: &mut Stream<S>, sbc: SocketAddr) -> std::io::Result<()> {
    let options = phone.request("OPTIONS", &format!("sip:{sbc}"), "");
    phone.stream.write_all(options.as_bytes())?;
    phone.stream.flush()?;
    let answer = phone.read()?;
    assert_eq!(status(&String::from_utf8_lossy(&answer)), 200);
    Ok(())
}

#[test]
fn a_phone_registers_over_tls_and_is_called_over_its_connection() {
    let place = place(Clients::Unasked, |setup| {
        setup.policy.aors = vec!["bob@example.net".into()];
    });
    let mut bob = place.authority.connect(address(), place.access, "sbc.example.net", None);
    register(&mut bob, "bob");
    bob.send("\r\n\r\n");
    assert_eq!(bob.read().unwrap(), b"\r\n");
    let caller = Udp::new(address(), SocketAddr::new(place.access.ip(), 5060));
    caller.send(&caller.request("INVITE", "sip:bob@example.net", SDP));
    let outgoing = bob.expect();
    assert!(header(&outgoing, "Via").starts_with("SIP/2.0/TLS"), "{outgoing}");
    bob.send(response(&outgoing, 603, bob.local, ""));
    assert_eq!(status(&caller.expect()), 603);
}

#[test]
fn openssl_as_a_client_verifies_us_and_gets_its_answer() {
    let place = place(Clients::Unasked, |_| {});
    let Ok(mut client) = Command::new("openssl")
        .args(["s_client", "-quiet", "-verify_return_error", "-verify_hostname", "sbc.example.net"])
        .args(["-servername", "sbc.example.net", "-CAfile"])
        .arg(place.authority.file("ca.pem"))
        .args(["-connect", &place.access.to_string()])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
    else {
        return println!("skipped: no openssl here; tests/lab/install.sh installs it");
    };
    let local = SocketAddr::new(address(), 5061);
    let options = crate::peer::request("OPTIONS", &format!("sip:{}", place.access), "TLS", local, "");
    client.stdin.as_mut().unwrap().write_all(options.as_bytes()).unwrap();
    let mut answer = [0; 12];
    client.stdout.as_mut().unwrap().read_exact(&mut answer).unwrap();
    client.kill().unwrap();
    client.wait().unwrap();
    assert_eq!(&answer, b"SIP/2.0 200 ");
}

#[test]
fn a_trunk_is_who_its_certificate_says_and_nobody_without_one() {
    // What it dials is routed back to it, which its realm allows.
    let place = place(Clients::Asked, |setup| {
        setup.realms[1].hairpin = sip_engine::config::Hairpin::All;
    });
    let from = address();
    let dial_as = |shown| dial(&mut place.authority.connect(from, place.core, "sbc.example.net", shown));
    assert_eq!(dial_as(None), 403);
    assert_eq!(dial_as(Some("stranger")), 403);
    // Routed to a trunk that nothing listens at.
    assert_eq!(dial_as(Some("carrier")), 503);
}

#[test]
fn where_certificates_are_required_none_and_a_foreign_one_end_the_handshake() {
    let place = place(Clients::Required, |_| {});
    let other = Authority::new();
    other.sign("carrier", &["sip:carrier.example"]);
    let mut known = place.authority.connect(address(), place.core, "sbc.example.net", Some("carrier"));
    options(&mut known, place.core).unwrap();
    let mut bare = place.authority.connect(address(), place.core, "sbc.example.net", None);
    options(&mut bare, place.core).unwrap_err();
    std::fs::copy(place.authority.file("ca.pem"), other.file("ca.pem")).unwrap();
    let mut forged = other.connect(address(), place.core, "sbc.example.net", Some("carrier"));
    options(&mut forged, place.core).unwrap_err();
    place.node.until("two failed handshakes, one connection", PATIENCE, |node| {
        node.count(|shard| &shard.streams.handshakes_failed) == 2
            && node.count(|shard| &shard.streams.open) == 1
    });
}

#[test]
fn a_new_certificate_is_shown_without_a_restart_and_a_broken_one_is_not() {
    let place = place(Clients::Unasked, |_| {});
    let shown = |expected: &str| {
        let mut phone = place.authority.connect(address(), place.access, expected, None);
        options(&mut phone, place.access).map(|()| phone)
    };
    let mut standing = shown("sbc.example.net").unwrap();
    // File systems of some machines count seconds.
    std::thread::sleep(Duration::from_millis(1100));
    place.authority.sign("sbc", &["new.example.net"]);
    assert!(place.identity.reload_if_changed().unwrap());
    shown("new.example.net").unwrap();
    assert!(shown("sbc.example.net").is_err());
    options(&mut standing, place.access).unwrap();

    std::thread::sleep(Duration::from_millis(1100));
    std::fs::write(place.authority.file("sbc.pem"), "broken").unwrap();
    place.identity.reload_if_changed().unwrap_err();
    shown("new.example.net").unwrap();
}

#[test]
fn handshakes_beyond_their_budget_wait_and_delay_nobody_who_is_connected() {
    let place =
        place(Clients::Unasked, |setup| setup.adjust = |settings| settings.handshakes_per_second = 20);
    let mut standing = place.authority.connect(address(), place.access, "sbc.example.net", None);
    options(&mut standing, place.access).unwrap();
    let begun = Instant::now();
    let (authority, access) = (&place.authority, place.access);
    std::thread::scope(|scope| {
        let shaking: Vec<_> = (0..10)
            .map(|_| {
                scope.spawn(move || {
                    let mut phone = authority.connect(address(), access, "sbc.example.net", None);
                    options(&mut phone, access).unwrap();
                })
            })
            .collect();
        let asked = Instant::now();
        options(&mut standing, access).unwrap();
        assert!(asked.elapsed() < Duration::from_millis(100), "{:?}", asked.elapsed());
        shaking.into_iter().for_each(|phone| phone.join().unwrap());
    });
    // Of ten, four may begin at once, and twenty in a second.
    assert!(begun.elapsed() > Duration::from_millis(200), "{:?}", begun.elapsed());
    assert_eq!(place.node.count(|shard| &shard.streams.handshakes_failed), 0);
}

#[test]
fn handshakes_that_never_end_and_junk_on_the_port_hold_nothing() {
    let place = place(Clients::Unasked, |_| {});
    let mut half_open: Vec<_> = (0..20).map(|_| tcp(address(), place.access)).collect();
    // The first bytes of a ClientHello, and then nothing.
    half_open[0].write_all(&[22, 3, 1, 2, 0, 1]).unwrap();
    let mut junk = tcp(address(), place.access);
    junk.write_all(b"OPTIONS sip:x SIP/2.0\r\n\r\n").unwrap();
    // It gets an alert, and the end.
    assert!(junk.read_to_end(&mut Vec::new()).is_ok());
    place
        .node
        .until("all closed", Duration::from_secs(13), |node| node.count(|shard| &shard.streams.open) == 0);
    assert_eq!(place.node.count(|shard| &shard.streams.handshakes_failed), 21);
}

/// A trunk that speaks TLS: the status that a call to it gets, with `certificate` shown to us.
fn call_to(certificate: &str, subject: fn(SocketAddr) -> String) -> u16 {
    let listening = TcpListener::bind(SocketAddr::new(address(), 5061)).unwrap();
    let far = listening.local_addr().unwrap();
    let place = place(Clients::Unasked, |setup| {
        let trunk = Arc::get_mut(&mut setup.policy.trunk).unwrap();
        trunk.host = far.ip().to_string().into();
        trunk.port = Some(5061);
        trunk.transport = Some(Transport::Tls);
    });
    place.authority.sign("trunk", &[&subject(far)]);
    let (chain, key) = place.authority.pair(certificate);
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .unwrap();
    let answering = std::thread::spawn(move || {
        let (stream, _) = listening.accept().unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let connection = ServerConnection::new(Arc::new(config)).unwrap();
        let mut trunk = Stream::over(StreamOwned::new(connection, stream), far, "TLS");
        let mut part = [0; 4096];
        let Ok(length) = trunk.stream.read(&mut part) else { return };
        let invite = String::from_utf8_lossy(&part[..length]).into_owned();
        if invite.starts_with("INVITE") {
            trunk.send(response(&invite, 486, far, ""));
        }
        let _ = trunk.read();
    });
    let phone = Udp::new(address(), SocketAddr::new(place.access.ip(), 5060));
    phone.send(&phone.request("INVITE", "sip:+4930123@example.net", SDP));
    let answer = status(&phone.expect());
    drop(place);
    answering.join().unwrap();
    answer
}

#[test]
fn a_trunk_is_called_over_tls_only_if_its_certificate_bears_its_name() {
    assert_eq!(call_to("trunk", |far| far.ip().to_string()), 486);
    assert_eq!(call_to("trunk", |_| "127.9.9.9".to_owned()), 503);
    assert_eq!(call_to("stranger", |far| far.ip().to_string()), 503);
}
