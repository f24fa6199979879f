//! Who a caller is, and who learns it (RFC 3323, RFC 3325).

use sip_engine::config::{DisplayNames, IdentityPolicy, Realm};
use sip_engine::passing::{Naming, naming};
use sip_engine::ua::{Abilities, Ending};
use sip_wire::{Message, Method, Name};

use crate::by_hand::{Asked, asked};
use crate::line::{ACCESS, CORE, DOMAIN, Line, address, config, policy, trunk};

const TRUNK: &str = "203.0.113.1:5060";

fn line(policy: IdentityPolicy) -> (Line, std::net::SocketAddr) {
    line_with(policy, |_| {})
}

fn line_with(identity: IdentityPolicy, change: impl FnOnce(&mut Realm)) -> (Line, std::net::SocketAddr) {
    let mut config = config();
    config.realms[0].identity = identity;
    change(&mut config.realms[0]);
    let mut line = Line::new(config, policy(vec![trunk("carrier", "203.0.113.1", None)]));
    let alice = line.join("alice", "10.0.0.5:5060");
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
    let bob = line.join("bob", "10.0.0.6:5060");
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
        let call = line.call(mallory, "123", &[]);
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

#[test]
fn from_an_untrusted_caller_only_known_headers_pass_and_of_diversions_only_his_own() {
    let (mut line, alice) = line(IdentityPolicy::Refuse);
    let withheld = [
        "P-Charge-Info",
        "P-Charging-Vector",
        "Resource-Priority",
        "Alert-Info",
        "Call-Info",
        "Answer-Mode",
        "Priv-Answer-Mode",
        "Reply-To",
        "Unheard-Of",
    ];
    let passing = ["X-Anything", "User-to-User", "Session-ID", "Geolocation", "Reason", "Subject"];
    let mut headers: Vec<(&str, &str)> =
        withheld.iter().chain(&passing).map(|name| (*name, "<sip:one@example.org>")).collect();
    headers.extend([
        ("Priority", "Emergency"),
        ("Diversion", "<sip:bob@10.0.0.5>;reason=unconditional, <sip:alice@10.0.0.5:5070>;reason=user-busy"),
        ("History-Info", "<sip:bob@example.net>;index=1"),
        ("Allow-Events", "dialog, <sip:spy@10.0.0.5>, refer"),
    ]);
    line.call(alice, "123", &headers);
    let (_, invite) = line.incoming(address(TRUNK)).unwrap();
    for name in withheld.iter().chain(&["Priority", "History-Info"]) {
        assert_eq!(invite.named(name), None, "{name}");
    }
    for name in passing {
        assert!(invite.named(name).is_some(), "{name}");
    }
    assert_eq!(text(invite, Name::Diversion), format!("<sip:alice@{DOMAIN}>;reason=user-busy"));
    assert_eq!(text(invite, Name::AllowEvents), "dialog, refer");
}

#[test]
fn an_operator_may_let_more_headers_pass() {
    let (mut line, alice) = line_with(IdentityPolicy::Refuse, |realm| {
        realm.passing.headers = vec!["P-*".into(), "priority".into()];
    });
    line.call(
        alice,
        "123",
        &[("P-Charge-Info", "<sip:1@x>"), ("Priority", "emergency"), ("Alert-Info", "<a:b>")],
    );
    let (_, invite) = line.incoming(address(TRUNK)).unwrap();
    assert!(invite.named("P-Charge-Info").is_some() && invite.count(Name::Priority) == 1);
    assert_eq!(invite.count(Name::AlertInfo), 0);
}

/// As the configuration tells who names one of them.
#[test]
fn what_is_final_does_not_pass_by_being_named() {
    let vain =
        ["Server", "Timestamp", "P-Preferred-Identity", "P-Asserted-Identity", "Remote-Party-ID", "Identity"];
    let idle = ["X-Anything", "Subject"];
    let lets = ["P-Charge-Info", "Alert-Info"];
    let all = || vain.iter().chain(&idle).chain(&lets).copied();
    let passed = |named: bool| {
        let (mut line, alice) = line_with(IdentityPolicy::Refuse, |realm| {
            realm.passing.headers = all().filter(|_| named).map(Into::into).collect();
        });
        line.call(alice, "123", &all().map(|name| (name, "<sip:1@example.org>")).collect::<Vec<_>>());
        let (_, invite) = line.incoming(address(TRUNK)).unwrap();
        let value = b"<sip:1@example.org>";
        let has = |name: &str| invite.lines().any(|line| line.text == name.as_bytes() && line.value == value);
        all().map(|name| (name, has(name))).collect::<Vec<_>>()
    };
    for ((name, unnamed), (_, named)) in passed(false).into_iter().zip(passed(true)) {
        match naming(name) {
            Naming::Vain(_) => assert!(vain.contains(&name) && !unnamed && !named, "{name}"),
            Naming::Idle => assert!(idle.contains(&name) && unnamed && named, "{name}"),
            Naming::Lets => assert!(lets.contains(&name) && !unnamed && named, "{name}"),
        }
    }
}

#[test]
fn from_a_trusted_trunk_what_is_not_understood_passes_in_order() {
    let (mut line, alice) = line(IdentityPolicy::Refuse);
    let headers =
        [("Unheard-Of", "b"), ("Alert-Info", "<http://203.0.113.1/ring>;info=x"), ("Unheard-Of", "a")];
    line.call(address(TRUNK), "alice", &headers);
    let (_, invite) = line.incoming(alice).unwrap();
    let unheard: Vec<_> =
        invite.lines().filter(|line| line.text == b"Unheard-Of").map(|line| line.value.to_vec()).collect();
    assert_eq!(unheard, [b"b".to_vec(), b"a".to_vec()]);
    assert_eq!(text(invite, Name::AlertInfo), format!("<http://{DOMAIN}/ring>;info=x"), "not dropped");
}

/// How a call of alice's with this From looks to the trunk, or the status that it was refused with.
fn seen(policy: IdentityPolicy, names: DisplayNames, from: &str) -> Result<String, Option<u16>> {
    let (mut line, alice) = line_with(policy, |realm| realm.passing.display_names = names);
    let to = format!("sip:123@{DOMAIN}");
    let status = line.ask(alice, &Asked { from, ..asked(Method::INVITE, &to, "", b"") });
    let Some((_, invite)) = line.incoming(address(TRUNK)) else { return Err(status) };
    Ok(text(invite, Name::From).split(";tag=").next().unwrap_or_default().to_owned())
}

#[test]
fn only_the_user_anonymous_is_nobody_and_any_other_name_is_a_claim() {
    let nobody = Ok("\"Anonymous\" <sip:anonymous@anonymous.invalid>".to_owned());
    for from in [
        "\"Bank\" <sip:anonymous@anonymous.invalid>",
        "sip:Anonymous@anonymous.invalid",
        "<sip:anonymous@example.net>",
        "<sip:anonymous@10.0.0.5>",
        "<sip:anonymous.invalid>",
    ] {
        assert_eq!(seen(IdentityPolicy::Correct, DisplayNames::Pass, from), nobody, "{from}");
        assert_eq!(seen(IdentityPolicy::Refuse, DisplayNames::Pass, from), nobody, "{from}");
    }
    for from in [
        "\"Bank\" <sip:+18005551234@x.invalid>",
        "\"Bank\" <sip:bank@anonymous.invalid>",
        "\"Bank\" <tel:+18005551234>",
        "\"Bank\" <sip:bank@example.net>",
    ] {
        let corrected = seen(IdentityPolicy::Correct, DisplayNames::Pass, from);
        assert_eq!(corrected, Ok(format!("<sip:alice@{DOMAIN}>")), "{from}");
        let refused = seen(IdentityPolicy::Refuse, DisplayNames::Pass, from);
        assert_eq!(refused, Err(Some(403)), "{from}");
    }
}

#[test]
fn what_users_call_themselves_passes_or_not_as_the_operator_wants() {
    let from = "\"CEO\" <sip:alice@example.net>";
    for (names, expected) in [
        (DisplayNames::Pass, format!("\"CEO\" <sip:alice@{DOMAIN}>")),
        (DisplayNames::Strip, format!("<sip:alice@{DOMAIN}>")),
        (DisplayNames::Replace, format!("\"alice\" <sip:alice@{DOMAIN}>")),
    ] {
        assert_eq!(seen(IdentityPolicy::Correct, names, from), Ok(expected));
    }
}

#[test]
fn what_restarts_phones_or_makes_them_call_passes_only_where_the_operator_lets_it() {
    for (method, allowed) in
        [(Method::NOTIFY, false), (Method::REFER, false), (Method::NOTIFY, true), (Method::REFER, true)]
    {
        let (mut line, alice) = line_with(IdentityPolicy::Refuse, |realm| {
            (realm.passing.notify, realm.passing.refer) = (allowed, allowed);
        });
        let bob = line.join("bob", "10.0.0.6:5060");
        let status = line.ask(
            alice,
            &asked(
                method,
                &format!("sip:bob@{DOMAIN}"),
                "Event: check-sync;reboot=true\r\nSubscription-State: active\r\nRefer-To: <sip:1@a>\r\n",
                b"",
            ),
        );
        let reached = line.sent.iter().any(|(to, sent)| *to == bob && sent.method() == Some(method));
        assert_eq!(reached, allowed, "{method:?}");
        assert!(allowed || status == Some(403), "{status:?}");
    }
}

#[test]
fn control_characters_are_refused_in_requests_and_never_passed() {
    let (mut line, alice) = line(IdentityPolicy::Correct);
    let to = format!("sip:123@{DOMAIN}");
    for headers in ["Subject: a\x1b[2Jb\r\n", "X-Any: \x07\r\n", "X-Any: \"a\x7f\"\r\n"] {
        assert_eq!(line.ask(alice, &asked(Method::INVITE, &to, headers, b"")), Some(400), "{headers:?}");
    }
    // In a quoted pair it is no error, and is none of the other's business.
    let from = "\"a\\\x1b[2J\" <sip:alice@example.net>";
    line.ask(alice, &Asked { from, ..asked(Method::INVITE, &to, "", b"") });
    let (_, invite) = line.incoming(address(TRUNK)).unwrap();
    assert!(text(invite, Name::From).starts_with("\"a\\ [2J\" "), "{}", text(invite, Name::From));
}

#[test]
fn a_header_that_does_not_pass_is_told_of_once() {
    let (mut line, alice) = line(IdentityPolicy::Correct);
    for _ in 0..3 {
        line.call(alice, "123", &[("P-Charge-Info", "<sip:boss@example.net>"), ("X-Fine", "1")]);
    }
    let told: Vec<_> = line.notices.iter().filter(|notice| notice.kind == "header_withheld").collect();
    let [notice] = &*told else { panic!("{told:?}") };
    assert!(
        notice.detail.contains("`p-charge-info`") && notice.detail.contains("access"),
        "{}",
        notice.detail
    );
}
