//! One target: the request it gets, and how far it is.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use sip_wire::Message;

use super::diversion::Diverted;
use super::side::BranchId;
use crate::core::Core;
use crate::dialog::{DialogKey, dialog_key};
use crate::event::CallLeg;
use crate::flow::{Flow, RealmId};
use crate::question::{Contact, ResolvedAddress, TrunkTarget};
use crate::timer::TimerId;
use crate::transaction::ClientId;

/// How far a branch is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum State {
    /// Its host's name is being resolved.
    Resolving,
    /// The media plane prepares its offer.
    Preparing,
    /// Sent; nothing but 100 came.
    Trying,
    /// It rings.
    Ringing,
    /// It was cancelled; its final response is awaited.
    Cancelled,
    /// It has its final response, or will never have one.
    Done,
}

#[derive(Debug)]
pub(super) struct Branch {
    pub(super) id: BranchId,
    pub(super) realm: RealmId,
    pub(super) target: Target,
    pub(super) alternatives: VecDeque<ResolvedAddress>,
    /// The phone's other flows (RFC 5626 §7), for when this one is dead.
    pub(super) other_flows: VecDeque<Contact>,
    /// Who sent the call here.
    pub(super) diverted: Option<Arc<Diverted>>,
    /// Its share of the caller's Max-Breadth (RFC 5393 §5.3.3).
    pub(super) breadth: u32,
    /// It has given a provisional response other than 100.
    pub(super) has_rung: bool,
    pub(super) state: State,
    pub(super) attempt: Attempt,
    pub(super) ids: Minted,
    pub(super) story: Story,
    /// What the media plane has made of the caller's offer for it.
    pub(super) offer: Option<Bytes>,
}

/// Who it goes to, and how.
#[derive(Debug)]
pub(super) struct Target {
    pub(super) uri: Bytes,
    /// Who that is, in records: an AOR, or the number and the host of a trunk; nothing else would tell it after a transfer or a
    /// redirection, when the dialled URI is a token or somebody else.
    pub(super) who: Arc<str>,
    pub(super) routes: Vec<Bytes>,
    pub(super) flow: Option<Flow>,
    pub(super) server_name: Option<Arc<str>>,
    pub(super) trunk: Option<Arc<TrunkTarget>>,
    /// The subscriber whose contact it is.
    pub(super) aor: Option<Arc<str>>,
}

/// The request as it was sent last.
#[derive(Debug, Default)]
pub(super) struct Attempt {
    pub(super) client: Option<ClientId>,
    /// Attempts that a failover left behind; a 2xx of theirs must be taken down.
    pub(super) abandoned: Vec<ClientId>,
    pub(super) request: Option<Arc<Message>>,
    pub(super) failover: Option<TimerId>,
    pub(super) is_authenticated: bool,
    /// The least session interval that its target has asked for (RFC 4028 §7.3).
    pub(super) least_interval: Option<u32>,
}

/// What we call the dialogs that it makes.
#[derive(Debug, Default)]
pub(super) struct Minted {
    pub(super) call_id: String,
    pub(super) from_tag: String,
    pub(super) cseq: u32,
    /// Our To tag for responses of a target that sends none; its first dialog's, when it has one.
    pub(super) tag: Option<String>,
}

/// What became of it, for the record: times since the INVITE of the caller.
#[derive(Debug, Clone, Copy, Default, Serialize, Deserialize)]
pub(super) struct Story {
    asked: Option<Duration>,
    rang: Option<Duration>,
    status: Option<u16>,
}

impl Story {
    pub(super) fn asked(&mut self, after: Duration) {
        self.asked.get_or_insert(after);
    }

    pub(super) fn rang(&mut self, after: Duration) {
        self.rang.get_or_insert(after);
    }

    /// Nothing has come of it; ours, unless it had said something before.
    pub(super) fn unheard(&mut self, status: u16) {
        self.status.get_or_insert(status);
    }

    /// The last one counts: a 401 is followed by what its credentials were worth.
    pub(super) fn ended(&mut self, status: u16) {
        self.status = Some(status);
    }
}

impl Branch {
    pub(super) fn new(id: BranchId, realm: RealmId, target: Target) -> Self {
        Self {
            id,
            realm,
            target,
            alternatives: VecDeque::new(),
            other_flows: VecDeque::new(),
            diverted: None,
            breadth: 1,
            has_rung: false,
            state: State::Resolving,
            attempt: Attempt::default(),
            ids: Minted::default(),
            story: Story::default(),
            offer: None,
        }
    }

    pub(super) fn is_done(&self) -> bool {
        self.state == State::Done
    }

    /// What finds it for a NOTIFY that comes before the dialog is known: our Call-ID and tag.
    pub(super) fn half_dialog(&self) -> DialogKey {
        dialog_key(self.ids.call_id.as_bytes(), self.ids.from_tag.as_bytes(), b"")
    }

    /// As media numbers it: the caller is 0.
    pub(super) fn party(&self) -> u16 {
        self.id.0.saturating_add(1)
    }

    /// As its call's record has it.
    pub(super) fn recorded(&self, core: &Core) -> CallLeg {
        let Self { target, story, .. } = self;
        CallLeg {
            party: self.party(),
            realm: core.realm(self.realm).map(|realm| realm.name.clone()).unwrap_or_default(),
            trunk: target.trunk.as_ref().map(|trunk| trunk.name.clone()),
            destination: target.flow.map(|flow| flow.remote),
            reached: target.who.clone(),
            uri: String::from_utf8_lossy(&target.uri).into(),
            sent_by: self.diverted.as_ref().map(|diverted| diverted.by.name()),
            asked: story.asked,
            rang: story.rang,
            status: story.status,
        }
    }
}

/// A branch that is done, as plain data: who answered, and by which names.
#[derive(Serialize, Deserialize)]
pub(super) struct StoredBranch {
    pub(super) realm: RealmId,
    #[serde(with = "crate::octets")]
    uri: Bytes,
    who: Arc<str>,
    aor: Option<Arc<str>>,
    /// The name of the trunk that it went to.
    trunk: Option<Arc<str>>,
    pub(super) flow: Option<Flow>,
    call_id: String,
    from_tag: String,
    cseq: u32,
    #[serde(default)]
    story: Story,
}

impl StoredBranch {
    pub(super) fn of(branch: &Branch) -> Self {
        let Branch { target, ids, .. } = branch;
        Self {
            realm: branch.realm,
            uri: target.uri.clone(),
            who: target.who.clone(),
            aor: target.aor.clone(),
            trunk: target.trunk.as_ref().map(|trunk| trunk.name.clone()),
            flow: target.flow,
            call_id: ids.call_id.clone(),
            from_tag: ids.from_tag.clone(),
            cseq: ids.cseq,
            story: branch.story,
        }
    }

    /// Where a trunk is and by which password it knows us, policy says; of one that is gone the name is left.
    pub(super) fn into_branch(self, index: u16, core: &Core) -> Branch {
        let realm = self.realm;
        let named = |name: Arc<str>| {
            let known = core.policy.as_ref().and_then(|policy| policy.trunk(&name));
            known.unwrap_or_else(|| TrunkTarget::gone(name, realm).into())
        };
        let mut branch = Branch::new(BranchId(index), realm, Target::new(self.uri, self.who));
        branch.state = State::Done;
        branch.story = self.story;
        branch.target.aor = self.aor;
        branch.target.trunk = self.trunk.map(named);
        branch.target.flow = self.flow.map(Flow::without_connection);
        branch.ids = Minted { call_id: self.call_id, from_tag: self.from_tag, cseq: self.cseq, tag: None };
        branch
    }
}

impl Target {
    pub(super) fn new(uri: Bytes, who: Arc<str>) -> Self {
        Self { uri, who, routes: Vec::new(), flow: None, server_name: None, trunk: None, aor: None }
    }
}

/// All that were tried, in order.
#[derive(Debug, Default)]
pub(super) struct Branches(Vec<Branch>);

impl Branches {
    pub(super) fn get(&self, id: BranchId) -> Option<&Branch> {
        self.0.get(usize::from(id.0))
    }

    pub(super) fn get_mut(&mut self, id: BranchId) -> Option<&mut Branch> {
        self.0.get_mut(usize::from(id.0))
    }

    pub(super) fn iter(&self) -> std::slice::Iter<'_, Branch> {
        self.0.iter()
    }

    pub(super) fn iter_mut(&mut self) -> std::slice::IterMut<'_, Branch> {
        self.0.iter_mut()
    }

    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    pub(super) fn are_all_done(&self) -> bool {
        self.0.iter().all(Branch::is_done)
    }

    /// Where the next one will be.
    pub(super) fn next_id(&self) -> BranchId {
        BranchId(self.0.len() as u16)
    }

    pub(super) fn push(&mut self, branch: Branch) {
        self.0.push(branch);
    }
}
