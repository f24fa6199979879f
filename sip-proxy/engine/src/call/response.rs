//! What the caller hears: the responses of targets as its side may see them, and the last one, whoever gives it.

use bytes::Bytes;
use sip_wire::{Message, Name};

use super::Purpose;
use super::body::{add, body_for};
use super::fault::{Given, shown_to_caller};
use super::parties::Parties;
use super::side::{BranchId, PairId, Side};
use crate::core::Core;
use crate::passing::{Options, copy_headers};
use crate::session_timer::Agreement;
use crate::transaction::{self, Incoming};
use seam::Refusal;

impl Parties {
    /// The caller's version of a response in a pair.
    pub(super) fn build_response(
        &mut self,
        id: PairId,
        response: &Message,
        sdp: Option<Bytes>,
        core: &mut Core,
    ) -> Option<Bytes> {
        let status = response.status()?;
        let config = core.config.clone();
        let mut names = self.pair_names(&config, id, Side::Target)?;
        let upstream = &self.upstream;
        let pair = self.pairs.iter_mut().find(|pair| pair.id == id)?;
        let to_realm = config.realm(upstream.realm)?;
        let tag = String::from_utf8_lossy(&pair.legs[Side::Caller].dialog.local_tag).into_owned();
        let reason = response.reason().filter(|reason| !reason.is_empty()).map(|reason| names.apply(reason));
        let mut out =
            transaction::response_to(&upstream.incoming.request, status, reason.as_deref(), Some(&tag));
        self.shown_tag = Some(tag);
        for record_route in upstream.incoming.request.values(Name::RecordRoute) {
            out = out.header(Name::RecordRoute, record_route);
        }
        out = out.header(Name::Contact, &core.contact(upstream.incoming.flow.listener));
        let mut options = Options::passing(response);
        if status < 200 {
            if let Some(reliable) =
                pair.reliable.last().filter(|_| response.has_token(Name::Require, "100rel"))
            {
                out = out.header(Name::RSeq, reliable.ours.to_string().as_bytes());
            }
        } else if self.purpose == Purpose::Session {
            let agreed = Agreement::answering(&upstream.incoming.request, to_realm.session_timer);
            if let Some(agreed) = agreed {
                pair.legs[Side::Caller].session.agreed = Some(agreed);
                out = out.header(Name::SessionExpires, agreed.as_answer().as_bytes());
                if !agreed.we_refresh {
                    options.require(b"timer");
                }
            }
            options.support(b"timer");
        }
        out = options.put(out);
        if let Some(product) = &config.product {
            out = out.header(Name::Server, product.as_bytes());
        }
        let out = copy_headers(out, response, &names, core);
        let flow = pair.flow(Side::Target);
        if let Some(sdp) = &sdp {
            pair.legs[Side::Caller].descriptions.local = Some(sdp.clone());
        }
        // What was agreed by an unreliable response belongs into the final one too.
        let agreed = if sdp.is_none() && status >= 200 && !pair.negotiated {
            pair.legs[Side::Caller].descriptions.local.clone()
        } else {
            None
        };
        let sdp = sdp.or(agreed);
        match body_for(response, sdp.as_ref(), &mut names, core) {
            Ok(body) => Some(add(out, body).finish().into()),
            Err(fault) => {
                core.body_refused(flow, fault);
                // It costs early media, and not the call.
                (status < 200).then(|| out.finish().into())
            }
        }
    }

    pub(super) fn final_response(
        &mut self,
        status: u16,
        given: Option<&Given>,
        refused: Option<Refusal>,
        core: &mut Core,
    ) -> Bytes {
        let config = core.config.clone();
        let message = given.map(|given| &given.message);
        // A registrar behind us challenges the phone itself.
        let is_register = matches!(self.purpose, Purpose::Register(_));
        let is_challenge = is_register && matches!(status, 401 | 407);
        let status = if message.is_some() && !is_challenge { shown_to_caller(status) } else { status };
        let tag = self.shown_tag.clone().unwrap_or_else(|| core.ids.tag());
        let mut names = given.and_then(|given| self.branch_names(&config, given.by, Side::Target));
        let reason = message
            .filter(|message| message.status() == Some(status))
            .and_then(Message::reason)
            .zip(names.as_ref())
            .map(|(reason, names)| names.apply(reason));
        let mut out =
            transaction::response_to(&self.upstream.incoming.request, status, reason.as_deref(), Some(&tag));
        if let (Some(message), Some(names)) = (message, &mut names) {
            if is_register {
                for name in [Name::WwwAuthenticate, Name::ProxyAuthenticate] {
                    for value in message.values(name) {
                        out = out.header(name, value);
                    }
                }
            }
            // A description in it is an example (RFC 3261 §21.4.26) or a list of abilities (§11.2), and shows where its
            // author is.
            out = match body_for(message, None, names, core) {
                Ok(body) => add(copy_headers(out, message, names, core), body),
                // Not 200 for what does not arrive.
                Err(fault) if (200..300).contains(&status) => {
                    core.body_refused(self.upstream.incoming.flow, fault);
                    transaction::response_to(&self.upstream.incoming.request, 502, None, Some(&tag))
                }
                Err(fault) => {
                    core.body_refused(self.upstream.incoming.flow, fault);
                    copy_headers(out, message, names, core)
                }
            };
        } else if status == 488 {
            let warning = refused.and_then(Refusal::warning);
            out = warning.into_iter().fold(out, |out, warning| out.header(Name::Warning, warning.as_bytes()));
        } else if status == 503 {
            out = out.header(Name::RetryAfter, crate::times::rest_of(config.limits.retry_after).as_bytes());
        }
        out.finish().into()
    }

    /// What makes no dialog: nothing but its status passes, with a tag of ours (RFC 3261 §8.2.6.2).
    pub(super) fn bare_response(
        &mut self,
        index: BranchId,
        response: &Message,
        core: &mut Core,
    ) -> Option<Message> {
        let status = response.status().unwrap_or(180);
        let tag = self.branches.get_mut(index)?.ids.tag.get_or_insert_with(|| core.ids.tag()).clone();
        let config = core.config.clone();
        let names = self.branch_names(&config, index, Side::Target)?;
        let reason = response.reason().map(|reason| names.apply(reason));
        let Incoming { flow, request, .. } = &self.upstream.incoming;
        let answer = transaction::response_to(request, status, reason.as_deref(), Some(&tag));
        self.shown_tag = Some(tag);
        Some(answer.header(Name::Contact, &core.contact(flow.listener)).finish())
    }
}
