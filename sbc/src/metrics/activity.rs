//! What an operator wants to see happen: a line when a phone registers and unregisters, when a call begins, is answered and ends.
//!
//! They are of the target `activity`, at level info: `SBC_LOG=info,activity=off` quietens them alone. A node that does hundreds of calls a
//! second tells the first of each second in full and counts the rest: lines must never cost calls.

use std::collections::{HashMap, HashSet};
use std::hash::{BuildHasher, RandomState};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use sip_engine::event::{CallEvent, CallEventKind};
use sip_engine::registrar::BindingChange;
use uuid::Uuid;

use crate::host::Ear;

/// Calls and registrations told of in one second.
const LINES: u32 = 20;

#[derive(Debug, Default)]
struct State {
    /// Bindings that are known, by a hash: a refresh is no news.
    bindings: HashSet<u64>,
    /// From and to of the open calls whose begin was told.
    calls: HashMap<u128, (Arc<str>, Arc<str>)>,
    since: Option<Instant>,
    told: u32,
    untold: u64,
}

/// Tells it.
#[derive(Debug, Default)]
pub struct Activity {
    state: Mutex<State>,
    hasher: RandomState,
}

impl State {
    /// Whether there is room for one more line in this second.
    fn admits(&mut self) -> bool {
        let now = Instant::now();
        if self.since.is_none_or(|since| now.duration_since(since) >= Duration::from_secs(1)) {
            (self.since, self.told) = (Some(now), 0);
        }
        self.told = self.told.saturating_add(1);
        let admits = self.told <= LINES;
        self.untold = self.untold.saturating_add(u64::from(!admits));
        admits
    }
}

impl Activity {
    fn with<T>(&self, act: impl FnOnce(&mut State) -> T) -> T {
        act(&mut self.state.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// A registration changed.
    pub fn binding(&self, change: &BindingChange) {
        let key = |aor: &str, uri: &str| self.hasher.hash_one((aor, uri));
        match change {
            BindingChange::Put(record) => {
                let is_told =
                    self.with(|state| state.bindings.insert(key(&record.aor, &record.uri)) && state.admits());
                if is_told {
                    let (transport, source) = (record.flow.transport.via_token(), record.flow.remote);
                    tracing::info!(target: "activity", aor = %record.aor, %source, transport, phone = %record.user_agent, "registered");
                }
            }
            BindingChange::Delete { aor, uri } => {
                let is_told = self.with(|state| state.bindings.remove(&key(aor, uri)) && state.admits());
                if is_told {
                    tracing::info!(target: "activity", %aor, "no longer registered");
                }
            }
        }
    }

    /// Something happened in a call.
    pub fn call(&self, event: &CallEvent) {
        let call = Uuid::from_u128(event.call);
        match &event.what {
            CallEventKind::Started(started) => {
                let (from, to) = (started.from.clone(), started.request_uri.clone());
                let is_told = self.with(|state| {
                    let admits = state.admits();
                    if admits {
                        state.calls.insert(event.call, (from.clone(), to.clone()));
                    }
                    admits
                });
                if is_told {
                    tracing::info!(target: "activity", %call, %from, %to, realm = %started.realm, "call begins");
                }
            }
            CallEventKind::Answered { realm, .. } => {
                if let Some((from, to)) = self.with(|state| state.calls.get(&event.call).cloned()) {
                    tracing::info!(target: "activity", %call, %from, %to, %realm, "call answered");
                }
            }
            CallEventKind::Ended(ended) => {
                if let Some((from, to)) = self.with(|state| state.calls.remove(&event.call)) {
                    let (cause, status) = (ended.cause.word(), ended.status);
                    let seconds = (ended.talked.as_secs_f64() * 10.0).round() / 10.0;
                    tracing::info!(target: "activity", %call, %from, %to, cause, status, seconds, "call ended");
                }
            }
            CallEventKind::Changed(_) | CallEventKind::Path(_) | CallEventKind::Metered { .. } => {}
        }
    }

    /// Tells how many there were beside those told of; to be called now and then.
    pub fn summarise(&self) {
        let untold = self.with(|state| std::mem::take(&mut state.untold));
        if untold > 0 {
            tracing::info!(target: "activity", untold, "more calls and registrations than lines (sbc_calls_started_total, sbc_registrations_total)");
        }
    }
}

impl Ear for Activity {
    fn call(&self, event: &CallEvent) {
        Self::call(self, event);
    }

    fn binding(&self, change: &BindingChange) {
        Self::binding(self, change);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_a_flood_the_first_of_each_second_are_told_and_the_rest_counted() {
        let mut state = State::default();
        let told = (0..1000).filter(|_| state.admits()).count();
        assert_eq!((told, state.untold), (LINES as usize, 980));
        state.since = Some(Instant::now() - Duration::from_secs(2));
        assert!(state.admits());
    }
}
