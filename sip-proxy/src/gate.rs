//! What a message passes before the engine sees it: keepalives, the filter, the parser, the scanners' list.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::net::SocketAddr;

use bytes::Bytes;
use sip_engine::io::{Flow, Input, ListenerId, Notice, Transport};
use sip_wire::Message;

use crate::filter::Verdict;
use crate::scanner::is_scanner;
use crate::shard::Shard;
use crate::stun;

impl Shard {
    /// A datagram off the wire.
    pub(crate) fn datagram(&mut self, listener: ListenerId, source: SocketAddr, datagram: &[u8]) {
        if !self.admits(listener, source) {
            return;
        }
        // RFC 5626 §4.4.2 asks for STUN over UDP; phones send CRLF too, or a byte of nothing.
        if datagram.len() <= 4 && datagram.iter().all(|byte| matches!(byte, b'\r' | b'\n' | 0)) {
            return self.counters.keepalives.up();
        }
        match vitals::contained(|| stun::answer(datagram, source)) {
            Ok(None) => {}
            Ok(Some(answer)) => {
                self.counters.keepalives.up();
                return self.send_unasked(listener, source, answer);
            }
            Err(_) => return self.unreadable(source, datagram),
        }
        let flow = Flow { listener, transport: Transport::Udp, remote: source, connection: None };
        let bytes = Bytes::copy_from_slice(datagram);
        match vitals::contained(|| Message::parse(bytes)) {
            Ok(Ok(message)) => self.message(flow, message),
            Ok(Err(refused)) => self.refused(flow, refused),
            Err(_) => self.unreadable(source, datagram),
        }
    }

    /// A message that the filter let in.
    pub(crate) fn message(&mut self, flow: Flow, message: Message) {
        if is_scanner(&message) {
            return self.counters.dropped.scanners.up();
        }
        // All that is read of it later has been read once before it can harm anybody.
        let readable = vitals::contained(|| {
            vitals::stumble("message", message.as_bytes());
            sip_wire::rehearse(&message);
        });
        if readable.is_err() {
            return self.unreadable(flow.remote, message.as_bytes());
        }
        self.counters.received.up();
        self.counters.traffic_received.parsed(&message);
        self.deliver(flow, message);
    }

    /// What the parser refused.
    pub(crate) fn refused(&mut self, flow: Flow, refused: sip_wire::Refused) {
        self.counters.dropped.refused.up();
        self.input(Input::Refused { flow, refused });
    }

    /// The parser panicked over a message. It is the program's mistake, and costs this message alone; what is told leads
    /// to it without telling what stands in it.
    pub(crate) fn unreadable(&mut self, source: SocketAddr, message: &[u8]) {
        self.counters.dropped.panicked.up();
        let mut print = DefaultHasher::new();
        message.hash(&mut print);
        let detail = format!(
            "the reading of a message of {} octets panicked (print {:016x}), and it is dropped: please report it with the line of the panic",
            message.len(),
            print.finish()
        );
        self.notice(Notice { kind: "reading_panicked", remote: Some(source), detail });
    }

    /// The filter's word on a source, counted.
    pub(crate) fn admits(&mut self, listener: ListenerId, source: SocketAddr) -> bool {
        let now = self.now().monotonic;
        let ip = source.ip().to_canonical();
        let Some(filter) = self.filters.get_mut(usize::from(listener.0)) else { return false };
        let is_trunk = || {
            let realm = self.settings.engine.realm_of(listener);
            let policy = self.policy.as_ref();
            realm.zip(policy).is_some_and(|(realm, policy)| policy.source(realm.id, ip).is_some())
        };
        match filter.judge(ip, now, is_trunk) {
            Verdict::Pass => true,
            Verdict::Denied => {
                self.counters.dropped.denied.up();
                false
            }
            Verdict::Limited => {
                self.counters.dropped.limited.up();
                false
            }
        }
    }
}
