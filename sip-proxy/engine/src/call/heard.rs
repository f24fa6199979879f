//! Where a request inside a dialog came from, and whether its author has shown to be the dialog's peer.
//!
//! The ids of a dialog are known to all who saw a message of it. So a new flow is adopted only from who is known there: its
//! AOR has registered over it, the request bears the AOR's digest, or a trunk's address or certificate speaks for it. A
//! phone that has not shown it yet is asked (RFC 3261 §22.1), but for what ends a call or belongs to one that rings: a call
//! must be able to end over whatever is left of a network. What stays unproven is served, and answered where it came from.

use sip_wire::Method;

use super::parties::Parties;
use super::side::LegId;
use crate::config::Authentication;
use crate::core::Core;
use crate::digest::{Challenger, Verdict};
use crate::flow::Flow;
use crate::hop;
use crate::registrar::{Registrar, Wanted};
use crate::transaction::Incoming;

/// What is known of who sent a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Heard {
    /// The dialog's peer: its flow and target follow it.
    Peer,
    /// Somebody who knows the ids: nothing follows.
    Elsewhere,
    /// It has got a challenge.
    Challenged,
}

impl Parties {
    /// Judges where a request of an end came from; what the end has proven is kept.
    pub(super) fn hear(
        &mut self,
        at: LegId,
        incoming: &Incoming,
        core: &mut Core,
        registrar: &mut Registrar,
    ) -> Heard {
        let Incoming { flow, request, .. } = incoming;
        let Some(end) = self.pair(at.pair).map(|pair| &pair.legs[at.side]) else { return Heard::Elsewhere };
        if hop::is_same_way(&end.dialog.flow, flow) || end.dialog.is_from_target(flow) {
            return self.adopt(at, *flow, core);
        }
        let Some((is_trunk_side, authentication)) =
            core.realm_of(flow).map(|realm| (realm.is_trunk_side, realm.authentication))
        else {
            return Heard::Elsewhere;
        };
        if is_trunk_side || authentication == Authentication::KnownSource {
            let is_known = core.peer_of(flow).is_some();
            return if is_known { self.adopt(at, *flow, core) } else { Heard::Elsewhere };
        }
        let Some(aor) = end.aor.clone() else { return Heard::Elsewhere };
        if registrar.by_flow(flow, Some(&aor)).is_some_and(|known| known == aor) {
            return self.adopt(at, *flow, core);
        }
        if authentication != Authentication::Digest {
            return Heard::Elsewhere;
        }
        let domain = aor.rsplit('@').next().unwrap_or_default();
        let wanted = Wanted { by: Challenger::Proxy, domain: domain.into() };
        let verdict = registrar.authenticate(flow, request, &wanted, core);
        if matches!(&verdict, Verdict::Accepted(user) if *aor == *format!("{user}@{domain}")) {
            return self.adopt(at, *flow, core);
        }
        let method = request.method().unwrap_or(Method::INFO);
        if [Method::ACK, Method::BYE, Method::CANCEL, Method::PRACK].contains(&method) {
            return Heard::Elsewhere;
        }
        registrar.challenge(incoming, &wanted, &verdict, core);
        Heard::Challenged
    }

    /// An end is where its request came from. What came over another listener's transport answers itself, and says nothing
    /// of where the end listens.
    fn adopt(&mut self, at: LegId, seen: Flow, core: &mut Core) -> Heard {
        if let Some(end) = self.pair_mut(at.pair).map(|pair| &mut pair.legs[at.side]) {
            let known = end.dialog.flow;
            if known != seen && (seen.listener == known.listener || seen.transport == known.transport) {
                end.dialog.flow = seen;
                core.dialogs.note_stream(&seen);
                self.publish(at.pair, core);
            }
        }
        Heard::Peer
    }
}
