//! Calls that rest leave for another process, or come from one: see [`state`](crate::state).

use std::sync::Arc;

use super::Engine;
use super::requests::merge_key;
use crate::call::taken::{self, StoredParties};
use crate::core::Owner;
use crate::door::CallId;
use crate::flow::{ListenerId, RealmId};
use crate::io::{DialogEnd, Output, Replica};
use crate::keys::CallKey;
use crate::state::{CannotTakeIn, NotSteady, Places, Role, StoredCall, StoredTransfer, Version};
use crate::time::Now;
use crate::transaction::ServerId;

impl Engine {
    /// All calls, answered or not, in no order.
    pub fn calls(&self) -> impl Iterator<Item = CallId> {
        self.calls.iter().map(|(_, call)| call.id())
    }

    /// Takes a call out, if it rests: here it is over then, without a record of that. Each looks at all transactions: it is meant for a
    /// process that ends, or gives up a home.
    pub fn take_out(&mut self, id: CallId, now: Now) -> Result<StoredCall, NotSteady> {
        self.core.now = now.own();
        let key = self.key_of(id).ok_or(NotSteady::Unknown)?;
        let role = |owner: Owner| match owner {
            Owner::First(call) if call == key => Some(Role::First),
            Owner::Inside(call) if call == key => Some(Role::Inside),
            Owner::Branch(call, branch) if call == key => Some(Role::Branch(branch)),
            Owner::Forward(call, forward) if call == key => Some(Role::Forward(forward)),
            _ => None,
        };
        taken::check(self.calls.get(key.index, key.generation).ok_or(NotSteady::Unknown)?)?;
        if self.core.transactions.is_any_open(|owner| role(owner).is_some()) {
            return Err(NotSteady::Transaction);
        }
        let call = self.calls.remove(key.index, key.generation).ok_or(NotSteady::Unknown)?;
        self.sessions.remove(&call.session());
        self.upstream.remove(&call.upstream_server());
        if let Some(first) = merge_key(call.first_request()) {
            self.firsts.remove(&first);
        }
        for (aor, kind) in &call.standing.counted {
            self.core.guards.strangers.ended(aor, *kind);
        }
        if let Some(watch) = &call.standing.watch {
            self.core.watchers.ended(watch);
            self.core.out.push_back(Output::Replicate(Replica::Unwatch(watch.clone())));
        }
        let parties = StoredParties::of(call, &mut self.core);
        let transactions = self.core.transactions.take_out(role, self.core.now.monotonic);
        let transfers = parties.dialogs().flat_map(|dialog| self.core.dialogs.transfers_of(&dialog.call_id));
        let transfers: Vec<StoredTransfer> =
            transfers.map(|(token, peer)| StoredTransfer { token, peer: (*peer).clone() }).collect();
        let mut places: (Vec<RealmId>, Vec<ListenerId>) = parties.places();
        places.1.extend(transactions.iter().map(|transaction| transaction.flow.listener));
        let places = Places::of(places, &self.core.config);
        Ok(StoredCall { version: Version::default(), at: now.wall, places, parties, transactions, transfers })
    }

    /// Goes on with a call of another process. Its media session goes to the media plane by another way.
    pub fn take_in(&mut self, stored: StoredCall, now: Now) -> Result<(), CannotTakeIn> {
        self.core.now = now.own();
        self.may_take_in(&stored)?;
        let StoredCall { at, parties, transactions, transfers, .. } = stored;
        // When that was, by this clock.
        let then = self.core.now.monotonic.saturating_sub(now.wall.saturating_sub(at));
        let core = &mut self.core;
        let (index, generation) = self
            .calls
            .insert(|index, generation| parties.into_call(CallKey { index, generation }, then, core));
        let key = CallKey { index, generation };
        let owner = |role: Role| match role {
            Role::First => Owner::First(key),
            Role::Inside => Owner::Inside(key),
            Role::Branch(branch) => Owner::Branch(key, branch),
            Role::Forward(forward) => Owner::Forward(key, forward),
        };
        let mut first: Option<ServerId> = None;
        for transaction in transactions {
            let is_first = matches!(transaction.role, Role::First);
            let server = self.core.transactions.take_in(transaction, owner, then);
            first = first.or(server.filter(|_| is_first));
        }
        for StoredTransfer { token, peer } in transfers {
            let flow = peer.flow.without_connection();
            let peer = Arc::new(crate::peer::Peer { flow, ..peer });
            let end = DialogEnd { token: token.clone(), peer: peer.clone() };
            self.core.out.push_back(Output::Replicate(Replica::End(end)));
            self.core.dialogs.remember(token, peer);
        }
        let Some(call) = self.calls.get_mut(index, generation) else { return Ok(()) };
        if let Some(server) = first {
            taken::set_server(call, server);
            self.upstream.insert(server, key);
        }
        self.sessions.insert(call.session(), key);
        self.firsts.extend(merge_key(call.first_request()).map(|first| (first, key)));
        for (aor, kind) in &call.standing.counted {
            self.core.guards.strangers.began(aor, *kind);
        }
        if let Some(watch) = &call.standing.watch {
            self.core.watchers.began(watch.clone());
            self.core.out.push_back(Output::Replicate(Replica::Watch(watch.clone())));
        }
        Ok(())
    }

    fn may_take_in(&self, stored: &StoredCall) -> Result<(), CannotTakeIn> {
        if stored.id().node() != self.core.config.node {
            return Err(CannotTakeIn::Elsewhere(stored.id().node()));
        }
        if !stored.is_whole() {
            return Err(CannotTakeIn::Contradictory);
        }
        let places = &self.core.dialogs.places;
        let is_known = self.sessions.contains_key(&stored.session())
            || stored.parties.dialogs().any(|dialog| places.contains_key(&dialog.key()));
        if is_known {
            return Err(CannotTakeIn::Known);
        }
        stored.places.are_of(&self.core.config)
    }

    /// The call that records name so.
    pub(super) fn key_of(&self, id: CallId) -> Option<CallKey> {
        let key = self.sessions.get(&id.session()).copied()?;
        self.calls.get(key.index, key.generation).filter(|call| call.id() == id).map(|_| key)
    }
}
