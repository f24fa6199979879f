//! Tools that look for SIP servers to abuse. Any answer tells them that there is one, so they get none.

use sip_wire::{Message, Name};

/// What their User-Agent begins with, in lower case. Names that honest tools bear too are not among them.
const SCANNERS: [&[u8]; 9] = [
    b"friendly-scanner",
    b"friendly-request",
    b"sipvicious",
    b"sip-scan",
    b"sipcli",
    b"sundayddr",
    b"pplsip",
    b"sivus",
    b"smap",
];

/// Whether a request calls itself one of them. (Those that lie meet the filter and the challenge.)
pub(crate) fn is_scanner(message: &Message) -> bool {
    message.status().is_none()
        && message.value(Name::UserAgent).is_some_and(|agent| {
            SCANNERS
                .iter()
                .any(|name| agent.get(..name.len()).is_some_and(|start| start.eq_ignore_ascii_case(name)))
        })
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;

    #[test]
    fn a_scanner_is_known_by_its_name_and_a_phone_is_none() {
        let is = |agent: &str| {
            let text = format!("OPTIONS sip:100@h SIP/2.0\r\nUser-Agent: {agent}\r\n\r\n");
            is_scanner(&Message::parse(Bytes::from(text)).unwrap())
        };
        assert!(is("friendly-scanner"));
        assert!(is("SIPVicious 0.3"));
        assert!(!is("Linphone/5.1 (friendly-scanner)"));
        assert!(!is("baresip v1.0.0"));
        assert!(!is(""));
    }
}
