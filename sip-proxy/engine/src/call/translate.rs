//! What a call's sides call themselves and each other, for the texts that pass between them.

use std::borrow::Cow;

use sip_wire::{Message, Name};

use super::branch::Branch;
use super::pair::Pair;
use super::parties::Parties;
use super::side::{BranchId, PairId, Side};
use crate::config::Config;
use crate::flow::{ListenerId, RealmId};
use crate::question::Caller;
use crate::translation::Translation;

/// The network of one end.
type Place = (RealmId, ListenerId);

impl Parties {
    /// For messages of an end of a pair, to the other.
    pub(super) fn pair_names<'a>(
        &self,
        config: &'a Config,
        id: PairId,
        from: Side,
    ) -> Option<Translation<'a>> {
        let pair = self.pair(id)?;
        let place = |side: Side| {
            let end = &pair.legs[side];
            (end.realm, end.dialog.flow.listener)
        };
        let mut names = self.names(config, from, place(from), place(!from))?;
        // What the pair's own dialogs are called comes first, then what other forks' are.
        let others = self.pairs.iter().filter(|other| other.id != id);
        for pair in std::iter::once(pair).chain(others) {
            add_pair(&mut names, pair, from);
        }
        Some(names)
    }

    /// For messages of the caller to a branch's target (`from` is [`Side::Caller`]), or of the target to the caller.
    pub(super) fn branch_names<'a>(
        &self,
        config: &'a Config,
        index: BranchId,
        from: Side,
    ) -> Option<Translation<'a>> {
        let branch = self.branches.get(index)?;
        let caller = (self.upstream.realm, self.upstream.incoming.flow.listener);
        let target = (branch.realm, branch.target.flow?.listener);
        let (here, there) = if from == Side::Caller { (caller, target) } else { (target, caller) };
        let mut names = self.names(config, from, here, there)?;
        for pair in &self.pairs {
            add_pair(&mut names, pair, from);
        }
        self.add_branch(&mut names, branch, from);
        Some(names)
    }

    pub(super) fn names<'a>(
        &self,
        config: &'a Config,
        from: Side,
        here: Place,
        there: Place,
    ) -> Option<Translation<'a>> {
        let realms = (config.realm(here.0)?, config.realm(there.0)?);
        let own = config.listener(here.1)?.advertised.ip();
        let host = config.host_of(there.0, there.1);
        let mut names = Translation::new(realms, self.secrets[from].clone(), Some(own), host);
        if let (Side::Caller, Caller::Subscriber { aor }) = (from, &self.upstream.caller) {
            names.author = Some(aor.clone());
        }
        Some(names)
    }

    pub(super) fn add_branch(&self, names: &mut Translation<'_>, branch: &Branch, from: Side) {
        let request = &self.upstream.incoming.request;
        let caller_id = request.call_id().unwrap_or_default();
        let caller_tag = request.from().ok().and_then(|from| from.tag()).unwrap_or_default();
        for (caller, target) in
            [(caller_id, branch.ids.call_id.as_bytes()), (caller_tag, branch.ids.from_tag.as_bytes())]
        {
            if from == Side::Caller {
                names.add_id(caller, target);
            } else {
                names.add_id(target, caller);
            }
        }
    }
}

/// The far end stands for us as we stand for it: its ids on the one leg are ours on the other.
fn add_pair(names: &mut Translation<'_>, pair: &Pair, from: Side) {
    let (here, there) = (&pair.legs[from], &pair.legs[!from]);
    names.add_id(&here.dialog.call_id, &there.dialog.call_id);
    names.add_id(&here.dialog.remote_tag, &there.dialog.local_tag);
    names.add_id(&here.dialog.local_tag, &there.dialog.remote_tag);
}

/// All that a message says of why it was sent (RFC 3326 §2: one value per protocol), as the other side may see it.
pub(super) fn reason_of(message: &Message, names: Option<&Translation<'_>>) -> Option<Vec<u8>> {
    let reasons: Vec<Cow<'_, [u8]>> =
        message.values(Name::Reason).filter_map(|value| Some(names?.apply(value))).collect();
    (!reasons.is_empty()).then(|| reasons.join(&b", "[..]))
}
