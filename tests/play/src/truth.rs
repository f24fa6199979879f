//! What a call was like by captures at its two phones, whatever anybody's records say: where each sent its media, what reached
//! the other, and for how long one heard nothing. Records are held against it, of real calls and of virtual ones.

use std::collections::HashSet;
use std::time::Duration;

/// Without RTP at the relay for so long a call may be direct (docs/release.md, "Time").
const QUIET: Duration = Duration::from_millis(200);
/// Longer than this nothing is sent only where somebody is silent, or on hold, and is told of no more as direct than as relayed.
const PAUSE: Duration = Duration::from_millis(60);

/// An RTP packet that a phone has sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sent {
    /// When.
    pub at: Duration,
    /// Its source and number.
    pub name: (u32, u16),
    /// To the other phone, instead of to the relay.
    pub is_direct: bool,
}

/// An RTP packet that has reached a phone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Got {
    /// When.
    pub at: Duration,
    /// Its source and number.
    pub name: (u32, u16),
}

/// Of one phone, in order of time.
#[derive(Debug, Clone, Default)]
pub struct Log {
    /// What it has sent.
    pub sent: Vec<Sent>,
    /// What has reached it.
    pub got: Vec<Got>,
}

/// A time in which nobody sent anything to the relay, and somebody past it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stretch {
    /// The last packet to the relay before, and the first after.
    pub relayed: [Duration; 2],
    /// The first packet past it, and the last.
    pub direct: [Duration; 2],
}

impl Stretch {
    /// For how long it was direct: at least, and at most. Silence at its edges may be either.
    fn lengths(&self) -> (Duration, Duration) {
        let [before, after] = self.relayed;
        let [first, last] = self.direct;
        let edges = [(first.saturating_sub(before), QUIET), (after.saturating_sub(last), PAUSE)];
        let sure: Duration =
            edges.into_iter().filter(|(edge, most)| edge <= most).map(|(edge, _)| edge).sum();
        (last.saturating_sub(first) + sure, after.saturating_sub(before))
    }
}

/// When a call was direct between two moments.
pub fn direct_stretches(logs: &[&Log], from: Duration, to: Duration) -> Vec<Stretch> {
    let all = logs.iter().flat_map(|log| &log.sent).filter(|sent| (from..=to).contains(&sent.at));
    let mut events: Vec<(Duration, bool)> = all.map(|sent| (sent.at, sent.is_direct)).collect();
    events.push((to, false));
    events.sort_unstable();
    let mut stretches = Vec::new();
    let mut direct: Option<[Duration; 2]> = None;
    let mut relayed = from;
    for (at, is_direct) in events {
        if is_direct {
            direct = Some([direct.map_or(at, |direct| direct[0]), at]);
            continue;
        }
        if let Some(direct) = direct.take()
            && at.saturating_sub(relayed) > QUIET
        {
            stretches.push(Stretch { relayed: [relayed, at], direct });
        }
        relayed = at;
    }
    stretches
}

/// For how long a call was direct between two moments: at least, and at most. A time in which nobody sent anything, between a
/// packet to the relay and one past it, is neither.
pub fn direct_time(logs: &[&Log], from: Duration, to: Duration) -> (Duration, Duration) {
    let stretches = direct_stretches(logs, from, to);
    let lengths = stretches.iter().map(Stretch::lengths);
    lengths.fold((Duration::ZERO, Duration::ZERO), |sum, one| (sum.0 + one.0, sum.1 + one.1))
}

/// How many packets a phone has sent in a time, and how many of them the other has never got.
pub fn loss(sender: &Log, receiver: &Log, from: Duration, to: Duration) -> (u64, u64) {
    let got: HashSet<(u32, u16)> =
        receiver.got.iter().filter(|got| got.at >= from).map(|got| got.name).collect();
    // Copies on both paths are one packet.
    let sent: HashSet<(u32, u16)> =
        sender.sent.iter().filter(|sent| sent.at >= from && sent.at <= to).map(|sent| sent.name).collect();
    (sent.len() as u64, sent.iter().filter(|name| !got.contains(name)).count() as u64)
}

/// Of the times without a packet at a phone between two moments the one that is most like one that was said: who pauses leaves longer ones.
pub fn gap_like(said: Duration, receiver: &Log, from: Duration, to: Duration) -> Duration {
    let times: Vec<Duration> =
        receiver.got.iter().map(|got| got.at).filter(|at| *at >= from && *at <= to).collect();
    let gaps =
        times.windows(2).map(|pair| if let [one, next] = pair { *next - *one } else { Duration::ZERO });
    gaps.min_by_key(|gap| gap.abs_diff(said)).unwrap_or_default()
}

/// The mean opinion score (ITU-T G.107, G.711) that a stream of this loss would have had with the delay of one whose loss and
/// score are known. Both losses are shares.
pub fn score(truth: f64, said: f64, mos: f64) -> f64 {
    let impairment = |loss: f64| 95.0 * 100.0 * loss / (100.0 * loss + 25.1);
    let of_r = |r: f64| (1.0 + 0.035 * r + r * (r - 60.0) * (100.0 - r) * 7e-6).clamp(1.0, 4.5);
    // What is left beside loss is delay.
    let (mut low, mut high) = (0.0, 100.0);
    for _ in 0..60 {
        let middle = (low + high) / 2.0;
        if of_r(middle) < mos { low = middle } else { high = middle }
    }
    let without_loss = (low + impairment(said)).min(93.2);
    of_r((without_loss - impairment(truth)).clamp(0.0, 100.0))
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: fn(u64) -> Duration = Duration::from_millis;

    fn log(parts: &[(u64, u64, bool)]) -> Log {
        let packets = parts.iter().flat_map(|(from, to, is_direct)| {
            (*from..*to).step_by(20).map(|at| Sent {
                at: MS(at),
                name: (7, (at / 20) as u16),
                is_direct: *is_direct,
            })
        });
        Log { sent: packets.collect(), got: Vec::new() }
    }

    #[test]
    fn direct_time_is_what_nobody_sends_to_the_relay_in() {
        let one = log(&[(0, 1_000, false), (1_000, 5_000, true), (5_000, 6_000, false)]);
        let other = log(&[(0, 1_500, false), (1_500, 4_800, true), (4_800, 6_000, false)]);
        assert_eq!(direct_time(&[&one, &other], MS(0), MS(6_000)), (MS(3_320), MS(3_320)));
        let silent = Log::default();
        assert_eq!(direct_time(&[&one, &silent], MS(0), MS(6_000)), (MS(4_020), MS(4_020)));
        assert_eq!(direct_time(&[&silent, &silent], MS(0), MS(6_000)), (MS(0), MS(0)), "silence is relayed");
    }

    #[test]
    fn silence_amid_direct_time_is_direct_and_at_its_edge_it_is_neither() {
        let one =
            log(&[(0, 1_000, false), (1_000, 2_000, true), (4_000, 5_000, true), (7_000, 8_000, false)]);
        let (least, most) = direct_time(&[&one, &Log::default()], MS(0), MS(8_000));
        assert_eq!((least, most), (MS(4_000), MS(6_020)));
    }

    #[test]
    fn what_is_lost_has_never_arrived_and_a_gap_lies_between_two_packets() {
        let one = log(&[(0, 1_000, false)]);
        let got = one.sent.iter().filter(|sent| sent.name.1 % 10 != 5 && !(20..30).contains(&sent.name.1));
        let other = Log {
            sent: Vec::new(),
            got: got.map(|sent| Got { at: sent.at + MS(30), name: sent.name }).collect(),
        };
        assert_eq!(loss(&one, &other, MS(0), MS(2_000)), (50, 14));
        assert_eq!(gap_like(MS(500), &other, MS(0), MS(2_000)), MS(220));
        assert_eq!(gap_like(MS(50), &other, MS(0), MS(2_000)), MS(40));
    }

    #[test]
    fn a_score_is_moved_by_the_difference_of_loss_alone() {
        let clean = score(0.0, 0.0, 4.2);
        assert!((clean - 4.2).abs() < 0.001, "{clean}");
        let lossy = score(0.1, 0.0, 4.2);
        assert!((2.3..3.2).contains(&lossy), "{lossy}");
        assert!((score(0.0, 0.1, lossy) - 4.2).abs() < 0.01);
    }
}
