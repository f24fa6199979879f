//! Who a caller is, and who learns it (RFC 3323, RFC 3325).

use sip_engine::config::{IdentityPolicy, Realm};
use sip_engine::ua::{Abilities, Ending, Invite};
use sip_wire::{Message, Name};

use crate::line::{ACCESS, CORE, DOMAIN, Line, SDP, Snapshot, address, config, trunk};

const TRUNK: &str = "203.0.113.1:5060";

fn line(policy: IdentityPolicy) -> (Line, std::net::SocketAddr) {
    line_with(policy, |_| {})
}

fn line_with(policy: IdentityPolicy, change: impl FnOnce(&mut Realm)) -> (Line, std::net::SocketAddr) {
    let mut config = config();
    config.realms[0].identity = policy;
    change(&mut config.realms[0]);
    let mut line = Line::new(config, Snapshot { trunks: vec![trunk("carrier", "203.0.113.1", None)] });
    let alice = line.add("alice", "10.0.0.5:5060", ACCESS, Abilities::default());
    line.register(alice);
    line.add("1", TRUNK, CORE, Abilities::default());
    (line, alice)
}

fn text(message: &Message, name: Name) -> String {
    String::from_utf8_lossy(message.value(name).unwrap_or_default()).into_owned()
}

#[test]
fn the_authenticated_caller_is_asserted_to_a_trusted_trunk() {
    let (mut line, alice) = line(IdentityPolicy::Refuse);
    line.call(alice, "123", &[("P-Asserted-Identity", "<sip:boss@example.net>")]);
    let (_, invite) = line.incoming(address(TRUNK)).unwrap();
    assert_eq!(text(invite, Name::PAssertedIdentity), format!("<sip:alice@{DOMAIN}>"));
    assert_eq!(invite.count(Name::PAssertedIdentity), 1);
}

#[test]
fn a_caller_that_asks_for_privacy_is_anonymous_and_still_asserted_where_trust_reaches() {
    let (mut line, alice) = line(IdentityPolicy::Refuse);
    line.call(
        alice,
        "123",
        &[("Privacy", "user;id"), ("Subject", "my secret"), ("Reply-To", "<sip:alice@x>")],
    );
    let (_, invite) = line.incoming(address(TRUNK)).unwrap();
    assert!(text(invite, Name::From).starts_with("\"Anonymous\" <sip:anonymous@anonymous.invalid>"));
    assert_eq!(text(invite, Name::PAssertedIdentity), format!("<sip:alice@{DOMAIN}>"));
    assert_eq!(
        text(invite, Name::Privacy),
        "id",
        "what we did is done; the next boundary must still do its part"
    );
    assert_eq!((invite.count(Name::Subject), invite.count(Name::ReplyTo)), (0, 0));
}

#[test]
fn an_asserted_identity_stops_where_trust_ends() {
    let (mut line, _) = line(IdentityPolicy::Refuse);
    let bob = line.add("bob", "10.0.0.6:5060", ACCESS, Abilities::default());
    line.register(bob);
    let headers = [("P-Asserted-Identity", "<sip:+4930@carrier.example>"), ("Privacy", "id")];
    line.call(address(TRUNK), "bob", &headers);
    let (_, invite) = line.incoming(bob).unwrap();
    assert_eq!((invite.count(Name::PAssertedIdentity), invite.count(Name::Privacy)), (0, 0));
}

#[test]
fn a_from_that_claims_another_is_refused_or_corrected() {
    for (policy, expected) in [(IdentityPolicy::Refuse, None), (IdentityPolicy::Correct, Some("alice"))] {
        let (mut line, alice) = line(policy);
        let mallory = line.add("boss", "10.0.0.5:5062", ACCESS, Abilities::default());
        let _ = (alice, mallory);
        // Alice's credentials, the boss's From.
        line.agents.get_mut(&mallory).unwrap().authenticate_as("alice", crate::line::PASSWORD);
        let invite = Invite { offer: Some(SDP), ..Invite::default() };
        let now = line.time();
        let target = format!("sip:123@{DOMAIN}");
        let call = line.agents.get_mut(&mallory).unwrap().call(target.as_bytes(), invite, now);
        line.settle();
        match expected {
            None => assert_eq!(line.ending(mallory, call), Some(Ending::Refused(403))),
            Some(user) => {
                let (_, invite) = line.incoming(address(TRUNK)).unwrap();
                assert_eq!(String::from_utf8_lossy(invite.from().unwrap().uri.user()), user);
            }
        }
    }
}

#[test]
fn who_a_call_was_diverted_from_passes_without_its_network() {
    let (mut line, alice) = line_with(IdentityPolicy::Refuse, |realm| {
        realm.passing.headers = vec!["diversion".into(), "History-*".into()];
    });
    let headers = [
        ("Diversion", "\"Bob\" <sip:bob@10.0.0.5>;reason=unconditional;counter=1"),
        ("History-Info", "<sip:bob@10.0.0.5:5060?Reason=SIP%3Bcause%3D302>;index=1"),
        ("Referred-By", "<sip:carol@10.0.0.5>"),
    ];
    line.call(alice, "123", &headers);
    let (_, invite) = line.incoming(address(TRUNK)).unwrap();
    assert_eq!(
        text(invite, Name::Diversion),
        format!("\"Bob\" <sip:bob@{DOMAIN}>;reason=unconditional;counter=1")
    );
    assert_eq!(
        text(invite, Name::HistoryInfo),
        format!("<sip:bob@{DOMAIN}?Reason=SIP%3Bcause%3D302>;index=1")
    );
    assert_eq!(text(invite, Name::ReferredBy), format!("<sip:carol@{DOMAIN}>"));
}
