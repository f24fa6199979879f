use media_core::policy::{Ice, Mode};
use seam::path::Constraint;

use super::*;

/// Line 1 is `[node]`; the realms begin at lines 7 and 16.
const GOOD: &str = r#"[node]
id = 1

[database]
url = "postgres:///sbc"

[[realm]]
name = "access"
domains = ["example.net"]
registrar = "local"
authentication = "digest"
listen = ["udp:127.0.0.1:5060"]
media = ["127.0.0.1"]
media_ports = "20000-24999"

[[realm]]
name = "core"
authentication = "address"
listen = ["udp:127.0.0.1:5080"]
media = ["127.0.0.1"]
media_ports = "25000-29999"
"#;

fn parse(text: &str) -> Result<Settings, ConfigError> {
    Settings::parse(text, Path::new("sbc.toml"))
}

/// The mistake is told with its line, and the message has these words.
#[track_caller]
fn told(from: &str, to: &str, line: usize, words: &[&str]) {
    assert!(GOOD.contains(from), "{from} is in the file");
    let message = parse(&GOOD.replacen(from, to, 1)).map(|_| ()).unwrap_err().to_string();
    assert!(message.starts_with(&format!("sbc.toml:{line}: ")), "{message}");
    for word in words {
        assert!(message.contains(word), "{word:?} is not in {message:?}");
    }
}

#[test]
fn a_small_file_is_enough() {
    let settings = parse(GOOD).unwrap();
    assert_eq!(settings.plane.engine.listeners.len(), 2);
    assert_eq!(settings.relay.realms[0].ports, 20000..=24999);
}

/// NATs that only what comes from inside refreshes need an answer (RFC 4787 REQ-6).
#[test]
fn phones_behind_nats_are_asked_for_an_answer_unless_that_is_not_wanted() {
    let keepalive = |more: &str| {
        let text = GOOD.replacen("registrar", &format!("{more}\nregistrar"), 1);
        parse(&text).unwrap().plane.engine.realms[0]
            .keepalive
            .map(|one| (one.interval.as_secs(), one.options))
    };
    assert_eq!(keepalive(""), Some((20, true)));
    assert_eq!(keepalive("keepalive = \"crlf\""), Some((20, false)));
    assert_eq!(keepalive("keepalive_seconds = 0"), None);
}

#[test]
fn calls_go_back_to_all_trunks_of_a_realm_or_to_those_it_names() {
    let hairpin = |more: &str| {
        let text = GOOD.replacen("registrar", &format!("{more}\nregistrar"), 1);
        parse(&text).unwrap().plane.engine.realms[0].hairpin.clone()
    };
    assert_eq!(hairpin(""), Hairpin::None);
    assert_eq!(hairpin("hairpin = true"), Hairpin::All);
    assert_eq!(hairpin("hairpin = [\"carrier\"]"), Hairpin::Trunks(vec!["carrier".into()]));
}

#[test]
fn what_is_no_toml_is_told_with_its_line() {
    told("id = 1", "id = ", 2, &[]);
    told("id = 1", "id = \"one\"", 2, &["invalid type", "u8"]);
    told("id = 1", "id = 256", 2, &["256"]);
}

#[test]
fn an_unknown_key_is_told_with_those_there_are() {
    told("domains", "domain", 9, &["unknown field `domain`", "`domains`"]);
    told("[node]", "[nodes]", 1, &["unknown field `nodes`"]);
    told("\"digest\"", "\"password\"", 11, &["unknown variant `password`", "`digest`", "`registered`"]);
}

#[test]
fn a_missing_key_is_told() {
    told("authentication = \"address\"\n", "", 16, &["missing field `authentication`"]);
    told("url = \"postgres:///sbc\"", "", 4, &["missing field `url`"]);
    told("url = \"postgres:///sbc\"", "url = \"\"", 1, &["database.url is empty", "postgres://"]);
}

#[test]
fn a_listener_is_told_how_to_be_written() {
    told("udp:127.0.0.1:5060", "127.0.0.1", 12, &["no listener", "udp:192.0.2.1:5060"]);
    told("udp:127.0.0.1:5060", "sctp:127.0.0.1:5060", 12, &["no listener"]);
    told("udp:127.0.0.1:5060", "udp:localhost:5060", 12, &["no listener"]);
    told("udp:127.0.0.1:5060", "udp:0.0.0.0:5060", 12, &["name the address itself"]);
    told("udp:127.0.0.1:5060", "tls:127.0.0.1:5061", 12, &["`certificate` and `key`"]);
    told("udp:127.0.0.1:5080", "udp:127.0.0.1:5060", 19, &["listened on already", "`access`"]);
    assert!(parse(&GOOD.replace("udp:127.0.0.1:5080", "tcp:127.0.0.1:5060")).is_ok(), "UDP and TCP are two");
}

#[test]
fn a_media_address_is_told_how_to_be_written() {
    told("media = [\"127.0.0.1\"]", "media = [\"localhost\"]", 13, &["no media address", "192.0.2.1"]);
    told("media = [\"127.0.0.1\"]", "media = [\"0.0.0.0\"]", 13, &["no media address"]);
    told("media = [\"127.0.0.1\"]", "media = [\"10.0.0.1=::1\"]", 13, &["no media address"]);
    told("media = [\"127.0.0.1\"]", "media = []", 7, &["no sound"]);
}

#[test]
fn ranges_of_ports_must_be_ranges_and_apart() {
    for wrong in ["20000", "29999-20000", "80-90", "20000-20001", "20000-70000", "a-b"] {
        told("20000-24999", wrong, 14, &["no range of ports", "20000-29999"]);
    }
    told("25000-29999", "24998-29999", 20, &["overlap", "`access`", "127.0.0.1"]);
}

#[test]
fn realms_are_told_apart() {
    told("\"core\"", "\"access\"", 16, &["a second realm `access`"]);
    told("\"core\"", "\"\"", 16, &["without a name"]);
    // Two networks with phones of one domain: a subscriber may be in either, or in both.
    let both = "name = \"core\"\nregistrar = \"local\"\ndomains = [\"example.net\"]";
    assert!(parse(&GOOD.replace("name = \"core\"", both)).is_ok());
}

#[test]
fn a_registrar_is_told_what_it_needs() {
    told("domains = [\"example.net\"]\n", "", 7, &["needs `domains`"]);
    told("registrar = \"local\"", "registrar = \"forward\"", 7, &["`forward_to` and `forward_realm`"]);
    let forward = |to: &str, realm: &str| {
        format!("registrar = \"forward\"\nforward_to = \"{to}\"\nforward_realm = \"{realm}\"")
    };
    told("registrar = \"local\"", &forward("192.0.2.9", "cor"), 12, &["no realm is called `cor`"]);
    told("registrar = \"local\"", &forward("192.0.2.9:sip", "core"), 11, &["no target", "host:5060"]);
    told("registrar = \"local\"", &forward("192.0.2.9/quic", "core"), 11, &["no target"]);
    assert!(parse(&GOOD.replace("registrar = \"local\"", &forward("192.0.2.9:5060/tcp", "core"))).is_ok());
    let idle = "registrar = \"local\"\nforward_to = \"192.0.2.9\"";
    told("registrar = \"local\"", idle, 11, &["registrar = \"forward\""]);
}

#[test]
fn numbers_that_make_no_sense_are_told() {
    told("[node]", "[media]\nworkers = 0\n[node]", 1, &["media.workers", "1 to 256"]);
    told("[node]", "[signalling]\nshards = 300\n[node]", 1, &["signalling.shards", "1 to 256"]);
    told("[node]", "[limits]\ncalls = 0\n[node]", 1, &["limits.calls is 0"]);
    for addresses in [
        "",
        "\"192.0.2.1\"",
        "\"192.0.2.1\", \"192.0.2.1\"",
        "\"192.0.2.1\", \"2001:db8::1\"",
        "\"192.0.2.1\", \"192.0.2.2\", \"2001:db8::1\"",
        "\"192.0.2.1\", \"192.0.2.2\", \"192.0.2.3\", \"192.0.2.4\"",
    ] {
        let section = format!("[discovery]\naddresses = [{addresses}]\n[node]");
        told("[node]", &section, 1, &["discovery", "two different addresses of one family"]);
    }
    let both =
        "[discovery]\naddresses = [\"2001:db8::1\", \"192.0.2.1\", \"192.0.2.2\", \"2001:db8::2\"]\n[node]";
    let services: Vec<_> =
        parse(&GOOD.replace("[node]", both)).unwrap().file.discovery.unwrap().services().collect();
    let services = services.iter().map(|pair| pair.map(|address| address.to_string())).collect::<Vec<_>>();
    assert_eq!(services, [["192.0.2.1", "192.0.2.2"], ["2001:db8::1", "2001:db8::2"]]);
    told("name = \"core\"", "name = \"core\"\nsession_seconds = 60", 16, &["RFC 4028", "90"]);
    told(
        "name = \"core\"",
        "name = \"core\"\nnat_expires_seconds = 4",
        16,
        &["nat_expires_seconds", "5 or more"],
    );
    told("name = \"core\"", "name = \"core\"\nmedia_dscp = 64", 16, &["media_dscp", "0 to 63"]);
    told("name = \"core\"", "name = \"core\"\ndigest = []", 16, &["`digest` is empty"]);
}

#[test]
fn headers_that_are_named_can_pass_and_would_not_pass_unnamed() {
    let with =
        |more: &str, name: &str| format!("name = \"core\"\n{more}pass_headers = [\"P-*\", \"{name}\"]");
    for good in ["P-Charge-Info", "alert-info", "Diversion", "Priority", "Acme-*"] {
        assert!(parse(&GOOD.replace("name = \"core\"", &with("", good))).is_ok(), "{good}");
    }
    for (name, words) in [
        ("Via", ["`Via` cannot pass", "remove it"]),
        ("contact", ["`contact` cannot pass", "writes the other side's own"]),
        ("l", ["`l` cannot pass", "remove it"]),
        ("CSeq", ["`CSeq` cannot pass", "remove it"]),
        ("WWW-Authenticate", ["`WWW-Authenticate` cannot pass", "challenges"]),
        ("P-Asserted-Identity", ["two trusted realms only", "trusted = true"]),
        ("Subject", ["`Subject` passes from everybody anyway", "remove it"]),
        ("X-Acme-*", ["`X-Acme-*` passes from everybody anyway", "remove it"]),
        ("", ["`` is no header's name", "P-Charge-Info"]),
        ("*", ["`*` is no header's name", "P-*"]),
        ("P-*-Info", ["is no header's name", "P-*"]),
        ("Alert Info", ["is no header's name", "P-Charge-Info"]),
        ("Alert-Info:", ["is no header's name", "P-Charge-Info"]),
        ("Größe", ["is no header's name", "P-Charge-Info"]),
    ] {
        told("name = \"core\"", &with("", name), 18, &["realm `core`: pass_headers", words[0], words[1]]);
    }
    let trusted = with("trusted = true\n", "P-Charge-Info");
    told("name = \"core\"", &trusted, 19, &["`P-*` does nothing", "trusted = true", "remove"]);
}

#[test]
fn address_lists_are_networks_or_addresses() {
    for key in ["allow", "deny", "unlimited"] {
        let with = |value: &str| format!("name = \"core\"\n{key} = [\"{value}\"]");
        for good in ["192.0.2.0/24", "192.0.2.7", "2001:db8::/32", "2001:db8::7"] {
            assert!(parse(&GOOD.replace("name = \"core\"", &with(good))).is_ok(), "{key} {good}");
        }
        told("name = \"core\"", &with("192.0.2.0/33"), 18, &["`192.0.2.0/33` is no network", "one address"]);
    }
}

#[test]
fn certificates_that_are_missing_or_halved_are_told() {
    told("name = \"core\"", "name = \"core\"\ncertificate = \"/nowhere.pem\"", 16, &["belong together"]);
    let missing = "name = \"core\"\ncertificate = \"/nowhere.pem\"\nkey = \"/nowhere.key\"";
    told("name = \"core\"", missing, 16, &["/nowhere.pem"]);
    told("name = \"core\"", "name = \"core\"\nclient_ca = \"/ca.pem\"", 16, &["`client_ca` needs"]);
}

#[test]
fn a_file_that_is_not_there_is_told() {
    let message = Settings::load(Path::new("/nowhere/sbc.toml")).map(|_| ()).unwrap_err().to_string();
    assert!(message.contains("/nowhere/sbc.toml") && message.contains("No such file"), "{message}");
}

#[test]
fn the_database_url_comes_from_the_file_the_environment_or_another_file() {
    let url = |text: &str| parse(&GOOD.replace("postgres:///sbc", text)).unwrap().database_url();
    assert_eq!(url("postgres:///sbc").unwrap(), "postgres:///sbc");
    // PATH stands for any variable: a test must not set one while others run.
    assert_eq!(url("$PATH").unwrap(), std::env::var("PATH").unwrap());
    assert!(
        url("$SBC_NO_SUCH_VARIABLE").unwrap_err().contains("the environment has no SBC_NO_SUCH_VARIABLE")
    );
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), "postgres://sbc:secret@db/sbc\n").unwrap();
    assert_eq!(url(&format!("@{}", file.path().display())).unwrap(), "postgres://sbc:secret@db/sbc");
    assert!(url("@/nowhere").unwrap_err().contains("/nowhere"));
}

#[test]
fn media_stays_on_the_relay_unless_both_realms_or_their_pair_say_otherwise() {
    let policy = |text: &str| parse(text).unwrap().relay.sessions.release.unwrap();
    let anchored = policy(GOOD);
    assert_eq!((anchored.between(0, 0), anchored.between(0, 1)), (None, None));
    let allowed =
        GOOD.replace("name = \"access\"", "name = \"access\"\nrelease = \"allow\"\nlan_release = true");
    assert_eq!(policy(&allowed).between(0, 0), Some(Constraint::MayRelease));
    assert_eq!(policy(&allowed).between(0, 1), None);
    assert!(policy(&allowed).networks(0, 0).lan_release);
    let paired = format!("{GOOD}[[release.pair]]\nrealms = [\"core\", \"access\"]\npolicy = \"prefer\"\n");
    assert_eq!(policy(&paired).between(0, 1), Some(Constraint::PreferRelease));
    assert!(!policy(&paired).networks(0, 1).certain);
    let certain = policy(&format!("{paired}certain = true\n"));
    assert!(certain.networks(1, 0).certain && !certain.networks(0, 0).certain);
    let split = policy(&paired.replace("prefer", "video"));
    assert_eq!((split.mode(0, 1), split.between(0, 1)), (Mode::Video, None), "only CRUSH divides a call");
}

#[test]
fn ice_is_spoken_where_media_may_leave_the_relay_unless_the_realm_says_otherwise() {
    let ice = |settings: &str| {
        let text = GOOD.replacen("name = \"core\"", &format!("name = \"core\"\n{settings}"), 1);
        parse(&text).unwrap().relay.sessions.release.unwrap().ice(1)
    };
    assert_eq!(ice(""), Ice::Off);
    assert_eq!(ice("release = \"allow\""), Ice::Offer);
    assert_eq!(ice("release = \"allow\"\nice = \"off\""), Ice::Off);
    assert_eq!(ice("ice = \"answer\""), Ice::Answer);
    assert_eq!(ice("release = \"video\""), Ice::Off, "a phone's audio would leave as well");
}

#[test]
fn mistakes_about_release_are_told_with_how_to_mend_them() {
    let name = "name = \"core\"";
    told(name, "name = \"core\"\nrelease = \"always\"", 18, &["unknown variant `always`", "`prefer`"]);
    told(name, "name = \"core\"\nrelease = \"video\"\nlan_release = true", 16, &["\"anchor\" or \"video\""]);
    told(name, "name = \"core\"\nlan_release = true", 16, &["realm `core`", "release = \"allow\""]);
    let before = "[[realm]]\nname = \"access\"";
    let with = |section: &str| format!("{section}\n{before}");
    told(before, &with("[release]\ncarrier_nat = [\"everywhere\"]"), 8, &["`everywhere` is no network"]);
    told(before, &with("[release]\nroutable = [[]]"), 1, &["empty group"]);
    told(before, &with("[release]\nsettle_ms = 10"), 1, &["release.settle_ms is 10", "500 to 60000"]);
    told(before, &with("[release]\nloss_percent = 0"), 1, &["release.loss_percent is 0"]);
    let pair = |realms: &str| format!("[[release.pair]]\nrealms = [{realms}]\npolicy = \"allow\"");
    told(before, &with(&pair("\"access\", \"cor\"")), 7, &["no realm is called `cor`"]);
    let twice = format!("{}\n{}", pair("\"access\", \"core\""), pair("\"core\", \"access\""));
    told(before, &with(&twice), 10, &["stand here twice"]);
    let certain = pair("\"access\", \"core\"").replace("allow", "anchor") + "\ncertain = true";
    told(before, &with(&certain), 7, &["certain = true", "moves no phone", "\"allow\" or \"prefer\""]);
    let word = pair("\"access\", \"core\"") + "\ncertain = \"yes\"";
    told(before, &with(&word), 10, &["expected a boolean"]);
}
