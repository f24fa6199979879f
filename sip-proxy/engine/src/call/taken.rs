//! A call that rests, as plain data: what its parties know of each other, and what remains of its times. Nothing in it names what is the
//! process's: connections, transactions, timers, and where trunks are and by which password they know us, which policy says.

use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::branch::{Branches, StoredBranch};
use super::end::{Ended, Lifetime, Record, StoredLife};
use super::hunt::Hunt;
use super::media::{Media, StoredMedia};
use super::pair::{Pair, StoredPair};
use super::parties::Parties;
use super::side::{PairId, Sides};
use super::{Admitted, Call, CallKey, CallTimer, Progress, Purpose, Standing};
use crate::core::Core;
use crate::dialog::Dialog;
use crate::door::CallId;
use crate::flow::{Flow, ListenerId, RealmId};
use crate::question::Caller;
use crate::strangers::Kind;
use crate::transaction::{Incoming, ServerId};
use crate::translation::Secrets;
use crate::watchers::Watch;
use sip_wire::Message;

/// See the module.
#[derive(Serialize, Deserialize)]
pub(crate) struct StoredParties {
    #[serde(with = "id")]
    pub(crate) id: CallId,
    purpose: StoredPurpose,
    /// Of the next line of its record.
    sequence: u32,
    life: StoredLife,
    upstream: StoredUpstream,
    secrets: Sides<Secrets>,
    branches: Vec<StoredBranch>,
    pairs: Vec<StoredPair>,
    next_pair: u32,
    next_forward: u32,
    media: StoredMedia,
    /// Whose running calls it is one of.
    counted: Vec<(Arc<str>, Kind)>,
    /// Whose dialogs it tells of.
    watch: Option<Watch>,
}

/// Which of the calls that rest.
#[derive(Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
enum StoredPurpose {
    Session,
    Subscription,
}

/// The first request, and whose it was.
#[derive(Serialize, Deserialize)]
struct StoredUpstream {
    #[serde(with = "head")]
    request: Message,
    flow: Flow,
    realm: RealmId,
    caller: Caller,
    identity: Option<String>,
}

/// What names the first request of a call: neither its body nor any credentials, for which nobody asks again.
mod head {
    use bytes::Bytes;
    use serde::de::Error as _;
    use serde::{Deserializer, Serializer};
    use sip_wire::{Builder, Message, Method, Name};

    pub(super) fn serialize<S: Serializer>(request: &Message, to: S) -> Result<S::Ok, S::Error> {
        let method = request.method().unwrap_or(Method::INVITE);
        let out = Builder::request(method, request.request_uri().unwrap_or_default());
        let names = [Name::From, Name::To, Name::CallId, Name::CSeq];
        let out = names.into_iter().fold(out, |out, name| match request.value(name) {
            Some(value) => out.header(name, value),
            None => out,
        });
        crate::octets::serialize(out.finish().as_bytes(), to)
    }

    pub(super) fn deserialize<'a, D: Deserializer<'a>>(from: D) -> Result<Message, D::Error> {
        let bytes: Bytes = crate::octets::deserialize(from)?;
        let request = Message::parse(bytes).ok().filter(|message| message.method().is_some());
        request.ok_or_else(|| D::Error::custom("the first request of a call can't be read"))
    }
}

/// A call's name in hexadecimal digits: as a number of so many digits it would not come back from every reader.
mod id {
    use serde::de::Error as _;
    use serde::{Deserialize, Deserializer, Serializer};

    use crate::door::CallId;

    pub(super) fn serialize<S: Serializer>(id: &CallId, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(&format!("{:032x}", id.0))
    }

    pub(super) fn deserialize<'a, D: Deserializer<'a>>(from: D) -> Result<CallId, D::Error> {
        let text = String::deserialize(from)?;
        u128::from_str_radix(&text, 16).map(CallId).map_err(D::Error::custom)
    }
}

/// Why a call cannot be taken out; but for the first and the last, it can be a moment later.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NotSteady {
    /// It is not here.
    #[error("there is no such call")]
    Unknown,
    /// Its first request has no final response.
    #[error("the call is not answered yet")]
    Unanswered,
    /// Media owes a reply.
    #[error("the media plane has not answered yet")]
    Media,
    /// Something is on its way from one end to the other, or waits to be.
    #[error("a request inside the call is under way")]
    Request,
    /// A 2xx has not had its ACK.
    #[error("an INVITE is not acknowledged yet")]
    Acknowledgement,
    /// A target that was cancelled has not said so, or an answer of ours is missing.
    #[error("a transaction of the call has no final response yet")]
    Transaction,
    /// It has ended, or is about to.
    #[error("the call is over")]
    Over,
}

/// Whether nothing is under way in a call, as far as itself knows.
pub(crate) fn check(call: &Call) -> Result<(), NotSteady> {
    if call.is_over() {
        return Err(NotSteady::Over);
    }
    if !call.is_answered() || !matches!(call.parties.purpose, Purpose::Session | Purpose::Subscription) {
        return Err(NotSteady::Unanswered);
    }
    if !call.media.is_at_rest() {
        return Err(NotSteady::Media);
    }
    if call.parties.pairs.iter().any(Pair::is_busy) {
        return Err(NotSteady::Request);
    }
    let mut legs = call.parties.pairs.iter().flat_map(|pair| pair.legs.iter());
    if !call.leaving.is_empty() || legs.any(|(_, leg)| leg.repeat.is_some() || leg.invite.open.is_some()) {
        return Err(NotSteady::Acknowledgement);
    }
    Ok(())
}

impl StoredParties {
    /// Of a call that [rests](check): nothing finds it any more, and nothing of it is due.
    pub(crate) fn of(call: Call, core: &mut Core) -> Self {
        let Call { parties, media, mut lifetime, record, standing, .. } = call;
        let life = lifetime.stored(core);
        lifetime.limit(None, core);
        for branch in parties.branches.iter() {
            core.dialogs.halves.remove(&branch.half_dialog());
        }
        let Admitted { incoming, realm, caller, identity } = parties.upstream;
        Self {
            id: record.id,
            purpose: match parties.purpose {
                Purpose::Subscription => StoredPurpose::Subscription,
                Purpose::Session | Purpose::Once | Purpose::Register(_) => StoredPurpose::Session,
            },
            sequence: record.sequence,
            life,
            upstream: StoredUpstream {
                request: incoming.request,
                flow: incoming.flow,
                realm,
                caller,
                identity,
            },
            secrets: parties.secrets,
            branches: parties.branches.iter().map(StoredBranch::of).collect(),
            pairs: parties.pairs.into_iter().map(|pair| StoredPair::of(pair, core)).collect(),
            next_pair: parties.next_pair,
            next_forward: parties.next_forward,
            media: media.stored(),
            counted: standing.counted,
            watch: standing.watch,
        }
    }

    /// Whether its parts know only each other.
    pub(crate) fn is_whole(&self) -> bool {
        let is_there = |pair: &StoredPair| usize::from(pair.branch.0) < self.branches.len();
        let mut ids: Vec<PairId> = self.pairs.iter().map(|pair| pair.id).collect();
        ids.sort_unstable_by_key(|id| id.0);
        ids.dedup();
        !self.pairs.is_empty() && ids.len() == self.pairs.len() && self.pairs.iter().all(is_there)
    }

    pub(crate) fn dialogs(&self) -> impl Iterator<Item = &Dialog> {
        self.pairs.iter().flat_map(|pair| pair.legs.iter()).map(|(_, leg)| &leg.dialog)
    }

    /// The realms and listeners that its parts name.
    pub(crate) fn places(&self) -> (Vec<RealmId>, Vec<ListenerId>) {
        let legs = || self.pairs.iter().flat_map(|pair| pair.legs.iter()).map(|(_, leg)| leg);
        let realms = legs().map(|leg| leg.realm).chain([self.upstream.realm]);
        let realms = realms.chain(self.branches.iter().map(|branch| branch.realm));
        let flows = legs().map(|leg| leg.dialog.flow).chain([self.upstream.flow]);
        let flows = flows.chain(self.branches.iter().filter_map(|branch| branch.flow));
        (realms.collect(), flows.map(|flow| flow.listener).collect())
    }

    /// Whether it is a subscription.
    pub(crate) fn is_subscription(&self) -> bool {
        self.purpose == StoredPurpose::Subscription
    }

    /// Since its first request, and since its answer.
    pub(crate) fn ages(&self) -> (Duration, Option<Duration>) {
        (self.life.lasts, self.life.talks)
    }

    /// The call goes on under this name; it was taken out `then`, by the clock of this engine.
    pub(crate) fn into_call(self, key: CallKey, then: Duration, core: &mut Core) -> Call {
        let StoredUpstream { request, flow, realm, caller, identity } = self.upstream;
        let incoming = Incoming { server: ServerId::GONE, flow: flow.without_connection(), request };
        let (purpose, timer) = match self.purpose {
            StoredPurpose::Session => (Purpose::Session, CallTimer::Longest),
            StoredPurpose::Subscription => (Purpose::Subscription, CallTimer::Expiry),
        };
        let mut parties = Parties::new(key, purpose, Admitted { incoming, realm, caller, identity });
        parties.secrets = self.secrets;
        parties.slot = self.id.slot();
        parties.branches = Branches::default();
        for (index, branch) in (0..).zip(self.branches) {
            parties.branches.push(branch.into_branch(index, core));
        }
        for branch in parties.branches.iter().filter(|branch| !branch.ids.call_id.is_empty()) {
            core.dialogs.halves.insert(branch.half_dialog(), (key, branch.id));
        }
        parties.pairs = self.pairs.into_iter().map(|pair| pair.into_pair(key, then, core)).collect();
        parties.next_pair = self.next_pair;
        parties.next_forward = self.next_forward;
        let ids: Vec<PairId> = parties.pairs.iter().map(|pair| pair.id).collect();
        ids.into_iter().for_each(|id| parties.publish(id, core));
        Call {
            parties,
            hunt: Hunt::default(),
            media: Media::of_stored(key, self.id.session(), self.media),
            progress: Progress::Answered,
            lifetime: Lifetime::of_stored(&self.life, (key, timer), then, core),
            record: Record { id: self.id, sequence: self.sequence },
            ended: Ended::No,
            leaving: Vec::new(),
            standing: Standing { counted: self.counted, turn: None, watch: self.watch },
        }
    }
}

/// The first request still has its transaction: this one.
pub(crate) fn set_server(call: &mut Call, server: ServerId) {
    call.parties.upstream.incoming.server = server;
}
