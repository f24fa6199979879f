//! Where the dialogs of this engine are found, and the ends of those that others told us of.

use std::collections::VecDeque;
use std::sync::Arc;

use ahash::{AHashMap, AHashSet};

use crate::dialog::DialogKey;
use crate::flow::{ConnectionId, Flow};
use crate::keys::{BranchId, CallKey, LegId};
use crate::peer::Peer;

/// Where a dialog belongs: a call, and the end of a pair in it.
#[derive(Debug, Clone)]
pub(crate) struct DialogPlace {
    pub(crate) call: CallKey,
    pub(crate) leg: LegId,
    /// The other end of the pair.
    pub(crate) peer: Option<Arc<Peer>>,
}

/// Transfers that are remembered until their INVITE comes; the oldest go first.
const TRANSFERS: usize = 4096;

/// See the module.
#[derive(Debug)]
pub(crate) struct Dialogs {
    pub(crate) places: AHashMap<DialogKey, DialogPlace>,
    /// Early dialogs may speak (NOTIFY) before we know their tag: Call-ID and our tag, to branch.
    pub(crate) halves: AHashMap<DialogKey, (CallKey, BranchId)>,
    /// Connections that dialogs are or were reached by: when one of them closes, calls are looked at.
    pub(crate) streams: AHashSet<ConnectionId>,
    /// Dialogs that a Refer-To of ours names, by the token in it.
    pub(crate) transfers: AHashMap<Box<[u8]>, Arc<Peer>>,
    order: VecDeque<Box<[u8]>>,
}

impl Dialogs {
    pub(crate) fn new() -> Self {
        Self {
            places: AHashMap::new(),
            halves: AHashMap::new(),
            streams: AHashSet::new(),
            transfers: AHashMap::new(),
            order: VecDeque::new(),
        }
    }

    /// The end at the other side of a dialog, of this home or of one that told us.
    pub(crate) fn peer(&self, key: &[u8]) -> Option<Arc<Peer>> {
        match self.places.get(key) {
            Some(place) => place.peer.clone(),
            None => self.transfers.get(key).cloned(),
        }
    }

    /// A dialog is reached over this flow.
    pub(crate) fn note_stream(&mut self, flow: &Flow) {
        self.streams.extend(flow.connection);
    }

    /// The tokens by which Refer-Tos of ours name a dialog, told by how its `Replaces` begins.
    pub(crate) fn transfers_of(&self, call_id: &[u8]) -> Vec<(Box<[u8]>, Arc<Peer>)> {
        let is_it =
            |peer: &Peer| peer.replaces.strip_prefix(call_id).is_some_and(|rest| rest.first() == Some(&b';'));
        let found = self.transfers.iter().filter(|(_, peer)| is_it(peer));
        found.map(|(token, peer)| (token.clone(), peer.clone())).collect()
    }

    /// An INVITE for this end will come.
    pub(crate) fn remember(&mut self, token: Box<[u8]>, peer: Arc<Peer>) {
        if self.order.len() == TRANSFERS
            && let Some(oldest) = self.order.pop_front()
        {
            self.transfers.remove(&oldest);
        }
        if self.transfers.insert(token.clone(), peer).is_none() {
            self.order.push_back(token);
        }
    }
}
