//! How a call came home from a direct path that was cut: what was missed of what was said, and how many reports were lost meanwhile.

use std::net::IpAddr;
use std::time::Duration;

use super::listening::{Ear, PACKET, PAUSE, bursts};

/// Who misses fewer packets has missed nothing that a report could tell from what is under way: half a second of speech, and some ...
const SPEECH: usize = 30;
/// ... within this. A packet of comfort noise, or one that keeps a NAT open, is no speech.
const WITHIN: Duration = Duration::from_secs(1);

/// How both heard each other again; the later the worse.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Home {
    /// Nobody said anything to those who were cut off.
    NothingMissed,
    /// So long was missed of what was said, by the one who missed more.
    After(Duration),
    /// Somebody spoke and was never heard again.
    Never,
}

/// See the module.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Homecoming {
    /// When the path was cut, since the answer.
    pub at: Duration,
    /// How they heard each other again.
    pub home: Home,
    /// Reports of both phones that were lost between the cut and that. What the sender's counts and what the receiver's misses refute
    /// the path together, so either may have been the telling one. Who rests after a report that was lost says in the next ones nothing of
    /// what it had sent before (RFC 3550 §6.4): they count with it.
    pub lost: u32,
    /// The longest silence after they were heard again, and from the cut on of a direction that was not cut.
    pub later: Duration,
    /// Who was to be cut off heard the other directly until then.
    pub was_direct: bool,
}

/// A path that was cut.
#[derive(Debug, Clone, Copy)]
pub struct Severed<'a> {
    /// What each phone sent and heard.
    pub ears: &'a [Ear; 2],
    /// When reports of each were sent that did not reach the SBC.
    pub lost: &'a [Vec<Duration>; 2],
    /// Who hears nothing by the direct path any more.
    pub deaf: &'a [usize],
    /// Where media comes from through the SBC.
    pub relay: &'a [IpAddr],
    /// The moment.
    pub cut: Duration,
    /// The end of the call.
    pub end: Duration,
}

impl Severed<'_> {
    /// What came of it, in a call that was answered at a moment.
    pub fn homecoming(&self, answered: Duration) -> Homecoming {
        let mut home = Home::NothingMissed;
        let mut heard = self.cut;
        let mut again = [self.cut; 2];
        for &side in self.deaf {
            let (one, until) = self.side(side);
            home = home.max(one);
            heard = heard.max(until);
            again[side] = until;
        }
        let lost: usize = [0, 1].into_iter().map(|side| self.untold(side, heard)).sum();
        let silences = [0, 1].into_iter().flat_map(|side| {
            let all = self.ears[side].silences(&self.ears[1 - side].sent, self.end);
            all.into_iter().map(move |silence| silence.end.saturating_sub(silence.start.max(again[side])))
        });
        let later = silences.max().unwrap_or_default();
        let was_direct = self.deaf.iter().all(|&side| {
            let heard = &self.ears[side].heard;
            let before = heard.get(..heard.partition_point(|arrival| arrival.at <= self.cut));
            before.and_then(<[_]>::last).is_some_and(|last| !self.relay.contains(&last.source))
        });
        Homecoming { at: self.cut.saturating_sub(answered), home, lost: lost as u32, later, was_direct }
    }

    /// Reports of one phone, between the cut and then, that were lost, or have no count and follow one that was.
    fn untold(&self, side: usize, heard: Duration) -> usize {
        let lost = &self.lost[side];
        let meanwhile = self.ears[side].reports.iter().filter(|(at, _)| (self.cut..heard).contains(at));
        let mut is_untold = false;
        let is_of_no_use = |(at, report): &&(Duration, Vec<u8>)| {
            let has_count = report.get(1) == Some(&200);
            is_untold = lost.contains(at) || (is_untold && !has_count);
            is_untold
        };
        meanwhile.filter(is_of_no_use).count()
    }

    /// What one of the deaf missed from when the other's speech that can be missed began, and when it was heard again, or the end.
    fn side(&self, side: usize) -> (Home, Duration) {
        let spoken = &self.ears[1 - side].sent;
        let spoken = spoken.get(spoken.partition_point(|at| *at < self.cut)..).unwrap_or_default();
        let mut windows = spoken.windows(SPEECH);
        let speech = windows.find(|part| part[SPEECH - 1].saturating_sub(part[0]) <= WITHIN);
        let Some(&[began, ..]) = speech else { return (Home::NothingMissed, self.end) };
        let Some(heard) = self.ears[side].first_from(self.relay, began) else {
            return (Home::Never, self.end);
        };
        // Who had stopped speaking meanwhile was missed no longer than that, and who begins when it is home is not missed.
        let meanwhile = spoken.iter().copied().filter(|at| (began..heard).contains(at));
        let meanwhile: Vec<Duration> = meanwhile.collect();
        let last = bursts(&meanwhile).filter(|[first, _]| heard.saturating_sub(*first) > PAUSE).last();
        let missed =
            last.filter(|[_, last]| heard.saturating_sub(*last) > PAUSE).map(|[_, last]| last + PACKET);
        (Home::After(missed.unwrap_or(heard).saturating_sub(began)), heard)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ears::Arrival;

    const NEAR: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(10, 0, 0, 1));
    const FAR: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(10, 0, 0, 2));

    fn ms(milliseconds: u64) -> Duration {
        Duration::from_millis(milliseconds)
    }

    fn each_20_ms(from: u64, to: u64) -> impl Iterator<Item = Duration> {
        (from..to).step_by(20).map(ms)
    }

    fn heard(stretches: &[(u64, u64, IpAddr)]) -> Vec<Arrival> {
        let one = |&(from, to, source)| each_20_ms(from, to).map(move |at| Arrival { at, source });
        stretches.iter().flat_map(one).collect()
    }

    /// Both speak directly to each other until the path is cut both ways at 10 s, and from some moment on through the relay.
    fn both(home: [u64; 2]) -> [Ear; 2] {
        home.map(|home| Ear {
            sent: each_20_ms(0, 40_000).collect(),
            heard: heard(&[(1, 10_001, FAR), (home, 40_000, NEAR)]),
            ..Ear::default()
        })
    }

    fn came(ears: &[Ear; 2], lost: &[Vec<Duration>; 2], deaf: &[usize]) -> Homecoming {
        let severed = Severed { ears, lost, deaf, relay: &[NEAR], cut: ms(10_001), end: ms(40_000) };
        severed.homecoming(Duration::ZERO)
    }

    #[test]
    fn the_one_who_misses_more_counts_with_the_reports_that_both_lost() {
        let lost = [vec![ms(9_000), ms(11_000)], vec![ms(12_000), ms(15_500)]];
        let mut ears = both([13_020, 15_020]);
        for (ear, lost) in ears.iter_mut().zip(&lost) {
            ear.reports = lost.iter().map(|at| (*at, vec![0x81, 200])).collect();
        }
        let one = came(&ears, &lost, &[0, 1]);
        assert_eq!((one.home, one.lost, one.was_direct), (Home::After(ms(5_000)), 2, true));
        assert!(one.later <= ms(25), "{one:?}");
    }

    #[test]
    fn who_rests_after_a_report_that_was_lost_tells_what_it_had_sent_when_it_speaks_again() {
        let lost = [vec![ms(10_500)], Vec::new()];
        let mut ears = both([15_020, 15_020]);
        ears[0].reports = [(10_500, 200), (12_000, 201), (13_000, 200), (14_000, 201)]
            .map(|(at, kind)| (ms(at), vec![0x81, kind]))
            .into();
        assert_eq!(came(&ears, &lost, &[0, 1]).lost, 2);
    }

    #[test]
    fn a_cut_in_silence_is_not_heard_before_somebody_speaks() {
        let mut ears = both([13_020, 15_020]);
        // The other falls silent before the cut, but for a packet of comfort noise, and speaks again at 20 s.
        ears[1].sent = each_20_ms(0, 9_000).chain([ms(12_000)]).chain(each_20_ms(20_000, 40_000)).collect();
        ears[0].heard = heard(&[(1, 9_001, FAR), (21_500, 40_000, NEAR)]);
        assert_eq!(came(&ears, &Default::default(), &[0]).home, Home::After(ms(1_500)));
        // It is never said anything more.
        ears[1].sent.retain(|at| *at < ms(13_000));
        assert_eq!(came(&ears, &Default::default(), &[0]).home, Home::NothingMissed);
    }

    #[test]
    fn who_stops_speaking_before_the_call_is_home_was_missed_until_then() {
        let mut ears = both([13_020, 30_001]);
        ears[0].sent = each_20_ms(0, 12_000).chain(each_20_ms(30_000, 40_000)).collect();
        assert_eq!(came(&ears, &Default::default(), &[1]).home, Home::After(ms(1_980)));
    }

    #[test]
    fn who_is_never_heard_again_or_not_for_long_is_told() {
        let mut ears = both([13_020, 15_020]);
        ears[0].heard.retain(|arrival| arrival.at < ms(14_000) || arrival.at > ms(20_000));
        assert!(came(&ears, &Default::default(), &[0, 1]).later >= ms(5_900));
        ears[0].heard.retain(|arrival| arrival.at < ms(11_000));
        assert_eq!(came(&ears, &Default::default(), &[0, 1]).home, Home::Never);
        // The direction that was not cut is as good as before.
        assert!(came(&ears, &Default::default(), &[1]).later >= ms(5_900));
    }

    #[test]
    fn a_path_that_nobody_used_was_not_cut() {
        let mut ears = both([13_020, 15_020]);
        ears[1].heard.iter_mut().for_each(|arrival| arrival.source = NEAR);
        assert!(!came(&ears, &Default::default(), &[0, 1]).was_direct);
    }
}
