//! The program ends when it is told to, whoever else does not answer, and comes back as the same phone.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::io::{BufRead as _, BufReader, Write as _};
use std::net::UdpSocket;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

/// A farewell is bounded by a second; the rest is a busy machine's.
const AT_ONCE: Duration = Duration::from_millis(400);
const SOON: Duration = Duration::from_millis(1900);
const LATE: Duration = Duration::from_secs(20);

/// A registrar of a few lines: everything gets 200, calls are taken.
struct Registrar {
    requests: mpsc::Receiver<String>,
    address: String,
}

impl Registrar {
    /// One that answers only what `answers` says, by the request's first word.
    fn start(answers: fn(&str) -> bool) -> Self {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        let address = socket.local_addr().unwrap().to_string();
        let (tell, requests) = mpsc::channel();
        std::thread::spawn(move || {
            let mut buffer = [0; 8192];
            while let Ok((length, from)) = socket.recv_from(&mut buffer) {
                let request = String::from_utf8_lossy(&buffer[..length]).into_owned();
                if request.trim().is_empty() {
                    continue;
                }
                let method = request.split(' ').next().unwrap_or_default().to_owned();
                if method != "ACK" && answers(&method) {
                    socket.send_to(ok(&request, &method, &socket).as_bytes(), from).unwrap();
                }
                if tell.send(request).is_err() {
                    return;
                }
            }
        });
        Self { requests, address }
    }

    /// The next request of a method.
    fn request(&self, method: &str) -> String {
        let end = Instant::now() + LATE;
        loop {
            let request = self.requests.recv_timeout(end.saturating_duration_since(Instant::now())).unwrap();
            if request.starts_with(method) {
                return request;
            }
        }
    }
}

fn ok(request: &str, method: &str, socket: &UdpSocket) -> String {
    let same = request.lines().filter(|line| {
        ["Via:", "From:", "To:", "Call-ID:", "CSeq:"].iter().any(|name| line.starts_with(name))
    });
    let mut head = String::from("SIP/2.0 200 OK\r\n");
    for line in same {
        let tag = if line.starts_with("To:") && !line.contains("tag=") { ";tag=registrar" } else { "" };
        head.push_str(&format!("{line}{tag}\r\n"));
    }
    let binding = request.lines().find(|line| line.starts_with("Contact:")).unwrap_or_default();
    let contact = match method {
        "REGISTER" => binding.to_owned(),
        _ => format!("Contact: <sip:{}>", socket.local_addr().unwrap()),
    };
    let body = match method {
        "INVITE" => {
            "v=0\r\no=- 1 1 IN IP4 127.0.0.1\r\ns=-\r\nc=IN IP4 127.0.0.1\r\nt=0 0\r\nm=audio 9 RTP/AVP 0\r\n"
        }
        _ => "",
    };
    format!(
        "{head}{contact}\r\nContent-Type: application/sdp\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    )
}

/// The program, its standard input open all the time.
struct Phone {
    child: Child,
    lines: mpsc::Receiver<String>,
    state: std::path::PathBuf,
}

impl Phone {
    fn start(registrar: &Registrar, more: &[&str]) -> Self {
        let state = std::env::temp_dir().join(format!(
            "phone-ends-{}-{:?}",
            std::process::id(),
            std::thread::current().id()
        ));
        let mut child = Command::new(env!("CARGO_BIN_EXE_phone"))
            .args(["--register", "sip:alice@example.net", "--registrar", &registrar.address])
            .args(["--port", "0", "--json", "--silence", "--no-port-mapping"])
            .args(more)
            .env("XDG_STATE_HOME", &state)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let (tell, lines) = mpsc::channel();
        let output = BufReader::new(child.stdout.take().unwrap());
        std::thread::spawn(move || output.lines().map_while(Result::ok).try_for_each(|line| tell.send(line)));
        Self { child, lines, state }
    }

    fn says(&self, event: &str) {
        let text = format!("\"event\":\"{event}\"");
        let end = Instant::now() + LATE;
        while !self.lines.recv_timeout(end.saturating_duration_since(Instant::now())).unwrap().contains(&text)
        {
        }
    }

    fn types(&mut self, line: &str) {
        self.child.stdin.as_mut().unwrap().write_all(format!("{line}\n").as_bytes()).unwrap();
    }

    fn signal(&self, name: &str) {
        Command::new("kill").args(["-s", name, &self.child.id().to_string()]).status().unwrap();
    }

    /// How it ended, within this time.
    fn ends(&mut self, within: Duration) -> ExitStatus {
        let start = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status;
            }
            assert!(start.elapsed() < within, "it runs after {:?}", start.elapsed());
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

impl Drop for Phone {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// In each way that it can be told.
fn told_in_each_way(answers: fn(&str) -> bool, more: &[&str], ready: &str, within: Duration) {
    for way in ["quit", "TERM", "INT"] {
        let registrar = Registrar::start(answers);
        let mut phone = Phone::start(&registrar, more);
        phone.says(ready);
        match way {
            "quit" => phone.types("quit"),
            signal => phone.signal(signal),
        }
        assert!(phone.ends(within).success(), "{way}");
    }
}

#[test]
fn told_to_end_it_unregisters_and_ends_at_once_though_its_input_stays_open() {
    told_in_each_way(|_| true, &[], "registered", AT_ONCE);
}

#[test]
fn in_a_call_it_hangs_up_first() {
    let call = ["--call", "sip:bob@example.net"];
    told_in_each_way(|_| true, &call, "established", AT_ONCE);
    let registrar = Registrar::start(|_| true);
    let mut phone = Phone::start(&registrar, &call);
    phone.says("established");
    phone.types("quit");
    registrar.request("BYE");
    assert!(registrar.request("REGISTER").contains("Expires: 0"));
    assert!(phone.ends(AT_ONCE).success());
}

#[test]
fn a_call_of_so_many_seconds_ends_the_phone_with_it() {
    let registrar = Registrar::start(|_| true);
    let mut phone = Phone::start(&registrar, &["--call", "sip:bob@example.net", "--seconds", "0.3"]);
    phone.says("established");
    assert!(phone.ends(Duration::from_millis(300) + AT_ONCE).success());
}

#[test]
fn a_registrar_that_answers_no_farewell_is_waited_for_a_second() {
    told_in_each_way(
        |method| method == "INVITE",
        &["--expires", "0", "--call", "sip:bob@example.net"],
        "established",
        SOON,
    );
    told_in_each_way(|_| false, &[], "started", SOON);
    // Nor a call that nobody takes.
    told_in_each_way(|_| false, &["--expires", "0", "--call", "sip:bob@example.net"], "started", SOON);
}

#[test]
fn told_twice_it_waits_for_nobody() {
    let registrar = Registrar::start(|_| false);
    let mut phone = Phone::start(&registrar, &[]);
    phone.says("started");
    phone.signal("TERM");
    phone.types("quit");
    phone.ends(AT_ONCE);
}

#[test]
fn a_phone_that_was_killed_comes_back_as_the_same_instance() {
    let instance = |phone: &mut Phone, registrar: &Registrar| {
        let request = registrar.request("REGISTER");
        phone.says("registered");
        request.split("+sip.instance=").nth(1).unwrap().lines().next().unwrap().to_owned()
    };
    let registrar = Registrar::start(|_| true);
    let mut phone = Phone::start(&registrar, &[]);
    let first = instance(&mut phone, &registrar);
    // A second one beside it is another.
    let mut second = Phone::start(&registrar, &[]);
    assert_ne!(instance(&mut second, &registrar), first);
    phone.child.kill().unwrap();
    phone.child.wait().unwrap();
    let mut again = Phone::start(&registrar, &[]);
    assert_eq!(instance(&mut again, &registrar), first);
    let chosen = "6ba7b810-9dad-41d1-80b4-00c04fd430c8";
    let mut named = Phone::start(&registrar, &["--instance", chosen]);
    assert!(instance(&mut named, &registrar).contains(chosen));
    std::fs::remove_dir_all(&again.state).unwrap();
}
