//! Messages that nobody may act on: what cannot be read, lacks what every message must have, or asks for what would not
//! pass through us. Requests are answered without a transaction, the same way each time they come; ACKs and responses
//! are dropped. All are counted.

use sip_wire::{
    Body, BodyFault, Cause, MediaType, Message, Method, Name, Refused, check_request, check_response,
};

use crate::config::Realm;
use crate::core::{ALLOW, Core};
use crate::flow::Flow;
use crate::io::Output;
use crate::strangers::Sender;
use crate::transaction::{Incoming, stateless_tag};

/// Options that pass through us or that we know.
const KNOWN_OPTIONS: [&str; 10] = [
    "100rel",
    "timer",
    "replaces",
    "norefersub",
    "path",
    "outbound",
    "gruu",
    "tdialog",
    "join",
    "from-change",
];

/// How much of a message its stateless tag is made of: enough to hold a branch.
const TAGGED: usize = 1024;

impl Core {
    /// Whether a message may go on; one that may not has been dealt with.
    pub(crate) fn is_sound(&mut self, flow: Flow, message: &Message) -> bool {
        let checked =
            if message.status().is_some() { check_response(message) } else { check_request(message) };
        match checked {
            Ok(()) => true,
            Err(cause) => {
                self.refuse(flow, &Refused::of(message, cause));
                false
            }
        }
    }

    /// Answers what can be answered, counts it, and closes a connection whose framing it has broken.
    pub(crate) fn refuse(&mut self, flow: Flow, refused: &Refused) {
        let sender = if self.peer_of(&flow).is_some() { Sender::Trunk } else { Sender::Stranger };
        if !self.guards.strangers.take(sender, &flow, self.now) {
            return self.count_limited(&flow);
        }
        let tag = stateless_tag(refused.as_bytes().get(..TAGGED).unwrap_or(refused.as_bytes()));
        let kind = match refused.response(&tag) {
            Some(mut answer) => {
                if refused.cause == Cause::UnknownMethod {
                    answer = answer.header(Name::Allow, ALLOW);
                }
                if let Some(product) = &self.config.product {
                    answer = answer.header(Name::Server, product.as_bytes());
                }
                let asked = refused.as_bytes().len();
                self.transactions.answer_stateless(flow, asked, answer.finish(), &mut self.out);
                "request_refused"
            }
            None => "message_dropped",
        };
        self.notice(kind, Some(flow.remote), refused.cause.to_string());
        if let Some(connection) = flow.connection.filter(|_| refused.cause.breaks_framing()) {
            self.out.push_back(Output::Close(connection));
        }
    }

    /// Answers a sound request that asks for more than passes through us.
    pub(crate) fn asks_too_much(&mut self, incoming: &Incoming) -> bool {
        let Incoming { flow, request, .. } = incoming;
        let Some(realm) = self.realm_of(flow) else { return false };
        if let Some(unknown) = unknown_options(request, realm) {
            self.reject_with(incoming, 420, |response| response.header(Name::Unsupported, &unknown));
            return true;
        }
        // What cannot be looked into could hold a description that nobody relays, or show who its author is: it is
        // refused, never passed (RFC 3261 §8.2.3).
        if let Err(fault) = Body::of(request) {
            let status = self.body_refused(*flow, fault);
            self.reject_with(incoming, status, |response| match fault {
                BodyFault::Encoded => response.header(Name::AcceptEncoding, b"identity"),
                BodyFault::Describes => response.header(Name::Accept, readable(request)),
                _ => response,
            });
            return true;
        }
        false
    }
}

/// The options of Require and Proxy-Require that neither we nor, by its setting, the realm stands for (RFC 3261
/// §8.2.2.3, §16.3 step 5).
fn unknown_options(request: &Message, realm: &Realm) -> Option<Vec<u8>> {
    if realm.pass_unknown_require {
        return None;
    }
    let unknown: Vec<&[u8]> = [Name::Require, Name::ProxyRequire]
        .into_iter()
        .flat_map(|name| request.values(name))
        .filter(|option| !KNOWN_OPTIONS.iter().any(|known| option.eq_ignore_ascii_case(known.as_bytes())))
        .collect();
    (!unknown.is_empty()).then(|| unknown.join(&b", "[..]))
}

/// The bodies that we can look into, as Accept names them.
fn readable(request: &Message) -> &'static [u8] {
    let may_describe = [Method::INVITE, Method::UPDATE, Method::PRACK].map(Some).contains(&request.method());
    if may_describe { b"application/sdp, multipart/mixed" } else { b"text/plain, multipart/mixed" }
}

/// Whether an INVITE can be answered with a session description (RFC 3261 §20.1: without Accept it can).
pub(crate) fn accepts_description(request: &Message) -> bool {
    if request.method() != Some(Method::INVITE) || request.count(Name::Accept) == 0 {
        return true;
    }
    request.values(Name::Accept).filter_map(MediaType::parse).any(|range| {
        ["application/sdp", "application/*", "*/*"].iter().any(|known| range.is(known))
            || range.kind() == b"multipart"
    })
}
