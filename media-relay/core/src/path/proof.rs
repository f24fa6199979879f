//! What reports prove of one direction (RFC 3550 §6.4): the sender's packets pass the relay no more, the receiver's
//! reports still do, and they say how far the sender's sequence numbers have come.

use std::time::Duration;

/// A report that is this far ahead of the last packet that the relay saw of the stream can only be of direct packets;
/// a little slack, for phones that count in a way of their own.
pub(super) const AHEAD: i32 = 2;
/// A report that is this far behind what must have been sent refutes the path.
const BEHIND: i64 = 25;
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

/// What is wrong with a report.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Lie {
    /// About a source that nobody sends as.
    Source,
    /// Its sequence number went backwards.
    Backwards,
    /// It has more packets than were sent.
    TooMany,
    /// Jitter of many seconds.
    Jitter,
}

/// Why a verdict was what it was.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Evidence {
    /// How far the report is past the last packet known to have been sent.
    pub ahead: i32,
    /// How many packets must have been sent since.
    pub due: i64,
}

/// One direction while its packets are not seen.
#[derive(Debug, Clone)]
pub struct Proof {
    ssrc: u32,
    clock_rate: u32,
    /// Packets a second while they were seen.
    rate: f64,
    /// The last packet that is known to have been sent, and when: the relay saw it, or a report confirmed it.
    mark: u16,
    marked_at: Duration,
    relayed_at: Duration,
    /// The sender's latest report, and how many packets a second it sent between the one before and that.
    sent: Option<(u32, Duration)>,
    speaks: Option<f64>,
    /// Highest sequence number and loss of the receiver's latest report.
    latest: Option<(u32, i32)>,
    confirmed_at: Option<Duration>,
}

impl Proof {
    /// Of a stream whose packets the relay has seen until now: `rate` in packets a second, `sequence` the last.
    pub fn new(ssrc: u32, clock_rate: u32, rate: f64, sequence: u16, now: Duration) -> Self {
        Self {
            ssrc,
            clock_rate: clock_rate.max(1),
            rate: rate.clamp(1.0, 2000.0),
            mark: sequence,
            marked_at: now,
            relayed_at: now,
            sent: None,
            speaks: None,
            latest: None,
            confirmed_at: None,
        }
    }

    /// The relay saw one more packet of it after all.
    pub fn relayed(&mut self, sequence: u16, now: Duration) {
        (self.mark, self.marked_at, self.relayed_at) = (sequence, now, now);
    }

    /// When the relay last saw a packet.
    pub fn last_relayed(&self) -> Duration {
        self.relayed_at
    }

    /// When the path was first confirmed.
    pub fn confirmed_at(&self) -> Option<Duration> {
        self.confirmed_at
    }

    /// Packets lost by the receiver's count, of its latest report.
    pub fn lost(&self) -> Option<i32> {
        self.latest.map(|latest| latest.1)
    }

    /// The sender's own report: how many packets it has sent in all.
    pub fn sender_report(&mut self, ssrc: u32, packets: u32, now: Duration) {
        if ssrc != self.ssrc {
            return;
        }
        if let Some((before, at)) = self.sent.replace((packets, now)) {
            let sent = packets.wrapping_sub(before) as i32;
            self.speaks = Some(f64::from(sent) / now.saturating_sub(at).as_secs_f64().max(0.001));
        }
    }

    /// How many packets the sender must have sent since the mark: as many as before, unless its own reports say that it
    /// sends fewer. Silence is no failure.
    fn must_have_sent(&self, now: Duration) -> i64 {
        let rate = self.speaks.map_or(self.rate, |speaks| speaks.clamp(0.0, self.rate));
        (now.saturating_sub(self.marked_at).as_secs_f64() * rate) as i64
    }

    /// What a report is weighed against.
    pub fn evidence(&self, report: &Reception, now: Duration) -> Evidence {
        let ahead = i32::from((report.highest as u16).wrapping_sub(self.mark) as i16);
        Evidence { ahead, due: self.must_have_sent(now) }
    }

    /// What the receiver reports.
    pub fn reception(&mut self, report: &Reception, now: Duration) -> Verdict {
        if report.ssrc != self.ssrc {
            return Verdict::Lie(Lie::Source);
        }
        if report.jitter.checked_div(self.clock_rate).unwrap_or(report.jitter) >= ABSURD_JITTER_SECONDS {
            return Verdict::Lie(Lie::Jitter);
        }
        if let Some((latest, _)) = self.latest
            && (report.highest.wrapping_sub(latest) as i32) < 0
        {
            return Verdict::Lie(Lie::Backwards);
        }
        let Evidence { ahead, due } = self.evidence(report, now);
        let elapsed = now.saturating_sub(self.marked_at).as_secs_f64();
        // Half as much again and a second's worth: bursts and other packet times are allowed, fables are not.
        if f64::from(ahead) > elapsed * self.rate * 1.5 + self.rate + 50.0 {
            return Verdict::Lie(Lie::TooMany);
        }
        self.latest = Some((report.highest, report.lost));
        if due.saturating_sub(ahead.into()) >= BEHIND {
            return Verdict::Refuted;
        }
        if ahead > AHEAD {
            self.confirmed_at.get_or_insert(now);
            // From here on: clocks drift, and an hour's drift would be taken for loss.
            (self.mark, self.marked_at) = (report.highest as u16, now);
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

    fn proof() -> Proof {
        Proof::new(7, 8000, 50.0, 65_530, MOVED)
    }

    fn report(highest: u32) -> Reception {
        Reception { ssrc: 7, highest, lost: 0, jitter: 8 }
    }

    #[test]
    fn a_report_past_the_last_relayed_packet_confirms_over_the_wrap() {
        let mut proof = proof();
        assert_eq!(proof.reception(&report(65_532), after(60)), Verdict::Open, "within the slack");
        assert_eq!(proof.reception(&report(65_536 + 4), after(200)), Verdict::Confirmed);
        assert_eq!(proof.confirmed_at(), Some(after(200)));
    }

    #[test]
    fn a_report_that_stands_still_refutes_once_25_packets_are_missing() {
        let mut proof = proof();
        assert_eq!(proof.reception(&report(65_530), after(400)), Verdict::Open);
        assert_eq!(proof.reception(&report(65_530), after(500)), Verdict::Refuted);
    }

    #[test]
    fn a_path_that_worked_and_was_cut_is_refuted_by_the_next_report() {
        let mut proof = proof();
        assert_eq!(proof.reception(&report(65_530 + 250), after(5_000)), Verdict::Confirmed);
        assert_eq!(proof.reception(&report(65_530 + 260), after(10_000)), Verdict::Refuted);
    }

    #[test]
    fn silence_of_the_sender_is_no_failure() {
        let mut proof = proof();
        proof.sender_report(7, 1_000, after(100));
        proof.sender_report(7, 1_000, after(5_100));
        assert_eq!(proof.reception(&report(65_530), after(5_200)), Verdict::Open);
        proof.sender_report(7, 1_200, after(10_100));
        assert_eq!(proof.reception(&report(65_530), after(10_200)), Verdict::Refuted, "it speaks again");
    }

    #[test]
    fn a_report_that_lies_proves_nothing() {
        let mut proof = proof();
        let other = Reception { ssrc: 8, ..report(65_600) };
        assert_eq!(proof.reception(&other, after(1_000)), Verdict::Lie(Lie::Source));
        assert_eq!(proof.reception(&report(65_530 + 5_000), after(1_000)), Verdict::Lie(Lie::TooMany));
        let shaky = Reception { jitter: u32::MAX, ..report(65_570) };
        assert_eq!(proof.reception(&shaky, after(1_000)), Verdict::Lie(Lie::Jitter));
        assert_eq!(proof.reception(&report(65_580), after(1_000)), Verdict::Confirmed);
        assert_eq!(proof.reception(&report(65_540), after(1_100)), Verdict::Lie(Lie::Backwards));
    }

    #[test]
    fn a_packet_that_comes_back_to_the_relay_moves_the_mark() {
        let mut proof = proof();
        proof.relayed(20, after(500));
        assert_eq!(proof.reception(&report(65_536 + 20), after(600)), Verdict::Open);
    }
}
