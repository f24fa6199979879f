//! Somebody else's reading of what we write: rsip, which shares no line with `sip-wire`. Each message that leaves an engine in a test passes
//! here; what rsip is known to get wrong (`sip-proxy/wire/tests/rsip.rs`) is let through unread.

use rsip::prelude::*;
use sip_wire::{Message, Name};

/// What rsip knows by name; of other methods it reads no CSeq.
const METHODS: [&[u8]; 14] = [
    b"INVITE",
    b"ACK",
    b"BYE",
    b"CANCEL",
    b"OPTIONS",
    b"REGISTER",
    b"PRACK",
    b"UPDATE",
    b"INFO",
    b"REFER",
    b"MESSAGE",
    b"SUBSCRIBE",
    b"NOTIFY",
    b"PUBLISH",
];

/// Whether rsip should be able to read it.
fn is_plain(message: &Message) -> bool {
    let bytes = message.as_bytes();
    let head = bytes.len().saturating_sub(message.body().len());
    let head = &bytes[..head];
    let is_known = |method: &[u8]| METHODS.contains(&method);
    let method = message.cseq().ok().map(|cseq| cseq.method.to_string());
    let uri = message.request_uri().unwrap_or(b"sip:");
    let user = uri.split(|byte| *byte == b'@').next().unwrap_or_default();
    head.is_ascii()
        && !head.contains(&b'[')
        && !head.windows(4).any(|text| text == b"tel:" || text == b"urn:")
        && !head.windows(3).any(|text| text == b"\r\n " || text == b"\r\n\t")
        && uri.starts_with(b"sip:")
        && !user.contains(&b'.')
        && method.is_some_and(|method| is_known(method.as_bytes()))
        && message.count(Name::Via) > 0
}

/// Says so by panicking if rsip refuses a message of ours, or reads something else in it.
pub fn reads(message: &Message) {
    if !is_plain(message) {
        return;
    }
    let text = String::from_utf8_lossy(message.as_bytes());
    let theirs = rsip::SipMessage::try_from(&message.as_bytes()[..]);
    let theirs = theirs.unwrap_or_else(|error| panic!("rsip can't read it: {error}\n{text}"));
    let status = match &theirs {
        rsip::SipMessage::Request(_) => None,
        rsip::SipMessage::Response(response) => Some(response.status_code.code()),
    };
    assert_eq!(message.status(), status, "{text}");
    let vias = theirs.headers().iter().filter(|header| matches!(header, rsip::Header::Via(_))).count();
    assert_eq!(message.count(Name::Via), vias, "{text}");
    assert_eq!(message.body(), &**theirs.body(), "{text}");
    let read = || -> Result<(), rsip::Error> {
        let cseq = theirs.cseq_header()?.typed()?;
        let ours = message.cseq().expect("a CSeq");
        assert_eq!((ours.number, ours.method.to_string()), (cseq.seq, cseq.method.to_string()), "{text}");
        assert_eq!(
            message.call_id().expect("a Call-ID"),
            theirs.call_id_header()?.value().as_bytes(),
            "{text}"
        );
        let tags =
            [theirs.from_header()?.typed()?.tag().cloned(), theirs.to_header()?.typed()?.tag().cloned()];
        let [from, to] = tags.each_ref().map(|tag| tag.as_ref().map(|tag| tag.value().as_bytes()));
        assert_eq!(message.from().expect("a From").tag(), from, "{text}");
        assert_eq!(message.to().expect("a To").tag(), to, "{text}");
        let via = theirs.via_header()?.typed()?;
        let branch = via.branch().map(|branch| branch.value().as_bytes());
        assert_eq!(message.via().expect("a Via").branch(), branch, "{text}");
        let contact =
            message.value(Name::Contact).filter(|contact| *contact != b"*" && !contact.contains(&b'"'));
        if contact.is_some() && message.count(Name::Contact) == 1 {
            theirs.contact_header()?.typed()?;
        }
        Ok(())
    };
    read().unwrap_or_else(|error| panic!("rsip can't read it: {error}\n{text}"));
}
