//! What a phone has been given to hear over a time: when RTP reached it, and whence.

use std::net::IpAddr;
use std::time::Duration;

use crate::hearing::is_rtp_to;
use crate::packet::Packet;

/// What each RTP packet of these phones carries.
const PACKET: Duration = Duration::from_millis(20);

/// One RTP packet at a phone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Arrival {
    /// Since the Unix epoch.
    pub at: Duration,
    /// Its sender.
    pub source: IpAddr,
}

/// The RTP to a host, in order.
pub fn arrivals(packets: &[Packet], host: IpAddr) -> Vec<Arrival> {
    let rtp = packets.iter().filter(|packet| is_rtp_to(packet, host));
    rtp.map(|packet| Arrival { at: packet.at, source: packet.source.ip() }).collect()
}

/// How long audio was missing at the longest between two packets, and between the last and `until`. A network is as busy
/// as the machine: what comes a little late is missing for as long.
pub fn longest_gap(arrivals: &[Arrival], until: Option<Duration>) -> Duration {
    let times = arrivals.iter().map(|arrival| arrival.at).chain(until);
    let times: Vec<Duration> = times.collect();
    let longest = times.windows(2).map(|pair| pair[1].saturating_sub(pair[0])).max().unwrap_or_default();
    longest.saturating_sub(PACKET)
}

/// Who sent what came in the last half second before `until`, each once.
pub fn latest_sources(arrivals: &[Arrival], until: Duration) -> Vec<IpAddr> {
    let from = until.saturating_sub(Duration::from_millis(500));
    let latest = arrivals.iter().filter(|arrival| arrival.at > from && arrival.at <= until);
    let mut sources: Vec<IpAddr> = latest.map(|arrival| arrival.source).collect();
    sources.sort();
    sources.dedup();
    sources
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(milliseconds: u64, source: u8) -> Arrival {
        Arrival { at: Duration::from_millis(milliseconds), source: IpAddr::from([10, 0, 0, source]) }
    }

    #[test]
    fn a_gap_is_what_is_missing_and_counts_to_the_end() {
        let heard = [at(0, 1), at(20, 1), at(40, 1), at(140, 2), at(160, 2)];
        assert_eq!(longest_gap(&heard, None), Duration::from_millis(80));
        assert_eq!(longest_gap(&heard, Some(Duration::from_millis(680))), Duration::from_millis(500));
        assert_eq!(latest_sources(&heard, Duration::from_millis(600)), [IpAddr::from([10, 0, 0, 2])]);
    }
}
