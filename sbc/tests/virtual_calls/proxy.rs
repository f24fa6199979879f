//! A proxy of the carrier that forks: one INVITE, several early dialogs, perhaps several 2xx (RFC 3261 §16.7).
//!
//! It records no route, so that all but the INVITE and its responses pass it by.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::time::Duration;

use sip_engine::config::TimerValues;
use sip_engine::io::{Flow, Input, ListenerId, Output, Transport};
use sip_engine::transaction::{ClientId, Context, Event, Incoming, ServerId, Transactions};
use sip_wire::{Message, Method, Name};

use play::settings::signalling::at;

/// One forked INVITE.
#[derive(Debug)]
struct Fork {
    server: ServerId,
    client: ClientId,
    target: usize,
    refused: Option<Message>,
    is_answered: bool,
}

#[derive(Debug)]
pub(crate) struct Proxy {
    pub(crate) address: SocketAddr,
    targets: Vec<SocketAddr>,
    transactions: Transactions<usize>,
    forks: Vec<Fork>,
    out: VecDeque<Output>,
    /// Who sends INVITEs: 2xx go there, each as often as it comes.
    upstream: Option<Flow>,
}

impl Proxy {
    pub(crate) fn new(address: SocketAddr, targets: Vec<SocketAddr>) -> Self {
        Self {
            address,
            targets,
            transactions: Transactions::new(TimerValues::default(), 1000),
            forks: Vec::new(),
            out: VecDeque::new(),
            upstream: None,
        }
    }

    pub(crate) fn poll_timeout(&self) -> Option<Duration> {
        self.transactions.poll_timeout()
    }

    pub(crate) fn poll_output(&mut self) -> Option<Output> {
        self.out.pop_front()
    }

    pub(crate) fn is_idle(&self) -> bool {
        self.transactions.is_empty()
    }

    pub(crate) fn handle(&mut self, input: Input, now: Duration) {
        let Input::Received { flow, message } = input else { return };
        let is_answer = message.status().is_some_and(|status| (200..300).contains(&status))
            && message.cseq().is_ok_and(|cseq| cseq.method == Method::INVITE);
        if let (true, Some(upstream)) = (is_answer, self.upstream) {
            let answer = without_via(&message);
            self.transactions.send_stateless(upstream, answer, &mut self.out);
        }
        if let Some(event) =
            self.transactions.receive(flow, message, &mut Context { now: at(now), out: &mut self.out })
        {
            self.on_event(event, now);
        }
    }

    pub(crate) fn handle_timeout(&mut self, now: Duration) {
        while let Some(event) =
            self.transactions.handle_timeout(&mut Context { now: at(now), out: &mut self.out })
        {
            self.on_event(event, now);
        }
    }

    fn on_event(&mut self, event: Event<usize>, now: Duration) {
        match event {
            Event::Request(Incoming { server, flow, request: message })
                if message.method() == Some(Method::INVITE) =>
            {
                self.upstream = Some(flow);
                for (index, target) in self.targets.clone().into_iter().enumerate() {
                    let mut edit = message.edit();
                    edit.request_uri(format!("sip:4930@{target}").as_bytes());
                    let via = format!(
                        "SIP/2.0/UDP {};branch=z9hG4bK-{index}-{}",
                        self.address,
                        String::from_utf8_lossy(message.via().expect("a Via").branch().expect("a branch"))
                    );
                    edit.prepend(Name::Via, via.as_bytes());
                    let to = Flow {
                        listener: ListenerId(0),
                        transport: Transport::Udp,
                        remote: target,
                        connection: None,
                    };
                    let client = self.transactions.request(
                        to,
                        edit.message(),
                        index,
                        &mut Context { now: at(now), out: &mut self.out },
                    );
                    self.forks.push(Fork {
                        server,
                        client,
                        target: index,
                        refused: None,
                        is_answered: false,
                    });
                }
            }
            Event::Request(Incoming { server, request: message, .. }) => {
                let answer =
                    sip_engine::transaction::response_to(&message, 481, None, Some("proxy")).finish();
                self.transactions.respond(
                    server,
                    481,
                    answer,
                    &mut Context { now: at(now), out: &mut self.out },
                );
            }
            Event::Cancelled { invite, .. } => self.cancel(invite, None, now),
            Event::Response { client, message, .. } => self.on_response(client, message, now),
            Event::Timeout { client, .. } | Event::TransportFailed { client, .. } => {
                let Some(fork) = self.forks.iter().position(|fork| fork.client == client) else { return };
                let server = self.forks.remove(fork).server;
                self.refuse_if_all_did(server, now);
            }
            Event::Ack { .. } | Event::NoAck { .. } | Event::Stray { .. } => {}
        }
    }

    fn on_response(&mut self, client: ClientId, message: Message, now: Duration) {
        let Some(fork) = self.forks.iter_mut().find(|fork| fork.client == client) else { return };
        let (server, target, status) = (fork.server, fork.target, message.status().unwrap_or(500));
        match status {
            0..=299 => {
                fork.is_answered |= status >= 200;
                // The layer learns of a 2xx too, so that no failure follows; the copy is a retransmission to the SBC.
                let out = &mut Context { now: at(now), out: &mut self.out };
                self.transactions.respond(server, status, without_via(&message), out);
                if status >= 200 {
                    self.cancel(server, Some(target), now);
                }
            }
            _ => {
                fork.refused = Some(message);
                self.refuse_if_all_did(server, now);
            }
        }
    }

    fn cancel(&mut self, server: ServerId, but: Option<usize>, now: Duration) {
        let rest = self.forks.iter().filter(|fork| fork.server == server && Some(fork.target) != but);
        for client in rest.map(|fork| fork.client).collect::<Vec<_>>() {
            self.transactions.cancel(client, None, &mut Context { now: at(now), out: &mut self.out });
        }
    }

    /// The best of the failures goes back when there is nothing else to wait for.
    fn refuse_if_all_did(&mut self, server: ServerId, now: Duration) {
        let own: Vec<&Fork> = self.forks.iter().filter(|fork| fork.server == server).collect();
        if own.iter().any(|fork| fork.is_answered || fork.refused.is_none()) {
            return;
        }
        let best = own
            .iter()
            .filter_map(|fork| fork.refused.as_ref())
            .min_by_key(|refused| refused.status().map(|status| if status >= 600 { 0 } else { status }));
        if let Some((status, answer)) = best.map(|best| (best.status().unwrap_or(500), without_via(best))) {
            self.transactions.respond(
                server,
                status,
                answer,
                &mut Context { now: at(now), out: &mut self.out },
            );
        }
    }
}

/// The response as the hop before is to see it.
fn without_via(response: &Message) -> bytes::Bytes {
    let first = response.lines().find(|line| line.name == Name::Via).expect("a Via").index;
    let mut edit = response.edit();
    edit.remove_line(first);
    edit.finish()
}
