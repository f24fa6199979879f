//! What becomes of the media path of two CRUSH endpoints, as the relay knows it: by what both tell it, and by the packets that
//! come or do not (`account.rs`). Nothing here moves media: endpoints do. Policy that changes is told to both in re-INVITEs of ours.

use std::time::Duration;

use bytes::Bytes;
use media_wire::handoff::{Report, Sending};
use media_wire::sdp::crush::Policy;
use media_wire::sdp::{Description, Place};
use seam::path::{Entry, HandoffReason, PathEntry, PathState, Reason};
use seam::{Endpoint, Event, ExchangeId, Renegotiated, Side};
use serde::{Deserialize, Serialize};
use smallvec::SmallVec;

use crate::account::{direct_since, mark};
use crate::clock::timed;
use crate::legs::{Answered, Leg, Session};
use crate::motion::scene::Scene;
use crate::motion::shell::{AGAIN, BUSY, Refusals, Shell};
use crate::moving::LONGEST_RINGING;
use crate::path::timeline::Timeline;
use crate::ports::StreamId;
use crate::stream::{Standing, Streams};

/// RTP on the relay for so long is no comparison (docs/crush.md §8.2), and whoever has not said in so long what it does will not.
const HOME: Duration = Duration::from_secs(3);
/// Between looks while media is on its way, and while it is not.
const TICK: Duration = Duration::from_millis(50);
const GLANCE: Duration = Duration::from_secs(1);
/// Endpoints keep the relay warm every 15 s: so long without either is no silence.
pub(crate) const LEAST_INACTIVITY: Duration = Duration::from_secs(60);

/// One endpoint.
#[derive(Debug, Serialize, Deserialize)]
struct End {
    endpoint: Endpoint,
    has_trickled: bool,
    /// What its description says may leave.
    told: Policy,
    /// Candidates of its did not pass: it must be asked for them by telling it once more, when they may.
    is_owed: bool,
    /// The wish that is open, what it says, and whether it asks for them.
    asked: Option<(u32, Policy, bool)>,
    retry: Duration,
    refusals: Refusals,
    /// It was noted that it does not say that it sends directly.
    is_unsaid: bool,
}

timed!(End { retry; endpoint, has_trickled, told, is_owed, asked, refusals, is_unsaid });

/// What an endpoint says of one m-line.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Claim {
    /// From 0.
    pub(super) line: u16,
    pub(super) report: Report,
}

/// See the module.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Handoff {
    ends: [End; 2],
    timeline: Timeline,
    state: PathState,
    /// Since when RTP is at the relay again, after it was direct.
    back: Option<Duration>,
    pub(crate) shell: Shell,
}

timed!(Handoff { ends, timeline, back, shell; state });

impl Handoff {
    /// The two parties of a session, if there are just two, and both take part: then their media is theirs to move, and is not released.
    pub(crate) fn ends_of(session: &Session) -> Option<[Endpoint; 2]> {
        session.selected?;
        let [(one, first), (other, second)] = session.legs.as_slice() else { return None };
        first.agreed.as_ref().and(second.agreed.as_ref())?;
        (first.handoff.takes_part() && second.handoff.takes_part()).then_some([*one, *other])
    }

    /// It goes on from what the session has behind it.
    pub(crate) fn begin(session: &mut Session, ends: [Endpoint; 2], now: Duration) -> Self {
        let past = session.past_moves.take().unwrap_or_default();
        let is_first = past.timeline.entries().is_empty();
        let timeline = if is_first { Timeline::new(now) } else { past.timeline };
        let end = |endpoint: Endpoint| End {
            endpoint,
            has_trickled: false,
            told: told_policy(session, endpoint),
            is_owed: false,
            asked: None,
            retry: now,
            refusals: Refusals::default(),
            is_unsaid: false,
        };
        Self {
            ends: ends.map(end),
            timeline,
            state: PathState::Anchored,
            back: None,
            shell: Shell::after(past.wishes, past.told, now),
        }
    }

    /// An exchange of theirs has told both: the answerer what held when it was asked.
    pub(crate) fn renegotiated(&mut self, session: &Session) {
        for end in &mut self.ends {
            (end.told, end.refusals) = (told_policy(session, end.endpoint), Refusals::default());
        }
    }

    /// The two parties are no more what they were; what happened stays told.
    pub(crate) fn end(mut self, id: u64, scene: &mut Scene<'_>) {
        let Scene { sessions, streams, now, .. } = scene;
        let Some(session) = sessions.get_mut(&id) else { return };
        let is_told = self.is_told_away(session, streams);
        self.timeline.account(session.reckon(is_told, streams, *now), *now);
        self.timeline.meter(false, *now);
        (session.away.is_away, session.away.is_told) = (false, false);
        mark(streams, session.stream_ids(), false);
        self.tell(id, scene.events, scene.now);
        if let Some(session) = scene.sessions.get_mut(&id) {
            session.past_moves = Some(self.shell.past(self.timeline));
        }
    }

    /// Candidates of an endpoint did not pass.
    pub(crate) fn kept_fragment(&mut self, from: Endpoint) {
        for end in &mut self.ends {
            end.is_owed |= end.endpoint == from;
        }
    }

    /// Candidates of an endpoint have reached its peer.
    pub(crate) fn trickled(&mut self, from: Endpoint, now: Duration) {
        for end in self.ends.iter_mut().filter(|end| end.endpoint == from) {
            // Each fragment says all that earlier ones said (RFC 8840 §4.4).
            (end.has_trickled, end.is_owed) = (true, false);
        }
        if self.state == PathState::Anchored && self.ends.iter().all(|end| end.has_trickled) {
            self.enter(PathState::Probing, Entry::State { to: PathState::Probing, why: Reason::Try }, now);
        }
    }

    /// RTP came to the relay after a while without: a comparison, or a return. When it is looked at next.
    #[cold]
    pub(crate) fn is_back(
        &mut self,
        session: &Session,
        streams: &Streams,
        before: Duration,
        now: Duration,
    ) -> Duration {
        let is_told = self.is_told_away(session, streams);
        let since = direct_since(before, is_told, session.streams(streams), now);
        self.timeline.account(since, now);
        if self.timeline.is_direct() {
            self.timeline.account(None, now);
            self.back = Some(now);
        }
        now.saturating_add(TICK)
    }

    /// Policy has something to say: who refused to hear it is told again.
    pub(crate) fn heed(&mut self, now: Duration) {
        self.ends.iter_mut().for_each(|end| (end.refusals, end.retry) = (Refusals::default(), now));
    }

    /// What became of a wish at one of its legs; false if it was none of its.
    pub(crate) fn answered(
        &mut self,
        session: &mut Session,
        Answered { wish, endpoint, outcome }: &Answered,
        now: Duration,
    ) -> bool {
        let Some(end) = self.ends.iter_mut().find(|end| end.endpoint == *endpoint) else { return false };
        let Some((_, policy, is_owed)) = end.asked.take_if(|asked| asked.0 == *wish) else { return false };
        end.is_owed |= is_owed && !matches!(outcome, Renegotiated::Accepted(_));
        match outcome {
            Renegotiated::Accepted(sdp) => {
                end.told = policy;
                if let Some(leg) = session.leg_mut(*endpoint) {
                    let answer = Description::parse(sdp.clone()).ok();
                    let theirs = answer.and_then(|answer| Some(answer.support?.ufrag.into()));
                    leg.handoff.agree(theirs);
                    leg.agreed = leg.offered.clone();
                }
            }
            Renegotiated::Superseded => end.retry = now.saturating_add(BUSY),
            Renegotiated::Refused(_) | Renegotiated::Offered { .. } => {
                end.refusals = end.refusals.and_another();
                end.retry = now.saturating_add(AGAIN);
            }
        }
        true
    }

    /// Looks at it: its time has come. When it comes again.
    pub(crate) fn look(&mut self, id: u64, scene: &mut Scene<'_>) -> Option<Duration> {
        self.tell_policy(id, scene);
        let now = scene.now;
        let session = scene.sessions.get_mut(&id)?;
        self.account(session, scene.streams, now);
        let due = self.next_look(session.away.is_away, now);
        self.tell(id, scene.events, now);
        Some(due)
    }

    /// Tells both what may leave the relay, if that is not what they were told.
    fn tell_policy(&mut self, id: u64, scene: &mut Scene<'_>) {
        let Scene { sessions, streams, settings, cname, now, .. } = scene;
        let Some(session) = sessions.get_mut(&id) else { return };
        // Their own exchange says it too.
        if session.exchanges.iter().any(|exchange| exchange.id != ExchangeId::INITIAL) {
            return;
        }
        let ends = self.endpoints();
        let [one, other] = ends;
        let policy = session.policy_between(one, other, settings);
        let may_trickle = session.may_trickle(ends, streams, settings);
        for (end, other) in self.ends.iter_mut().zip([other, one]) {
            let is_due = end.told != policy || (end.is_owed && may_trickle);
            let may_ask = end.asked.is_none() && !end.refusals.are_enough() && *now >= end.retry;
            if !is_due || !may_ask {
                continue;
            }
            session.write_support(id, [end.endpoint, other], true, settings);
            let leg = session.leg_mut(end.endpoint);
            let Some(sdp) = leg.and_then(|leg| leg.write_again(cname)) else { continue };
            let wish = self.shell.wish();
            end.asked = Some((wish, policy, std::mem::take(&mut end.is_owed)));
            let legs = vec![(end.endpoint, Some(sdp))];
            scene.events.push_back((id, Event::Renegotiate { wish, legs, deadline: LONGEST_RINGING }));
        }
    }

    /// Whether an endpoint has not answered yet what we told it.
    pub(crate) fn has_asked(&self) -> bool {
        self.ends.iter().any(|end| end.asked.is_some())
    }

    pub(crate) fn endpoints(&self) -> [Endpoint; 2] {
        self.ends.each_ref().map(|end| end.endpoint)
    }

    fn enter(&mut self, to: PathState, entry: Entry, now: Duration) {
        self.state = to;
        self.timeline.add(entry, now);
    }

    /// One of them said something new.
    pub(crate) fn claimed(
        &mut self,
        session: &Session,
        streams: &Streams,
        why: media_wire::handoff::Reason,
        now: Duration,
    ) {
        let legs = self.endpoints().map(|endpoint| session.leg(endpoint));
        let [Some(one), Some(other)] = legs else { return };
        let is_home = one.sends_by_relay() && other.sends_by_relay();
        let is_direct = self.have_left(session, streams);
        let to = match self.state {
            PathState::Anchored | PathState::Probing if !is_home => PathState::Synchronising,
            PathState::Direct if !is_direct && !is_home => PathState::Returning,
            PathState::Direct | PathState::Returning | PathState::Synchronising if is_home => {
                PathState::Anchored
            }
            _ => return,
        };
        self.enter(to, Entry::Handoff { to, why: told(why) }, now);
    }

    /// Whether both say that all that they were told may leave is direct.
    fn have_left(&self, session: &Session, streams: &Streams) -> bool {
        self.ends
            .iter()
            .all(|end| session.leg(end.endpoint).is_some_and(|leg| leg.sends_directly(end.told, streams)))
    }

    /// Whether an end says that it sends something directly that could have been at the relay. Audio that is to stay is there, or
    /// silent, whatever is said of the video.
    fn is_told_away(&self, session: &Session, streams: &Streams) -> bool {
        self.ends.iter().filter_map(|end| session.leg(end.endpoint)).any(|leg| {
            let lines = leg.streams.iter().zip(&leg.handoff.lines);
            lines.filter(|(_, line)| line.sending == Some(Sending::Direct)).any(|(stream, _)| {
                !self.is_split() || stream.is_some_and(|stream| !is_video(stream, streams))
            })
        })
    }

    /// What one of them says, or its reports count, and what both say; no packet says otherwise.
    fn account(&mut self, session: &mut Session, streams: &mut Streams, now: Duration) {
        let is_out = |line: &super::Line| line.sending.is_some_and(|sending| sending != Sending::Relay);
        let legs = || self.ends.iter().filter_map(|end| session.leg(end.endpoint));
        let may_be_elsewhere = legs().any(|leg| leg.handoff.lines.iter().any(is_out));
        mark(streams, session.stream_ids(), may_be_elsewhere);
        let is_told = self.is_told_away(session, streams);
        self.timeline.account(session.reckon(is_told, streams, now), now);
        let is_direct = self.timeline.is_direct();
        if self.timeline.direct_for(now) > HOME {
            self.note_unsaid(session, now);
        }
        if self.have_left(session, streams) {
            // All that may leave has left by their words; of what is to stay nothing can be missing here.
            if self.state != PathState::Direct && (is_direct || self.is_split()) {
                let (to, why) = (PathState::Direct, HandoffReason::Synchronised);
                self.enter(to, Entry::Handoff { to, why }, now);
            }
        } else if is_direct && !matches!(self.state, PathState::Direct | PathState::Returning) {
            // One of them has said that it returns, and its packets are on their way: that is no news of the direct path.
            let (to, why) = (PathState::Direct, Reason::Counted);
            self.enter(to, Entry::State { to, why }, now);
        } else if self.state == PathState::Direct
            && self.back.is_some_and(|back| now > back.saturating_add(HOME))
            && !is_direct
            && !is_told
        {
            // They never said that it was direct, and will not say that it is back.
            let (to, why) = (PathState::Anchored, Reason::Heard);
            self.enter(to, Entry::State { to, why }, now);
        }
        if is_direct {
            self.back = None;
        }
    }

    /// Whoever does not say that it sends directly, in a call that is direct: once for each.
    fn note_unsaid(&mut self, session: &Session, now: Duration) {
        for (party, end) in Side::BOTH.into_iter().zip(&mut self.ends) {
            let Some(leg) = session.leg(end.endpoint) else { continue };
            let mut said = leg.handoff.lines.iter().filter_map(|line| line.sending).peekable();
            let contradicts = said.peek().is_some();
            let says_so = said.any(|sending| sending != Sending::Relay);
            if !says_so && !std::mem::replace(&mut end.is_unsaid, true) {
                self.timeline.add(Entry::Unsaid { party, contradicts }, now);
            }
        }
    }

    /// Its audio is to stay: no silence at the relay is waited for.
    fn is_split(&self) -> bool {
        self.ends.iter().any(|end| end.told == Policy::VideoOnly)
    }

    fn next_look(&self, is_away: bool, now: Duration) -> Duration {
        let waits = self.ends.iter().any(|end| end.retry > now && !end.refusals.are_enough());
        let is_moving = matches!(self.state, PathState::Synchronising | PathState::Returning)
            || (self.state == PathState::Direct && !is_away && !self.is_split());
        now.saturating_add(if is_moving || waits { TICK } else { GLANCE })
    }

    /// Tells what is new in the timeline.
    fn tell(&mut self, id: u64, events: &mut std::collections::VecDeque<(u64, Event)>, now: Duration) {
        events.extend(self.timeline.new_reading(now).map(|reading| (id, reading.into())));
        for (after, entry) in self.shell.news(&self.timeline) {
            events.push_back((
                id,
                Event::Path(PathEntry { after: *after, entry: *entry, parties: self.endpoints() }),
            ));
        }
        self.shell.has_told(&self.timeline);
    }
}

/// What its last description said of what may leave.
fn told_policy(session: &Session, endpoint: Endpoint) -> Policy {
    session.leg(endpoint).map_or(Policy::Relay, |leg| leg.handoff.policy)
}

impl Leg {
    /// Its endpoint says where the packets of one m-line go; why, if that is news.
    pub(crate) fn claims(&mut self, Claim { line, report }: Claim) -> Option<media_wire::handoff::Reason> {
        let known = &mut self.handoff.line_mut(line)?.sending;
        (known.replace(report.sending) != Some(report.sending)).then_some(report.reason)
    }

    /// What it agreed on last, with another `a=crush`.
    fn write_again(&mut self, cname: &str) -> Option<Bytes> {
        let description = Description::parse(self.agreed.clone()?).ok()?;
        let places: SmallVec<[Option<Place>; 2]> = description
            .media
            .iter()
            .map(|media| Some(Place { rtcp_mux: media.rtcp_mux, ..Place::at(media.rtp?) }))
            .collect();
        let ice = self.ice_lines(&places, None, true);
        let sdp = self.write(&description, &places, &ice, cname);
        self.offered = Some(sdp.clone());
        Some(sdp)
    }

    /// Whether what may leave by this policy is there, and direct as far as its endpoint says.
    fn sends_directly(&self, policy: Policy, streams: &Streams) -> bool {
        let is_direct = |place: usize| {
            self.handoff.lines.get(place).is_some_and(|line| line.sending == Some(Sending::Direct))
        };
        let may_leave = |id: StreamId| policy != Policy::VideoOnly || is_video(id, streams);
        let lines = self.streams.iter().enumerate();
        let mut leaving =
            lines.filter(|(_, id)| id.is_some_and(may_leave)).map(|(place, _)| place).peekable();
        leaving.peek().is_some() && leaving.all(is_direct)
    }

    /// Whether video was agreed on.
    pub(super) fn has_video(&self, streams: &Streams) -> bool {
        self.streams.iter().flatten().any(|id| is_video(*id, streams))
    }

    fn sends_by_relay(&self) -> bool {
        self.handoff.lines.iter().all(|line| line.sending.is_none_or(|sending| sending == Sending::Relay))
    }
}

fn is_video(id: StreamId, streams: &Streams) -> bool {
    streams
        .get(id)
        .is_some_and(|stream| &*stream.terms.kind == "video" && stream.standing != Standing::Refused)
}

/// In the words of records.
fn told(why: media_wire::handoff::Reason) -> HandoffReason {
    use media_wire::handoff::Reason;
    match why {
        Reason::Synchronised => HandoffReason::Synchronised,
        Reason::Missing => HandoffReason::Missing,
        Reason::Quality => HandoffReason::Quality,
        Reason::Policy => HandoffReason::Policy,
        Reason::Network => HandoffReason::Network,
        Reason::Consent => HandoffReason::Consent,
        Reason::Comparison => HandoffReason::Comparison,
        Reason::Application => HandoffReason::Application,
    }
}
