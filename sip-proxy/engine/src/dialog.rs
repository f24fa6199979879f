//! Dialogs (RFC 3261 §12) as plain data.

use std::net::SocketAddr;

use serde::{Deserialize, Serialize};
use sip_wire::{Builder, Message, Method, Name, Uri};

use crate::config::Listener;
use crate::flow::Flow;
use crate::ids::Ids;
use crate::transaction::{self, Large};

/// What one end of a dialog knows of it. Text is kept as its author wrote it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Dialog {
    /// Call-ID.
    #[serde(with = "crate::octets")]
    pub call_id: Box<[u8]>,
    /// Our tag.
    #[serde(with = "crate::octets")]
    pub local_tag: Box<[u8]>,
    /// The other side's tag; empty for a peer of RFC 2543.
    #[serde(with = "crate::octets")]
    pub remote_tag: Box<[u8]>,
    /// Our From value, tag included.
    #[serde(with = "crate::octets")]
    pub local: Box<[u8]>,
    /// Our To value, tag included.
    #[serde(with = "crate::octets")]
    pub remote: Box<[u8]>,
    /// The CSeq number of our latest request; 0 before the first.
    pub local_cseq: u32,
    /// That of the other side's latest.
    pub remote_cseq: Option<u32>,
    /// Route values, first hop first.
    #[serde(with = "crate::octets::list")]
    pub routes: Vec<Box<[u8]>>,
    /// The other side's Contact URI.
    #[serde(with = "crate::octets")]
    pub target: Box<[u8]>,
    /// Made by a `sips:` request over TLS.
    pub secure: bool,
    /// Whether a 2xx has confirmed it.
    pub confirmed: bool,
    /// Over which its peer has last shown who it is; where requests go is for the whole of it to say, not for the flow
    /// alone.
    pub flow: Flow,
    /// Whether its peer was resolved without a transport, so that large requests may go over a stream.
    pub large: Large,
}

/// What tells dialogs apart, seen from one end.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct DialogId {
    /// Call-ID.
    pub call_id: Box<[u8]>,
    /// Our tag.
    pub local_tag: Box<[u8]>,
    /// The other side's tag.
    pub remote_tag: Box<[u8]>,
}

/// Why a message does not fit into a dialog.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum DialogFault {
    /// From, To, Call-ID or CSeq can't be read.
    #[error("a header that a dialog needs is missing or broken")]
    Malformed,
    /// The CSeq number is lower than the latest (RFC 3261 §12.2.2).
    #[error("the CSeq number is out of order")]
    OutOfOrder,
    /// The CSeq number of the latest request in another transaction: it came twice, on two ways (RFC 3261 §8.2.2.2).
    #[error("the request came twice")]
    Merged,
}

impl DialogFault {
    /// The response that a request with this fault deserves.
    pub fn status(self) -> u16 {
        match self {
            DialogFault::Malformed => 400,
            DialogFault::OutOfOrder => 500,
            DialogFault::Merged => 482,
        }
    }
}

/// What a failure of a request inside a dialog means for it (RFC 5057 §5).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Impact {
    /// Only this request failed.
    Transaction,
    /// The usage (the call, or the subscription) is over.
    Usage,
    /// The other end or the way to it is gone: every usage is over.
    Dialog,
}

/// The table of RFC 5057 §5.1. 408 and 481 end the usage here, as RFC 3261 §12.2.1.2 has it for INVITE dialogs.
pub fn impact_of(status: u16) -> Impact {
    match status {
        404 | 410 | 416 | 482..=485 | 502 | 604 => Impact::Dialog,
        405 | 408 | 480 | 481 | 489 | 501 => Impact::Usage,
        _ => Impact::Transaction,
    }
}

/// Finds the dialog of a message without building one: Call-ID, local and remote tag.
pub(crate) type DialogKey = Box<[u8]>;

/// See [`DialogKey`].
pub(crate) fn dialog_key(call_id: &[u8], local_tag: &[u8], remote_tag: &[u8]) -> DialogKey {
    [call_id, b"\0", local_tag, b"\0", remote_tag].concat().into()
}

impl DialogId {
    /// Of the dialog that a response from the wire makes or belongs to.
    pub fn of_response(response: &Message) -> Option<Self> {
        Some(Self {
            call_id: response.call_id().ok()?.into(),
            local_tag: response.from().ok()?.tag()?.into(),
            remote_tag: response.to().ok()?.tag().unwrap_or_default().into(),
        })
    }
}

impl Dialog {
    /// What finds it.
    pub(crate) fn key(&self) -> DialogKey {
        dialog_key(&self.call_id, &self.local_tag, &self.remote_tag)
    }

    /// The dialog that our answer with `local_tag` makes of a received request (RFC 3261 §12.1.1). Whoever gives no
    /// Contact (RFC 2543 §6.13 left it out) is where its request came from.
    pub fn uas(request: &Message, local_tag: &str, flow: Flow) -> Result<Self, DialogFault> {
        let from = request.value(Name::From).ok_or(DialogFault::Malformed)?;
        let to = request.value(Name::To).ok_or(DialogFault::Malformed)?;
        let to_has_tag = request.to().map_err(|_| DialogFault::Malformed)?.tag().is_some();
        let local = if to_has_tag { to.into() } else { [to, b";tag=", local_tag.as_bytes()].concat().into() };
        Ok(Self {
            call_id: request.call_id().map_err(|_| DialogFault::Malformed)?.into(),
            local_tag: local_tag.as_bytes().into(),
            remote_tag: request.from().map_err(|_| DialogFault::Malformed)?.tag().unwrap_or_default().into(),
            local,
            remote: from.into(),
            local_cseq: 0,
            remote_cseq: Some(request.cseq().map_err(|_| DialogFault::Malformed)?.number),
            routes: request.values(Name::RecordRoute).map(Into::into).collect(),
            target: contact_of(request).unwrap_or_else(|| source_of(from, &flow)),
            secure: is_sips(request.request_uri().unwrap_or_default()),
            confirmed: false,
            flow,
            large: Large::AsDatagram,
        })
    }

    /// The dialog that a response makes of our request (RFC 3261 §12.1.2); without a To tag the tag is null. linphone's 180
    /// has a tag and no Contact, gateways answer 200 without: until a Contact comes that can be read, what is sent in
    /// the dialog goes where the request went, for who has taken a call must be told of its end.
    pub fn uac(request: &Message, response: &Message, flow: Flow) -> Result<Self, DialogFault> {
        let status = response.status().ok_or(DialogFault::Malformed)?;
        let remote = response.value(Name::To).ok_or(DialogFault::Malformed)?;
        let from = request.from().map_err(|_| DialogFault::Malformed)?;
        Ok(Self {
            call_id: request.call_id().map_err(|_| DialogFault::Malformed)?.into(),
            local_tag: from.tag().unwrap_or_default().into(),
            remote_tag: response.to().map_err(|_| DialogFault::Malformed)?.tag().unwrap_or_default().into(),
            local: request.value(Name::From).ok_or(DialogFault::Malformed)?.into(),
            remote: remote.into(),
            local_cseq: request.cseq().map_err(|_| DialogFault::Malformed)?.number,
            remote_cseq: None,
            routes: reversed_record_routes(response),
            target: contact_of(response)
                .or_else(|| request.request_uri().map(Into::into))
                .unwrap_or_else(|| source_of(remote, &flow)),
            secure: is_sips(request.request_uri().unwrap_or_default()),
            confirmed: (200..300).contains(&status),
            flow,
            large: Large::AsDatagram,
        })
    }

    /// What finds this dialog.
    pub fn id(&self) -> DialogId {
        DialogId {
            call_id: self.call_id.clone(),
            local_tag: self.local_tag.clone(),
            remote_tag: self.remote_tag.clone(),
        }
    }

    /// The peer whose provisional responses had no To tag has one now (RFC 3261 §12.1.2: until then it was null).
    pub fn take_tag(&mut self, response: &Message) {
        if let (Ok(to), Some(value)) = (response.to(), response.value(Name::To)) {
            self.remote_tag = to.tag().unwrap_or_default().into();
            self.remote = value.into();
        }
    }

    /// The 2xx to our INVITE confirms the dialog, and its Record-Route and Contact count (RFC 3261 §13.2.2.4).
    pub fn confirm(&mut self, response: &Message) {
        if !self.confirmed {
            self.confirmed = true;
            self.routes = reversed_record_routes(response);
        }
        self.refresh_target(response);
    }

    /// A target refresh (RFC 3261 §12.2): the Contact of an INVITE, UPDATE, SUBSCRIBE, NOTIFY or REFER, or of the 2xx to
    /// one. No Contact, no change.
    pub fn refresh_target(&mut self, message: &Message) {
        if let Some(target) = contact_of(message) {
            self.target = target;
        }
    }

    /// Whether a request from the wire is in order; if so, its CSeq number is the latest. ACK and CANCEL carry the number
    /// of their INVITE and are not judged.
    pub fn accepts(&mut self, request: &Message) -> Result<(), DialogFault> {
        let cseq = request.cseq().map_err(|_| DialogFault::Malformed)?;
        if cseq.method == Method::ACK || cseq.method == Method::CANCEL {
            return Ok(());
        }
        match self.remote_cseq {
            Some(latest) if cseq.number < latest => Err(DialogFault::OutOfOrder),
            Some(latest) if cseq.number == latest => Err(DialogFault::Merged),
            _ => {
                self.remote_cseq = Some(cseq.number);
                Ok(())
            }
        }
    }

    /// Whether a request from the wire belongs here.
    pub fn is_of_request(&self, request: &Message) -> bool {
        request.call_id().is_ok_and(|call_id| call_id == &*self.call_id)
            && request.to().is_ok_and(|to| to.tag().unwrap_or_default() == &*self.local_tag)
            && request.from().is_ok_and(|from| from.tag().unwrap_or_default() == &*self.remote_tag)
    }

    /// A new request inside the dialog (RFC 3261 §12.2.1.1): request line, Via, Max-Forwards, From, To, Call-ID, the next
    /// CSeq and Route. Contact and body are the caller's to add.
    pub fn request(&mut self, method: Method<'_>, ids: &mut Ids, listener: &Listener) -> Builder {
        self.local_cseq = self.local_cseq.saturating_add(1);
        self.message(method, self.local_cseq, ids, listener)
    }

    /// The ACK to a 2xx (RFC 3261 §13.2.2.4): a new branch, the CSeq number of the INVITE. Credentials, if the INVITE
    /// carried any, are the caller's to add.
    pub fn ack_for(&self, invite_cseq: u32, ids: &mut Ids, listener: &Listener) -> Builder {
        self.message(Method::ACK, invite_cseq, ids, listener)
    }

    /// The URI whose host gets the requests: the first route's, or the target.
    pub fn next_hop(&self) -> &[u8] {
        self.routes.first().map_or(&*self.target, |route| uri_of(route))
    }

    /// The address of that URI, if it is a literal one (RFC 3261 §8.1.2).
    pub(crate) fn literal_next_hop(&self) -> Option<SocketAddr> {
        let uri = Uri::parse(self.next_hop()).ok()?;
        Some(SocketAddr::new(uri.host().address()?, uri.port().unwrap_or(5060)))
    }

    /// Of a 2xx to an INVITE that nobody wants: all that the INVITE would tell of the dialog its response repeats.
    pub(crate) fn unwanted(response: &Message, flow: Flow) -> Option<Self> {
        Self::uac(response, response, flow).ok()
    }

    /// It may have carried requests of ours that are forgotten: numbers may skip (RFC 3261 §12.2.2).
    pub(crate) fn skip_forgotten(&mut self) {
        self.local_cseq = self.local_cseq.saturating_add(1000);
    }

    fn message(&self, method: Method<'_>, cseq: u32, ids: &mut Ids, listener: &Listener) -> Builder {
        let via = transaction::via(listener, &ids.branch());
        let cseq = [cseq.to_string().as_bytes(), b" ", method.as_bytes()].concat();
        // A first route without `lr` is a strict router of RFC 2543: it wants itself in the Request-URI and the target
        // as the last route (RFC 3261 §12.2.1.1).
        let strict = self.routes.first().filter(|route| !is_loose(route));
        let request_uri = strict.map_or(&*self.target, |route| uri_of(route));
        let mut request = Builder::request(method, request_uri)
            .header(Name::Via, via.as_bytes())
            .header(Name::MaxForwards, b"70")
            .header(Name::From, &self.local)
            .header(Name::To, &self.remote)
            .header(Name::CallId, &self.call_id)
            .header(Name::CSeq, &cseq);
        for route in self.routes.iter().skip(usize::from(strict.is_some())) {
            request = request.header(Name::Route, route);
        }
        if strict.is_some() {
            request = request.header(Name::Route, &[b"<", &*self.target, b">"].concat());
        }
        request
    }
}

/// Whether a PRACK acknowledges the reliable provisional response with `rseq` to our INVITE's `cseq` (RFC 3262 §7.2:
/// RAck holds the RSeq, then the CSeq number and method).
pub fn acknowledges(prack: &Message, rseq: u32, cseq: u32) -> bool {
    let Some(rack) = prack.value(Name::RAck) else { return false };
    let mut words = rack.split(u8::is_ascii_whitespace).filter(|word| !word.is_empty());
    let mut number = || std::str::from_utf8(words.next()?).ok()?.parse::<u32>().ok();
    number() == Some(rseq)
        && number() == Some(cseq)
        && words.next() == Some(b"INVITE")
        && words.next().is_none()
}

fn contact_of(message: &Message) -> Option<Box<[u8]>> {
    Some(message.contacts().next()?.ok()?.uri.as_bytes().into())
}

/// The user of a From or To at the address that its messages come from.
fn source_of(value: &[u8], flow: &Flow) -> Box<[u8]> {
    let address = sip_wire::Address::parse(value);
    let user = address.as_ref().map(|address| address.uri.user()).unwrap_or_default();
    let at: &[u8] = if user.is_empty() { b"" } else { b"@" };
    let transport = flow.transport.uri_parameter();
    let remote = std::net::SocketAddr::new(flow.remote.ip().to_canonical(), flow.remote.port());
    [b"sip:", user, at, format!("{remote}{transport}").as_bytes()].concat().into()
}

fn reversed_record_routes(response: &Message) -> Vec<Box<[u8]>> {
    let mut routes: Vec<Box<[u8]>> = response.values(Name::RecordRoute).map(Into::into).collect();
    routes.reverse();
    routes
}

fn is_sips(uri: &[u8]) -> bool {
    uri.get(..5).is_some_and(|scheme| scheme.eq_ignore_ascii_case(b"sips:"))
}

/// The URI between the angle brackets of a Route value, a display name before them or not.
fn uri_of(route: &[u8]) -> &[u8] {
    let mut quoted = false;
    let open = route.iter().position(|byte| {
        quoted ^= *byte == b'"';
        *byte == b'<' && !quoted
    });
    let Some(open) = open else { return route };
    let uri = route.get(open.saturating_add(1)..).unwrap_or_default();
    uri.split(|byte| *byte == b'>').next().unwrap_or(uri)
}

fn is_loose(route: &[u8]) -> bool {
    let uri = uri_of(route);
    let parameters = uri.split(|byte| *byte == b'?').next().unwrap_or(uri);
    parameters.split(|byte| *byte == b';').skip(1).any(|parameter| {
        parameter.split(|byte| *byte == b'=').next().is_some_and(|name| name.eq_ignore_ascii_case(b"lr"))
    })
}
