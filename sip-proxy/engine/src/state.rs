//! A call as plain data: taken out of one engine, and gone on with by another, of another process, with another clock and other
//! connections.
//!
//! All of it goes on: both dialogs with their numbers, route sets and targets, where each end was seen last, the descriptions that a refresh
//! says again, what remains of session timers, who is told of whose dialogs, the tokens by which a transfer names it, the
//! count of its record. So do its transactions that have their final responses: whoever has not heard a 200 asks again, and gets the
//! same one from the successor; a 2xx that comes again gets its ACK.
//!
//! What is the process's stays behind. Of a connection it is known only whose it was: who listens is called back, who does not is
//! found when it registers again, as after any other loss. Trunks' addresses and passwords are the policy's. Nonces are signed
//! by a key that each process draws: the successor finds those of its predecessor stale, and says so (RFC 7616 §3.3), which costs a phone one
//! more round trip, and no nonce is good twice. Our own answers to challenges are made anew for each, and count from one.
//!
//! The home stays: the ids of both dialogs and of the record name node and slot, and peers say them until the end of the call. So the
//! successor is the same node's, and its shell gives the call to whichever shard has the [slot](StoredCall::slot) there. Listeners
//! must be the same, too: peers send to where they were told.
//!
//! Only what rests is taken: no request is under way, nothing waits for its ACK, media owes no reply. The time between the two
//! is counted by the wall clock.

use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use seam::SessionId;
use serde::{Deserialize, Serialize};

pub use crate::call::taken::NotSteady;
use crate::call::taken::StoredParties;
use crate::config::Config;
use crate::door::CallId;
use crate::flow::{ListenerId, RealmId, Transport};
use crate::keys::{BranchId, ForwardId};
use crate::peer::Peer;
use crate::slot::Slot;
use crate::transaction::StoredTransaction;

/// Of the data: another one is not read.
pub const VERSION: u32 = 1;

/// See [`VERSION`].
pub(crate) type Version = seam::Version<VERSION>;

/// A call that is in no engine. It holds descriptions with keys, and ids by which it could be ended: what prints it shows none of them.
#[derive(Serialize, Deserialize)]
pub struct StoredCall {
    pub(crate) version: Version,
    /// When it was taken out, wall time since the Unix epoch.
    pub(crate) at: Duration,
    pub(crate) places: Places,
    pub(crate) parties: StoredParties,
    pub(crate) transactions: Vec<StoredTransaction<Role>>,
    pub(crate) transfers: Vec<StoredTransfer>,
}

/// What a call has a transaction for.
#[derive(Clone, Copy, Serialize, Deserialize)]
pub(crate) enum Role {
    /// Its first request.
    First,
    /// Another one that has come.
    Inside,
    /// One to a target.
    Branch(BranchId),
    /// One to an end.
    Forward(ForwardId),
}

/// A name by which a transfer can still reach one of its ends.
#[derive(Serialize, Deserialize)]
pub(crate) struct StoredTransfer {
    #[serde(with = "crate::octets")]
    pub(crate) token: Box<[u8]>,
    pub(crate) peer: Peer,
}

/// What the numbers of realms and listeners in the data stand for.
#[derive(Serialize, Deserialize)]
pub(crate) struct Places {
    realms: Vec<(RealmId, Arc<str>)>,
    listeners: Vec<(ListenerId, Transport, SocketAddr)>,
}

impl Places {
    /// Those of these numbers.
    pub(crate) fn of((mut realms, mut listeners): (Vec<RealmId>, Vec<ListenerId>), config: &Config) -> Self {
        realms.sort_unstable();
        realms.dedup();
        listeners.sort_unstable();
        listeners.dedup();
        let realm = |id: RealmId| Some((id, config.realm(id)?.name.clone()));
        let listener = |id: ListenerId| {
            let listener = config.listener(id)?;
            Some((id, listener.transport, listener.advertised))
        };
        Self {
            realms: realms.into_iter().filter_map(realm).collect(),
            listeners: listeners.into_iter().filter_map(listener).collect(),
        }
    }

    /// Whether they stand for the same here.
    pub(crate) fn are_of(&self, config: &Config) -> Result<(), CannotTakeIn> {
        for (id, name) in &self.realms {
            if config.realm(*id).is_none_or(|realm| realm.name != *name) {
                return Err(CannotTakeIn::Realm(*id));
            }
        }
        for (id, transport, advertised) in &self.listeners {
            let is_it = |known: &crate::config::Listener| {
                known.transport == *transport && known.advertised == *advertised
            };
            if !config.listener(*id).is_some_and(is_it) {
                return Err(CannotTakeIn::Listener(*advertised));
            }
        }
        Ok(())
    }

    fn knows(&self, (realms, listeners): &(Vec<RealmId>, Vec<ListenerId>)) -> bool {
        let has_realm = |id: &RealmId| self.realms.iter().any(|known| known.0 == *id);
        let has_listener = |id: &ListenerId| self.listeners.iter().any(|known| known.0 == *id);
        realms.iter().all(has_realm) && listeners.iter().all(has_listener)
    }
}

impl StoredCall {
    /// As its records name it.
    pub fn id(&self) -> CallId {
        self.parties.id
    }

    /// Its home: the shard that has this slot goes on with it.
    pub fn slot(&self) -> Slot {
        self.id().slot()
    }

    /// Its media session, which goes with it.
    pub fn session(&self) -> SessionId {
        self.id().session()
    }

    /// Whether its parts know only each other and what they say of places.
    pub(crate) fn is_whole(&self) -> bool {
        let (realms, mut listeners) = self.parties.places();
        listeners.extend(self.transactions.iter().map(|transaction| transaction.flow.listener));
        self.parties.is_whole() && self.places.knows(&(realms, listeners))
    }
}

impl fmt::Debug for StoredCall {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (lasts, talks) = self.parties.ages();
        let ends: Vec<SocketAddr> = self.parties.dialogs().map(|dialog| dialog.flow.remote).collect();
        out.debug_struct("StoredCall")
            .field("version", &VERSION)
            .field("id", &self.id())
            .field("is_subscription", &self.parties.is_subscription())
            .field("lasts", &lasts)
            .field("talks", &talks)
            .field("ends", &ends)
            .field("transactions", &self.transactions.len())
            .field("transfers", &self.transfers.len())
            .finish_non_exhaustive()
    }
}

/// Why a call cannot be taken in; nothing has changed then.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum CannotTakeIn {
    /// It is here, or another one of its dialogs or session.
    #[error("there is a call of this id, session or dialog already")]
    Known,
    /// Its ids name another node.
    #[error("the call is of node {0}: give the successor the number of the node whose calls it goes on with")]
    Elsewhere(u8),
    /// The number of a realm stands for another one.
    #[error("realm {} of the call has another name here, or is gone", .0.0)]
    Realm(RealmId),
    /// Peers send to where nobody listens any more.
    #[error("the listener that the call's peers know as {0} is gone, or has another number")]
    Listener(SocketAddr),
    /// The data name parts that are not there.
    #[error("the stored call contradicts itself")]
    Contradictory,
}
