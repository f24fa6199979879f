//! What becomes of bodies: one description, which is media's, and all else as the other side may see it.

use sip_wire::{Message, Method, Name};

use crate::by_hand::asked;
use crate::line::{DOMAIN, Line, address, config, policy, trunk};

const TRUNK: &str = "203.0.113.1:5060";

/// A description that media would have replaced; here it comes back as it is, so a body that holds it says whether it
/// went that way.
const SDP: &str =
    "v=0\r\no=- 1 1 IN IP4 192.0.2.77\r\ns=-\r\nc=IN IP4 192.0.2.77\r\nt=0 0\r\nm=audio 4000 RTP/AVP 0\r\n";
/// What media never saw.
const OTHER: &str =
    "v=0\r\no=- 1 1 IN IP4 192.0.2.66\r\ns=-\r\nc=IN IP4 192.0.2.66\r\nt=0 0\r\nm=audio 6 RTP/AVP 0\r\n";

fn line() -> (Line, std::net::SocketAddr) {
    let mut line = Line::new(config(), policy(vec![trunk("carrier", "203.0.113.1", None)]));
    let alice = line.join("alice", "10.0.0.5:5060");
    (line, alice)
}

fn part(kind: &str, body: &str) -> String {
    format!("--b\r\nContent-Type: {kind}\r\n\r\n{body}\r\n")
}

/// What the trunk gets of an INVITE of alice with this body; or the status that she gets.
fn invited(kind: &str, body: &str) -> Result<Message, Option<u16>> {
    let (mut line, alice) = line();
    let headers = format!("Content-Type: {kind}\r\n");
    let status =
        line.ask(alice, &asked(Method::INVITE, &format!("sip:123@{DOMAIN}"), &headers, body.as_bytes()));
    let sent =
        line.sent.iter().rfind(|(to, sent)| *to == address(TRUNK) && sent.method() == Some(Method::INVITE));
    sent.map(|(_, sent)| sent.clone()).ok_or(status)
}

fn body(message: &Message) -> String {
    String::from_utf8_lossy(message.body()).into_owned()
}

#[test]
fn a_description_is_found_however_its_type_is_written_and_in_whatever_it_is_nested() {
    let nested = format!(
        "preamble\r\n--b\r\nContent-Type: multipart / related ;\r\n boundary = \"in ner\"\r\n\r\n--in ner\r\nc: Application / SDP (ours)\r\n\r\n{SDP}\r\n--in ner--\r\n--b--\r\n",
    );
    for (kind, text) in [
        ("application / sdp", SDP.to_owned()),
        ("application/\r\n sdp", SDP.to_owned()),
        ("APPLICATION/SDP;a=\"b;c\"", SDP.to_owned()),
        ("multipart / mixed ; boundary = b", part("application/sdp", SDP) + "--b--\r\n"),
        ("multipart/mixed;boundary=b", (part("application/sdp", SDP) + "--b--\r\n").replace("\r\n", "\n")),
        ("multipart/mixed;boundary=b", nested),
    ] {
        let sent = invited(kind, &text).unwrap_or_else(|status| panic!("{kind}: {status:?}"));
        let found = sip_wire::multipart::session_description(&sent).unwrap_or_else(|| panic!("{kind}"));
        assert!(sent.body()[found].starts_with(b"v=0"), "{kind}");
    }
}

#[test]
fn of_alternatives_each_is_what_media_made_of_the_last() {
    let text = part("application/sdp", OTHER) + &part("application/sdp", SDP) + "--b--\r\n";
    let sent = invited("multipart/alternative;boundary=b", &text).unwrap();
    assert!(!body(&sent).contains("192.0.2.66"), "{}", body(&sent));
    assert_eq!(body(&sent).matches("192.0.2.77").count(), 4);
}

#[test]
fn what_could_hold_a_description_that_media_never_sees_is_refused() {
    let mixed = |more: String| part("application/sdp", SDP) + &more + "--b--\r\n";
    let kind = "multipart/mixed;boundary=b";
    for (kind, text, status) in [
        (kind, mixed(part("application/sdp", OTHER)), 415),
        (kind, mixed(part("application/sdp\r\nContent-Disposition: early-session", OTHER)), 415),
        (kind, mixed(part("text/plain", OTHER)), 415),
        (kind, mixed(part("message/sip", "INVITE sip:a@b SIP/2.0\r\n\r\nx")), 415),
        (kind, mixed(part("message/sipfrag", "INVITE sip:a@b SIP/2.0\r\n\r\nx")), 415),
        (
            kind,
            mixed(part("message/external-body;access-type=URL", "Content-Type: application/sdp\r\n")),
            415,
        ),
        (kind, mixed(part("application/trickle-ice-sdpfrag", "a=candidate:x")), 415),
        (kind, mixed(part("application/pkcs7-mime", "\x01")), 493),
        (kind, mixed(part("text/plain\r\nContent-Transfer-Encoding: base64", "dj0w")), 415),
        (kind, part("application/sdp\r\nContent-Encoding: gzip", "\x01") + "--b--\r\n", 415),
        (kind, part("application/sdp;", SDP) + &part("oh no", SDP) + "--b--\r\n", 400),
        ("multipart/encrypted;boundary=b", mixed(String::new()), 493),
        ("multipart/signed;boundary=b", mixed(String::new()), 415),
        ("multipart/mixed;boundary=c", mixed(String::new()), 400),
        ("multipart/mixed", mixed(String::new()), 400),
        ("multipart/mixed;boundary=b;boundary=c", mixed(String::new()), 400),
        ("application", SDP.to_owned(), 400),
        ("application/octet-stream", OTHER.to_owned(), 415),
        ("text/plain", OTHER.replace("\r\n", "\r"), 415),
    ] {
        let seen = invited(kind, &text).map(|sent| body(&sent));
        assert_eq!(seen, Err(Some(status)), "{kind}: {text}");
    }
}

#[test]
fn descriptions_outside_offer_and_answer_are_refused_and_texts_arrive() {
    let (mut line, alice) = line();
    let to = format!("sip:123@{DOMAIN}");
    for method in [Method::MESSAGE, Method::OPTIONS, Method::PUBLISH, Method::SUBSCRIBE] {
        let status =
            line.ask(alice, &asked(method, &to, "Content-Type: application / sdp\r\n", SDP.as_bytes()));
        assert_eq!(status, Some(415), "{method:?}");
    }
    line.ask(
        alice,
        &asked(Method::MESSAGE, &to, "Content-Type: text/plain\r\n", b"I am at 10.0.0.5, \xff\xfe"),
    );
    let told = line.sent.iter().rfind(|(_, sent)| sent.method() == Some(Method::MESSAGE)).unwrap();
    assert_eq!(told.1.body(), format!("I am at {DOMAIN}, ").bytes().chain([0xff, 0xfe]).collect::<Vec<_>>());
    // In binary data lengths are written, too: nothing can stand for an address.
    let status =
        line.ask(alice, &asked(Method::MESSAGE, &to, "Content-Type: application/x\r\n", b"\x0810.0.0.5"));
    assert_eq!(status, Some(415));
}

#[test]
fn the_location_of_an_emergency_call_arrives_whole_and_what_names_it_still_does() {
    let (mut line, alice) = line();
    let location = "<presence entity=\"sip:alice@10.0.0.5:5070\"><pos>52.5 13.4</pos></presence>";
    let text = part("application/sdp", SDP)
        + &part("application/pidf+xml\r\nContent-ID: <where@10.0.0.5>", location)
        + "--b--\r\n";
    let headers = "Content-Type: multipart/mixed;boundary=b\r\nGeolocation: <cid:where@10.0.0.5>\r\n";
    line.ask(alice, &asked(Method::INVITE, &format!("sip:112@{DOMAIN}"), headers, text.as_bytes()));
    let sent = &line.sent.iter().rfind(|(to, _)| *to == address(TRUNK)).unwrap().1;
    let text = body(sent);
    assert!(text.contains("<pos>52.5 13.4</pos>") && !text.contains("10.0.0.5"), "{text}");
    assert!(text.contains(&format!("entity=\"sip:alice@{DOMAIN}\"")), "{text}");
    let named = String::from_utf8_lossy(sent.named("Geolocation").unwrap()).replace("cid:", "");
    assert!(text.contains(&format!("Content-ID: {named}\r\n")), "{named}: {text}");
}

#[test]
fn a_2xx_that_cannot_be_passed_is_acknowledged_ended_and_told_as_a_failure() {
    let (mut line, alice) = line();
    let gateway = address(TRUNK);
    let offer = format!("sip:123@{DOMAIN}");
    line.ask(alice, &asked(Method::INVITE, &offer, "Content-Type: application/sdp\r\n", SDP.as_bytes()));
    let text = part("application/sdp", SDP) + &part("application/sdp", OTHER) + "--b--\r\n";
    let head = "200 OK\r\nContact: <sip:203.0.113.1>\r\nContent-Type: multipart/mixed;boundary=b\r\n";
    line.reply(gateway, Method::INVITE, head, &text);
    let to = |phone, method: Method<'static>| {
        line.sent.iter().filter(|(to, sent)| *to == phone && sent.method() == Some(method)).count()
    };
    assert_eq!((to(gateway, Method::ACK), to(gateway, Method::BYE)), (1, 1));
    let told =
        line.sent.iter().filter(|(to, _)| *to == alice).filter_map(|(_, sent)| sent.status()).next_back();
    assert_eq!(told, Some(502));
}

#[test]
fn what_a_target_says_of_its_abilities_shows_no_description() {
    let (mut line, alice) = line();
    let to = format!("sip:123@{DOMAIN}");
    line.ask(alice, &asked(Method::OPTIONS, &to, "", b""));
    let head = "200 OK\r\nContent-Type: application / sdp\r\nAccept: a/b\r\n";
    line.reply(address(TRUNK), Method::OPTIONS, head, OTHER);
    let told = &line.sent.iter().rfind(|(to, sent)| *to == alice && sent.status() == Some(200)).unwrap().1;
    assert!(told.body().is_empty() && told.count(Name::ContentType) == 0);
    assert_eq!(told.value(Name::Accept), Some(b"a/b".as_slice()));
}
