//! An SBC between two realms, with an echoing media plane, that is sent one message.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use play::echo;
use play::policy::{Table, trunk};
use play::settings::signalling::{an_hour, flow, listener, two_realms};
use sip_engine::Engine;
use sip_engine::config::{Expiry, RegistrarMode};
use sip_engine::io::{Command, Flow, Input, ListenerId, Output, Transport};
use sip_engine::question::TrunkTarget;
use sip_engine::time::Now;
use sip_wire::{Framed, Message, StreamFramer};

/// What became of a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// We answered it ourselves, with this status.
    Answered(u16),
    /// It, or rather what a B2BUA makes of it, went on to the other realm.
    Relayed,
    /// Nothing left us, and it was counted.
    Dropped,
}

const PHONE: &str = "192.0.2.1:5060";
const TRUNK: &str = "203.0.113.9:5060";

/// Telephones of a registrar in the core, to which all calls go.
fn engine() -> Engine {
    let core =
        TrunkTarget { port: Some(5060), transport: Some(Transport::Udp), ..trunk("core", "203.0.113.9") };
    let core = Arc::new(core);
    let minute = Duration::from_secs(60);
    let phone = Expiry { nat: minute, ..an_hour(minute) };
    let mut config = two_realms();
    for realm in &mut config.realms {
        realm.domains = vec!["example.com".into()];
        realm.digest.algorithms.clear();
    }
    let upstream = Duration::from_secs(3600);
    config.realms[0].registrar = RegistrarMode::Forward { phone, registrar: Arc::clone(&core), upstream };
    config.listeners = [
        (0, Transport::Udp, "198.51.100.1:5060"),
        (1, Transport::Udp, "203.0.113.1:5060"),
        (0, Transport::Tcp, "198.51.100.1:5060"),
    ]
    .map(|(realm, transport, address)| listener(realm, transport, address.parse().unwrap()))
    .into();
    config.product = Some("torture".into());
    let mut engine = Engine::new(Arc::new(config), [7; 32]);
    let now = Now { monotonic: Duration::ZERO, wall: Now::default().wall };
    engine.handle(Input::Command(Command::Policy(Arc::new(Table::through(&core)))), now);
    engine
}

/// All that an engine did with one message: what it sent, and to whom.
#[derive(Debug, Default)]
pub(crate) struct Doings {
    /// To where the message came from, 100s left out.
    pub(crate) back: Vec<Bytes>,
    /// To the other realm.
    pub(crate) onward: Vec<Bytes>,
    /// Kinds of notices.
    pub(crate) notices: Vec<&'static str>,
    /// Whether the connection was closed.
    pub(crate) closed: bool,
}

impl Doings {
    /// In a word.
    pub(crate) fn outcome(&self) -> Outcome {
        let status = |answer: &Bytes| Message::parse(answer.clone()).ok()?.status();
        match (self.back.first(), self.onward.first()) {
            (_, Some(_)) => Outcome::Relayed,
            (Some(answer), None) => Outcome::Answered(status(answer).expect("what goes back is a response")),
            (None, None) => {
                assert!(!self.notices.is_empty(), "what is dropped is counted");
                Outcome::Dropped
            }
        }
    }
}

/// Sends one datagram from a phone.
pub(crate) fn datagram(text: &[u8]) -> Doings {
    let flow = flow(ListenerId(0), PHONE.parse().unwrap());
    let input = match Message::parse(Bytes::copy_from_slice(text)) {
        Ok(message) => Input::Received { flow, message },
        Err(refused) => Input::Refused { flow, refused },
    };
    run(input)
}

/// Sends the same over a connection; `None` if the framer waits for more.
pub(crate) fn stream(text: &[u8]) -> Option<Doings> {
    let connection = Some(sip_engine::io::ConnectionId(1));
    let flow = Flow { transport: Transport::Tcp, connection, ..flow(ListenerId(2), PHONE.parse().unwrap()) };
    let mut framer = StreamFramer::default();
    framer.push(text);
    match framer.next() {
        Ok(Some(Framed::Message(message))) => Some(run(Input::Received { flow, message })),
        Ok(Some(Framed::Ping | Framed::Pong)) => panic!("a keepalive"),
        Ok(None) => None,
        Err(refused) => Some(run(Input::Refused { flow, refused })),
    }
}

fn run(input: Input) -> Doings {
    let mut engine = engine();
    let mut doings = Doings::default();
    let now = Now { monotonic: Duration::from_secs(1), wall: Now::default().wall };
    engine.handle(input, now);
    while let Some(output) = engine.poll_output() {
        match output {
            Output::Send { flow, message, .. }
                if flow.remote.ip() == PHONE.parse::<SocketAddr>().unwrap().ip() =>
            {
                doings.back.push(message);
            }
            Output::Send { flow, message, .. } => {
                assert_eq!(flow.remote, TRUNK.parse().unwrap());
                doings.onward.push(message);
            }
            Output::Media(request) => echo::reply(&mut engine, request, now),
            Output::Notice(notice) => doings.notices.push(notice.kind),
            Output::Close(_) => doings.closed = true,
            _ => {}
        }
    }
    doings
}
