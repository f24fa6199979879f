//! HANDOFF messages: what the peer asks for, and the answers to what we asked (docs/crush.md §7).

use std::net::SocketAddr;
use std::time::Duration;

use media_wire::handoff::{
    Condition, Envelope, Indication, Kind, Mode, Move, Path, Reason, Request, Switch, Target, read_switches,
    write_error, write_not_understood, write_success,
};
use media_wire::sdp::crush::Policy;
use media_wire::stun::{Class, Incoming};

use super::incoming::{FOR_GOOD, MOST_COPIES, Peer, Wish};
use super::io::Direction;
use super::link::Packet;
use super::{Agent, Event, SocketId, StreamId};
use crate::count::Count;
use crate::handoff::{Outstanding, Purpose, Retry};

const MALFORMED: u16 = 400;
const FORBIDDEN: u16 = 403;
const UNKNOWN_STREAM: u16 = 404;
const TOO_EARLY: u16 = 425;
const STALE: u16 = 438;

impl Agent {
    /// The direct path, or a relay's of ours. The ends may have nominated different pairs: whatever pair was checked both ways is the
    /// direct path to us, though we send on the nominated one.
    fn path_of(&self, socket: SocketId, from: SocketAddr) -> Option<Path> {
        let is_linked = self.link.as_ref().is_some_and(|link| link.is(socket, from));
        let works = || self.generation.finder.list.get(socket, from).is_some_and(|pair| pair.works());
        let is_relay =
            || self.streams.iter().any(|stream| stream.setup.socket == socket && stream.relay == Some(from));
        if is_linked || works() { Some(Path::Direct) } else { is_relay().then_some(Path::Relay) }
    }

    pub(super) fn handoff_message(
        &mut self,
        socket: SocketId,
        from: SocketAddr,
        message: &Incoming<'_>,
        now: Duration,
    ) {
        let Some(path) = self.path_of(socket, from) else {
            self.refused.stray.up();
            return;
        };
        match message.class() {
            Class::Success | Class::Error => return self.handoff_response(message, now),
            Class::Request | Class::Indication => {}
        }
        let named = message.username().is_some_and(|username| self.generation.is_for_us(username));
        if !named || !message.authentic(&self.generation.ours.key) || self.generation.theirs.is_none() {
            self.refused.unauthentic.up();
            return;
        }
        if message.class() == Class::Indication {
            return self.indication(path, message, now);
        }
        let Some(response) = self.response(path, message, now) else { return };
        if path == Path::Direct
            && let Some(link) = &mut self.link
        {
            link.live.sign(now);
        }
        self.transmit(socket, from, response);
    }

    /// Does what a request asks, and says so or why not, in the order of docs/crush.md §7.2. `None`: it is dropped in silence.
    fn response(&mut self, path: Path, message: &Incoming<'_>, now: Duration) -> Option<Vec<u8>> {
        let (transaction, key) = (message.transaction(), self.generation.ours.key.clone());
        let request = Request::read(message);
        let is_move = request.as_ref().is_some_and(|request| request.target == Target::Path(Path::Direct));
        if is_move && path != Path::Direct {
            // Only who sends on the direct path may ask for it. Whoever lets such a request come by the relay is not answered either: an
            // error would undo what the request itself has done meanwhile.
            self.refused.stray.up();
            return None;
        }
        if let Some((known, response)) = &self.generation.numbers.last_response
            && *known == transaction
        {
            self.refused.replayed.up();
            return Some(response.clone());
        }
        let unknown = message.unknown();
        if !unknown.is_empty() {
            return Some(write_not_understood(transaction, &unknown, &key));
        }
        let Some(request) = request else { return Some(write_error(transaction, MALFORMED, &key)) };
        if request.sequence <= self.generation.numbers.highest {
            self.refused.replayed.up();
            return Some(write_error(transaction, STALE, &key));
        }
        // Refused or not: a number counts once, or what was refused could be sent again by others when it would be obeyed.
        self.generation.numbers.highest = request.sequence;
        let response = match self.obey(request, now) {
            Ok(switches) => write_success(transaction, &switches, &key),
            Err(code) => write_error(transaction, code, &key),
        };
        self.generation.numbers.last_response = Some((transaction, response.clone()));
        Some(response)
    }

    /// Does what a new request asks, or says why not.
    fn obey(&mut self, request: Request, now: Duration) -> Result<Vec<Switch>, u16> {
        match request.target {
            // Always: nobody is kept on a path that the other end has left.
            Target::Path(Path::Relay) => {
                self.return_all(request.reason, Peer::Knows, now);
                if request.reason == Reason::Policy {
                    self.switching.rest_with_peer();
                }
                Ok(Vec::new())
            }
            Target::Both(_) if self.leg.policy() == Policy::Relay => Err(FORBIDDEN),
            Target::Both(_) if self.link.is_none() => Err(TOO_EARLY),
            Target::Both(time) => {
                self.wake(now);
                self.copy_until(now.saturating_add(time.min(MOST_COPIES)));
                Ok(Vec::new())
            }
            Target::Path(Path::Direct) => {
                if request.moves.iter().any(|one| usize::from(one.stream) >= self.streams.len()) {
                    return Err(UNKNOWN_STREAM);
                }
                let moves = if request.moves.is_empty() { self.all_moves() } else { request.moves };
                if moves.is_empty() || moves.iter().any(|one| !self.may_leave(one.stream)) {
                    return Err(FORBIDDEN);
                }
                if self.link.is_none() {
                    return Err(TOO_EARLY);
                }
                self.wake(now);
                let switches = moves.iter().filter_map(|one| self.order(one, now)).collect();
                self.end_tests_if_ordered();
                Ok(switches)
            }
        }
    }

    /// `None` where there is no such stream.
    fn order(&mut self, one: &Move, now: Duration) -> Option<Switch> {
        let sending = self.streams.get_mut(usize::from(one.stream))?;
        let at = sending.outgoing.order(one, now);
        let ssrc = sending.outgoing.ssrc();
        if sending.outgoing.is_direct() {
            self.handed_off_sending(StreamId(one.stream), at, now);
        }
        Some(Switch { stream: one.stream, at, ssrc })
    }

    /// Whether a stream is there (a refused m-line has no place at the relay), and policy lets it leave.
    pub(super) fn may_leave(&self, stream: u8) -> bool {
        let stream = self.streams.get(usize::from(stream)).filter(|stream| stream.relay.is_some());
        let kind = stream.map(|stream| stream.setup.kind);
        match self.leg.policy() {
            Policy::Direct => kind.is_some(),
            Policy::VideoOnly => kind == Some(Kind::Video),
            Policy::Relay => false,
        }
    }

    /// The moves that we ask for: audio softly, video at a key frame.
    pub(super) fn all_moves(&self) -> Vec<Move> {
        let limit = Duration::from_secs(2);
        let moves = self.streams.iter().zip(0u8..).map(|(stream, index)| {
            let (condition, mode) = match stream.setup.kind {
                Kind::Audio => {
                    let overlap = stream.depth().max(Duration::from_millis(100));
                    (Condition::Now, self.config.audio_mode.unwrap_or(Mode::Soft(overlap)))
                }
                Kind::Video => (Condition::KeyFrame, Mode::Hard),
            };
            let (kind, ssrc) = (stream.setup.kind, stream.ssrc.unwrap_or(0));
            Move { stream: index, kind, ssrc, condition, mode, limit }
        });
        moves.filter(|one| self.may_leave(one.stream)).collect()
    }

    fn indication(&mut self, path: Path, message: &Incoming<'_>, now: Duration) {
        let read = Indication::read(message).filter(|_| message.unknown().is_empty());
        let Some((sequence, indication)) = read else {
            self.refused.malformed.up();
            return;
        };
        let window = match path {
            Path::Relay => &mut self.generation.numbers.relay_window,
            Path::Direct => &mut self.generation.numbers.direct_window,
        };
        if !window.take(sequence) {
            self.refused.replayed.up();
            return;
        }
        if let Indication::Test { number, clock } = indication {
            let transit = now.as_secs_f64() * 1000.0 - f64::from(clock);
            self.switching.tests.arrived(path, i64::from(number), transit, now);
        }
        if path == Path::Direct
            && let Some(link) = &mut self.link
        {
            link.live.silence(now);
        }
    }

    fn handoff_response(&mut self, message: &Incoming<'_>, now: Duration) {
        let transaction = message.transaction();
        let Some(request) = self.switching.request.take_if(|request| request.transaction == transaction)
        else {
            self.refused.unexpected.up();
            return;
        };
        if !message.authentic(&request.key) {
            self.refused.unauthentic.up();
            self.switching.request = Some(request);
            return;
        }
        self.switching.unanswered = 0;
        // What we must understand of a success and do not makes it none (RFC 8489 §6.3.3).
        let class = if message.unknown().is_empty() { message.class() } else { Class::Error };
        match (&request.purpose, class) {
            (Purpose::Handoff(moves), Class::Success) => {
                let switches = read_switches(message);
                self.moved(moves, &switches, now);
            }
            (Purpose::Handoff(_), _) => self.handoff_failed(now),
            (Purpose::Compare(_), Class::Error) => {
                self.handoff_failed(now);
                if message.error_code() == Some(FORBIDDEN) {
                    // Until the peer asks, or begins anew, as it does when its policy lets it.
                    self.switching.rest(FOR_GOOD);
                }
            }
            (Purpose::Compare(_) | Purpose::Return, _) => {}
        }
    }

    /// The peer sends directly from now on, or when its condition comes true.
    fn moved(&mut self, moves: &[Move], switches: &[Switch], now: Duration) {
        for one in moves {
            let Some(stream) = self.streams.get_mut(usize::from(one.stream)) else { continue };
            let switch = switches.iter().find(|switch| switch.stream == one.stream);
            if let Some(switch) = switch.filter(|switch| switch.ssrc != 0)
                && stream.ssrc.is_none()
            {
                stream.ssrc = Some(switch.ssrc);
            }
            stream.direct_since = Some(now);
            self.story.left.get_or_insert(now);
            let at = switch.and_then(|switch| switch.at);
            let stream = StreamId(one.stream);
            self.event(Event::HandedOff { stream, direction: Direction::Receiving, at });
        }
        self.now_direct(now);
    }

    pub(super) fn handed_off_sending(&mut self, stream: StreamId, at: Option<u16>, now: Duration) {
        self.story.left.get_or_insert(now);
        self.event(Event::HandedOff { stream, direction: Direction::Sending, at });
        self.show_direct(now);
    }

    /// Orders whose limit has come while nothing was sent.
    pub(super) fn let_elapse(&mut self, now: Duration) {
        for place in 0..self.streams.len() {
            if let Some(stream) = self.streams.get_mut(place)
                && stream.outgoing.elapse(now)
            {
                let at = stream.outgoing.following();
                self.handed_off_sending(StreamId(place as u8), at, now);
            }
        }
    }

    /// Sends a request; one that is still open is given up for it.
    pub(super) fn ask(&mut self, wish: Wish, now: Duration) {
        let Wish { target, reason, moves, figures } = wish;
        let Some(theirs) = self.generation.theirs.clone() else {
            return;
        };
        self.generation.numbers.requests.up();
        let sequence = self.generation.numbers.requests;
        let purpose = match target {
            Target::Path(Path::Direct) => Purpose::Handoff(moves.clone()),
            Target::Path(Path::Relay) => Purpose::Return,
            Target::Both(time) => Purpose::Compare(now.saturating_add(time)),
        };
        let transaction = self.random.transaction();
        let bytes = Request { sequence, target, reason, moves, figures }.write(&Envelope {
            transaction,
            receiver: &theirs.ufrag,
            sender: &self.generation.ours.ufrag,
            key: &theirs.key,
        });
        self.switching.request = Some(Outstanding::new(transaction, bytes, purpose, theirs.key, now));
    }

    pub(super) fn retry(&mut self, now: Duration) {
        while let Some(request) = &mut self.switching.request {
            match request.retry(now) {
                Retry::Wait => return,
                Retry::Failed => {
                    let purpose = request.purpose.clone();
                    self.switching.request = None;
                    match purpose {
                        Purpose::Return => {}
                        Purpose::Compare(_) => self.handoff_failed(now),
                        Purpose::Handoff(_) => self.handoff_unanswered(now),
                    }
                    return;
                }
                Retry::Send => {
                    let bytes = request.bytes.clone();
                    let by_relay = match request.purpose {
                        Purpose::Handoff(_) => false,
                        Purpose::Return => true,
                        Purpose::Compare(_) => {
                            !self.streams.iter().any(|stream| stream.direct_since.is_some())
                        }
                    };
                    let by_direct = !(by_relay && matches!(request.purpose, Purpose::Compare(_)));
                    if by_relay {
                        self.by_relay(bytes.clone(), now);
                    }
                    if by_direct && let Some(link) = &mut self.link {
                        link.sent(Packet::Other, now);
                        let (socket, remote) = (link.socket, link.remote);
                        self.transmit(socket, remote, bytes);
                    }
                }
            }
        }
    }
}
