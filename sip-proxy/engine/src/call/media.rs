//! Asking the media plane, and going on when it has answered.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use seam::{Action, Described, ExchangeId, PRODUCT_LIMIT, Party, Refusal, Reply, Request};
use sip_wire::{Message, Name, Uri};

use super::pair::{End, said_in};
use super::side::{EndId, Side};
use super::{Call, CallTimer};
use crate::core::Core;
use crate::event::{CallChange, CallEventKind, EndCause, EndedBy};
use crate::io::{Flow, RealmId};
use crate::passing::Privacy;
use crate::registrar::Registrar;

/// What a reply is waited for.
#[derive(Debug)]
pub(super) enum Wait {
    /// The offer for a branch.
    Branch(u16),
    /// The description in a target's response to the initial INVITE.
    Response(u32, Box<Message>),
    /// The description in a request inside a pair.
    Forward(u32),
    /// The description in the response to one.
    ForwardResponse(u32, Box<Message>),
    /// The answer in an ACK: of which pair, and which end sent it.
    Ack(EndId),
    /// The answer for the ACK of a re-INVITE of ours that asked for an offer.
    Offered(u32),
    /// Candidates in a request inside a pair.
    Fragment(u32),
    /// The last count.
    Delete,
}

impl Wait {
    pub(super) fn is_of_pair(&self, id: u32) -> bool {
        matches!(self, Wait::Response(pair, _) if *pair == id)
    }
}

impl Call {
    /// What the caller's INVITE says of it.
    pub(super) fn caller_info(&self) -> Party {
        let request = &self.upstream.incoming.request;
        let contact = request.contacts().next().and_then(Result::ok);
        Party {
            realm: self.upstream.realm,
            signalling: self.upstream.incoming.flow.remote,
            product: product_of(request).unwrap_or_default(),
            contact: contact.and_then(|contact| literal_of(contact.uri.as_bytes())),
            is_private: Privacy::of(request).is_any(),
        }
    }

    /// What is known of a target before it has answered.
    pub(super) fn target_info(&self, realm: RealmId, flow: Flow, uri: &[u8]) -> Party {
        Party {
            realm,
            signalling: flow.remote,
            product: Arc::default(),
            contact: literal_of(uri),
            is_private: false,
        }
    }

    /// Asks for something that a reply comes to.
    pub(super) fn ask_media(&mut self, action: Action, wait: Wait, core: &mut Core) {
        self.ask_media_within(core.config.timers.media, action, wait, core);
    }

    pub(super) fn ask_media_within(&mut self, limit: Duration, action: Action, wait: Wait, core: &mut Core) {
        let number = self.tell_media(action, core);
        let timer = self.schedule(limit, CallTimer::Media(number), core);
        self.waiting.push((number, wait, timer));
    }

    /// Tells something that no reply is awaited for.
    pub(super) fn tell_media(&mut self, action: Action, core: &mut Core) -> u32 {
        self.has_media = true;
        let number = self.next_request();
        self.next_media = number;
        core.out.push_back(crate::io::Output::Media(Request { session: self.session, number, action }));
        number
    }

    /// The number of what is asked or told next.
    pub(super) fn next_request(&self) -> u32 {
        self.next_media.saturating_add(1)
    }

    /// An offer of one end of a pair, for the other.
    pub(super) fn offer_action(
        &self,
        id: u32,
        exchange: ExchangeId,
        from: Side,
        sdp: Bytes,
    ) -> Option<Action> {
        let pair = self.pair(id)?;
        let to = !from;
        Some(Action::Offer {
            exchange,
            from: pair.endpoint(from),
            to: pair.endpoint(to),
            from_party: pair.ends[from].info(),
            to_party: pair.ends[to].info(),
            sdp,
        })
    }

    /// The answer of one end of a pair to the other's offer.
    pub(super) fn answer_action(
        &self,
        id: u32,
        exchange: ExchangeId,
        from: Side,
        sdp: Bytes,
    ) -> Option<Action> {
        let pair = self.pair(id)?;
        Some(Action::Answer {
            exchange,
            from: pair.endpoint(from),
            to: pair.endpoint(!from),
            from_party: pair.ends[from].info(),
            sdp,
        })
    }

    /// A reply.
    pub(crate) fn on_media(&mut self, number: u32, reply: Reply, core: &mut Core, registrar: &mut Registrar) {
        let Some(position) = self.waiting.iter().position(|waiting| waiting.0 == number) else {
            return;
        };
        let (_, wait, timer) = self.waiting.remove(position);
        core.timers.cancel(timer);
        match (wait, reply) {
            (Wait::Delete, Reply::Deleted { streams, direct }) => self.counted(streams, direct, core),
            (Wait::Delete, _) => self.counted(Vec::new(), Duration::ZERO, core),
            (Wait::Fragment(forward), Reply::Fragment(fragment)) => self.on_fragment(forward, fragment, core),
            (Wait::Fragment(forward), _) => self.on_fragment(forward, None, core),
            (wait, Reply::Description(result)) => self.on_description(wait, result, core, registrar),
            (wait, _) => self.on_description(wait, Err(Refusal::Unknown), core, registrar),
        }
    }

    pub(super) fn on_media_timeout(&mut self, number: u32, core: &mut Core, registrar: &mut Registrar) {
        let Some(position) = self.waiting.iter().position(|waiting| waiting.0 == number) else { return };
        let (_, wait, _) = self.waiting.remove(position);
        core.notice(
            "media_timeout",
            None,
            "the media plane did not answer in time: look at its load and at the log of its workers",
        );
        match wait {
            Wait::Delete => self.counted(Vec::new(), Duration::ZERO, core),
            Wait::Fragment(forward) => self.on_fragment(forward, None, core),
            wait => self.on_description(wait, Err(Refusal::Unavailable), core, registrar),
        }
    }

    fn on_description(
        &mut self,
        wait: Wait,
        result: Result<Described, Refusal>,
        core: &mut Core,
        registrar: &mut Registrar,
    ) {
        if self.is_over() {
            return;
        }
        if let Err(Refusal::Unfit(unfit)) = result {
            core.notice(
                "unfit_address",
                Some(self.upstream.incoming.flow.remote),
                format!("a session description in a call from here names {unfit}, and is refused; see `local_peers` for phones on this machine"),
            );
        }
        match wait {
            Wait::Branch(index) => match result {
                Ok(described) => self.on_branch_offer(index, described.sdp, core),
                Err(refusal) => {
                    self.refused = Some(refusal);
                    self.on_branch_failure(index, refusal.status().into(), core, registrar);
                }
            },
            Wait::Response(pair, response) => self.on_response_description(pair, *response, result, core),
            Wait::Forward(forward) => self.on_forward_description(forward, result, core),
            Wait::ForwardResponse(forward, response) => {
                self.on_forward_answer(forward, *response, result, core)
            }
            Wait::Ack(EndId { pair: id, side }) => {
                if let Some(pair) = self.pair_mut(id) {
                    pair.exchange = None;
                }
                match result {
                    Ok(described) => {
                        self.acknowledge(id, !side, Some(described.sdp), core);
                        self.after_forward(id, core);
                    }
                    Err(_) => {
                        self.acknowledge(id, !side, None, core);
                        self.hang_up(EndCause::MediaRefused, EndedBy::Sbc, core);
                    }
                }
            }
            Wait::Offered(forward) => {
                self.on_renegotiation_answer(forward, result.ok().map(|described| described.sdp), core)
            }
            Wait::Fragment(_) | Wait::Delete => {}
        }
    }

    fn on_response_description(
        &mut self,
        id: u32,
        response: Message,
        result: Result<Described, Refusal>,
        core: &mut Core,
    ) {
        let is_final = response.status().is_some_and(|status| status >= 200);
        match result {
            Ok(described) => {
                if let Some(pair) = self.pair_mut(id) {
                    pair.ends[Side::Target].summary = described.summary;
                    pair.ends[Side::Target].said = said_in(&response);
                }
                if is_final {
                    self.answer_call(id, &response, Some(described.sdp), core);
                } else {
                    self.pass_response(id, &response, Some(described.sdp), core);
                }
            }
            Err(refusal) if is_final => {
                let status = if refusal == Refusal::Malformed { 502 } else { refusal.status() };
                self.fail_upstream(status, EndCause::MediaRefused, core);
            }
            // A broken early description costs early media, not the call, unless nothing better comes.
            Err(_) => {
                if let Some(pair) = self.pair_mut(id)
                    && std::mem::take(&mut pair.negotiated)
                {
                    pair.ends[Side::Caller].description = None;
                }
                self.pass_response(id, &response, None, core);
            }
        }
        if let Some(next) = self.pair_mut(id).and_then(|pair| pair.deferred.pop_front()) {
            self.take_response(id, next, core);
        }
    }

    /// The answer to an offer in a 2xx comes in the ACK.
    pub(super) fn answer_in_ack(&mut self, end: EndId, exchange: ExchangeId, sdp: Bytes, core: &mut Core) {
        if let Some(pair) = self.pair_mut(end.pair) {
            pair.ends[end.side].said = Some(Bytes::copy_from_slice(&sdp));
        }
        if let Some(action) = self.answer_action(end.pair, exchange, end.side, sdp) {
            self.ask_media(action, Wait::Ack(end), core);
        }
    }

    /// Notes what a new agreement changed, for the record.
    pub(super) fn note_agreement(&mut self, id: u32, offerer: Side, summary: seam::Summary, core: &mut Core) {
        let Some(pair) = self.pair_mut(id) else { return };
        let before = std::mem::replace(&mut pair.ends[offerer].summary, summary);
        let (was, is) = (before.is_hold(), pair.ends[offerer].summary.is_hold());
        let party = pair.ends[offerer].endpoint.party;
        let is_change = pair.ends[offerer].summary != before;
        let change = match (was, is) {
            (false, true) => CallChange::Hold { party },
            (true, false) => CallChange::Resume { party },
            _ if is_change && !before.streams.is_empty() => CallChange::Media,
            _ => return,
        };
        self.record(CallEventKind::Changed(change), core);
    }
}

impl End {
    /// What the media plane must know of it.
    pub(super) fn info(&self) -> Party {
        Party {
            realm: self.realm,
            signalling: self.dialog.flow.remote,
            product: self.product.clone().unwrap_or_default(),
            contact: literal_of(&self.dialog.target),
            is_private: self.wants_privacy,
        }
    }
}

/// What the author of a message says it is.
pub(super) fn product_of(message: &Message) -> Option<Arc<str>> {
    let name = if message.status().is_some() { Name::Server } else { Name::UserAgent };
    // Responses say Server (RFC 3261 §20.35), those of some phones User-Agent.
    let value = message.value(name).or_else(|| message.value(Name::UserAgent))?;
    Some(String::from_utf8_lossy(value.get(..PRODUCT_LIMIT).unwrap_or(value)).into())
}

/// The address that a URI names, if it is a literal.
fn literal_of(uri: &[u8]) -> Option<SocketAddr> {
    let uri = Uri::parse(uri).ok()?;
    let port = uri.port().unwrap_or(if uri.scheme() == sip_wire::Scheme::Sips { 5061 } else { 5060 });
    Some(SocketAddr::new(uri.host().address()?, port))
}
