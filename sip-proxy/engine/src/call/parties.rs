//! Who is in a call: the caller's request, the branches that were tried for it, and the pairs of dialogs that came of them. What
//! one side is told of the other is written here; what is to be told, the call decides.

use std::sync::Arc;

use bytes::Bytes;
use sip_wire::{Message, Uri, multipart};

use super::branch::Branches;
use super::breadth::breadth_of;
use super::forward::Forward;
use super::leg::Leg;
use super::media::{literal_of, product_of};
use super::pair::{Pair, large_to};
use super::side::{BranchId, ForwardId, LegId, PairId, Side, Sides};
use super::{Admitted, CallKey, Purpose};
use crate::core::Core;
use crate::dialog::Dialog;
use crate::dialogs::DialogPlace;
use crate::flow::{ConnectionId, Flow, RealmId, Transport};
use crate::passing::{Privacy, is_telephone, number_parameters};
use crate::question::{Caller, Contact};
use crate::registrar::are_equal;
use crate::slot::{Slot, slot_of};
use crate::transaction::Answer;
use crate::translation::Secrets;
use seam::{Action, Endpoint, ExchangeId, Party};

/// See the module.
#[derive(Debug)]
pub(super) struct Parties {
    pub(super) key: CallKey,
    pub(super) purpose: Purpose,
    pub(super) slot: Slot,
    pub(super) upstream: Admitted,
    /// The caller's texts, and the targets'.
    pub(super) secrets: Sides<Secrets>,
    /// The To tag of the latest provisional response that the caller has: a failure bears it, too (RFC 3261 §8.2.6.2).
    pub(super) shown_tag: Option<String>,
    pub(super) branches: Branches,
    pub(super) pairs: Vec<Pair>,
    pub(super) next_pair: u32,
    pub(super) next_forward: u32,
}

impl Parties {
    pub(super) fn new(key: CallKey, purpose: Purpose, upstream: Admitted) -> Self {
        let mut secrets = Sides::<Secrets>::default();
        secrets[Side::Caller].add_message(&upstream.incoming.request, upstream.incoming.flow.remote);
        Self {
            key,
            purpose,
            slot: slot_of(&upstream.incoming.request),
            upstream,
            secrets,
            shown_tag: None,
            branches: Branches::default(),
            pairs: Vec::new(),
            next_pair: 0,
            next_forward: 0,
        }
    }

    pub(super) fn is_session(&self) -> bool {
        self.purpose == Purpose::Session
    }

    pub(super) fn pair(&self, id: PairId) -> Option<&Pair> {
        self.pairs.iter().find(|pair| pair.id == id)
    }

    pub(super) fn pair_mut(&mut self, id: PairId) -> Option<&mut Pair> {
        self.pairs.iter_mut().find(|pair| pair.id == id)
    }

    pub(super) fn leg(&self, at: LegId) -> Option<&Leg> {
        self.pair(at.pair).map(|pair| &pair.legs[at.side])
    }

    pub(super) fn leg_mut(&mut self, at: LegId) -> Option<&mut Leg> {
        self.pair_mut(at.pair).map(|pair| &mut pair.legs[at.side])
    }

    pub(super) fn forward(&self, id: ForwardId) -> Option<&Forward> {
        self.pair(id.pair)?.forwards.iter().find(|forward| forward.id == id)
    }

    pub(super) fn forward_mut(&mut self, id: ForwardId) -> Option<&mut Forward> {
        self.pair_mut(id.pair)?.forwards.iter_mut().find(|forward| forward.id == id)
    }

    pub(super) fn take_forward(&mut self, id: ForwardId) -> Option<Forward> {
        let forwards = &mut self.pair_mut(id.pair)?.forwards;
        let position = forwards.iter().position(|forward| forward.id == id)?;
        Some(forwards.remove(position))
    }

    pub(super) fn add_forward(&mut self, forward: Forward) {
        if let Some(pair) = self.pair_mut(forward.id.pair) {
            pair.forwards.push(forward);
        }
    }

    /// The name of the next request inside a pair.
    pub(super) fn new_forward(&mut self, pair: PairId) -> ForwardId {
        let number = self.next_forward;
        self.next_forward = self.next_forward.saturating_add(1);
        ForwardId { pair, number }
    }

    /// See [`Leg::acknowledge`].
    pub(super) fn acknowledge(&mut self, at: LegId, sdp: Option<Bytes>, core: &mut Core) {
        if let Some(leg) = self.leg_mut(at) {
            leg.acknowledge(sdp, core);
        }
    }

    /// See [`Leg::repeat_until_acknowledged`].
    pub(super) fn repeat_until_acknowledged(
        &mut self,
        at: LegId,
        answer: Answer,
        cseq: u32,
        core: &mut Core,
    ) {
        if let Some(leg) = self.leg_mut(at) {
            leg.repeat_until_acknowledged(answer, cseq, core);
        }
    }

    pub(super) fn stop_repeating(&mut self, at: LegId, core: &mut Core) {
        if let Some(leg) = self.leg_mut(at) {
            leg.stop_repeating(core);
        }
    }

    pub(super) fn arm_session_timer(&mut self, at: LegId, core: &mut Core) {
        if let Some(leg) = self.leg_mut(at) {
            leg.arm_session_timer(core);
        }
    }

    /// Whether the caller asked for TLS on every hop.
    pub(super) fn is_secure(&self) -> bool {
        let uri = self.upstream.incoming.request.request_uri().and_then(|uri| Uri::parse(uri).ok());
        uri.is_some_and(|uri| uri.scheme() == sip_wire::Scheme::Sips)
    }

    /// Whether trunks have to be reached by TLS. Behind the host that a `sips:` URI names, here, the operator's routes say
    /// how calls go on (RFC 3261 §26.2.2); but who came by TLS is not carried on by less.
    pub(super) fn needs_secure_trunk(&self) -> bool {
        self.is_secure() && self.upstream.incoming.flow.transport == Transport::Tls
    }

    /// Whether a contact is the caller's own.
    pub(super) fn is_from(&self, contact: &Contact) -> bool {
        let Ok(uri) = Uri::parse(&contact.uri) else { return false };
        let incoming = &self.upstream.incoming;
        contact.flow == incoming.flow
            && incoming.request.contacts().flatten().any(|own| are_equal(&own.uri, &uri))
    }

    /// What the dialled URI says of its number beside the digits (RFC 4694: it has been ported, and where to), and
    /// that it is one (RFC 3261 §19.1.1): there are carriers that refuse calls without.
    pub(super) fn number_as_dialled(&self) -> (String, &'static str) {
        let Ok(uri) = Uri::parse(self.upstream.incoming.request.request_uri().unwrap_or_default()) else {
            return Default::default();
        };
        (number_parameters(&uri), if is_telephone(&uri) { ";user=phone" } else { "" })
    }

    /// Who a branch goes to, and the URI that it asks for there.
    pub(super) fn reached(&self, branch: BranchId) -> (Arc<str>, Arc<str>) {
        let Some(branch) = self.branches.get(branch) else { return Default::default() };
        (branch.target.who.clone(), String::from_utf8_lossy(&branch.target.uri).into())
    }

    /// Who calls: proven, or else as it says itself.
    pub(super) fn caller_in_records(&self) -> Arc<str> {
        let name = self.caller_name();
        if !name.is_empty() {
            return name;
        }
        let from = self.upstream.incoming.request.from();
        String::from_utf8_lossy(from.map(|from| from.uri.as_bytes()).unwrap_or_default()).into()
    }

    pub(super) fn caller_name(&self) -> Arc<str> {
        self.upstream.caller.name()
    }

    /// What no branch holds that waits for its final response.
    pub(super) fn free_breadth(&self) -> u32 {
        let held = self.branches.iter().filter(|branch| !branch.is_done()).map(|branch| branch.breadth);
        breadth_of(&self.upstream.incoming.request).saturating_sub(held.fold(0, u32::saturating_add))
    }

    /// Whether a target takes the call and has never answered its offer, or only in a way that the media plane refused.
    pub(super) fn lacks_answer(&self, id: PairId) -> bool {
        self.branch_has_offer(id)
            && self
                .pair(id)
                .is_some_and(|pair| !pair.negotiated && pair.legs[Side::Caller].descriptions.local.is_none())
    }

    pub(super) fn branch_has_offer(&self, id: PairId) -> bool {
        self.pair(id)
            .and_then(|pair| self.branches.get(pair.branch))
            .is_some_and(|branch| branch.offer.is_some())
    }

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

    /// An offer of one end of a pair, for the other.
    pub(super) fn offer_action(
        &self,
        id: PairId,
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
            from_party: pair.legs[from].info(),
            to_party: pair.legs[to].info(),
            sdp,
        })
    }

    /// The answer of one end of a pair to the other's offer.
    pub(super) fn answer_action(
        &self,
        id: PairId,
        exchange: ExchangeId,
        from: Side,
        sdp: Bytes,
    ) -> Option<Action> {
        let pair = self.pair(id)?;
        Some(Action::Answer {
            exchange,
            from: pair.endpoint(from),
            to: pair.endpoint(!from),
            from_party: pair.legs[from].info(),
            sdp,
        })
    }

    /// Writes down where the dialogs of a pair are found, and how an INVITE that replaces one of them reaches the other
    /// end: after each change of a tag, a target or a flow.
    pub(super) fn publish(&self, id: PairId, core: &mut Core) {
        let Some(pair) = self.pair(id) else { return };
        let who = Sides { caller: self.caller_in_records(), target: self.reached(pair.branch).0 };
        let branch = self.branches.get(pair.branch);
        let target = branch.and_then(|branch| {
            branch.target.aor.clone().or_else(|| branch.target.trunk.as_ref().map(|trunk| trunk.name.clone()))
        });
        let names = Sides { caller: self.caller_name(), target: target.unwrap_or_else(|| "".into()) };
        for (side, end) in pair.legs.iter() {
            let other = (&pair.legs[!side], &who[!side]);
            let other = (self.purpose == Purpose::Session).then_some(other);
            let name = names[side].clone();
            let named = crate::peer::Party { realm: end.realm, name };
            let peer =
                other.map(|(other, who)| Arc::new(super::transfer::peer_of(other, who.clone(), named, core)));
            let place = DialogPlace { call: self.key, leg: end.id, peer };
            core.dialogs.places.insert(end.dialog.key(), place);
        }
    }

    /// An end names where it is from now on (RFC 3261 §12.2).
    pub(super) fn refresh_target(&mut self, at: LegId, message: &Message, core: &mut Core) {
        let Some(end) = self.leg_mut(at) else { return };
        let before = end.dialog.target.clone();
        end.dialog.refresh_target(message);
        if end.dialog.target != before {
            self.publish(at.pair, core);
        }
    }

    /// Whoever was reached by one flow is reached by another.
    pub(super) fn follow_move(&mut self, from: Flow, to: Flow, core: &mut Core) {
        let mut moved = Vec::new();
        for pair in &mut self.pairs {
            let is_it = |leg: &&mut Leg| leg.dialog.flow == from || leg.left == Some(from);
            for leg in pair.legs.iter_mut().filter(is_it) {
                leg.dialog.flow = to;
                leg.left = None;
                moved.push(pair.id);
            }
        }
        if !moved.is_empty() {
            core.dialogs.note_stream(&to);
        }
        moved.into_iter().for_each(|id| self.publish(id, core));
    }

    /// See [`Leg::lose_connection`].
    pub(crate) fn connection_closed(&mut self, connection: ConnectionId, core: &mut Core) {
        let mut moved = Vec::new();
        for pair in &mut self.pairs {
            let legs = pair.legs.iter_mut();
            for end in legs.filter(|end| end.dialog.flow.connection == Some(connection)) {
                if end.lose_connection(core) {
                    moved.push(pair.id);
                }
            }
        }
        moved.into_iter().for_each(|id| self.publish(id, core));
    }

    /// The pair that a response of a branch belongs to, made if its To tag is new.
    pub(super) fn pair_of_response(
        &mut self,
        branch: BranchId,
        response: &Message,
        flow: Flow,
        core: &mut Core,
    ) -> Option<PairId> {
        // Without a tag the tag is null (RFC 3261 §12.1.2), and a target that finds one later is still the same.
        let tag = response.to().ok()?.tag().unwrap_or_default().to_vec();
        let of_branch = |pair: &&mut Pair| pair.branch == branch;
        let known = self.pairs.iter_mut().filter(of_branch).find(|pair| {
            let dialog = &pair.legs[Side::Target].dialog;
            *dialog.remote_tag == tag || (dialog.remote_tag.is_empty() && !dialog.confirmed)
        });
        if let Some(pair) = known {
            let id = pair.id;
            let end = &mut pair.legs[Side::Target];
            end.learn(response);
            if *end.dialog.remote_tag != tag {
                core.dialogs.places.remove(&end.dialog.key());
                end.dialog.take_tag(response);
                self.secrets[Side::Target].add(&tag);
                self.publish(id, core);
            }
            return Some(id);
        }
        let sent = self.branches.get(branch)?;
        let dialog = Dialog::uac(sent.attempt.request.as_ref()?, response, flow).ok()?;
        self.make_pair(branch, dialog, Some(response), core)
    }

    /// A pair with a new dialog towards the caller.
    pub(super) fn make_pair(
        &mut self,
        branch: BranchId,
        target: Dialog,
        learn: Option<&Message>,
        core: &mut Core,
    ) -> Option<PairId> {
        let forks = self.pairs.iter().filter(|pair| pair.branch == branch).count() as u16;
        let sent = self.branches.get_mut(branch)?;
        let (party, realm) = (sent.party(), sent.realm);
        let tag = sent.ids.tag.take().unwrap_or_else(|| core.ids.tag());
        let caller = Dialog::uas(&self.upstream.incoming.request, &tag, self.upstream.incoming.flow).ok()?;
        let id = PairId(self.next_pair);
        self.next_pair = self.next_pair.saturating_add(1);
        let mut legs = Sides {
            caller: Leg::new(id.leg(Side::Caller), self.key, caller, self.upstream.realm),
            target: Leg::new(id.leg(Side::Target), self.key, target, realm),
        };
        legs[Side::Target].endpoint = Endpoint { party, branch: forks };
        legs[Side::Caller].learn(&self.upstream.incoming.request);
        if let Caller::Subscriber { aor } = &self.upstream.caller {
            legs[Side::Caller].aor = Some(aor.clone());
        }
        if let Caller::Trunk { name } = &self.upstream.caller {
            let trunk = core.policy.as_ref().and_then(|policy| policy.trunk(name));
            legs[Side::Caller].dialog.large = large_to(trunk.as_deref());
        }
        if let Some(branch) = self.branches.get(branch) {
            legs[Side::Target].aor = branch.target.aor.clone();
            legs[Side::Target].dialog.large = large_to(branch.target.trunk.as_deref());
        }
        // The INVITE is kept anyway.
        let request = &self.upstream.incoming.request;
        legs[Side::Caller].descriptions.remote =
            multipart::session_description(request).map(|range| request.body_bytes().slice(range));
        legs[Side::Target].invite.cseq = legs[Side::Target].dialog.local_cseq;
        // What a refresh by re-INVITE has to say again.
        legs[Side::Target].descriptions.local = self.branches.get(branch).and_then(|sent| sent.offer.clone());
        if let Some(message) = learn {
            legs[Side::Target].learn(message);
        }
        for (side, leg) in legs.iter() {
            let dialog = &leg.dialog;
            core.dialogs.note_stream(&dialog.flow);
            self.secrets[side].add(&dialog.remote_tag);
            self.secrets[side].add(&dialog.call_id);
            self.secrets[side].add(&dialog.local_tag);
        }
        self.pairs.push(Pair {
            id,
            branch,
            legs,
            forwards: Vec::new(),
            exchange: None,
            negotiated: false,
            reliable: Vec::new(),
            deferred: Default::default(),
            crossing: None,
            owed_ack: None,
            bye_on_ack: None,
        });
        self.publish(id, core);
        Some(id)
    }

    /// A PRACK: what it acknowledges is no longer repeated (RFC 3262 §3).
    pub(super) fn acknowledged_provisional(&mut self, id: PairId, prack: &Message, core: &mut Core) -> bool {
        let Ok(cseq) = self.upstream.incoming.request.cseq().map(|cseq| cseq.number) else {
            return false;
        };
        let Some(pair) = self.pair(id) else { return false };
        let found =
            pair.reliable.iter().any(|reliable| crate::dialog::acknowledges(prack, reliable.ours, cseq));
        // The 2xx may be out already, and is not what a PRACK acknowledges.
        let is_provisional = pair.legs[Side::Caller].repeat.as_ref().is_some_and(|repeat| !repeat.is_final());
        if found && is_provisional {
            self.stop_repeating(id.leg(Side::Caller), core);
        }
        found
    }
}
