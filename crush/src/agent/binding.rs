//! Binding requests and responses: checks, consent, discovery (docs/crush.md §5, RFC 8445 §7).

use std::net::SocketAddr;
use std::time::Duration;

use media_wire::sdp::crush::reflexive_priority;
use media_wire::stun::{Class, Incoming, Method, Outgoing, PRIORITY, USE_CANDIDATE};

use super::generation::Credentials;
use super::leg::Answered;
use super::link::Packet;
use super::{Agent, SocketId};
use crate::count::Count;
use crate::find::{Answer, Check};

/// ROLE CONFLICT (RFC 8445 §7.3.1.1).
const ROLE_CONFLICT: u16 = 487;

impl Agent {
    /// A check, or a consent request, which looks the same.
    pub(super) fn check(&self, transaction: u128, check: Check, theirs: &Credentials) -> Vec<u8> {
        let request = Outgoing::new(Method::Binding, Class::Request, transaction)
            .username(&theirs.ufrag, &self.generation.ours.ufrag)
            .with(PRIORITY, &reflexive_priority().to_be_bytes())
            .with(self.role.attribute(), &self.role.tiebreaker.to_be_bytes());
        match check {
            Check::Nominating => request.with(USE_CANDIDATE, &[]),
            Check::Plain => request,
        }
        .sealed(&theirs.key)
    }

    pub(super) fn binding_request(
        &mut self,
        socket: SocketId,
        from: SocketAddr,
        message: &Incoming<'_>,
        now: Duration,
    ) {
        let ours = self.generation.ours.key.clone();
        let named = message.username().is_some_and(|username| self.generation.is_for_us(username));
        if !named || !message.authentic(&ours) {
            self.refused.unauthentic.up();
            return;
        }
        let transaction = message.transaction();
        let unknown = message.unknown();
        if !unknown.is_empty() {
            let bytes = Outgoing::new(Method::Binding, Class::Error, transaction).not_understood(&unknown);
            return self.transmit(socket, from, bytes.sealed(&ours));
        }
        if self.is_conflict(message) {
            let bytes = Outgoing::new(Method::Binding, Class::Error, transaction)
                .error_code(ROLE_CONFLICT)
                .sealed(&ours);
            return self.transmit(socket, from, bytes);
        }
        let bytes =
            Outgoing::new(Method::Binding, Class::Success, transaction).mapped_address(from).sealed(&ours);
        self.transmit(socket, from, bytes);
        if let Some(link) = &mut self.link {
            if link.is(socket, from) {
                link.live.sign(now);
                link.sent(Packet::Other, now);
            }
            return;
        }
        let nominates = message.value(USE_CANDIDATE).is_some();
        self.generation.finder.asked(socket, from, nominates, now);
    }

    /// RFC 8445 §7.3.1.1: the greater tiebreaker keeps its role; `true` if the peer must change.
    fn is_conflict(&mut self, message: &Incoming<'_>) -> bool {
        let Some(theirs) = message.long(self.role.attribute()) else { return false };
        let keeps = self.role.keeps(theirs);
        if !keeps {
            self.role.change();
            self.generation.finder.set_controlling(self.role.is_controlling);
        }
        keeps
    }

    pub(super) fn binding_response(
        &mut self,
        socket: SocketId,
        from: SocketAddr,
        message: &Incoming<'_>,
        now: Duration,
    ) {
        if message.class() == Class::Indication {
            return;
        }
        if message.class() == Class::Success {
            match self.leg.answered(message, now) {
                Answered::Forged => return self.refused.unauthentic.up(),
                Answered::Seen(0, Some(mapped)) => return self.seen_as(mapped, now),
                Answered::Seen(..) => return,
                Answered::Other if self.gathering_answered(socket, message, now) => return,
                Answered::Other => {}
            }
        }
        let transaction = message.transaction();
        let link_waits = self.link.as_ref().is_some_and(|link| link.is_outstanding(transaction));
        if !link_waits && !self.generation.finder.is_outstanding(transaction) {
            self.refused.unexpected.up();
            return;
        }
        if !self.generation.theirs.as_ref().is_some_and(|theirs| message.authentic(&theirs.key)) {
            self.refused.unauthentic.up();
            return;
        }
        if message.class() == Class::Error {
            if message.error_code() == Some(ROLE_CONFLICT) && !link_waits {
                self.role.change();
                self.generation.finder.conflict(transaction, self.role.is_controlling);
            }
            return;
        }
        let taken = match &mut self.link {
            Some(link) if link_waits => link.is(socket, from) && link.answered(transaction, now),
            _ => self.generation.finder.answered(transaction, socket, from, now) == Answer::Taken,
        };
        if !taken {
            self.refused.unexpected.up();
        }
    }
}
