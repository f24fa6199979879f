//! The program as an operator meets it: its commands, its start and end, its pages, over loopback and a real PostgreSQL.

use std::net::{TcpListener, UdpSocket};
use std::time::Duration;

use crate::cluster::Cluster;
use crate::node::{Phone, Program, SOON, text, within};
use crate::opening::Opening;

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
    let Some((_cluster, program)) = Opening::unmigrated().made() else { return };
    let doctor = program.run("doctor");
    assert!(!doctor.status.success() && text(&doctor.stdout).contains("run `sbc migrate`"), "{doctor:?}");
    for _ in 0..2 {
        assert_eq!(text(&program.run("migrate").stdout), "the schema is up to date\n");
    }
    let doctor = text(&program.run("doctor").stdout);
    assert!(!doctor.contains("database"), "{doctor}");
}

#[test]
fn doctor_refuses_a_user_of_the_database_that_may_more_or_less_than_run_the_program() {
    let Some((cluster, mut program)) = Opening::default().made() else { return };
    cluster.psql_as("sbc", "CREATE ROLE stranger LOGIN; CREATE ROLE node LOGIN IN ROLE sbc_runtime");
    for (user, complaint) in [
        ("sbc", Some("sbc is a superuser: ")),
        ("sbc_owner", Some("sbc_owner owns tables and may create tables: ")),
        ("sbc_operator", Some("`GRANT sbc_runtime TO sbc_operator`")),
        ("stranger", Some("`GRANT sbc_runtime TO stranger`")),
        ("node", None),
    ] {
        program.url = cluster.url(user);
        program.configure("");
        let said = text(&program.run("doctor").stdout);
        let found = said.lines().find(|line| line.contains("database"));
        assert_eq!(found.is_some(), complaint.is_some(), "{user}: {said}");
        assert!(
            complaint.is_none_or(|text| said.contains(text) && said.contains("serious:")),
            "{user}: {said}"
        );
    }
}

#[test]
fn a_subscriber_added_in_sql_can_register_within_a_second() {
    let Some((cluster, mut program)) = Opening::default().serving() else { return };
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
    program.comes_to_show("sbc_bindings 1");
}

#[test]
fn a_database_that_is_away_at_the_start_delays_service_and_does_not_deny_it() {
    let Some((cluster, mut program)) = Opening::with_subscriber().made() else { return };
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
    let Some((_cluster, mut program)) = Opening::unmigrated().made() else { return };
    let other = UdpSocket::bind("127.0.0.1:0").unwrap();
    program.sip = other.local_addr().unwrap();
    program.configure("");
    let said = text(&program.run("serve").stderr);
    assert!(said.contains(&program.sip.to_string()) && said.contains("another program"), "{said}");
    drop(other);
    let other = TcpListener::bind("127.0.0.1:0").unwrap();
    program.http = other.local_addr().unwrap();
    program.configure("");
    let said = text(&program.run("serve").stderr);
    assert!(said.contains("http.listen") && said.contains("choose a free address"), "{said}");
    drop(other);
    let mut first = program;
    first.serve();
    let said = text(&first.run("serve").stderr);
    assert!(said.contains("another sbc runs with this directory"), "{said}");
}

#[test]
fn short_of_memory_what_is_new_is_refused_and_the_page_says_how_much_there_is() {
    let opening = Opening::with_subscriber().configured("memory_mib = 1");
    let Some((_cluster, mut program)) = opening.made() else { return };
    program.serve();
    assert!(within(SOON, || program.log().contains("memory is short")), "{}", program.log());
    assert!(within(SOON, || program.status("/readyz") == Some(200)), "{}", program.log());
    assert_eq!(Phone::new(program.sip).register("secret"), 503);
    assert!(program.shows("sbc_memory_limit_bytes 1048576"), "{:?}", program.get("/metrics"));
}

#[test]
fn a_signal_ends_an_idle_sbc_at_once_and_cleanly() {
    let Some((_cluster, mut program)) = Opening::default().made() else { return };
    program.serve();
    program.signal("TERM");
    assert!(within(Duration::from_secs(3), || program.has_ended()), "{}", program.log());
    assert!(program.child.as_mut().unwrap().wait().unwrap().success());
    assert!(program.log().contains("stopped"), "{}", program.log());
}

#[test]
fn why_the_database_cannot_be_reached_is_said() {
    let Some(cluster) = Cluster::start() else { return };
    cluster.psql_as("sbc", "CREATE ROLE other PASSWORD 'right'");
    for (url, cause) in [
        (cluster.url("other"), "not permitted to log in"),
        (cluster.url("sbc").replace("/sbc?", "/none?"), "create the database that database.url names"),
        ("postgres://sbc@localhost/sbc?host=/nowhere".to_owned(), "is the server up"),
        ("postgres://sbc@127.0.0.1:1/sbc".to_owned(), "nothing listens there"),
        ("postgres://sbc@no.such.host.invalid/sbc".to_owned(), "check the host"),
    ] {
        let program = Program::new(&url);
        let (doctor, migrate) = (program.run("doctor"), program.run("migrate"));
        for said in [text(&doctor.stdout), text(&migrate.stderr)] {
            assert!(said.contains(cause) && !said.contains("pool timed out"), "{url}: {said}");
        }
    }
}

#[test]
fn the_front_page_and_the_log_lead_on_and_the_records_of_calls_are_shown() {
    let Some((cluster, program)) = Opening::with_subscriber().serving() else { return };
    let (status, page) = program.get("/").unwrap();
    assert_eq!(status, 200);
    for link in ["/metrics", "/healthz", "/readyz", "sbc records"] {
        assert!(page.contains(link), "{link} is not on {page}");
    }
    assert!(text(&program.run("records").stdout).contains("no call yet"));

    let mut phone = Phone::new(program.sip);
    assert_eq!(phone.register("secret"), 200);
    assert_eq!(phone.register("secret"), 200);
    assert!(within(SOON, || program.log().contains("registered")), "{}", program.log());
    let log = program.log();
    let told = log.lines().filter(|line| line.contains("activity: registered")).collect::<Vec<_>>();
    assert_eq!(told.len(), 1, "a refresh is no news: {log}");
    assert!(told[0].contains("aor=alice@example.net"), "{told:?}");
    assert!(log.lines().any(|line| line.contains("listening") && line.contains("realm=\"access\"")), "{log}");

    cluster.psql_as(
        "sbc_runtime",
        "INSERT INTO call (id, node, started_at, realm, source, transport, caller, from_uri, request_uri, call_id, user_agent,
            answered_at, answered_realm, destination, reached, reached_uri, ended_at, cause, ended_by, status, setup_ms, duration_ms,
            direct_ms, relayed_ms, media)
         VALUES ('00000000-0000-0000-0000-000000000007', 1, '2026-01-02 03:04:05', 'access', '192.0.2.1:5060', 'UDP', '', 'sip:alice@example.net',
            'sip:sales@example.net', 'x', '', now(), 'access', '192.0.2.2:5060', 'sip:bob@example.net', 'sip:bob@192.0.2.2:5060', now(), 'bye',
            'callee', 200, 1500, 61000, 1000, 60000,
            '[{\"party\": 0, \"kind\": \"audio\", \"codec\": \"PCMU\", \"packets\": 3050, \"lost\": 2, \"jitter_ms\": 0.5}]');
         INSERT INTO call_event (call, sequence, at, kind, detail) VALUES ('00000000-0000-0000-0000-000000000007', 0, now(), 'started', '{}')",
    );
    let records = text(&program.run("records").stdout);
    for said in [
        "sip:alice@example.net -> sip:sales@example.net",
        "bye, ended by callee, status 200; answered after 1.5 s, talked 61.0 s, 1.0 s of it off the relay",
        "reached sip:bob@example.net as sip:bob@192.0.2.2:5060, realm access",
        "audio PCMU from the caller: 3050 packets, 2 lost",
    ] {
        assert!(records.contains(said), "{said} is not in {records}");
    }
    let one = program.command("records").arg("00000000-0000-0000-0000-000000000007").output().unwrap();
    let one = text(&one.stdout);
    assert!(one.contains("started") && one.contains("stayed on the relay: `release`"), "{one}");
}

#[test]
fn records_are_shown_to_who_can_read_no_keys_and_an_unknown_id_is_a_failure() {
    let unreadable = "certificate = \"/nowhere/tls.pem\"\nkey = \"/nowhere/tls.key\"\nlocal_peers";
    let opening = Opening::unmigrated().replaced("local_peers", unreadable);
    let Some((cluster, program)) = opening.made() else { return };
    assert!(!program.run("check").status.success());
    let migrated = program.run("migrate");
    assert!(migrated.status.success(), "{migrated:?}");
    let records = program.run("records");
    assert!(records.status.success() && text(&records.stdout).contains("no call yet"), "{records:?}");
    let id = "00000000-0000-0000-0000-000000000008";
    let one = program.command("records").arg(id).output().unwrap();
    let said = text(&one.stderr);
    assert!(!one.status.success() && said.contains("has no call") && said.contains(id), "{one:?}");
    cluster.stop();
    let away = program.run("records");
    assert!(!away.status.success() && text(&away.stderr).contains("is the server up"), "{away:?}");
}

#[test]
fn a_phone_that_registers_for_a_domain_that_is_not_served_is_told_of_with_what_to_do() {
    let opening = Opening::default().replaced("domains = [\"example.net\"]", "domains = [\"example.edu\"]");
    let Some((_cluster, program)) = opening.serving() else { return };
    let mut phone = Phone::new(program.sip);
    for _ in 0..20 {
        assert_eq!(phone.register("secret"), 404);
    }
    let log = program.log();
    let told: Vec<&str> = log.lines().filter(|line| line.contains("does not serve")).collect();
    assert!((1..=5).contains(&told.len()), "a few of them: {log}");
    for said in ["domain example.net", "realm access", "to example.edu", "`domains`"] {
        assert!(told[0].contains(said), "{said} is not in {}", told[0]);
    }
    program.comes_to_show("sbc_notices_total{kind=\"domain_not_served\"} 20");
}

#[test]
fn pages_that_other_machines_can_read_are_warned_of_unless_that_is_meant() {
    let program = Program::new("postgres:///nowhere");
    let doctor = |http: &str| {
        let file = std::fs::read_to_string(program.file()).unwrap();
        let (head, tail) = file.split_once("[http]").unwrap();
        let tail = tail.split_once("[limits]").unwrap().1;
        std::fs::write(program.file(), format!("{head}[http]\n{http}\n[limits]{tail}")).unwrap();
        text(&program.run("doctor").stdout)
    };
    assert!(doctor("listen = \"0.0.0.0:0\"").contains("other machines can read"));
    assert!(!doctor("listen = \"0.0.0.0:0\"\nexposed = true").contains("other machines can read"));
    assert!(!doctor("listen = \"127.0.0.1:0\"").contains("other machines can read"));
}
