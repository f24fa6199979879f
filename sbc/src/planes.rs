//! Where signalling and media meet: the engine's outputs carried out, and the relay's replies handed back.

use std::sync::Arc;
use std::time::Duration;

use media_core::session as relay;
use media_relay::Relay;
use sip_engine::event::CallEventKind;
use sip_engine::io::{Input, Output};
use sip_engine::media::{self, MediaAction, MediaEvent, MediaOutcome, MediaReply, SessionId};
use sip_engine::question::{QuestionId, ResolvedAddress};
use sip_engine::time::Now;
use sip_proxy::dns::Resolver;
use sip_proxy::{Host, Promise, ShardHandle};

use crate::activity::Activity;
use crate::calls::Calls;
use crate::journal::Journal;
use crate::metrics::Metrics;
use crate::timeline;

/// A phone that rings over a re-INVITE does not move in time.
const PATIENCE: Duration = Duration::from_secs(4);

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
            Output::Media(request) => {
                let number = request.number;
                self.relay.handle(request.session.0, number, action(request.action, number));
            }
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

/// An event of the relay, for the engine of its session's home; what became of moves is none.
pub fn input(event: media_relay::Event) -> Option<(SessionId, Input)> {
    Some(match event {
        media_relay::Event::Moved(_) => return None,
        media_relay::Event::Reply { session, number, reply } => {
            let outcome = match reply {
                relay::Reply::Description(result) => {
                    MediaOutcome::Description(result.map(described).map_err(refusal))
                }
                relay::Reply::Fragment(fragment) => MediaOutcome::Fragment(fragment),
                relay::Reply::Deleted { streams, direct } => {
                    MediaOutcome::Deleted { streams: streams.into_iter().map(statistics).collect(), direct }
                }
                relay::Reply::Statistics(streams) => {
                    MediaOutcome::Statistics(streams.into_iter().map(statistics).collect())
                }
            };
            let session = SessionId(session);
            (session, Input::Media(MediaReply { session, number, outcome }))
        }
        media_relay::Event::Told { session, event } => {
            let session = SessionId(session);
            let event = match event {
                relay::Event::Answer { number, description } => {
                    let outcome = MediaOutcome::Description(description.map(described).map_err(refusal));
                    return Some((session, Input::Media(MediaReply { session, number, outcome })));
                }
                relay::Event::Inactive => MediaEvent::Inactive { session },
                relay::Event::Unheard => MediaEvent::Unheard { session },
                relay::Event::Renegotiate { wish, legs } => {
                    let legs = legs.into_iter().map(|(leg, sdp)| (endpoint_of(leg), sdp)).collect();
                    MediaEvent::Renegotiate { session, wish, legs, deadline: PATIENCE }
                }
                relay::Event::Metered { direct, is_direct } => {
                    MediaEvent::Metered { session, direct, is_direct }
                }
                relay::Event::Path { after, entry, parties } => {
                    MediaEvent::Path { session, entry: timeline::entry(after, entry, parties) }
                }
            };
            (session, Input::MediaEvent(event))
        }
    })
}

/// A request of the engine, for the relay; `number` is the request's.
pub fn action(action: MediaAction, number: u32) -> relay::Action {
    match action {
        MediaAction::Offer { exchange, from, to, from_info, to_info, sdp } => relay::Action::Offer {
            exchange: exchange.0,
            from: endpoint(from),
            to: endpoint(to),
            from_party: party(&from_info),
            to_party: party(&to_info),
            sdp,
        },
        MediaAction::Answer { exchange, from, to, from_info, sdp } => relay::Action::Answer {
            exchange: exchange.0,
            from: endpoint(from),
            to: endpoint(to),
            from_party: party(&from_info),
            sdp,
        },
        MediaAction::Select { endpoint: winner } => relay::Action::Select(endpoint(winner)),
        MediaAction::Reject { exchange, from } => {
            relay::Action::Reject { exchange: exchange.0, from: endpoint(from) }
        }
        MediaAction::Drop { endpoint: gone } => relay::Action::Drop(endpoint(gone)),
        MediaAction::Trickle { from, to, fragment } => {
            relay::Action::Trickle { from: endpoint(from), to: endpoint(to), fragment }
        }
        MediaAction::Cancel { exchange } => relay::Action::Cancel(exchange.0),
        MediaAction::Renegotiated { wish, endpoint: leg, outcome } => relay::Action::Renegotiated {
            wish,
            endpoint: endpoint(leg),
            outcome: match outcome {
                media::Renegotiated::Offered(sdp) => relay::Outcome::Offered { sdp, number },
                media::Renegotiated::Accepted(sdp) => relay::Outcome::Accepted(sdp),
                media::Renegotiated::Refused(status) => relay::Outcome::Refused(status),
                media::Renegotiated::Superseded => relay::Outcome::Superseded,
            },
        },
        MediaAction::Delete => relay::Action::Delete,
        MediaAction::Query => relay::Action::Query,
    }
}

fn endpoint(endpoint: media::Endpoint) -> relay::Endpoint {
    relay::Endpoint { party: endpoint.party, branch: endpoint.branch }
}

fn endpoint_of(endpoint: relay::Endpoint) -> media::Endpoint {
    media::Endpoint { party: endpoint.party, branch: endpoint.branch }
}

fn party(info: &media::PartyInfo) -> relay::Party {
    relay::Party {
        realm: info.realm.0,
        signalling: info.signalling,
        product: info.user_agent.as_deref().unwrap_or_default().into(),
        contact: info.contact.map(|contact| contact.ip()),
        is_private: info.wants_privacy,
    }
}

fn refusal(refusal: relay::Refusal) -> media::Refusal {
    match refusal {
        relay::Refusal::Malformed => media::Refusal::Malformed,
        relay::Refusal::NotAcceptable => media::Refusal::NotAcceptable,
        relay::Refusal::Unfit(unfit) => media::Refusal::Unfit(unfit),
        relay::Refusal::NoPorts => media::Refusal::NoPorts,
        relay::Refusal::Unknown => media::Refusal::Unknown,
    }
}

fn described(described: relay::Described) -> media::Described {
    let streams = described.streams.into_iter().map(|stream| media::StreamSummary {
        kind: stream.kind.into(),
        codecs: stream.codecs.into_iter().map(Into::into).collect(),
        direction: match stream.direction {
            relay::Direction::SendRecv => media::Direction::SendRecv,
            relay::Direction::SendOnly => media::Direction::SendOnly,
            relay::Direction::RecvOnly => media::Direction::RecvOnly,
            relay::Direction::Inactive => media::Direction::Inactive,
        },
        profile: stream.profile.into(),
        refused: stream.refused,
    });
    media::Described { sdp: described.sdp, summary: media::Summary { streams: streams.collect() } }
}

fn statistics(stream: relay::StreamStatistics) -> media::StreamStatistics {
    media::StreamStatistics {
        endpoint: endpoint_of(stream.endpoint),
        stream: stream.stream,
        kind: stream.kind.into(),
        codec: stream.codec.into(),
        packets: stream.packets,
        octets: stream.octets,
        lost: stream.lost,
        strangers: stream.strangers,
        jitter_ms: stream.jitter_ms,
        rtt_ms: stream.rtt_ms,
        mos: stream.mos,
        whole: stream.whole.map(|whole| media::WholeWay {
            packets: whole.packets,
            lost: whole.lost,
            unknown: whole.unknown,
            is_reported: whole.is_reported,
        }),
        dtmf: stream.dtmf,
        direct: stream.direct.map(|direct| media::DirectStatistics {
            packets: direct.packets,
            lost: direct.lost,
            jitter_ms: direct.jitter_ms,
        }),
    }
}
