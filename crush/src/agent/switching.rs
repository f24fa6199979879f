//! Which path our peer should send on: decided here, from what both are like (docs/crush.md §6 and §8).

use std::net::SocketAddr;
use std::time::Duration;

use media_wire::handoff::{Figures, Indication, Move, Path, Reason, Target};
use media_wire::sdp::crush::Policy;

use super::incoming::{FIRST_HOLD_OFF, FOR_GOOD, Incoming, MOST_COPIES, Peer, Wish};
use super::link::{Link, Stake};
use super::stream::Stream;
use super::{Agent, Event, Output, SocketId};
use crate::count::Count;
use crate::find::Check;
use crate::sync::rating;

const LONGEST_HOLD_OFF: Duration = Duration::from_secs(60);
/// So long on the direct path, and the hold-off begins anew.
const FORGIVEN: Duration = Duration::from_secs(300);
/// Copies for a later one.
const LATER_COPIES: Duration = Duration::from_secs(2);
/// Between comparisons.
const COMPARISONS: Duration = Duration::from_secs(15);
/// Copies of a comparison.
const COMPARISON: Duration = Duration::from_secs(1);
/// Points of rating by which the other path must be better.
const MARGIN: f64 = 5.0;
/// Packets, and time, that synchronise.
const LEAST_PACKETS: u32 = 10;
const LEAST_TIME: Duration = Duration::from_millis(180);
/// Packets without which a comparison says nothing.
const LEAST_EVIDENCE: f64 = 25.0;
/// Handoffs in a row that nobody answers, after which the pair is given up.
const MOST_UNANSWERED: u8 = 2;
/// Loss that the direct path may have beyond the relay's.
const MORE_LOSS: f64 = 0.05;

impl Agent {
    /// The search has ended: copies begin.
    pub(super) fn found(
        &mut self,
        socket: SocketId,
        remote: SocketAddr,
        round_trip: Duration,
        now: Duration,
    ) {
        let extra = std::mem::take(&mut self.generation.extra);
        for other in extra {
            if other == socket {
                self.generation.extra.push(other);
            } else {
                self.outputs.push_back(Output::CloseSocket(other));
            }
        }
        self.generation.families.stop();
        self.generation.measure = None;
        self.link = Some(Link::new(socket, remote, round_trip, now));
        self.switching.tests = Default::default();
        self.switching.rests_until = Duration::ZERO;
        let until = now.saturating_add(MOST_COPIES);
        self.copy_until(until);
        for stream in self.streams.iter_mut().filter(|stream| stream.is_audio()) {
            stream.comparison.restart(Path::Relay);
        }
        let not_before = match self.switching.incoming {
            Incoming::Relay { not_before, .. } => not_before.max(now),
            _ => now,
        };
        self.switching.incoming = Incoming::Relay { not_before, copies_until: until };
        self.event(Event::Found { socket, remote, round_trip });
    }

    /// Whether both paths are synchronised, and what they are like.
    fn synchronised(&self, now: Duration) -> Option<Figures> {
        let audio = self.streams.iter().filter(|stream| stream.is_audio());
        let most = audio
            .map(|stream| &stream.comparison)
            .chain([&self.switching.tests])
            .max_by_key(|one| one.compared())?;
        let figures = most.figures();
        let enough = most.compared() >= LEAST_PACKETS && most.span(now) >= LEAST_TIME;
        let good = figures.direct_loss <= figures.relay_loss + MORE_LOSS
            && figures.differential_ms <= self.config.slowest.as_secs_f64() * 1000.0;
        let held = self.streams.iter().all(|stream| stream.holds_direct());
        (enough && good && held).then_some(figures)
    }

    pub(super) fn decide(&mut self, now: Duration) {
        self.wake_if_due(now);
        if self.link.is_none() || self.leg.policy() == Policy::Relay || self.switching.is_resting() {
            return;
        }
        match self.switching.incoming {
            Incoming::Relay { not_before, copies_until } => {
                if now < not_before {
                    return;
                }
                if now < copies_until {
                    self.hand_off(now);
                } else if self.switching.request.is_none() {
                    self.ask(Wish::new(Target::Both(LATER_COPIES), Reason::Comparison), now);
                    self.restart_comparison(Path::Relay);
                    // If nothing comes of it: again later.
                    let not_before = now;
                    self.switching.incoming =
                        Incoming::Relay { not_before, copies_until: now.saturating_add(LATER_COPIES) };
                    self.retry(now);
                }
            }
            Incoming::Asked => {}
            Incoming::Direct { since, compare_at, comparing_until, worse } => {
                if now >= since.saturating_add(FORGIVEN) {
                    (self.switching.hold_off, self.switching.has_returned) = (FIRST_HOLD_OFF, false);
                }
                match comparing_until {
                    None if now >= compare_at && self.switching.request.is_none() => {
                        self.ask(Wish::new(Target::Both(COMPARISON), Reason::Comparison), now);
                        self.restart_comparison(Path::Direct);
                        let end = now.saturating_add(COMPARISON);
                        let until = Some(end.saturating_add(Duration::from_millis(300)));
                        // The request may be repeated, and the copies come so much later.
                        self.switching.copies_expected_until = end.saturating_add(Duration::from_secs(4));
                        self.switching.incoming =
                            Incoming::Direct { since, compare_at, comparing_until: until, worse };
                        self.retry(now);
                    }
                    Some(until) if now >= until => {
                        let worse = if self.relay_is_better() { worse.saturating_add(1) } else { 0 };
                        let compare_at = now.saturating_add(COMPARISONS);
                        self.switching.incoming =
                            Incoming::Direct { since, compare_at, comparing_until: None, worse };
                        if worse >= 2 {
                            self.return_all(Reason::Quality, Peer::IsTold, now);
                            self.retry(now);
                        }
                    }
                    _ => {}
                }
            }
        }
    }

    fn hand_off(&mut self, now: Duration) {
        let Some(figures) = self.synchronised(now) else {
            return;
        };
        let moves = self.all_moves();
        if moves.is_empty() || self.switching.request.is_some() {
            return;
        }
        self.event(Event::Synchronised(figures));
        let wish = Wish::new(Target::Path(Path::Direct), Reason::Synchronised);
        self.ask(Wish { moves, figures: Some(figures), ..wish }, now);
        self.switching.incoming = Incoming::Asked;
        self.retry(now);
    }

    fn restart_comparison(&mut self, in_use: Path) {
        self.switching.tests = Default::default();
        self.streams.iter_mut().for_each(|stream| stream.comparison.restart(in_use));
    }

    /// R of both paths from the newest comparison.
    fn relay_is_better(&self) -> bool {
        let Some(link) = &self.link else {
            return false;
        };
        // Audio that stays is on one path alone: then test packets have been on both.
        let audio = self.streams.iter().filter(|stream| stream.is_audio());
        let compared = audio.map(|stream| &stream.comparison).chain([&self.switching.tests]);
        let Some(comparison) = compared.max_by_key(|one| one.compared()) else {
            return false;
        };
        let packets = f64::from(comparison.compared());
        if packets < LEAST_EVIDENCE {
            return false;
        }
        let figures = comparison.figures();
        // One lost packet of 50 is 7 points: of the loss, only what is certain (two standard deviations) counts.
        let deviation = (figures.direct_loss * (1.0 - figures.direct_loss) / packets.min(50.0)).sqrt();
        let direct_loss = (figures.direct_loss - 2.0 * deviation).max(0.0);
        let direct_delay = link.round_trip.as_secs_f64() * 500.0;
        let direct = rating(direct_delay, figures.direct_jitter_ms, direct_loss);
        let relay_delay = (direct_delay - figures.differential_ms).max(0.0);
        let relay = rating(relay_delay, figures.relay_jitter_ms, figures.relay_loss);
        relay > direct + MARGIN
    }

    /// The peer agreed to send directly.
    pub(super) fn now_direct(&mut self, now: Duration) {
        let (since, compare_at) = (now, now.saturating_add(COMPARISONS));
        self.switching.incoming = Incoming::Direct { since, compare_at, comparing_until: None, worse: 0 };
        self.show_direct(now);
    }

    /// The peer refused, or did not answer.
    pub(super) fn handoff_failed(&mut self, now: Duration) {
        if !matches!(self.switching.incoming, Incoming::Direct { .. }) {
            let not_before = now.saturating_add(self.switching.hold_off);
            self.switching.incoming = Incoming::Relay { not_before, copies_until: now };
        }
    }

    /// Checks pass, and HANDOFF does not: the ends may have settled for different pairs, which only a new search mends.
    pub(super) fn handoff_unanswered(&mut self, now: Duration) {
        self.handoff_failed(now);
        self.switching.unanswered.up();
        if self.switching.unanswered == MOST_UNANSWERED {
            self.switching.unanswered = 0;
            self.restart(now);
        }
    }

    /// Once all that may is direct both ways.
    pub(super) fn show_direct(&mut self, now: Duration) {
        let Some(link) = &self.link else {
            return;
        };
        let mut leaving =
            self.streams.iter().zip(0u8..).filter(|(_, index)| self.may_leave(*index)).peekable();
        let all = leaving.peek().is_some()
            && leaving.all(|(stream, _)| stream.outgoing.is_direct() && stream.direct_since.is_some());
        if self.story.is_direct || !all {
            return;
        }
        self.story.is_direct = true;
        let round_trip = link.round_trip;
        let after = now.saturating_sub(self.story.on_relay_since.unwrap_or(now));
        self.event(Event::Direct { after, round_trip, effort: self.effort() });
    }

    /// The peer sends through the relay although it had left it: it has returned.
    pub(super) fn came_by_relay(&mut self, now: Duration) {
        if matches!(self.switching.incoming, Incoming::Direct { .. })
            && now >= self.switching.copies_expected_until
        {
            self.return_all(Reason::Missing, Peer::Knows, now);
        }
    }

    /// Everything to the relay, both ways as far as it is ours to say.
    pub(super) fn return_all(&mut self, reason: Reason, peer: Peer, now: Duration) {
        let receiving = self.streams.iter().any(|stream| stream.direct_since.is_some());
        let sending = self.streams.iter().any(|stream| stream.outgoing.is_direct());
        let linked = self.link.is_some();
        let mut again = Vec::new();
        for stream in &mut self.streams {
            if stream.outgoing.is_direct() && reason != Reason::Policy && reason != Reason::Quality {
                let way = stream.relay.map(|relay| (stream.setup.socket, relay));
                again.extend(stream.resend(now).filter_map(|packet| Some((way?, packet))));
            }
            stream.outgoing.return_to_relay();
            stream.back_on_relay();
        }
        for ((socket, relay), packet) in again {
            self.transmit(socket, relay, packet);
        }
        let has_left = receiving || sending;
        if has_left {
            self.switching.hold_off_longer(LONGEST_HOLD_OFF);
        }
        let not_before = match self.switching.incoming {
            Incoming::Relay { not_before, .. } if !has_left => not_before,
            _ => now.saturating_add(self.switching.hold_off),
        };
        self.switching.incoming = Incoming::Relay { not_before, copies_until: now };
        self.switching.request = None;
        self.switching.tests_until = Duration::ZERO;
        if peer == Peer::IsTold && (linked || receiving || sending) {
            self.ask(Wish::new(Target::Path(Path::Relay), reason), now);
        }
        if has_left {
            self.switching.returned = reason;
            let lasted = now.saturating_sub(self.story.left.take().unwrap_or(now));
            let gap = self.link.as_ref().map(|link| now.saturating_sub(link.live.heard()));
            self.event(Event::Returned { reason, lasted, gap });
            self.story.on_relay_since = Some(now);
        }
        self.story.is_direct = false;
        if let Some(link) = &mut self.link {
            link.try_again(now);
        }
    }

    /// Policy changed, or was heard again.
    pub(super) fn obey_policy(&mut self, now: Duration) {
        let is_held = self.leg.policy() == Policy::Relay;
        let was_held = std::mem::replace(&mut self.leg.is_held, is_held);
        if (self.link.is_none() || was_held) && !is_held {
            if was_held && !self.generation.candidates.is_empty() {
                // What was known before may be stale (a pair too, which has been left alone since), and what was said since may not have
                // passed.
                self.generation.finder.forget_reach();
                self.begin_generation(now);
            }
            self.gather(now);
            // The SBC may have kept what it was told while it thought otherwise.
            self.generation.trickled.clear();
            self.trickle_soon(now);
        }
        let may_leave: Vec<bool> = (0..self.streams.len() as u8).map(|index| self.may_leave(index)).collect();
        let is_astray = |(stream, may_leave): (&Stream, &bool)| {
            !may_leave && (!stream.outgoing.is_on_relay() || stream.direct_since.is_some())
        };
        let is_asked = |one: &Move| !may_leave.get(usize::from(one.stream)).is_some_and(|may| *may);
        let astray = self.streams.iter().zip(&may_leave).any(is_astray)
            || self.switching.request.as_ref().is_some_and(|request| request.moves().iter().any(is_asked));
        // Copies end too, of which the state of a stream does not tell.
        if astray || (is_held && !was_held) {
            self.return_all(Reason::Policy, Peer::IsTold, now);
            self.retry(now);
        }
        if is_held {
            self.switching.rest(FOR_GOOD);
        }
    }

    /// Consent, keepalives, test packets, and whether packets are missing.
    pub(super) fn keep_link(&mut self, now: Duration) {
        if self.switching.is_resting() {
            return;
        }
        let receiving = matches!(self.switching.incoming, Incoming::Direct { .. });
        let Some(link) = &mut self.link else {
            return;
        };
        if receiving && now >= link.live.missing_at(link.round_trip) {
            self.return_all(Reason::Missing, Peer::IsTold, now);
            self.retry(now);
            return;
        }
        if now >= link.consent_expires() {
            self.return_all(Reason::Consent, Peer::IsTold, now);
            self.retry(now);
            self.restart(now);
            return;
        }
        let on_trial = matches!(self.switching.incoming, Incoming::Relay { .. });
        if on_trial && now >= link.dead_at() {
            self.restart(now);
            return;
        }
        let Some(theirs) = self.generation.theirs.clone() else {
            return;
        };
        let (socket, remote) = (link.socket, link.remote);
        let stake = Stake::of(receiving);
        if now >= link.check_at(stake) {
            let transaction = self.random.transaction();
            link.checked(transaction, stake, &mut self.random, now);
            let bytes = self.check(transaction, Check::Plain, &theirs);
            self.transmit(socket, remote, bytes);
        }
        self.send_tests(now);
        let Some(link) = &mut self.link else {
            return;
        };
        if now >= link.keepalive_at() {
            link.kept_alive(now);
            let bytes = self.indication_bytes(Indication::Keepalive);
            self.transmit(socket, remote, bytes);
        }
    }

    /// The path is dead: everything begins anew.
    fn restart(&mut self, now: Duration) {
        self.begin_generation(now);
        self.gather(now);
    }

    pub(super) fn link_timeout(&self) -> Option<Duration> {
        if self.switching.is_resting() {
            return self.rest_timeout();
        }
        let link = self.link.as_ref()?;
        let receiving = matches!(self.switching.incoming, Incoming::Direct { .. });
        let missing = receiving.then(|| link.live.missing_at(link.round_trip));
        let tests = self.tests_timeout();
        let dead = matches!(self.switching.incoming, Incoming::Relay { .. }).then(|| link.dead_at());
        let always = [link.consent_expires(), link.check_at(Stake::of(receiving)), link.keepalive_at()];
        [missing, tests, dead].into_iter().flatten().chain(always).min()
    }

    pub(super) fn decision_timeout(&self) -> Option<Duration> {
        self.link.as_ref()?;
        if self.leg.policy() == Policy::Relay || self.switching.is_resting() {
            return None;
        }
        match self.switching.incoming {
            Incoming::Relay { not_before, copies_until } if self.switching.request.is_none() => {
                Some(copies_until.max(not_before))
            }
            Incoming::Relay { .. } | Incoming::Asked => None,
            Incoming::Direct { compare_at, comparing_until, .. } => match comparing_until {
                Some(until) => Some(until),
                None => self.switching.request.is_none().then_some(compare_at),
            },
        }
    }

    /// The path is of use again, or may be: as if it had just been found.
    pub(super) fn wake(&mut self, now: Duration) {
        if std::mem::take(&mut self.switching.rests_until).is_zero() {
            return;
        }
        if let Some(link) = &mut self.link {
            link.found_again(now);
        }
    }

    /// A rest of its time is over.
    pub(super) fn wake_if_due(&mut self, now: Duration) {
        if now >= self.switching.rests_until {
            self.wake(now);
        }
    }

    pub(super) fn rest_timeout(&self) -> Option<Duration> {
        self.link.as_ref()?;
        Some(self.switching.rests_until).filter(|until| !until.is_zero() && *until < FOR_GOOD)
    }
}
