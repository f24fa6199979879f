//! Requests and responses that no telephone would write, by its password all the same.

use std::net::SocketAddr;

use sip_engine::digest;
use sip_engine::ids::Ids;
use sip_engine::io::ListenerId;
use sip_wire::{Message, Method, Name};

use crate::line::{CORE, DOMAIN, Line, PASSWORD};

/// A request of alice's.
pub(crate) struct Asked<'a> {
    pub(crate) method: Method<'static>,
    pub(crate) to: &'a str,
    pub(crate) from: &'a str,
    /// Whole lines.
    pub(crate) headers: &'a str,
    pub(crate) body: &'a [u8],
}

impl Line {
    /// Sends a request of alice's from a phone, answers a challenge, and returns the last status that came back.
    pub(crate) fn ask(&mut self, phone: SocketAddr, asked: &Asked<'_>) -> Option<u16> {
        let mut credentials = String::new();
        let number = self.heard.len();
        for cseq in 1..=2 {
            let (method, to) = (String::from_utf8_lossy(asked.method.as_bytes()).into_owned(), asked.to);
            let head = format!(
                "{method} {to} SIP/2.0\r\nVia: SIP/2.0/UDP {phone};branch=z9hG4bK-{number}-{cseq}\r\nMax-Forwards: 70\r\n\
                 From: {};tag=by-hand-{number}\r\nTo: <{to}>\r\nCall-ID: by-hand-{number}\r\nCSeq: {cseq} {method}\r\n\
                 Contact: <sip:alice@{phone}>\r\n{}{credentials}Content-Length: {}\r\n\r\n",
                asked.from,
                asked.headers,
                asked.body.len(),
            );
            let before = self.sent.len();
            self.hear(phone, [head.as_bytes(), asked.body].concat().into());
            let answers =
                self.sent[before..].iter().filter(|(at, sent)| *at == phone && sent.status().is_some());
            let answer = &answers.last()?.1;
            if !matches!(answer.status(), Some(401 | 407)) {
                return answer.status();
            }
            let mut ids = Ids::new([9; 32], 9);
            let (name, value) = digest::answer(
                answer,
                asked.method,
                to.as_bytes(),
                digest::Login { username: "alice", password: PASSWORD },
                &mut ids,
            )?;
            credentials = format!("{}: {value}\r\n", name.as_str());
        }
        None
    }

    /// A target without a telephone answers the last request of a method that it got.
    pub(crate) fn reply(&mut self, from: SocketAddr, method: Method<'_>, head: &str, body: &str) {
        self.reply_at(CORE, from, method, (head, body));
    }

    /// The same on either side; head and body.
    pub(crate) fn reply_at(
        &mut self,
        side: ListenerId,
        from: SocketAddr,
        method: Method<'_>,
        (head, body): (&str, &str),
    ) {
        let asked = |(to, sent): &&(SocketAddr, Message)| *to == from && sent.method() == Some(method);
        let request = &self.sent.iter().rfind(asked).expect("a request").1;
        let header = |name: Name| {
            format!("{}: {}", name.as_str(), String::from_utf8_lossy(request.value(name).unwrap_or_default()))
        };
        let same = [Name::Via, Name::From, Name::CallId, Name::CSeq, Name::To].map(header).join("\r\n");
        let is_in_dialog = request.to().is_ok_and(|to| to.tag().is_some());
        let tag = if is_in_dialog { "" } else { ";tag=replied" };
        let (line, rest) = head.split_once("\r\n").expect("a status line");
        let text =
            format!("SIP/2.0 {line}\r\n{same}{tag}\r\n{rest}Content-Length: {}\r\n\r\n{body}", body.len());
        self.hear_at(side, from, text.into());
    }
}

/// Of alice's, who says who she is.
pub(crate) fn asked<'a>(method: Method<'static>, to: &'a str, headers: &'a str, body: &'a [u8]) -> Asked<'a> {
    Asked { method, to, from: ALICE, headers, body }
}

const ALICE: &str = "<sip:alice@example.net>";

#[test]
fn alice_is_of_the_domain() {
    assert_eq!(ALICE, format!("<sip:alice@{DOMAIN}>"));
}
