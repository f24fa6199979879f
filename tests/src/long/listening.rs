//! What two captures, one at each phone, tell of a call: where media went, and when a phone heard nothing although the other spoke.

use std::net::IpAddr;
use std::time::Duration;

use crate::ears::{Arrival, arrivals};
use crate::packet::{Packet, is_rtcp, is_rtp};

/// What each RTP packet of these phones carries.
pub(super) const PACKET: Duration = Duration::from_millis(20);
/// A sender that pauses for longer has stopped speaking.
pub(super) const PAUSE: Duration = Duration::from_millis(100);
/// Who has sent for so long can be sent to.
const OPENED: Duration = Duration::from_millis(500);
/// Changes of the way that follow so soon are one move: the last packets of the old way meet the first of the new one.
const MOVE: Duration = Duration::from_millis(600);
/// A silence that no move explains is told as if it were one when it is longer than most moves may be; shorter ones would only make the
/// share of short moves look better.
const UNEXPLAINED: Duration = Duration::from_millis(250);

/// A stretch in which a phone heard nothing although the other spoke.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Silence {
    /// When the first packet that did not come was sent.
    pub start: Duration,
    /// When one came again, or the other stopped speaking.
    pub end: Duration,
}

impl Silence {
    /// How long it was.
    pub fn length(&self) -> Duration {
        self.end.saturating_sub(self.start)
    }
}

/// Media that came by another way than before, with the silence that it cost; or a silence by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Move {
    /// When the first packet came by the new way.
    pub at: Duration,
    /// The silence.
    pub silence: Duration,
}

/// What one phone sent, and what reached it.
#[derive(Debug, Clone, Default)]
pub struct Ear {
    /// When it sent RTP.
    pub sent: Vec<Duration>,
    /// RTP that came.
    pub heard: Vec<Arrival>,
    /// RTCP that it sent, each with its octets.
    pub reports: Vec<(Duration, Vec<u8>)>,
}

impl Ear {
    /// Of a capture at the phone's interface, between two moments.
    pub fn new(packets: &[Packet], own: IpAddr, [from, until]: [Duration; 2]) -> Self {
        let first = packets.partition_point(|packet| packet.at < from);
        let last = packets.partition_point(|packet| packet.at < until);
        let packets = packets.get(first..last).unwrap_or_default();
        let mine = || packets.iter().filter(|packet| packet.protocol == 17 && packet.source.ip() == own);
        let reports = mine().filter(|packet| is_rtcp(&packet.payload));
        Self {
            sent: mine().filter(|packet| is_rtp(&packet.payload)).map(|packet| packet.at).collect(),
            heard: arrivals(packets, own),
            reports: reports.map(|packet| (packet.at, packet.payload.clone())).collect(),
        }
    }

    /// The silences of this phone, whose peer sent at these moments. What comes before its first packet does not count, if that comes
    /// soon: behind a NAT the relay can send to it only once it has sent itself.
    pub fn silences(&self, spoken: &[Duration], until: Duration) -> Vec<Silence> {
        let Some(first) = self.heard.first() else {
            return bursts(spoken)
                .map(|[start, last]| Silence { start, end: (last + PACKET).min(until) })
                .collect();
        };
        let opened = self.sent.first().map(|sent| *sent + OPENED).filter(|opened| *opened < first.at);
        let heard = self.heard.iter().map(|arrival| arrival.at);
        let times: Vec<Duration> = opened.into_iter().chain(heard).chain([until]).collect();
        let mut silences = Vec::new();
        for gap in times.windows(2) {
            let [from, to] = [gap[0], gap[1]];
            let start = spoken.partition_point(|at| *at <= from);
            let end = spoken.partition_point(|at| *at < to);
            for [first, last] in bursts(spoken.get(start..end).unwrap_or_default()) {
                // What is sent last before a packet comes is that packet, or lost beside it.
                let end = if to.saturating_sub(last) <= PAUSE { to } else { last + PACKET };
                silences.push(Silence { start: first, end });
            }
        }
        silences
    }

    /// Where media came by another way, each with the longest silence beside it, and what is silent for long besides.
    pub fn moves(&self, silences: &[Silence]) -> Vec<Move> {
        let mut moves: Vec<Move> = Vec::new();
        let mut explained = vec![false; silences.len()];
        let changes = self.heard.windows(2).filter(|pair| pair[0].source != pair[1].source);
        let mut latest = None;
        for at in changes.map(|pair| pair[1].at) {
            let is_same = latest.is_some_and(|latest: Duration| at.saturating_sub(latest) < MOVE);
            latest = Some(at);
            if !is_same {
                moves.push(Move { at, silence: Duration::ZERO });
            }
            let Some(last) = moves.last_mut() else { continue };
            let from = silences.partition_point(|silence| silence.end + MOVE / 2 < at);
            for (index, silence) in silences.iter().enumerate().skip(from) {
                if silence.start > at + MOVE / 2 {
                    break;
                }
                explained[index] = true;
                last.silence = last.silence.max(silence.length());
            }
        }
        let others =
            silences.iter().zip(explained).filter(|(silence, is)| !is && silence.length() >= UNEXPLAINED);
        moves.extend(others.map(|(silence, _)| Move { at: silence.end, silence: silence.length() }));
        moves.sort_by_key(|one| one.at);
        moves
    }

    /// When the first packet after a moment came that one of these sent.
    pub fn first_from(&self, sources: &[IpAddr], after: Duration) -> Option<Duration> {
        let later = self.heard.partition_point(|arrival| arrival.at <= after);
        let later = self.heard.get(later..)?;
        later.iter().find(|arrival| sources.contains(&arrival.source)).map(|arrival| arrival.at)
    }
}

/// First and last of what was sent without a pause.
pub(super) fn bursts(sent: &[Duration]) -> impl Iterator<Item = [Duration; 2]> {
    let parts = sent.chunk_by(|one, next| next.saturating_sub(*one) <= PAUSE);
    parts.filter_map(|part| Some([*part.first()?, *part.last()?]))
}

/// For how long of a time both directions were direct: what a phone heard came from the other's address. Who says nothing is where he
/// was; what comes through the relay beside what comes directly is a copy.
pub fn direct_time(ears: [&Ear; 2], far: [IpAddr; 2], [from, until]: [Duration; 2]) -> Duration {
    // (when, which phone, whether directly)
    let mut turns = Vec::new();
    for (index, ear) in ears.into_iter().enumerate() {
        let is_direct = |arrival: &Arrival| arrival.source == far[index];
        turns.extend(ear.heard.iter().map(|arrival| (arrival.at, index, is_direct(arrival))));
        // Who was silent when it moved, and comes directly with its next word, was there all the while: what it had said meanwhile
        // and did not come is silence, and told as that.
        let pauses = ear.heard.windows(2).filter_map(|pair| match pair {
            [last, next] if next.at.saturating_sub(last.at) >= PAUSE && is_direct(next) => {
                Some(last.at + PACKET)
            }
            _ => None,
        });
        turns.extend(pauses.map(|at| (at, index, true)));
    }
    turns.sort_by_key(|turn| turn.0);
    let mut latest = [None; 2];
    let mut is_direct = [false; 2];
    let (mut at, mut total) = (from, Duration::ZERO);
    for (when, index, is_it) in turns {
        if is_it {
            latest[index] = Some(when);
        }
        let is_copy = latest[index].is_some_and(|latest: Duration| when.saturating_sub(latest) < PAUSE);
        let when = when.clamp(from, until);
        if is_direct == [true; 2] {
            total += when - at;
        }
        at = when;
        is_direct[index] = is_it || is_copy;
    }
    if is_direct == [true; 2] { total + (until - at) } else { total }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ms(milliseconds: u64) -> Duration {
        Duration::from_millis(milliseconds)
    }

    /// A packet each 20 ms, from a source, in these stretches.
    fn heard(stretches: &[(u64, u64, u8)]) -> Ear {
        let one = |(from, to, source): &(u64, u64, u8)| {
            let source = IpAddr::from([10, 0, 0, *source]);
            (*from..*to).step_by(20).map(move |at| Arrival { at: ms(at), source }).collect::<Vec<_>>()
        };
        Ear { heard: stretches.iter().flat_map(one).collect(), ..Ear::default() }
    }

    fn spoken(from: u64, to: u64) -> Vec<Duration> {
        (from..to).step_by(20).map(ms).collect()
    }

    fn longest(silences: &[Silence]) -> Duration {
        silences.iter().map(Silence::length).max().unwrap_or_default()
    }

    #[test]
    fn what_was_sent_and_did_not_come_is_silence() {
        let ear = heard(&[(1, 1001, 1), (1301, 2001, 2)]);
        let silences = ear.silences(&spoken(0, 2000), ms(2000));
        // From the packet that was sent at 1,000 to the one that came at 1,301.
        assert_eq!(longest(&silences), ms(301));
        let moves = ear.moves(&silences);
        assert_eq!(moves, [Move { at: ms(1301), silence: ms(301) }]);
    }

    #[test]
    fn who_says_nothing_is_not_missed() {
        let ear = heard(&[(1, 1001, 1), (5001, 6001, 1)]);
        let sent = [spoken(0, 1000), spoken(5000, 6000)].concat();
        assert!(longest(&ear.silences(&sent, ms(6000))) < ms(25));
        // Three packets of 1.06 s are lost, then he pauses.
        let sent = [spoken(0, 1060), spoken(5000, 6000)].concat();
        assert_eq!(longest(&ear.silences(&sent, ms(6000))), ms(60));
    }

    #[test]
    fn who_never_hears_is_silent_as_long_as_the_other_speaks() {
        assert_eq!(longest(&Ear::default().silences(&spoken(0, 3000), ms(3000))), ms(3000));
        let ear = heard(&[(1, 1001, 1)]);
        assert_eq!(longest(&ear.silences(&spoken(0, 3000), ms(3000))), ms(2000));
    }

    #[test]
    fn who_has_spoken_himself_is_to_hear_from_then_on() {
        let ear = Ear { sent: spoken(0, 3000), ..heard(&[(1501, 3001, 1)]) };
        assert_eq!(longest(&ear.silences(&spoken(0, 3000), ms(3000))), ms(981));
        let ear = Ear { sent: spoken(1200, 3000), ..ear };
        assert!(longest(&ear.silences(&spoken(0, 3000), ms(3000))) < ms(25));
    }

    #[test]
    fn a_long_silence_on_one_way_is_told_beside_the_moves() {
        let ear = heard(&[(1, 1001, 1), (1501, 2001, 1), (2001, 3001, 2)]);
        let silences = ear.silences(&spoken(0, 3000), ms(3000));
        let lengths: Vec<_> = ear.moves(&silences).iter().map(|one| one.silence.as_millis()).collect();
        assert_eq!(lengths, [501, 1]);
    }

    #[test]
    fn a_copy_through_the_relay_makes_no_direct_second_relayed() {
        let far = [IpAddr::from([10, 0, 0, 2]); 2];
        let mut one = heard(&[(0, 10_000, 2), (4005, 5000, 1)]);
        one.heard.sort_by_key(|arrival| arrival.at);
        let other = heard(&[(0, 10_000, 2)]);
        assert_eq!(direct_time([&one, &other], far, [ms(100), ms(9_900)]), ms(9_800));
    }

    #[test]
    fn the_time_is_direct_while_both_directions_are() {
        let (near, far) = (1, 2);
        let one = heard(&[(0, 2000, near), (2000, 10_000, far)]);
        let other = heard(&[(0, 4000, near), (4000, 8000, far), (8000, 10_000, near)]);
        let far = [IpAddr::from([10, 0, 0, far]); 2];
        let time =
            |from: u64, until: u64| direct_time([&one, &other], far, [ms(from), ms(until)]).as_millis();
        assert!(time(0, 10_000).abs_diff(4_000) <= 100, "{}", time(0, 10_000));
        assert!(time(5000, 10_000).abs_diff(3_000) <= 100);
        assert_eq!(time(4100, 7900), 3_800);
    }

    #[test]
    fn who_moves_in_silence_is_direct_from_then_on_and_not_from_its_next_word() {
        let (near, far) = (1, 2);
        let one = heard(&[(0, 1000, near), (9000, 10_000, far)]);
        let other = heard(&[(0, 2000, near), (2000, 10_000, far)]);
        let time = |one: &Ear| {
            let far = [IpAddr::from([10, 0, 0, far]); 2];
            direct_time([one, &other], far, [ms(2000), ms(10_000)])
        };
        assert_eq!(time(&one), ms(8000));
        let still_relayed = heard(&[(0, 1000, near), (9000, 10_000, near)]);
        assert_eq!(time(&still_relayed), ms(0));
    }
}
