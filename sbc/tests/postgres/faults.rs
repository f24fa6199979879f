//! Each part of the program dies and hangs in turn: the process ends, and comes up again with what it knew.

use std::time::{Duration, Instant};

use crate::cluster::Cluster;
use crate::node::{Phone, Program, SOON, free, within};
use crate::opening::Opening;

/// From the fault to the end of the process.
const AT_ONCE: Duration = Duration::from_secs(1);
/// A loop is known by the processor time that it takes, which other tests share.
const PATIENT: Duration = Duration::from_secs(5);

struct Victim {
    cluster: Cluster,
    program: Program,
}

impl Victim {
    /// With a listener of each kind, one phone registered. `None` without PostgreSQL.
    fn new() -> Option<Self> {
        let [one, other] = [free("udp"), free("udp")].map(|address| address.port());
        let discovery =
            format!("[discovery]\naddresses = [\"127.0.0.1\", \"127.0.0.2\"]\nports = [{one}, {other}]\n");
        let listen = format!("listen = [\"tcp:{}\", ", free("tcp"));
        let opening = Opening::with_subscriber().configured(&discovery).replaced("listen = [", &listen);
        let (cluster, mut program) = opening.made()?;
        program.environment.push(("SBC_FAULTS".into(), program.directory.path().join("faults")));
        program.serve_all();
        let victim = Self { cluster, program };
        assert_eq!(Phone::new(victim.program.sip).register("secret"), 200);
        assert!(within(SOON, || victim.cluster.psql("SELECT count(*) FROM binding") == "1"));
        Some(victim)
    }

    /// All parts that the process says it has.
    fn parts(&self) -> Vec<String> {
        let (_, page) = self.program.get("/metrics").unwrap();
        let named = page.lines().filter_map(|line| line.strip_prefix("sbc_part_silent_seconds{part=\""));
        named.filter_map(|line| line.split('"').next()).map(str::to_owned).collect()
    }

    fn suffer(&mut self, fault: &str) {
        // Whole at once: it is read twenty times a second.
        let file = self.program.directory.path().join("faults");
        std::fs::write(file.with_extension("new"), format!("{fault}\n")).unwrap();
        std::fs::rename(file.with_extension("new"), file).unwrap();
    }

    fn recover(&mut self) {
        let _ = std::fs::remove_file(self.program.directory.path().join("faults"));
    }

    /// What a fault of every part but the pages does: the process ends at once, and the next one knows the phone.
    fn every_part(&mut self, kind: &str, status: i32, patience: Duration) {
        let parts = self.parts();
        assert!(parts.len() >= 16, "{parts:?}");
        for part in parts.iter().filter(|part| !part.starts_with("http 1")) {
            let begun = Instant::now();
            self.suffer(&format!("{kind} {part}"));
            assert!(within(patience, || self.program.has_ended()), "{kind} {part}: {}", self.program.log());
            let code = self.program.child.as_mut().unwrap().wait().unwrap().code();
            eprintln!("{kind} {part}: ended with {code:?} after {:?}", begun.elapsed());
            assert_eq!(code, Some(status), "{kind} {part}: {}", self.program.log());
            assert!(self.program.log().contains(&format!("{part} ")), "{}", self.program.log());
            self.recover();
            self.program.serve();
            self.program.comes_to_show("sbc_bindings 1");
        }
    }
}

#[test]
fn a_part_that_panics_ends_the_process_at_once_and_the_next_one_has_the_bindings() {
    let Some(mut victim) = Victim::new() else { return };
    victim.every_part("panic", 70, AT_ONCE);
}

#[test]
fn a_part_that_returns_in_silence_ends_the_process_at_once() {
    let Some(mut victim) = Victim::new() else { return };
    victim.every_part("return", 70, AT_ONCE);
}

#[test]
fn a_part_that_computes_in_circles_ends_the_process() {
    let Some(mut victim) = Victim::new() else { return };
    victim.every_part("loop", 71, PATIENT);
}

#[test]
fn a_part_that_waits_for_ever_is_named_by_the_pages_and_then_ends_the_process() {
    let Some(mut victim) = Victim::new() else { return };
    victim.suffer("sleep media 0");
    let mut named = None;
    within(SOON, || {
        named = victim.program.get("/healthz").filter(|page| page.0 == 503);
        named.is_some()
    });
    let (_, text) = named.unwrap();
    assert!(text.starts_with("media 0 has said nothing for 2."), "{text}");
    assert_eq!(victim.program.status("/readyz"), Some(503));
    assert!(within(SOON * 2, || victim.program.has_ended()), "{}", victim.program.log());
    assert_eq!(victim.program.child.as_mut().unwrap().wait().unwrap().code(), Some(71));
}

#[test]
fn pages_that_die_or_hang_are_served_again_and_cost_nothing_else() {
    let Some(mut victim) = Victim::new() else { return };
    for (number, kind) in (1..).zip(["panic", "return", "loop"]) {
        victim.suffer(&format!("{kind} http {number}"));
        victim.program.comes_to_show(&format!("sbc_http_restarts_total {number}"));
        victim.recover();
        assert!(within(SOON, || victim.program.status("/healthz") == Some(200)), "{}", victim.program.log());
        assert_eq!(Phone::new(victim.program.sip).register("secret"), 200);
    }
}

#[test]
fn a_message_whose_reading_panics_costs_itself_and_is_counted() {
    let Some(mut victim) = Victim::new() else { return };
    let stranger = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    for number in 1..=3 {
        let own = stranger.local_addr().unwrap();
        let options = format!(
            "OPTIONS sip:example.net SIP/2.0\r\nVia: SIP/2.0/UDP {own};branch=z9hG4bK{number}\r\nFrom: <sip:a@b>;tag=t\r\n\
             To: <sip:example.net>\r\nCall-ID: c{number}\r\nCSeq: 1 OPTIONS\r\nMax-Forwards: 70\r\n\
             Subject: fault-in-a-message\r\nContent-Length: 0\r\n\r\n"
        );
        stranger.send_to(options.as_bytes(), victim.program.sip).unwrap();
        victim.program.comes_to_show(&format!("sbc_sip_panicked_total {number}"));
    }
    assert_eq!(Phone::new(victim.program.sip).register("secret"), 200);
    assert!(!victim.program.has_ended());
    let log = victim.program.log();
    assert!(log.contains("reading_panicked") && !log.contains("fault-in-a-message"), "{log}");
}
