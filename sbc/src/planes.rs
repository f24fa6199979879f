//! Where signalling and media meet: the engine's outputs carried out, and the relay's replies handed back.

use std::sync::Arc;
use std::time::Duration;

use media_relay::Relay;
use seam::SessionId;
use sip_engine::event::CallEventKind;
use sip_engine::io::{Input, Output};
use sip_engine::question::{QuestionId, ResolvedAddress};
use sip_engine::time::Now;
use sip_proxy::dns::Resolver;
use sip_proxy::{Host, Promise, ShardHandle};

use crate::activity::Activity;
use crate::calls::Calls;
use crate::journal::Journal;
use crate::metrics::Metrics;

/// What one shard's engine reaches of the rest.
pub struct Outside {
    /// Call records.
    pub journal: Arc<Journal>,
    /// The media plane.
    pub relay: Arc<Relay>,
    /// The open calls.
    pub calls: Arc<Calls>,
    /// The journal's ticket of what was promised last.
    pub promised: u64,
    /// Counters.
    pub metrics: Arc<Metrics>,
    /// Log lines of calls and registrations.
    pub activity: Arc<Activity>,
    /// DNS; `None` where the machine has none configured.
    pub resolver: Option<Resolver>,
    /// Where lookups run.
    pub runtime: tokio::runtime::Handle,
    /// The way back.
    pub shard: ShardHandle,
}

impl Host for Outside {
    fn carry_out(&mut self, output: Output, _: Now) -> Option<Input> {
        match output {
            Output::Record(event) => {
                self.metrics.call(&event);
                self.activity.call(&event);
                self.calls.follow(&event);
                let must_be_kept =
                    matches!(event.what, CallEventKind::Ended(_) | CallEventKind::Answered { .. });
                let ticket = self.journal.submit(event);
                if must_be_kept {
                    self.promised = ticket;
                }
            }
            Output::Media(request) => self.relay.handle(request),
            Output::Binding(change) => {
                self.metrics.binding(&change);
                self.activity.binding(&change);
                self.promised = self.journal.submit_binding(change);
            }
            Output::Resolve { question, resolve } => {
                let Some(resolver) = self.resolver.clone() else {
                    return Some(Input::Resolved { question, addresses: Vec::new() });
                };
                let shard = self.shard.clone();
                let lookup = Lookup { shard, question, addresses: Vec::new() };
                self.runtime.spawn(async move {
                    let looked_up =
                        tokio::time::timeout(Duration::from_secs(5), resolver.resolve(&resolve)).await;
                    lookup.found(looked_up.unwrap_or_default());
                });
            }
            Output::Notice(notice) => self.metrics.notice(&notice),
            Output::Send { .. }
            | Output::Close(_)
            | Output::Proven(_)
            | Output::Withheld
            | Output::Replicate(_) => {}
        }
        None
    }

    fn promised(&mut self, promise: Promise) -> Option<u64> {
        self.journal.await_ticket(self.promised);
        (!self.is_kept(promise, self.promised)).then_some(self.promised)
    }

    /// Who is talked to already waits for no disk that stalls: the record of an answer may be lost with the process then, and one
    /// of an end or a registration may not.
    fn is_kept(&self, promise: Promise, ticket: u64) -> bool {
        self.journal.settled() >= ticket || (promise == Promise::Answered && self.journal.is_stalled())
    }
}

/// A lookup is answered however it ends: a panic in it costs the call that asked, and leaves nobody waiting.
struct Lookup {
    shard: ShardHandle,
    question: QuestionId,
    addresses: Vec<ResolvedAddress>,
}

impl Lookup {
    fn found(mut self, addresses: Vec<ResolvedAddress>) {
        self.addresses = addresses;
    }
}

impl Drop for Lookup {
    fn drop(&mut self) {
        let addresses = std::mem::take(&mut self.addresses);
        self.shard.input(Input::Resolved { question: self.question, addresses });
    }
}

/// What the relay says, for the engine of its session's home; what became of moves is nothing of a call's.
pub fn input(event: media_relay::Event) -> Option<(SessionId, Input)> {
    match event {
        media_relay::Event::Reply(replied) => Some((replied.session, Input::Media(replied))),
        media_relay::Event::Told(told) => Some((told.session, Input::MediaEvent(told))),
        media_relay::Event::Moved(_) => None,
    }
}
