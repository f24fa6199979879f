//! Calls that are open, by the id in their records: what operators and policy name when they want something of one.

pub mod policy;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use media_relay::Relay;
use seam::path::Constraint;
use seam::{Action, Request, SessionId};
use sip_engine::event::{CallEvent, CallEventKind};

use crate::host::Ear;

#[derive(Debug)]
struct Open {
    session: SessionId,
    constraint: Option<Constraint>,
}

/// The open calls of this node.
#[derive(Debug)]
pub struct Calls {
    relay: Arc<Relay>,
    open: Mutex<HashMap<u128, Open>>,
}

impl Calls {
    /// None yet.
    pub fn new(relay: Arc<Relay>) -> Self {
        Self { relay, open: Mutex::default() }
    }

    fn open(&self) -> MutexGuard<'_, HashMap<u128, Open>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Something happened in a call.
    pub fn follow(&self, event: &CallEvent) {
        match &event.what {
            CallEventKind::Started(started) => {
                self.open().insert(event.call, Open { session: started.session, constraint: None });
            }
            CallEventKind::Ended(_) => {
                self.open().remove(&event.call);
            }
            CallEventKind::Answered { .. }
            | CallEventKind::Changed(_)
            | CallEventKind::Path(_)
            | CallEventKind::Metered { .. } => {}
        }
    }

    /// Policy says of these calls what it says, and of others no more. Those that are not open here are other nodes', or over.
    pub fn say(&self, constraints: &HashMap<u128, Constraint>) {
        for (call, constraint) in constraints {
            self.constrain(*call, *constraint);
        }
        for (call, open) in self.open().iter_mut() {
            if open.constraint.is_some() && !constraints.contains_key(call) {
                open.constraint = None;
                self.relay.handle(Request { session: open.session, number: 0, action: Action::Unconstrain });
            }
        }
    }

    /// What is said of a call that is open here, by itself.
    pub fn said(&self, call: u128) -> Option<Constraint> {
        self.open().get(&call)?.constraint
    }

    /// Policy wants the media of a call on the relay, or lets it go: at once, and for the rest of the call. False if the call
    /// is not open here; saying the same again does nothing.
    pub fn constrain(&self, call: u128, constraint: Constraint) -> bool {
        let mut open = self.open();
        let Some(found) = open.get_mut(&call) else { return false };
        if found.constraint.replace(constraint) != Some(constraint) {
            // No reply comes to it, so it needs no number.
            self.relay.handle(Request {
                session: found.session,
                number: 0,
                action: Action::Constrain(constraint),
            });
        }
        true
    }
}

impl Ear for Calls {
    fn call(&self, event: &CallEvent) {
        self.follow(event);
    }
}
