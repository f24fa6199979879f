//! The program as an operator meets it: its commands, its start and end, its pages, over loopback and a real PostgreSQL.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::print_stderr,
    missing_docs,
    reason = "a test that fails ends"
)]

mod cluster;

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::path::PathBuf;
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use cluster::Cluster;
use sip_engine::digest;
use sip_engine::ids::Ids;
use sip_wire::{Message, Method};

const USER: &str = "alice";

/// A configuration on free ports of loopback, and what runs with it.
struct Program {
    directory: tempfile::TempDir,
    sip: SocketAddr,
    http: SocketAddr,
    url: String,
    child: Option<Child>,
}

/// Ports that were free a moment ago; the kernel gives them out round robin, so they stay free for a while.
fn free(kind: &str) -> SocketAddr {
    match kind {
        "udp" => UdpSocket::bind("127.0.0.1:0").unwrap().local_addr().unwrap(),
        _ => TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap(),
    }
}

impl Program {
    fn new(url: &str) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let program =
            Self { directory, sip: free("udp"), http: free("tcp"), url: url.to_owned(), child: None };
        program.configure("");
        program
    }

    fn configure(&self, more: &str) {
        let Self { sip, http, url, .. } = self;
        let data = self.directory.path().join("data");
        let text = format!(
            "[node]\ndata = \"{}\"\ndrain_seconds = 3\n[database]\nurl = \"{url}\"\n[http]\nlisten = \"{http}\"\n[limits]\ncalls = 10\n{more}\n\
             [[realm]]\nname = \"access\"\ndomains = [\"example.net\"]\nregistrar = \"local\"\nauthentication = \"digest\"\n\
             listen = [\"udp:{sip}\"]\nmedia = [\"127.0.0.1\"]\nmedia_ports = \"42000-42099\"\n",
            data.display()
        );
        std::fs::write(self.file(), text).unwrap();
    }

    fn file(&self) -> PathBuf {
        self.directory.path().join("sbc.toml")
    }

    fn command(&self, command: &str) -> Command {
        let mut program = Command::new(env!("CARGO_BIN_EXE_sbc"));
        program.arg(command).arg("--config").arg(self.file()).env("NO_COLOR", "1");
        program
    }

    fn run(&self, command: &str) -> Output {
        self.command(command).output().unwrap()
    }

    fn serve(&mut self) {
        let log = std::fs::File::create(self.directory.path().join("log")).unwrap();
        self.child = Some(self.command("serve").stdin(Stdio::null()).stderr(log).spawn().unwrap());
        assert!(within(SOON, || self.get("/healthz").is_some()), "{}", self.log());
    }

    fn log(&self) -> String {
        std::fs::read_to_string(self.directory.path().join("log")).unwrap_or_default()
    }

    /// Status and body of a page; `None` while nobody answers.
    fn get(&self, path: &str) -> Option<(u16, String)> {
        let mut stream = TcpStream::connect(self.http).ok()?;
        write!(stream, "GET {path} HTTP/1.0\r\n\r\n").ok()?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).ok()?;
        let (head, body) = answer.split_once("\r\n\r\n")?;
        Some((head.split(' ').nth(1)?.parse().ok()?, body.to_owned()))
    }

    fn status(&self, path: &str) -> Option<u16> {
        self.get(path).map(|page| page.0)
    }

    fn signal(&self, signal: &str) {
        let id = self.child.as_ref().unwrap().id().to_string();
        assert!(Command::new("kill").args(["-s", signal, &id]).status().unwrap().success());
    }

    fn has_ended(&mut self) -> bool {
        self.child.as_mut().is_none_or(|child| child.try_wait().unwrap().is_some())
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        if let Some(child) = &mut self.child {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

const SOON: Duration = Duration::from_secs(10);

fn within(time: Duration, mut holds: impl FnMut() -> bool) -> bool {
    let end = Instant::now() + time;
    while Instant::now() < end {
        if holds() {
            return true;
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    false
}

fn text(output: &[u8]) -> String {
    String::from_utf8_lossy(output).into_owned()
}

/// A phone that knows UDP and REGISTER.
struct Phone {
    socket: UdpSocket,
    sip: SocketAddr,
    sent: u32,
}

impl Phone {
    fn new(sip: SocketAddr) -> Self {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        socket.set_read_timeout(Some(Duration::from_millis(500))).unwrap();
        Self { socket, sip, sent: 0 }
    }

    /// The answer to a request with these lines, which is sent until one comes.
    fn ask(&mut self, method: &str, more: &str) -> Message {
        self.sent += 1;
        let (own, number) = (self.socket.local_addr().unwrap(), self.sent);
        let request = format!(
            "{method} sip:example.net SIP/2.0\r\nVia: SIP/2.0/UDP {own};rport;branch=z9hG4bKt{number}{}\r\n\
             From: <sip:{USER}@example.net>;tag=t\r\nTo: <sip:{USER}@example.net>\r\nCall-ID: test{}\r\n\
             CSeq: {number} {method}\r\nContact: <sip:{USER}@{own}>\r\nMax-Forwards: 70\r\nExpires: 600\r\n{more}Content-Length: 0\r\n\r\n",
            own.port(),
            own.port()
        );
        let mut buffer = [0; 4096];
        for _ in 0..20 {
            self.socket.send_to(request.as_bytes(), self.sip).unwrap();
            if let Ok((length, _)) = self.socket.recv_from(&mut buffer) {
                return Message::parse(buffer[..length].to_vec().into()).unwrap();
            }
        }
        panic!("no answer to {method}");
    }

    /// The status that a REGISTER ends with.
    fn register(&mut self, password: &str) -> u16 {
        let challenge = self.ask("REGISTER", "");
        let mut ids = Ids::new([self.sent as u8; 32], 9);
        let uri = b"sip:example.net";
        let answer = digest::answer(&challenge, Method::REGISTER, uri, USER, password, &mut ids);
        let Some((_, value)) = answer else { return challenge.status().unwrap() };
        self.ask("REGISTER", &format!("Authorization: {value}\r\n")).status().unwrap()
    }
}

#[test]
fn version_and_a_mistake_in_the_file_need_no_database() {
    let program = Program::new("postgres:///nowhere");
    let version = program.run("version");
    assert_eq!(text(&version.stdout), format!("sbc {}\n", env!("CARGO_PKG_VERSION")));
    assert!(program.run("check").status.success());
    program.configure("calls_per_second = 7");
    let check = program.run("check");
    let said = text(&check.stderr);
    assert!(
        !check.status.success() && said.contains("sbc.toml:10: ") && said.contains("calls_per_second"),
        "{said}"
    );
}

#[test]
fn migrate_brings_an_empty_database_up_to_date_and_doctor_tells_until_then() {
    let Some(cluster) = Cluster::start() else { return };
    let program = Program::new(&cluster.url);
    let doctor = program.run("doctor");
    assert!(!doctor.status.success() && text(&doctor.stdout).contains("run `sbc migrate`"), "{doctor:?}");
    for _ in 0..2 {
        assert_eq!(text(&program.run("migrate").stdout), "the schema is up to date\n");
    }
    let doctor = text(&program.run("doctor").stdout);
    assert!(!doctor.contains("database"), "{doctor}");
}

#[test]
fn a_subscriber_added_in_sql_can_register_within_a_second() {
    let Some(cluster) = Cluster::start() else { return };
    let mut program = Program::new(&cluster.url);
    assert!(program.run("migrate").status.success());
    program.serve();
    assert!(within(SOON, || program.status("/readyz") == Some(200)), "{}", program.log());
    let mut phone = Phone::new(program.sip);
    assert_eq!(phone.register("secret"), 401);
    cluster.psql("SELECT sbc_set_password('example.net', 'alice', 'secret')");
    std::thread::sleep(Duration::from_secs(1));
    assert_eq!(phone.register("wrong"), 401);
    assert_eq!(phone.register("secret"), 200);

    let (_, metrics) = program.get("/metrics").unwrap();
    let has = |line: &str| assert!(metrics.lines().any(|found| found == line), "{line} is not in\n{metrics}");
    has("sbc_bindings 1");
    has("sbc_registrations_total 1");
    has("sbc_sip_requests_total{direction=\"received\",method=\"REGISTER\"} 6");
    has("sbc_sip_responses_total{code=\"200\",direction=\"sent\"} 1");
    has("sbc_sip_responses_total{code=\"401\",direction=\"sent\"} 5");
    for line in metrics.lines().filter(|line| !line.starts_with('#')) {
        let name = line.split(['{', ' ']).next().unwrap();
        let family =
            ["_bucket", "_sum", "_count"].iter().find_map(|end| name.strip_suffix(end)).unwrap_or(name);
        assert!(
            [family, name].iter().any(|name| metrics.contains(&format!("# HELP {name} "))),
            "{name} has no HELP"
        );
        if metrics.contains(&format!("# TYPE {name} counter")) {
            assert!(name.ends_with("_total"), "{name} is a counter");
        }
    }

    // The binding outlives the process.
    assert!(within(SOON, || cluster.psql("SELECT count(*) FROM binding") == "1"));
    program.signal("KILL");
    assert!(within(SOON, || program.has_ended()));
    program.serve();
    assert!(within(SOON, || program
        .get("/metrics")
        .is_some_and(|page| page.1.contains("\nsbc_bindings 1\n"))));
}

#[test]
fn a_database_that_is_away_at_the_start_delays_service_and_does_not_deny_it() {
    let Some(cluster) = Cluster::start() else { return };
    let mut program = Program::new(&cluster.url);
    assert!(program.run("migrate").status.success());
    cluster.psql("SELECT sbc_set_password('example.net', 'alice', 'secret')");
    cluster.stop();
    program.serve();
    assert_eq!((program.status("/healthz"), program.status("/readyz")), (Some(200), Some(503)));
    let mut phone = Phone::new(program.sip);
    assert_eq!(phone.register("secret"), 503, "later, not never");
    cluster.start_again();
    assert!(within(SOON * 2, || program.status("/readyz") == Some(200)), "{}", program.log());
    assert_eq!(phone.register("secret"), 200);
}

#[test]
fn a_port_or_directory_that_is_in_use_stops_the_start_and_says_which() {
    let Some(cluster) = Cluster::start() else { return };
    let program = Program::new(&cluster.url);
    let other = UdpSocket::bind(program.sip).unwrap();
    let said = text(&program.run("serve").stderr);
    assert!(said.contains(&program.sip.to_string()) && said.contains("another program"), "{said}");
    drop(other);
    let other = TcpListener::bind(program.http).unwrap();
    let said = text(&program.run("serve").stderr);
    assert!(said.contains("http.listen") && said.contains("choose a free address"), "{said}");
    drop(other);
    let mut first = program;
    first.serve();
    let said = text(&first.run("serve").stderr);
    assert!(said.contains("another sbc runs with this directory"), "{said}");
}

#[test]
fn a_signal_ends_an_idle_sbc_at_once_and_cleanly() {
    let Some(cluster) = Cluster::start() else { return };
    let mut program = Program::new(&cluster.url);
    assert!(program.run("migrate").status.success());
    program.serve();
    program.signal("TERM");
    assert!(within(Duration::from_secs(3), || program.has_ended()), "{}", program.log());
    assert!(program.child.as_mut().unwrap().wait().unwrap().success());
    assert!(program.log().contains("stopped"), "{}", program.log());
}
