//! What reports prove of one direction (RFC 3550 §6.4): the sender's packets pass the relay no more, the receiver's
//! reports still do, and they say how far the sender's sequence numbers have come.

use std::time::Duration;

use media_wire::rtcp::Silence;
use seam::path::{Evidence, Lie};
use serde::{Deserialize, Serialize};

use super::counted::{Counted, later};
use super::phone::REPORT_INTERVAL;
use crate::clock::timed;

/// A report that is this far ahead of the last packet that the relay saw of the stream can only be of direct packets;
/// a little slack, for phones that count in a way of their own.
pub(super) const AHEAD: i32 = 2;
/// A report that is this far behind what its sender says to have sent refutes the path: half a second of most streams, longer
/// than packets and reports can be on their way.
const BEHIND: i64 = 25;
/// Who throws away what it has counted does it with the first packet after so long a silence: what was sent meanwhile, if anything
/// was, has not arrived.
const REST: Duration = Duration::from_secs(5);
/// Reports that leave so many packets open between them say no more together than the last one alone.
const HOLES: u32 = 150;
/// Jitter of so many seconds is a lie.
pub(super) const ABSURD_JITTER_SECONDS: u32 = 10;

/// A reception report about the direction's stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Reception {
    /// Whose packets.
    pub ssrc: u32,
    /// Extended highest sequence number received.
    pub highest: u32,
    /// Cumulative number of packets lost, signed 24 bits.
    pub lost: i32,
    /// Interarrival jitter, in clock units.
    pub jitter: u32,
}

/// What a report says of the path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// Packets arrive that the relay did not carry.
    Confirmed,
    /// They must have been sent, and did not arrive.
    Refuted,
    /// Neither yet.
    Open,
    /// The report can't be true, or is not about this stream.
    Lie(Lie),
}

/// That its receiver hears nobody: what it had reported before is all that it knew then, too.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
struct Unheard {
    /// What was sent from then on has not come ...
    since: Duration,
    at: Duration,
    /// ... but for so many packets at most.
    but: u32,
}

timed!(Unheard { since, at; but });

impl Unheard {
    /// How many must have been sent and not have come.
    fn missed(&self, counted: &Counted) -> i64 {
        i64::from(counted.sent_between(self.since, self.at)).saturating_sub(self.but.into())
    }

    /// What its last report says alone.
    fn lately(self) -> Self {
        Self { since: self.since.max(self.at.saturating_sub(REST)), but: 1, ..self }
    }
}

/// One direction while its packets are not seen.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Proof {
    ssrc: u32,
    clock_rate: u32,
    /// The last packet that is known to have been sent, and when: the relay saw it, or a report confirmed it. `None` of a source
    /// that has begun off the relay, until it is reported.
    mark: Option<u16>,
    /// The last packet that the relay had seen when it was moved.
    moved: Option<u16>,
    marked_at: Duration,
    relayed_at: Duration,
    /// Highest sequence number and loss of the receiver's latest report, and when it came.
    latest: Option<(u32, i32, Duration)>,
    /// Its receiver last said that it hears nobody.
    unheard: Option<Unheard>,
    confirmed_at: Option<Duration>,
    confirmed_last: Option<Duration>,
}

timed!(Proof { marked_at, relayed_at, latest, unheard, confirmed_at, confirmed_last; ssrc, clock_rate, mark, moved });

impl Proof {
    /// Of a stream whose packets the relay has seen until now; `sequence` is the last.
    pub fn new(ssrc: u32, clock_rate: u32, sequence: u16, now: Duration) -> Self {
        Self {
            ssrc,
            clock_rate: clock_rate.max(1),
            mark: Some(sequence),
            moved: Some(sequence),
            marked_at: now,
            relayed_at: now,
            latest: None,
            unheard: None,
            confirmed_at: None,
            confirmed_last: None,
        }
    }

    /// Whose packets.
    pub fn ssrc(&self) -> u32 {
        self.ssrc
    }

    /// Its sender says that it is another source now (RFC 3550 §8.2): of that one the relay has seen nothing.
    pub fn begin_anew(&mut self, ssrc: u32, now: Duration) {
        (self.ssrc, self.mark, self.marked_at, self.latest) = (ssrc, None, now, None);
        (self.moved, self.unheard) = (None, None);
    }

    /// The last packet that the relay had seen when its sender was moved.
    pub fn moved(&self) -> Option<u16> {
        self.moved
    }

    /// The last packet that is known to have been sent.
    pub fn mark(&self) -> Option<u16> {
        self.mark
    }

    /// The relay saw one more packet of it after all.
    pub fn relayed(&mut self, sequence: u16, now: Duration) {
        (self.mark, self.marked_at, self.relayed_at) = (Some(sequence), now, now);
    }

    /// When the relay last saw a packet.
    pub fn last_relayed(&self) -> Duration {
        self.relayed_at
    }

    /// When it was last known that it goes on.
    pub fn marked_at(&self) -> Duration {
        self.marked_at
    }

    /// When the path was first confirmed.
    pub fn confirmed_at(&self) -> Option<Duration> {
        self.confirmed_at
    }

    /// Whether packets have arrived on the path since then.
    pub fn is_confirmed_since(&self, since: Duration) -> bool {
        self.confirmed_last.is_some_and(|at| at >= since)
    }

    /// Packets lost by the receiver's count, of its latest report.
    pub fn lost(&self) -> Option<i32> {
        self.latest.map(|latest| latest.1)
    }

    /// What a report that came at this time is weighed against: what must have been sent by then.
    pub fn evidence(&self, report: &Reception, counted: &Counted, at: Duration) -> Evidence {
        let highest = report.highest as u16;
        let mark = self.mark.unwrap_or(highest);
        let due = counted.sent_by(at).map_or(0, |sent| later(sent, mark));
        Evidence { ahead: later(highest, mark) as i32, due: due.max(0) }
    }

    fn is_behind(number: u16, counted: &Counted, at: Duration) -> bool {
        counted.sent_by(at).is_some_and(|sent| later(sent, number) >= BEHIND)
    }

    /// The sender has told how much it has sent, and so perhaps that it was more than the receiver knew of when it last reported, if
    /// only that it hears nobody.
    pub fn is_refuted_by(&self, counted: &Counted) -> Option<Evidence> {
        let (number, at) = self.known()?;
        self.refute(number, counted, at)
    }

    /// The receiver reports that it hears nobody.
    pub fn heard_nothing(&mut self, silence: Silence, counted: &Counted, now: Duration) -> Option<Evidence> {
        let reported = self.latest.map(|latest| latest.2).unwrap_or_default();
        let (since, but) = match silence {
            // Its report before may be lost, and have told that all had come.
            Silence::LastReport => (reported.max(now.saturating_sub(REPORT_INTERVAL)), 0),
            Silence::CountedAnew => match self.unheard.filter(|before| before.at > reported) {
                None => (now, 0),
                // Not even one that made it count anew once more came between the two but at the end of five silent seconds; what was
                // sent before those, if they do not reach back so far, may have.
                Some(before) => {
                    let untold = now.saturating_sub(REST).saturating_sub(before.at);
                    let most = counted.most(untold).map_or(u32::MAX, u32::from);
                    let but = before.but.saturating_add(1).saturating_add(most);
                    if but < HOLES { (before.since, but) } else { (now.saturating_sub(REST), 1) }
                }
            },
        };
        self.unheard = Some(Unheard { since, at: now, but });
        let (number, at) = self.known()?;
        self.refute(number, counted, at)
    }

    /// The last number that the receiver knew of, and when it last said so.
    fn known(&self) -> Option<(u16, Duration)> {
        let reported = self.latest.map(|latest| latest.2);
        let at = reported.into_iter().chain(self.unheard.map(|unheard| unheard.at)).max()?;
        let number = self.latest.map(|latest| latest.0 as u16).or(self.mark)?;
        Some((number, at))
    }

    fn refute(&self, number: u16, counted: &Counted, at: Duration) -> Option<Evidence> {
        let report = Reception { ssrc: self.ssrc, highest: number.into(), lost: 0, jitter: 0 };
        // That it has heard nobody refutes by what must have been sent in the time of which it tells that.
        let unheard = self.unheard.filter(|unheard| unheard.at == at);
        let may_have_come = unheard.is_some_and(|unheard| {
            unheard.missed(counted) < BEHIND && unheard.lately().missed(counted) < BEHIND
        });
        let is_missed = !may_have_come && Self::is_behind(number, counted, at);
        is_missed.then(|| self.evidence(&report, counted, at))
    }

    /// What the receiver reports.
    pub fn reception(&mut self, report: &Reception, counted: &mut Counted, now: Duration) -> Verdict {
        if report.ssrc != self.ssrc {
            return Verdict::Lie(Lie::Source);
        }
        if report.jitter.checked_div(self.clock_rate).unwrap_or(report.jitter) >= ABSURD_JITTER_SECONDS {
            return Verdict::Lie(Lie::Jitter);
        }
        if let Some((latest, ..)) = self.latest
            && (report.highest.wrapping_sub(latest) as i32) < 0
        {
            return Verdict::Lie(Lie::Backwards);
        }
        let number = report.highest as u16;
        // Of a source that has never passed the relay any packet at all has come directly.
        let ahead = self.mark.map_or(i64::MAX, |mark| later(number, mark));
        let elapsed = now.saturating_sub(self.marked_at).as_secs_f64();
        // Half as much again and a second's worth: bursts and other packet times are allowed, fables are not.
        if self.mark.is_some() && ahead as f64 > (elapsed * 1.5 + 1.0) * counted.peak() + 50.0 {
            return Verdict::Lie(Lie::TooMany);
        }
        self.latest = Some((report.highest, report.lost, now));
        if Self::is_behind(number, counted, now) {
            return Verdict::Refuted;
        }
        let goes_on = ahead > i64::from(AHEAD);
        counted.reaches(number, goes_on, now);
        if goes_on {
            self.confirmed_at.get_or_insert(now);
            self.confirmed_last = Some(now);
            // From here on: clocks drift, and an hour's drift would be taken for loss.
            (self.mark, self.marked_at) = (Some(number), now);
            return Verdict::Confirmed;
        }
        Verdict::Open
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MOVED: Duration = Duration::from_secs(10);

    fn after(milliseconds: u64) -> Duration {
        MOVED + Duration::from_millis(milliseconds)
    }

    /// Moved when 65 530 had passed the relay, the 1000th packet.
    struct Call {
        proof: Proof,
        counted: Counted,
    }

    impl Call {
        fn new() -> Self {
            let mut counted = Counted::default();
            counted.says(1_000, Some((65_530, MOVED)), MOVED);
            Self { proof: Proof::new(7, 8000, 65_530, MOVED), counted }
        }

        /// So many in all, by its sender's report.
        fn says(&mut self, packets: u32, milliseconds: u64) -> Option<Evidence> {
            self.counted.says(packets, None, after(milliseconds));
            self.proof.is_refuted_by(&self.counted)
        }

        fn hears(&mut self, report: Reception, milliseconds: u64) -> Verdict {
            self.proof.reception(&report, &mut self.counted, after(milliseconds))
        }
    }

    fn report(highest: u32) -> Reception {
        Reception { ssrc: 7, highest, lost: 0, jitter: 8 }
    }

    #[test]
    fn a_report_past_the_last_relayed_packet_confirms_over_the_wrap() {
        let mut call = Call::new();
        assert_eq!(call.hears(report(65_532), 60), Verdict::Open, "within the slack");
        assert_eq!(call.hears(report(65_536 + 4), 200), Verdict::Confirmed);
        assert_eq!(call.proof.confirmed_at(), Some(after(200)));
    }

    #[test]
    fn a_report_that_stands_still_refutes_once_25_packets_are_missing_by_the_senders_count() {
        let mut call = Call::new();
        assert_eq!(
            call.hears(report(65_530), 5_000),
            Verdict::Open,
            "nobody has said that anything was sent"
        );
        assert_eq!(call.says(1_029, 5_100), None);
        assert_eq!(call.hears(report(65_530), 5_200), Verdict::Open);
        assert_eq!(call.says(1_030, 5_300), None, "what was sent just now is on its way");
        assert_eq!(call.hears(report(65_530), 5_400), Verdict::Refuted);
    }

    #[test]
    fn a_senders_report_refutes_by_what_it_must_have_sent_before_the_receivers_last() {
        let mut call = Call::new();
        assert_eq!(call.hears(report(65_530 + 250), 5_000), Verdict::Confirmed);
        assert_eq!(call.hears(report(65_530 + 260), 10_000), Verdict::Confirmed);
        assert_eq!(call.says(1_500, 10_100).map(|evidence| evidence.due), Some(230));
        let mut call = Call::new();
        assert_eq!(call.hears(report(65_530 + 250), 5_000), Verdict::Confirmed);
        assert_eq!(call.hears(report(65_530 + 260), 10_000), Verdict::Confirmed);
        assert_eq!(call.says(1_470, 14_000), None, "all of it may have been sent since");
    }

    #[test]
    fn a_path_that_worked_and_was_cut_is_refuted_by_the_next_report() {
        let mut call = Call::new();
        assert_eq!(call.hears(report(65_530 + 250), 5_000), Verdict::Confirmed);
        assert_eq!(call.says(1_450, 9_000), None);
        assert_eq!(call.hears(report(65_530 + 260), 10_000), Verdict::Refuted);
    }

    #[test]
    fn silence_of_the_sender_is_no_failure() {
        let mut call = Call::new();
        for second in [1, 5, 10, 300] {
            assert_eq!(call.says(1_000, second * 1_000), None);
            assert_eq!(call.hears(report(65_530), second * 1_000 + 100), Verdict::Open);
        }
        assert_eq!(call.says(1_200, 304_000), None);
        assert_eq!(call.hears(report(65_530), 304_200), Verdict::Refuted, "it speaks again");
    }

    #[test]
    fn a_source_that_begins_off_the_relay_is_proven_by_any_report_about_it() {
        let mut call = Call::new();
        call.counted = Counted::default();
        call.proof.begin_anew(9, after(1_000));
        call.counted.says(100, None, after(1_000));
        let new = |highest| Reception { ssrc: 9, ..report(highest) };
        assert_eq!(call.hears(new(40_100), 1_100), Verdict::Confirmed);
        assert_eq!(call.says(400, 7_000), None);
        assert_eq!(call.hears(new(40_105), 7_100), Verdict::Refuted);
    }

    #[test]
    fn one_that_reports_of_nobody_hears_nothing_of_what_was_sent() {
        let mut call = Call::new();
        assert_eq!(call.proof.heard_nothing(Silence::LastReport, &call.counted, after(5_000)), None);
        call.says(1_250, 5_000);
        assert_eq!(
            call.proof
                .heard_nothing(Silence::LastReport, &call.counted, after(5_100))
                .map(|evidence| evidence.due),
            Some(245)
        );
    }

    #[test]
    fn a_senders_report_refutes_by_what_its_receiver_said_last_if_only_that_it_hears_nobody() {
        let mut call = Call::new();
        assert_eq!(call.hears(report(65_530 + 250), 5_000), Verdict::Confirmed);
        assert_eq!(
            call.proof.heard_nothing(Silence::LastReport, &call.counted, after(10_000)),
            None,
            "nobody has counted yet"
        );
        assert_eq!(call.says(1_500, 10_100).map(|evidence| evidence.due), Some(240));
        let mut call = Call::new();
        assert_eq!(call.hears(report(65_530 + 250), 5_000), Verdict::Confirmed);
        assert_eq!(call.proof.heard_nothing(Silence::LastReport, &call.counted, after(5_100)), None);
        assert_eq!(call.says(1_500, 10_100), None, "all of it may have been sent since");
    }

    #[test]
    fn one_that_reports_of_nobody_may_have_heard_all_by_a_report_that_was_lost() {
        let mut call = Call::new();
        assert_eq!(call.hears(report(65_530 + 250), 5_000), Verdict::Confirmed);
        call.says(1_250, 5_000);
        call.says(1_400, 8_000);
        // That of 10 s is lost; he is silent.
        assert_eq!(call.proof.heard_nothing(Silence::LastReport, &call.counted, after(16_000)), None);
        call.says(1_560, 15_500);
        assert!(
            call.proof.heard_nothing(Silence::LastReport, &call.counted, after(16_000)).is_some(),
            "70 were sent since"
        );
    }

    #[test]
    fn who_rested_and_speaks_unheard_is_missed_by_the_next_report_of_nobody() {
        let mut call = Call::new();
        assert_eq!(call.hears(report(65_530 + 250), 5_000), Verdict::Confirmed);
        call.says(1_250, 5_000);
        for rest in [10_000, 14_700, 19_200] {
            call.counted.rests(after(rest));
            assert_eq!(call.proof.heard_nothing(Silence::LastReport, &call.counted, after(rest + 100)), None);
        }
        // Cut off meanwhile; it speaks from 22.6 s on.
        assert_eq!(call.says(1_320, 24_030), None);
        assert!(call.proof.heard_nothing(Silence::LastReport, &call.counted, after(24_310)).is_some());
    }

    #[test]
    fn one_that_counts_anew_after_a_pause_says_nothing_of_the_time_before_it() {
        let mut call = Call::new();
        assert_eq!(call.hears(report(65_530 + 250), 5_000), Verdict::Confirmed);
        call.says(1_283, 6_000);
        // Nobody has spoken for five seconds; its first packet then makes the receiver forget the 33 before.
        call.says(1_284, 10_900);
        assert_eq!(call.proof.heard_nothing(Silence::CountedAnew, &call.counted, after(11_000)), None);
        assert_eq!(call.says(1_286, 11_010), None);
        // Once more within a second, and the pause after it.
        call.says(1_330, 11_900);
        call.says(1_331, 16_950);
        assert_eq!(call.proof.heard_nothing(Silence::CountedAnew, &call.counted, after(17_000)), None);
        // It goes on to speak, and none of that arrives.
        call.says(1_500, 20_400);
        let refuted = call.proof.heard_nothing(Silence::CountedAnew, &call.counted, after(20_500));
        assert!(refuted.is_some(), "170 were sent since it said so before");
    }

    #[test]
    fn spurts_that_are_missed_add_up_over_reports_of_one_that_counted_anew() {
        let mut call = Call::new();
        assert_eq!(call.hears(report(65_530 + 250), 5_000), Verdict::Confirmed);
        call.says(1_251, 11_000);
        let anew = |call: &mut Call, at| {
            call.proof.heard_nothing(Silence::CountedAnew, &call.counted, after(at)).is_some()
        };
        // Cut off after the first packet of a spurt, whose next ones come amid two of its reports each.
        assert!(!anew(&mut call, 11_100));
        assert_eq!(call.says(1_252, 13_500), None);
        assert!(!anew(&mut call, 16_000));
        assert_eq!(call.says(1_292, 18_500), None, "40 before or after its report of 16 s");
        assert!(anew(&mut call, 20_900));
    }

    #[test]
    fn speech_that_is_missed_amid_reports_more_than_five_seconds_apart_adds_up_too() {
        let mut call = Call::new();
        assert_eq!(call.hears(report(65_530 + 250), 5_000), Verdict::Confirmed);
        let anew = |call: &mut Call, at| {
            call.proof.heard_nothing(Silence::CountedAnew, &call.counted, after(at)).is_some()
        };
        assert!(!anew(&mut call, 10_600));
        call.says(1_326, 12_100);
        assert!(!anew(&mut call, 16_200));
        // A report of its sender's is lost: 250 packets were sent before 21.5 s or after it.
        assert!(!anew(&mut call, 21_500));
        assert!(!anew(&mut call, 26_800));
        assert!(call.says(1_576, 27_000).is_some());
    }

    #[test]
    fn a_packet_each_five_seconds_makes_its_receiver_count_anew_and_is_not_missed() {
        let mut call = Call::new();
        assert_eq!(call.hears(report(65_530 + 250), 5_000), Verdict::Confirmed);
        call.says(1_250, 5_900);
        for lone in 1..100 {
            let at = 6_000 + u64::from(lone) * 5_000;
            assert_eq!(call.says(1_250 + lone, at), None);
            let refuted = call.proof.heard_nothing(Silence::CountedAnew, &call.counted, after(at + 50));
            assert!(refuted.is_none(), "{lone}");
        }
    }

    #[test]
    fn a_report_that_lies_proves_nothing() {
        let mut call = Call::new();
        let other = Reception { ssrc: 8, ..report(65_600) };
        assert_eq!(call.hears(other, 1_000), Verdict::Lie(Lie::Source));
        assert_eq!(call.hears(report(65_530 + 5_000), 1_000), Verdict::Lie(Lie::TooMany));
        let shaky = Reception { jitter: u32::MAX, ..report(65_570) };
        assert_eq!(call.hears(shaky, 1_000), Verdict::Lie(Lie::Jitter));
        assert_eq!(call.hears(report(65_580), 1_000), Verdict::Confirmed);
        assert_eq!(call.hears(report(65_540), 1_100), Verdict::Lie(Lie::Backwards));
    }

    #[test]
    fn a_packet_that_comes_back_to_the_relay_moves_the_mark() {
        let mut call = Call::new();
        call.proof.relayed(20, after(500));
        assert_eq!(call.hears(report(65_536 + 20), 600), Verdict::Open);
    }
}
