//! The program on free ports of loopback, and a phone that registers with it.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::path::PathBuf;
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use sip_engine::digest;
use sip_engine::ids::Ids;
use sip_wire::{Message, Method};

pub(crate) const USER: &str = "alice";

/// A configuration on loopback, and what runs with it. It asks for any ports, and keeps those that it got for later starts: its phones
/// know them.
pub(crate) struct Program {
    pub(crate) directory: tempfile::TempDir,
    pub(crate) sip: SocketAddr,
    pub(crate) http: SocketAddr,
    pub(crate) url: String,
    pub(crate) child: Option<Child>,
    pub(crate) environment: Vec<(String, PathBuf)>,
}

/// Ports that were free a moment ago, for what can't ask for any; the kernel gives them out at random.
pub(crate) fn free(kind: &str) -> SocketAddr {
    match kind {
        "udp" => UdpSocket::bind("127.0.0.1:0").unwrap().local_addr().unwrap(),
        _ => TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap(),
    }
}

const ANY: SocketAddr = SocketAddr::V4(std::net::SocketAddrV4::new(std::net::Ipv4Addr::LOCALHOST, 0));

impl Program {
    pub(crate) fn new(url: &str) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let program = Self {
            directory,
            sip: ANY,
            http: ANY,
            url: url.to_owned(),
            child: None,
            environment: Vec::new(),
        };
        program.configure("");
        program
    }

    pub(crate) fn configure(&self, more: &str) {
        let Self { sip, http, url, .. } = self;
        let data = self.directory.path().join("data");
        let text = format!(
            "[node]\ndata = \"{}\"\ndrain_seconds = 3\n[database]\nurl = \"{url}\"\n[http]\nlisten = \"{http}\"\n[limits]\ncalls = 10\n{more}\n\
             [[realm]]\nname = \"access\"\ndomains = [\"example.net\"]\nregistrar = \"local\"\nauthentication = \"digest\"\n\
             listen = [\"udp:{sip}\"]\nmedia = [\"127.0.0.1\"]\nmedia_ports = \"42000-42099\"\nlocal_peers = true\n",
            data.display()
        );
        std::fs::write(self.file(), text).unwrap();
    }

    pub(crate) fn file(&self) -> PathBuf {
        self.directory.path().join("sbc.toml")
    }

    pub(crate) fn command(&self, command: &str) -> Command {
        let mut program = Command::new(env!("CARGO_BIN_EXE_sbc"));
        program.arg(command).arg("--config").arg(self.file()).env("NO_COLOR", "1");
        program.envs(self.environment.iter().cloned());
        program
    }

    pub(crate) fn run(&self, command: &str) -> Output {
        self.command(command).output().unwrap()
    }

    pub(crate) fn serve(&mut self) {
        let log = std::fs::File::create(self.directory.path().join("log")).unwrap();
        self.child = Some(self.command("serve").stdin(Stdio::null()).stderr(log).spawn().unwrap());
        assert!(within(SOON, || self.learn_ports() && self.get("/healthz").is_some()), "{}", self.log());
    }

    /// The same, until it takes requests.
    pub(crate) fn serve_all(&mut self) {
        self.serve();
        assert!(within(SOON, || self.status("/readyz") == Some(200)), "{}", self.log());
    }

    /// What the program says that it took.
    fn learn_ports(&mut self) -> bool {
        let log = self.log();
        let find = |line: &str, before: &str| -> Option<SocketAddr> {
            let rest = log.lines().rfind(|found| found.contains(line))?.split_once(before)?.1;
            rest.split(' ').next()?.parse().ok()
        };
        let (sip, http) = (find("transport=\"UDP\"", "address="), find("ready", "http="));
        let (Some(sip), Some(http)) = (sip, http) else { return false };
        let mut text = std::fs::read_to_string(self.file()).unwrap();
        for (asked, taken, key) in [(self.sip, sip, "udp:"), (self.http, http, "listen = \"")] {
            text = text.replace(&format!("{key}{asked}"), &format!("{key}{taken}"));
        }
        std::fs::write(self.file(), text).unwrap();
        (self.sip, self.http) = (sip, http);
        true
    }

    pub(crate) fn log(&self) -> String {
        std::fs::read_to_string(self.directory.path().join("log")).unwrap_or_default()
    }

    /// Status and body of a page; `None` while nobody answers.
    pub(crate) fn get(&self, path: &str) -> Option<(u16, String)> {
        let mut stream = TcpStream::connect(self.http).ok()?;
        stream.set_read_timeout(Some(Duration::from_secs(1))).ok()?;
        write!(stream, "GET {path} HTTP/1.0\r\n\r\n").ok()?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).ok()?;
        let (head, body) = answer.split_once("\r\n\r\n")?;
        Some((head.split(' ').nth(1)?.parse().ok()?, body.to_owned()))
    }

    pub(crate) fn status(&self, path: &str) -> Option<u16> {
        self.get(path).map(|page| page.0)
    }

    /// Whether the page of metrics has the line.
    pub(crate) fn shows(&self, line: &str) -> bool {
        self.get("/metrics").is_some_and(|page| page.1.lines().any(|found| found == line))
    }

    /// The same, soon.
    #[track_caller]
    pub(crate) fn comes_to_show(&self, line: &str) {
        assert!(within(SOON, || self.shows(line)), "{line}: {}", self.log());
    }

    pub(crate) fn signal(&self, signal: &str) {
        let id = self.child.as_ref().unwrap().id().to_string();
        assert!(Command::new("kill").args(["-s", signal, &id]).status().unwrap().success());
    }

    pub(crate) fn has_ended(&mut self) -> bool {
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

pub(crate) const SOON: Duration = Duration::from_secs(10);

pub(crate) fn within(time: Duration, mut holds: impl FnMut() -> bool) -> bool {
    let end = Instant::now() + time;
    while Instant::now() < end {
        if holds() {
            return true;
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    false
}

pub(crate) fn text(output: &[u8]) -> String {
    String::from_utf8_lossy(output).into_owned()
}

/// A phone that knows UDP and REGISTER.
pub(crate) struct Phone {
    pub(crate) socket: UdpSocket,
    pub(crate) sip: SocketAddr,
    pub(crate) sent: u32,
    /// Seconds that it asks to be registered for; 0 ends its registration.
    pub(crate) expires: u32,
}

impl Phone {
    pub(crate) fn new(sip: SocketAddr) -> Self {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        socket.set_read_timeout(Some(Duration::from_millis(500))).unwrap();
        Self { socket, sip, sent: 0, expires: 600 }
    }

    /// The answer to a request with these lines, which is sent until one comes.
    pub(crate) fn ask(&mut self, method: &str, more: &str) -> Message {
        self.ask_for("sip:example.net", method, more)
    }

    fn ask_for(&mut self, uri: &str, method: &str, more: &str) -> Message {
        self.sent += 1;
        let (own, number, expires) = (self.socket.local_addr().unwrap(), self.sent, self.expires);
        let request = format!(
            "{method} {uri} SIP/2.0\r\nVia: SIP/2.0/UDP {own};rport;branch=z9hG4bKt{number}{}\r\n\
             From: <sip:{USER}@example.net>;tag=t\r\nTo: <sip:{USER}@example.net>\r\nCall-ID: test{}\r\n\
             CSeq: {number} {method}\r\nContact: <sip:{USER}@{own}>\r\nMax-Forwards: 70\r\nExpires: {expires}\r\n{more}Content-Length: 0\r\n\r\n",
            own.port(),
            own.port()
        );
        let mut buffer = [0; 4096];
        for _ in 0..20 {
            self.socket.send_to(request.as_bytes(), self.sip).unwrap();
            if let Ok((length, _)) = self.socket.recv_from(&mut buffer) {
                let answer = Message::parse(buffer[..length].to_vec().into()).unwrap();
                // What comes late answers what was asked before.
                if answer.cseq().is_ok_and(|cseq| cseq.number == number) {
                    return answer;
                }
            }
        }
        panic!("no answer to {method}");
    }

    /// The final status of a call to somebody, who must not answer.
    pub(crate) fn call(&mut self, password: &str, user: &str) -> u16 {
        let uri = format!("sip:{user}@example.net");
        let challenge = self.ask_for(&uri, "INVITE", "");
        let mut ids = Ids::new([self.sent as u8; 32], 9);
        let answer = digest::answer(
            &challenge,
            Method::INVITE,
            uri.as_bytes(),
            digest::Login { username: USER, password },
            &mut ids,
        );
        let Some((name, value)) = answer else { return challenge.status().unwrap() };
        let mut answer = self.ask_for(&uri, "INVITE", &format!("{}: {value}\r\n", name.as_str()));
        let mut buffer = [0; 4096];
        while answer.status().is_some_and(|status| status < 200) {
            let (length, _) = self.socket.recv_from(&mut buffer).unwrap();
            answer = Message::parse(buffer[..length].to_vec().into()).unwrap();
        }
        answer.status().unwrap()
    }

    /// The status that a REGISTER ends with.
    pub(crate) fn register(&mut self, password: &str) -> u16 {
        let challenge = self.ask("REGISTER", "");
        let mut ids = Ids::new([self.sent as u8; 32], 9);
        let uri = b"sip:example.net";
        let answer = digest::answer(
            &challenge,
            Method::REGISTER,
            uri,
            digest::Login { username: USER, password },
            &mut ids,
        );
        let Some((_, value)) = answer else { return challenge.status().unwrap() };
        self.ask("REGISTER", &format!("Authorization: {value}\r\n")).status().unwrap()
    }
}
