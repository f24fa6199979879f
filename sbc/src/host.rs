//! Where signalling and media meet: the engine's outputs carried out, and the relay's replies handed back.
//!
//! No room is known here. Whoever wants to hear what happens is an [`Ear`], and whoever keeps it before anybody is told is the
//! [`Keeper`]; [`app`](crate::app) says who they are.

use std::sync::Arc;
use std::time::Duration;

use media_relay::Relay;
use seam::SessionId;
use sip_engine::door::CallAnswered;
use sip_engine::event::{CallEvent, CallEventKind};
use sip_engine::io::{Input, Notice, Output};
use sip_engine::question::{QuestionId, ResolvedAddress};
use sip_engine::registrar::BindingChange;
use sip_engine::time::Now;
use sip_proxy::dns::Resolver;
use sip_proxy::{Host, Promise, ShardHandle};

/// A room that wants to hear what happens in signalling. It is called on the threads of signalling, and must not block.
pub trait Ear: Send + Sync {
    /// Something happened in a call.
    fn call(&self, _event: &CallEvent) {}
    /// A registration changed.
    fn binding(&self, _change: &BindingChange) {}
    /// An order to a call was answered.
    fn answered(&self, _answered: &CallAnswered) {}
    /// Something worth counting.
    fn notice(&self, _notice: &Notice) {}
}

/// Who keeps what happened before anybody is told of it. Tickets grow; what has one is kept when as much is settled.
pub trait Keeper: Send + Sync {
    /// Takes an event of a call; its ticket.
    fn keep_call(&self, event: CallEvent) -> u64;
    /// Takes a change of a registration; its ticket.
    fn keep_binding(&self, change: BindingChange) -> u64;
    /// Gives what has this ticket a moment to be kept.
    fn await_ticket(&self, ticket: u64);
    /// Up to which ticket all is kept.
    fn settled(&self) -> u64;
    /// Whether it has not got on for long.
    fn is_stalled(&self) -> bool;
}

/// What one shard's engine reaches of the rest.
pub struct Outside {
    /// Who hears what happens, in this order, before it is kept.
    pub ears: Arc<[Arc<dyn Ear>]>,
    /// Who keeps it.
    pub keeper: Arc<dyn Keeper>,
    /// The media plane.
    pub relay: Arc<Relay>,
    /// The ticket of what was promised last.
    pub promised: u64,
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
                self.ears.iter().for_each(|ear| ear.call(&event));
                let must_be_kept =
                    matches!(event.what, CallEventKind::Ended(_) | CallEventKind::Answered { .. });
                let ticket = self.keeper.keep_call(event);
                if must_be_kept {
                    self.promised = ticket;
                }
            }
            Output::Media(request) => self.relay.handle(request),
            Output::Binding(change) => {
                self.ears.iter().for_each(|ear| ear.binding(&change));
                self.promised = self.keeper.keep_binding(change);
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
            Output::Answered(answered) => self.ears.iter().for_each(|ear| ear.answered(&answered)),
            Output::Notice(notice) => self.ears.iter().for_each(|ear| ear.notice(&notice)),
            Output::Send { .. }
            | Output::Close(_)
            | Output::Proven(_)
            | Output::Withheld
            | Output::Replicate(_) => {}
        }
        None
    }

    fn promised(&mut self, promise: Promise) -> Option<u64> {
        self.keeper.await_ticket(self.promised);
        (!self.is_kept(promise, self.promised)).then_some(self.promised)
    }

    /// Who is talked to already waits for no disk that stalls: the record of an answer may be lost with the process then, and one
    /// of an end or a registration may not.
    fn is_kept(&self, promise: Promise, ticket: u64) -> bool {
        self.keeper.settled() >= ticket || (promise == Promise::Answered && self.keeper.is_stalled())
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
        // For the store, and for whoever listens: nothing of it is signalling's.
        media_relay::Event::Moved(_) | media_relay::Event::Overheard(_) => None,
    }
}
