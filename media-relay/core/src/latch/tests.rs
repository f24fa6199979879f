//! Who teaches a latch, and when.

use super::*;

const SECOND: Duration = Duration::from_secs(1);
const MILLISECOND: Duration = Duration::from_millis(1);
const PRIVATE: &str = "10.0.0.5:4000";
const NAT: &str = "203.0.113.1:61000";
const NAT_LATER: &str = "203.0.113.1:62000";
const STRANGER: &str = "198.51.100.7:9";

fn address(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

fn header(ssrc: u32, sequence: u16) -> Header {
    Header { payload_type: 0, sequence, timestamp: 0, ssrc }
}

/// One party: signalled at `sdp`, its signalling from 203.0.113.1.
struct Party {
    latch: Latch,
    sdp: &'static str,
}

impl Party {
    fn new(latching: Latching, sdp: &'static str) -> Self {
        let manner = Manner { latching, follows_rebinding: true };
        let mut party = Self { latch: Latch::new("203.0.113.1".parse().unwrap(), manner), sdp };
        party.signal(SECOND);
        party
    }

    fn signal(&mut self, now: Duration) {
        self.latch.signal(Some(address(self.sdp)), "203.0.113.1".parse().unwrap(), now);
    }

    /// RTP of an agreed payload type, of a stream of its own for each source.
    fn hears(&mut self, source: &str, now: Duration) -> Verdict {
        let source = address(source);
        let header = header(u32::from(source.port()), 1);
        let evidence = Evidence::Media { header: &header, latest: Some((1, 1)), is_agreed: true };
        if self.latch.knows(source, now) { Verdict::Learnt } else { self.latch.judge(source, evidence, now) }
    }

    fn goes_to(&self) -> SocketAddr {
        self.latch.destination().unwrap()
    }
}

use Verdict::{Learnt, Passes, Stranger};

#[test]
fn a_phone_behind_nat_is_learnt_by_the_address_of_its_signalling_however_late_and_held() {
    for first in [SECOND, 60 * SECOND, 3600 * SECOND] {
        let mut party = Party::new(Latching::Host, PRIVATE);
        assert_eq!(party.hears(STRANGER, first), Stranger);
        assert_eq!(party.hears(NAT, first), Learnt);
        assert_eq!(party.goes_to(), address(NAT));
        assert_eq!(party.hears(NAT_LATER, first), Stranger);
        assert_eq!(party.hears(STRANGER, first + SECOND), Stranger);
    }
}

#[test]
fn strangers_teach_only_where_they_may_and_the_description_cannot_be_right() {
    let learnt = |latching, sdp, after: Duration| {
        let mut party = Party::new(latching, sdp);
        party.hears(STRANGER, SECOND + after - PATIENCE.min(after));
        party.hears(STRANGER, SECOND + after) == Learnt
    };
    let public = "192.0.2.50:4000";
    for (latching, sdp, after, expected) in [
        (Latching::Strict, PRIVATE, 5 * SECOND, false),
        (Latching::Host, PRIVATE, 5 * SECOND, false),
        (Latching::Any, PRIVATE, Duration::ZERO, false),
        (Latching::Any, PRIVATE, SECOND, true),
        (Latching::Any, public, SECOND, false),
        (Latching::Any, public, 2 * SECOND, true),
        (Latching::Any, "203.0.113.1:4000", 60 * SECOND, false),
    ] {
        assert_eq!(learnt(latching, sdp, after), expected, "{latching:?} {sdp} after {after:?}");
    }
}

#[test]
fn a_stranger_must_send_what_was_agreed_and_gives_way_to_host_and_signalled_address_at_any_time() {
    let mut party = Party::new(Latching::Any, PRIVATE);
    let unknown = header(7, 1);
    for evidence in [Evidence::Other, Evidence::Media { header: &unknown, latest: None, is_agreed: false }] {
        for now in [SECOND, 3 * SECOND] {
            assert_eq!(party.latch.judge(address(STRANGER), evidence, now), Stranger);
        }
    }
    party.hears(STRANGER, 4 * SECOND);
    assert_eq!(party.hears(STRANGER, 5 * SECOND), Learnt);
    assert_eq!(party.hears("198.51.100.8:9", 90 * SECOND), Stranger);
    assert_eq!(party.hears(NAT, 100 * SECOND), Learnt, "the host, long after");
    assert_eq!(party.hears(STRANGER, 200 * SECOND), Stranger);
    assert_eq!(party.hears(PRIVATE, 300 * SECOND), Learnt, "the signalled address, longer after");
    assert_eq!(party.hears(NAT, 400 * SECOND), Stranger);
}

#[test]
fn strict_latching_knows_the_signalled_address_and_proofs_alone() {
    let mut party = Party::new(Latching::Strict, "192.0.2.50:4000");
    assert_eq!(party.hears("192.0.2.50:4002", 60 * SECOND), Stranger);
    assert_eq!(party.hears(NAT, 60 * SECOND), Stranger);
    assert_eq!(party.hears("192.0.2.50:4000", 60 * SECOND), Learnt);
    party.latch.prove(address(STRANGER), 61 * SECOND);
    assert_eq!(party.goes_to(), address(STRANGER));
}

#[test]
fn who_resumes_is_found_at_its_new_mapping_though_it_signs_the_same_address() {
    for wait in [Duration::ZERO, SECOND, 60 * SECOND, 3600 * SECOND] {
        let mut party = Party::new(Latching::Host, PRIVATE);
        assert_eq!(party.hears(NAT, SECOND), Learnt);
        party.signal(100 * SECOND);
        assert_eq!(party.goes_to(), address(NAT), "until it is heard elsewhere");
        assert_eq!(party.hears(STRANGER, 100 * SECOND + wait), Stranger);
        assert_eq!(party.hears(NAT_LATER, 100 * SECOND + wait), Learnt, "after {wait:?}");
        assert_eq!(party.goes_to(), address(NAT_LATER));
    }
}

#[test]
fn the_doubt_ends_when_the_old_place_is_still_heard_later() {
    let mut party = Party::new(Latching::Host, PRIVATE);
    for second in 1..200 {
        assert_eq!(party.hears(NAT, second * SECOND), Learnt);
        if second == 100 {
            party.signal(100 * SECOND);
        }
    }
    assert_eq!(party.hears(NAT_LATER, 199 * SECOND), Stranger);
}

#[test]
fn who_signalled_its_public_mapping_is_found_at_another_one_when_it_resumes() {
    let mut party = Party::new(Latching::Host, NAT);
    assert_eq!(party.hears(NAT, SECOND), Learnt);
    party.signal(100 * SECOND);
    assert_eq!(party.hears(NAT_LATER, 100 * SECOND), Learnt);
    assert_eq!(party.hears(NAT, 200 * SECOND), Learnt, "the signalled address may always come back");
}

#[test]
fn what_signalling_left_passes_and_is_not_learnt_before_the_new_address_is_heard() {
    let mut party = Party::new(Latching::Host, "203.0.113.1:50000");
    assert_eq!(party.hears("203.0.113.1:50000", SECOND), Learnt);
    party.sdp = "203.0.113.1:50020";
    party.signal(20 * SECOND);
    for after in [Duration::ZERO, SECOND, 60 * SECOND] {
        assert_eq!(party.hears("203.0.113.1:50000", 20 * SECOND + after), Passes);
        assert_eq!(party.goes_to(), address("203.0.113.1:50020"));
    }
    assert_eq!(party.hears("203.0.113.1:50020", 90 * SECOND), Learnt);
    assert_eq!(party.hears("203.0.113.1:50000", 90 * SECOND), Stranger);
    party.sdp = "203.0.113.1:50000";
    party.signal(100 * SECOND);
    assert_eq!(party.goes_to(), address("203.0.113.1:50000"));
    assert_eq!(party.hears("203.0.113.1:50000", 100 * SECOND), Learnt, "and back");
}

#[test]
fn another_host_that_was_left_passes_for_a_moment_only() {
    let mut party = Party::new(Latching::Host, "192.0.2.50:4000");
    assert_eq!(party.hears("192.0.2.50:4000", SECOND), Learnt);
    party.sdp = "192.0.2.60:4000";
    party.signal(20 * SECOND);
    assert_eq!(party.hears("192.0.2.50:4000", 21 * SECOND), Passes);
    assert_eq!(party.hears("192.0.2.50:4000", 23 * SECOND), Stranger);
}

#[test]
fn a_mapping_that_stays_while_the_private_address_changes_is_never_without_media() {
    let mut party = Party::new(Latching::Host, PRIVATE);
    assert_eq!(party.hears(NAT, SECOND), Learnt);
    party.sdp = "10.0.0.6:4000";
    party.signal(20 * SECOND);
    assert_eq!(party.hears(NAT, 20 * SECOND), Passes);
    assert_eq!(party.goes_to(), address(NAT), "the new address cannot be reached yet");
    assert_eq!(party.hears(NAT, 20 * SECOND + SETTLE), Learnt);
}

#[test]
fn the_unspecified_address_leaves_nothing() {
    let mut party = Party::new(Latching::Host, PRIVATE);
    assert_eq!(party.hears(NAT, SECOND), Learnt);
    party.latch.signal(None, "203.0.113.1".parse().unwrap(), 20 * SECOND);
    party.signal(30 * SECOND);
    assert_eq!(party.hears(NAT, 30 * SECOND), Learnt);
}

#[test]
fn a_gateway_that_goes_on_from_another_port_is_followed_in_the_first_seconds_only() {
    let mut party = Party::new(Latching::Host, "203.0.113.1:50040");
    assert_eq!(party.hears("203.0.113.1:50042", SECOND), Learnt, "it never speaks from where it said");
    assert_eq!(party.hears("203.0.113.1:50044", SECOND + PAUSE / 2), Stranger);
    assert_eq!(party.hears("203.0.113.1:50044", SECOND + PAUSE), Learnt);
    assert_eq!(party.hears("203.0.113.1:50046", 60 * SECOND), Stranger);
    assert_eq!(party.hears("203.0.113.1:50040", 60 * SECOND), Learnt, "but there it may at any time");
}

#[test]
fn a_rebinding_is_followed_only_by_the_same_stream_after_a_silence_and_where_a_setting_allows_it() {
    for (follows_rebinding, last) in [(true, 2), (true, 60), (false, 2), (false, 60)] {
        let mut party = Party::new(Latching::Host, PRIVATE);
        party.latch.manner.follows_rebinding = follows_rebinding;
        assert_eq!(party.hears(NAT, SECOND), Learnt);
        assert_eq!(party.hears(NAT, last * SECOND), Learnt);
        let mut later = |source: &str, ssrc, after: Duration| {
            let header = header(ssrc, 101);
            let evidence = Evidence::Media { header: &header, latest: Some((7, 100)), is_agreed: true };
            party.latch.judge(address(source), evidence, last * SECOND + after)
        };
        if !follows_rebinding || last > 10 {
            assert_eq!(later(NAT_LATER, 8, SECOND), Stranger, "another stream");
        }
        assert_eq!(later("203.0.113.2:62000", 7, SECOND), Stranger, "another host");
        assert_eq!(later(NAT_LATER, 7, SILENCE - MILLISECOND), Stranger, "too soon");
        assert_eq!(later(NAT_LATER, 7, SILENCE), if follows_rebinding { Learnt } else { Stranger });
    }
}

#[test]
fn what_was_sent_before_a_proven_move_does_not_undo_it_but_signalling_of_another_address_does() {
    let mut party = Party::new(Latching::Host, PRIVATE);
    assert_eq!(party.hears(PRIVATE, SECOND), Learnt);
    party.latch.prove(address("198.51.100.9:7"), 2 * SECOND);
    assert_eq!(party.hears(PRIVATE, 2 * SECOND), Stranger, "the signalled address itself");
    assert_eq!(party.goes_to(), address("198.51.100.9:7"));
    party.sdp = "10.0.0.6:4000";
    party.signal(3 * SECOND);
    assert_eq!(party.goes_to(), address("198.51.100.9:7"), "until it is heard there");
    assert_eq!(party.hears("10.0.0.6:4000", 3 * SECOND), Learnt);
}

#[test]
fn who_has_proven_himself_and_goes_silent_after_signalling_is_found_again() {
    let mut party = Party::new(Latching::Host, PRIVATE);
    party.latch.prove(address(NAT), SECOND);
    party.signal(60 * SECOND);
    assert_eq!(party.hears(NAT_LATER, 61 * SECOND), Learnt);
}

#[test]
fn reports_come_from_the_host_of_the_media() {
    let mut party = Party::new(Latching::Host, "192.0.2.50:4001");
    assert_eq!(party.hears("198.51.100.9:4001", SECOND), Stranger);
    party.latch.follow("198.51.100.9".parse().unwrap(), SECOND);
    assert_eq!(party.hears("198.51.100.9:4001", SECOND), Learnt);
}
