//! Names, asked of a real name server.

use std::net::{SocketAddr, TcpListener, UdpSocket};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use sip_engine::io::Transport;
use sip_engine::question::Resolve;
use sip_proxy::dns::Resolver;

use crate::node::{ACCESS, CORE, Setup, address};
use crate::peer::{PATIENCE, SDP, Stream, Udp, response, status};

const ZONE: &str = "
$ORIGIN example.test.
$TTL 300
@       SOA ns hostmaster 1 60 60 60 1
@       NS  ns
ns      A   127.0.0.1

; all that RFC 3263 has
full    NAPTR 50 50 \"s\" \"SIP+D2T\"  \"\" _sip._tcp.full
full    NAPTR 50 60 \"s\" \"SIP+D2U\"  \"\" _sip._udp.full
full    NAPTR 60 10 \"s\" \"SIPS+D2T\" \"\" _sips._tcp.full
full    NAPTR 10 10 \"s\" \"SIP+D2W\"  \"\" _sip._ws.full
full    NAPTR 20 10 \"u\" \"E2U+sip\"  \"!^.*$!sip:x@y!\" .
_sip._tcp.full  SRV 20 1 5080 b.full
_sip._tcp.full  SRV 10 1 5070 a.full
_sip._udp.full  SRV 10 1 5060 a.full
_sips._tcp.full SRV 10 1 5061 a.full
a.full  A    192.0.2.1
a.full  AAAA 2001:db8::1
b.full  A    192.0.2.2

; no NAPTR
plain   A    192.0.2.3
_sip._udp.plain SRV 1 0 5090 plain
_sip._tcp.plain SRV 1 0 5091 plain
bare    A    192.0.2.4
bare    AAAA 2001:db8::4
alias   CNAME bare
_sip._udp.aliased CNAME _sip._udp.plain
; no such service, though the name has an address
closed  A    192.0.2.5
_sip._udp.closed SRV 0 0 0 .
_sip._tcp.closed SRV 0 0 0 .
_sips._tcp.closed SRV 0 0 0 .
loop1   CNAME loop2
loop2   CNAME loop1
short   1 A  192.0.2.6
; one of two can't be reached
_sip._tcp.both SRV 10 0 5060 dead
_sip._tcp.both SRV 20 0 5060 alive
";

/// `nsd` in the foreground; ended when dropped.
struct NameServer {
    at: SocketAddr,
    directory: PathBuf,
    process: Child,
}

impl NameServer {
    /// `None`, said so, where it is not installed.
    fn start(more: &str) -> Option<Self> {
        let at = SocketAddr::new(address(), 5353);
        let directory = std::env::temp_dir().join(format!("sip-proxy-nsd-{}", at.ip()));
        std::fs::create_dir_all(&directory).unwrap();
        let zone = directory.join("zone");
        std::fs::write(&zone, format!("{ZONE}{more}\n")).unwrap();
        let files = directory.display();
        let configuration = format!(
            "server:\n ip-address: {}@{}\n username: \"\"\n pidfile: \"\"\n chroot: \"\"\n zonesdir: \"{files}\"\n \
             database: \"\"\n logfile: \"{files}/log\"\n xfrdfile: \"{files}/xfrd\"\n xfrdir: \"{files}\"\n \
             zonelistfile: \"{files}/list\"\n server-count: 1\nremote-control:\n control-enable: no\n\
             zone:\n name: example.test\n zonefile: \"{}\"\n",
            at.ip(),
            at.port(),
            zone.display()
        );
        std::fs::write(directory.join("conf"), configuration).unwrap();
        let path = format!("{}:/usr/sbin", std::env::var("PATH").unwrap_or_default());
        let process = Command::new("nsd")
            .env("PATH", path)
            .args(["-d", "-c"])
            .arg(directory.join("conf"))
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn();
        let Ok(process) = process else {
            println!("skipped: no nsd here; tests/lab/install.sh installs it");
            return None;
        };
        let server = Self { at, directory, process };
        let end = Instant::now() + Duration::from_secs(10);
        while server.resolve("ns", None, None, false).is_empty() {
            assert!(Instant::now() < end, "nsd does not answer: {}", server.log());
            std::thread::sleep(Duration::from_millis(50));
        }
        Some(server)
    }

    fn log(&self) -> String {
        std::fs::read_to_string(self.directory.join("log")).unwrap_or_default()
    }

    /// By a resolver with an empty cache.
    fn resolve(
        &self,
        name: &str,
        port: Option<u16>,
        transport: Option<Transport>,
        secure: bool,
    ) -> Vec<String> {
        lookup(&resolver(self.at), name, port, transport, secure)
    }
}

impl Drop for NameServer {
    fn drop(&mut self) {
        let _ = Command::new("kill").arg(self.process.id().to_string()).status();
        let _ = self.process.wait();
        let _ = std::fs::remove_dir_all(&self.directory);
    }
}

thread_local! {
    static RUNTIME: tokio::runtime::Runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
}

fn resolver(at: SocketAddr) -> Resolver {
    RUNTIME.with(|runtime| runtime.block_on(async { Resolver::at(at).unwrap() }))
}

/// `transport address:port` of each.
fn lookup(
    resolver: &Resolver,
    name: &str,
    port: Option<u16>,
    transport: Option<Transport>,
    secure: bool,
) -> Vec<String> {
    let question = Resolve { host: format!("{name}.example.test").into(), port, transport, secure };
    let found = RUNTIME.with(|runtime| runtime.block_on(resolver.resolve(&question)));
    found.iter().map(|one| format!("{} {}", one.transport.via_token(), one.address)).collect()
}

#[test]
fn naptr_srv_and_addresses_lead_to_a_list_in_the_order_of_the_rfc() {
    let Some(server) = NameServer::start("") else { return };
    let resolve = |name: &str| server.resolve(name, None, None, false);
    let mut full = resolve("full");
    // The two families of one host in either order.
    full[..2].sort();
    full[3..].sort();
    assert_eq!(
        full,
        [
            "TCP 192.0.2.1:5070",
            "TCP [2001:db8::1]:5070",
            "TCP 192.0.2.2:5080",
            "UDP 192.0.2.1:5060",
            "UDP [2001:db8::1]:5060"
        ]
    );
    assert_eq!(resolve("plain"), ["UDP 192.0.2.3:5090", "TCP 192.0.2.3:5091"]);
    let mut bare = resolve("bare");
    bare.sort();
    assert_eq!(bare, ["UDP 192.0.2.4:5060", "UDP [2001:db8::4]:5060"]);
    let mut alias = resolve("alias");
    alias.sort();
    assert_eq!(alias, bare);
    assert_eq!(resolve("aliased"), ["UDP 192.0.2.3:5090"]);
}

#[test]
fn a_port_a_transport_and_sips_each_skip_a_step() {
    let Some(server) = NameServer::start("") else { return };
    assert_eq!(server.resolve("plain", Some(6000), None, false), ["UDP 192.0.2.3:6000"]);
    assert_eq!(server.resolve("plain", None, Some(Transport::Tcp), false), ["TCP 192.0.2.3:5091"]);
    assert_eq!(server.resolve("plain", None, Some(Transport::Tls), false), ["TLS 192.0.2.3:5061"]);
    let secure = server.resolve("full", None, None, true);
    assert!(secure.contains(&"TLS 192.0.2.1:5061".to_owned()) && secure.len() == 2, "{secure:?}");
}

#[test]
fn what_is_not_there_is_found_out_at_once_and_a_loop_ends() {
    let Some(server) = NameServer::start("") else { return };
    let begun = Instant::now();
    for name in ["closed", "nowhere", "loop1"] {
        assert!(server.resolve(name, None, None, false).is_empty(), "{name}");
    }
    assert!(begun.elapsed() < PATIENCE, "{:?}", begun.elapsed());
}

#[test]
fn answers_and_their_absence_live_as_long_as_the_zone_says() {
    let Some(server) = NameServer::start("") else { return };
    let resolver = resolver(server.at);
    let ask = |name: &str| lookup(&resolver, name, Some(1), None, false);
    assert_eq!(ask("short"), ["UDP 192.0.2.6:1"]);
    assert_eq!(ask("bare").len(), 2);
    assert!(ask("later").is_empty());
    let zone = ZONE.replace("hostmaster 1 ", "hostmaster 2 ").replace("192.0.2.6", "192.0.2.60");
    let zone = zone.replace("192.0.2.4", "192.0.2.40") + "later 1 A 192.0.2.7\n";
    // nsd compares the file's time in seconds.
    std::thread::sleep(Duration::from_millis(1100));
    std::fs::write(server.directory.join("zone"), zone).unwrap();
    Command::new("kill").args(["-HUP", &server.process.id().to_string()]).status().unwrap();
    let end = Instant::now() + Duration::from_secs(10);
    while ask("short") != ["UDP 192.0.2.60:1"] || ask("later") != ["UDP 192.0.2.7:1"] {
        assert!(Instant::now() < end, "a second to live is over: {}", server.log());
        std::thread::sleep(Duration::from_millis(100));
    }
    assert!(ask("bare").contains(&"UDP 192.0.2.4:1".to_owned()), "300 seconds to live are not");
}

#[test]
fn a_dead_name_server_costs_the_first_call_seconds_and_others_nothing() {
    let silent = UdpSocket::bind(SocketAddr::new(address(), 5353)).unwrap();
    let resolver = resolver(silent.local_addr().unwrap());
    let access = SocketAddr::new(address(), 5060);
    let mut setup = Setup::new("trunk.example.test", None, None)
        .listen(ACCESS, Transport::Udp, access)
        .listen(CORE, Transport::Udp, SocketAddr::new(address(), 5060));
    setup.resolver = Some(resolver);
    let _node = setup.start();
    let phone = Udp::new(address(), access);
    let begun = Instant::now();
    phone.send(&phone.request("INVITE", "sip:+4930123@example.net", SDP));
    let other = Udp::new(address(), access);
    for _ in 0..20 {
        let asked = Instant::now();
        assert_eq!(other.ping(), 200);
        assert!(asked.elapsed() < Duration::from_millis(200), "a lookup must not hold up the shard");
    }
    assert_eq!(status(&phone.expect()), 503);
    assert!(begun.elapsed() < Duration::from_secs(5));
    let again = Instant::now();
    phone.send(&phone.request("INVITE", "sip:+4930123@example.net", SDP));
    while phone.expect().contains("CSeq: 1 ACK") {}
    assert!(again.elapsed() < Duration::from_secs(1), "{:?}", again.elapsed());
}

#[test]
fn a_call_to_a_name_goes_to_the_next_server_when_the_first_refuses() {
    let (dead, alive) = (address(), TcpListener::bind(SocketAddr::new(address(), 5060)).unwrap());
    let more = format!("dead A {dead}\nalive A {}", alive.local_addr().unwrap().ip());
    let Some(server) = NameServer::start(&more) else { return };
    let access = SocketAddr::new(address(), 5060);
    let mut setup = Setup::new("both.example.test", None, Some(Transport::Tcp))
        .listen(ACCESS, Transport::Udp, access)
        .listen(CORE, Transport::Tcp, SocketAddr::new(address(), 5060));
    setup.resolver = Some(resolver(server.at));
    let _node = setup.start();
    let phone = Udp::new(address(), access);
    phone.send(&phone.request("INVITE", "sip:+4930123@example.net", SDP));
    let mut trunk = Stream::accepted(alive.accept().unwrap().0);
    let outgoing = trunk.expect();
    trunk.send(response(&outgoing, 486, trunk.local, ""));
    assert_eq!(status(&phone.expect()), 486);
}
