//! What passes between the legs of a pair: the requests of one as the other may see them, and its responses on their way back.

use bytes::Bytes;
use sip_wire::{Builder, Message, Method, Name};

use super::body::with_body;
use super::forward::Forward;
use super::is_target_refresh;
use super::pair::Reliable;
use super::parties::Parties;
use super::side::ForwardId;
use super::transfer::translate_refer_to;
use super::trickle::FRAGMENT;
use crate::core::Core;
use crate::passing::{Options, copy_headers};
use crate::session_timer::Agreement;
use crate::transaction::{self, Hop};

impl Parties {
    /// The request for the other leg, or the status that its author's deserves if it cannot pass.
    pub(super) fn write_forward(&mut self, id: ForwardId, core: &mut Core) -> Result<(Hop, Message), u16> {
        self.forwarded(id, core).unwrap_or(Err(400))
    }

    fn forwarded(&mut self, id: ForwardId, core: &mut Core) -> Option<Result<(Hop, Message), u16>> {
        let config = core.config.clone();
        let forward = self.forward(id)?;
        let (from, sent_invite) = (forward.from, forward.sent_invite);
        let (said, sdp, fragment) =
            (forward.said.clone(), forward.description.clone(), forward.fragment.clone());
        let to = !from;
        let request = said.request();
        let method = if sent_invite { Method::INVITE } else { said.method()? };
        let mut names = self.pair_names(&config, id.pair, from)?;
        let pair = self.pairs.iter_mut().find(|pair| pair.id == id.pair)?;
        let realms = (config.realm(pair.legs[from].realm)?, config.realm(pair.legs[to].realm)?);
        let flow = pair.flow(from);
        let leg = &mut pair.legs[to];
        let timer = leg.session_headers(method, core);
        let (hop, mut out) = core.dialog_request(&mut leg.dialog, method)?;
        if sent_invite {
            leg.invite.cseq = leg.dialog.local_cseq;
        }
        if is_target_refresh(method) {
            out = out.header(Name::Contact, &core.contact(hop.flow.listener));
        }
        let mut options = request.map(Options::passing).unwrap_or_default();
        if timer.is_some() {
            options.support(b"timer");
        }
        out = options.put(out);
        if let Some((interval, minimum)) = timer {
            out =
                out.header(Name::SessionExpires, interval.as_bytes()).header(Name::MinSe, minimum.as_bytes());
        }
        let Some(request) = request else {
            let out = sdp.into_iter().fold(out, |out, sdp| out.body(b"application/sdp", sdp));
            return Some(Ok((hop, out.finish())));
        };
        if method == Method::PRACK {
            let (pair, cseq) = (self.pair(id.pair)?, self.upstream.incoming.request.cseq().ok()?.number);
            let acknowledges = |known: &&Reliable| crate::dialog::acknowledges(request, known.ours, cseq);
            let theirs = pair.reliable.iter().find(acknowledges)?.theirs;
            let invite = self.branches.get(pair.branch)?.ids.cseq;
            out = out.header(Name::RAck, format!("{theirs} {invite} INVITE").as_bytes());
        }
        if let Some(refer_to) = request.value(Name::ReferTo) {
            let host = config.reached_at(realms.1, hop.flow.listener);
            out = out.header(Name::ReferTo, &translate_refer_to(refer_to, &host, self.slot, realms.0, core)?);
        }
        let out = copy_headers(out, request, &names, core);
        let out = match fragment {
            Some(fragment) => Ok(out.body(FRAGMENT.as_bytes(), fragment)),
            None => with_body(out, request, sdp.as_ref(), &mut names, core),
        };
        let out = out.map(Builder::finish).map_err(|fault| core.body_refused(flow, fault));
        Some(out.map(|request| (hop, request)))
    }

    /// What the leg that asked gets of the other's response.
    pub(super) fn build_forward_response(
        &mut self,
        forward: &Forward,
        response: &Message,
        sdp: Option<Bytes>,
        core: &mut Core,
    ) -> Option<Bytes> {
        let config = core.config.clone();
        let (from, to) = (forward.from, !forward.from);
        let mut names = self.pair_names(&config, forward.id.pair, to)?;
        let pair = self.pairs.iter_mut().find(|pair| pair.id == forward.id.pair)?;
        let near = config.realm(pair.legs[from].realm)?;
        let reason = response.reason().filter(|reason| !reason.is_empty()).map(|reason| names.apply(reason));
        let request = forward.request()?;
        let mut out = transaction::response_to(request, response.status()?, reason.as_deref(), None);
        let method = forward.method()?;
        if is_target_refresh(method) {
            out = out.header(Name::Contact, &core.contact(pair.flow(from).listener));
        }
        let mut options = Options::supported(response);
        if method == Method::INVITE || method == Method::UPDATE {
            options.support(b"timer");
            if let Some(agreed) = Agreement::answering(request, near.session_timer) {
                pair.legs[from].session.agreed = Some(agreed);
                out = out.header(Name::SessionExpires, agreed.as_answer().as_bytes());
                if !agreed.we_refresh {
                    options.require(b"timer");
                }
            }
        }
        out = options.put(out);
        if let Some(product) = &config.product {
            out = out.header(Name::Server, product.as_bytes());
        }
        if let Some(sdp) = &sdp {
            pair.legs[from].descriptions.local = Some(sdp.clone());
        }
        let flow = pair.flow(to);
        let out = copy_headers(out, response, &names, core);
        match with_body(out, response, sdp.as_ref(), &mut names, core) {
            Ok(out) => Some(out.finish().into()),
            Err(fault) => {
                core.body_refused(flow, fault);
                None
            }
        }
    }
}
