//! Two calls, packet by packet, without sockets.

use std::net::Ipv4Addr;
use std::path::PathBuf;

use crush::agent::Output;
use srtp::Master;

use super::*;

const MS: fn(u64) -> Duration = Duration::from_millis;

/// A caller and a callee, each of whom takes the other for its SBC.
struct Ends {
    name: &'static str,
    calls: [Call; 2],
    now: Duration,
}

fn address(side: usize) -> IpAddr {
    Ipv4Addr::new(192, 0, 2, 1 + side as u8).into()
}

fn recording(name: &str, side: usize) -> PathBuf {
    std::env::temp_dir().join(format!("phone-{name}-{side}-{}.wav", std::process::id()))
}

fn call(name: &str, side: usize, srtp: Srtp) -> Call {
    let record = recording(name, side);
    let socket = |number: u16| (SocketId(number.into()), SocketAddr::new(address(side), 4000 + number));
    Call::new(Setup {
        sockets: &[Pair { rtp: socket(0), rtcp: socket(1) }],
        address: address(side),
        config: Config::default(),
        source: Source::open(&crate::options::Source { play: None, tone: Some(500.0), silence: false })
            .unwrap(),
        recorder: Some(Recorder::create(&record).unwrap()),
        crush: false,
        is_caller: side == 0,
        random: [7 + side as u8; 64],
        srtp,
        keys: [1, 2].map(|octet| Master::new([octet + 10 * side as u8; Master::LENGTH])),
        now: Duration::ZERO,
    })
}

impl Ends {
    /// An encrypted call that is up.
    fn new(name: &'static str) -> Self {
        let calls = [call(name, 0, Srtp::Require), call(name, 1, Srtp::Accept)];
        let mut ends = Self { name, calls, now: Duration::ZERO };
        ends.offer(0);
        ends.calls.iter_mut().for_each(|call| call.up(Duration::ZERO));
        ends
    }

    fn offer(&mut self, from: usize) {
        let offer = self.calls[from].offer();
        let answer = self.calls[1 - from].answer(&offer, self.now).unwrap();
        self.calls[from].answered(&answer, self.now).unwrap();
    }

    /// So many samples of the last that the callee heard are loud. Ends its recording.
    fn loud(&mut self, of_last: usize) -> usize {
        self.calls[1].stop_recording();
        let path = recording(self.name, 1);
        let heard: Vec<i16> = hound::WavReader::open(&path).unwrap().samples().map(Result::unwrap).collect();
        (0..2).for_each(|side| std::fs::remove_file(recording(self.name, side)).unwrap());
        heard.iter().rev().take(of_last).filter(|sample| sample.unsigned_abs() > 1000).count()
    }

    /// 10 ms; what is sent arrives, and before it what `forge` makes of it.
    fn tick(&mut self, forge: impl Fn(&[u8]) -> Option<Vec<u8>>) {
        self.now += TICK;
        for side in 0..2 {
            self.calls[side].tick(self.now);
            while let Some(output) = self.calls[side].agent.poll_output() {
                let Output::Transmit { bytes, .. } = output else { continue };
                let from = SocketAddr::new(address(side), 4000);
                let far = &mut self.calls[1 - side];
                if let Some(forged) = forge(&bytes) {
                    far.datagram(SocketId(0), from, &forged, self.now);
                }
                far.datagram(SocketId(0), from, &bytes, self.now);
            }
        }
    }
}

#[test]
fn forged_packets_with_true_headers_reach_no_jitter_buffer() {
    let mut ends = Ends::new("forged");
    let ahead: fn(&[u8]) -> Option<Vec<u8>> = |bytes| {
        let mut forged = bytes.to_vec();
        let number = u16::from_be_bytes([bytes[2], bytes[3]]).wrapping_add(40);
        forged[2..4].copy_from_slice(&number.to_be_bytes());
        Some(forged)
    };
    let plain: fn(&[u8]) -> Option<Vec<u8>> = |bytes| Some(bytes[..bytes.len() - 10].to_vec());
    for tick in 0..100 {
        ends.tick(if tick % 4 < 2 { ahead } else { plain });
    }
    assert_eq!(ends.calls[1].not_authentic, 50);
    assert!(ends.loud(4000) > 3000);
    assert_eq!(ends.calls[1].agent.refused().malformed, 0);
}

#[test]
fn a_packet_that_comes_again_by_the_same_path_is_refused() {
    let mut ends = Ends::new("again");
    for _ in 0..10 {
        ends.tick(|bytes| Some(bytes.to_vec()));
    }
    assert_eq!(ends.calls[1].not_authentic, 5);
    ends.loud(0);
}

#[test]
fn keys_and_counts_go_on_through_re_invites_of_either_end_and_over_the_wrap_of_sequence_numbers() {
    let mut ends = Ends::new("wrap");
    let ssrc = ends.calls[0].streams[0].sender.ssrc;
    // 23 minutes: more than 65,536 packets.
    for tick in 0..140_000 {
        if tick % 30_000 == 29_000 {
            ends.offer(tick / 30_000 % 2);
        }
        ends.tick(|_| None);
    }
    assert_eq!(ends.calls.each_ref().map(|call| call.not_authentic), [0, 0]);
    assert_eq!(ends.calls[0].streams[0].sender.ssrc, ssrc);
    assert!(ends.loud(4000) > 3000);
}

#[test]
fn another_far_end_is_sent_another_source_under_the_same_key() {
    let mut ends = Ends::new("other");
    let before = ends.calls[0].streams[0].sender.ssrc;
    ends.calls[1] = call(ends.name, 1, Srtp::Require);
    ends.calls[1].local.keys = [3, 4].map(|octet| Master::new([octet; Master::LENGTH]));
    ends.offer(1);
    ends.calls[1].up(ends.now);
    assert_ne!(ends.calls[0].streams[0].sender.ssrc, before);
    for _ in 0..100 {
        ends.tick(|_| None);
    }
    assert_eq!(ends.calls[1].not_authentic, 0);
    assert!(ends.loud(4000) > 3000);
}

#[test]
fn reports_are_encrypted_and_read() {
    let mut ends = Ends::new("reports");
    for _ in 0..600 {
        ends.tick(|_| None);
    }
    let now = ends.now;
    let reports = ends.calls[0].reports(now, MS(1_700_000_000_000), Duration::ZERO);
    let [(_, to, report)] = &reports[..] else { panic!("{reports:?}") };
    assert_eq!(*to, SocketAddr::new(address(1), 4001));
    let name = ends.calls[0].reporting.name.clone();
    assert!(!report.windows(name.len()).any(|window| window == name.as_bytes()));
    let keys = &mut ends.calls[1].streams[0].protection;
    let plain = encryption::report(keys, report).unwrap().into_owned();
    assert!(
        plain.len() + 14 == report.len() && plain.windows(name.len()).any(|window| window == name.as_bytes())
    );
    assert!(encryption::report(keys, &plain).is_none());
    ends.loud(0);
}
