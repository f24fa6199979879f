//! Calls in both directions between both products over every pair of transports: audio both ways, hold and resume from
//! either phone.

use std::time::Duration;

use crush_tests::leak::names_in_rtcp;
use crush_tests::packet::{Packet, is_rtcp};
use crush_tests::phone::Kind;
use crush_tests::skip_unless_possible;
use crush_tests::stage::{Extension, SOON, Stage};

use crate::cast::{TRANSPORTS, call, hang_up, hear_each_other, phone, stage};

/// No packet for so long is silence: thirty packets of 20 ms.
const SILENCE: Duration = Duration::from_millis(600);

/// The changes of the latest call so far, as its record will show them.
fn changes(stage: &Stage) -> usize {
    stage.sbc.sql("SELECT count(*) FROM call_event WHERE kind = 'changed'").unwrap().parse().unwrap()
}

/// One holds the other: no RTP reaches it any more, and none the held one unless its product plays to whom it holds.
/// Then it takes the call up again, and both hear each other.
fn hold_and_resume(stage: &Stage, holder: &mut Extension, held: &mut Extension) {
    let before = changes(stage);
    let expect = |what: &str, count: usize| {
        let last = "SELECT count(*), (SELECT detail ? '@' FROM call_event WHERE kind = 'changed' ORDER BY at DESC, sequence DESC LIMIT 1) \
            FROM call_event WHERE kind = 'changed'".replace('@', what);
        stage.sbc.eventually_sql(&last, &format!("{count}|t"), SOON).unwrap();
    };
    holder.phone.hold().unwrap();
    expect("Hold", before + 1);
    holder.falls_silent(SILENCE).unwrap();
    if holder.kind.plays_on_hold() {
        held.hears(holder).unwrap();
    } else {
        held.falls_silent(SILENCE).unwrap();
    }
    holder.phone.resume().unwrap();
    expect("Resume", before + 2);
    hear_each_other(holder, held);
}

fn talk(caller: &mut Extension, callee: &mut Extension, stage: &Stage) {
    call(caller, callee);
    hold_and_resume(stage, caller, callee);
    hold_and_resume(stage, callee, caller);
    // Reports with names in them have passed both ways, or there would be nothing to search for leaks.
    for phone in [&mut *caller, &mut *callee] {
        let address = phone.address;
        let has_names = |packet: &Packet| {
            packet.destination.ip() == address
                && is_rtcp(&packet.payload)
                && names_in_rtcp(&packet.payload).count() > 0
        };
        phone.tap().sees("RTCP with names", 0, SOON, has_names).unwrap();
    }
    hang_up(callee, caller);
}

/// Each product on each side, each side calling.
fn everybody_talks(transports: [&'static str; 2], [access, core]: [Kind; 2]) {
    skip_unless_possible!(access.program(), core.program(), "curl", "openssl");
    let mut stage = stage("talk");
    let mut one = phone(&mut stage, access, "a1", transports[0]);
    let mut other = phone(&mut stage, core, "c1", transports[1]);
    talk(&mut one, &mut other, &stage);
    talk(&mut other, &mut one, &stage);
    let ended = "SELECT count(*) FROM call WHERE cause = 'bye' AND status = 200 AND ended_by = 'callee'";
    stage.sbc.eventually_sql(ended, "2", SOON).unwrap();
    let media = "SELECT count(*), max((stream->>'lost')::int) FROM call, jsonb_array_elements(media) stream WHERE (stream->>'packets')::int > 50";
    assert_eq!(stage.sbc.sql(media).unwrap(), "4|0");
    stage.close([one, other]).unwrap();
}

#[test]
fn baresip_and_linphone_over_udp() {
    everybody_talks(["udp", "udp"], [Kind::Baresip, Kind::Linphone]);
}

#[test]
fn linphone_and_baresip_over_tcp_and_tls() {
    everybody_talks(["tcp", "tls"], [Kind::Linphone, Kind::Baresip]);
}

#[test]
fn two_baresips_over_tls_and_udp() {
    everybody_talks(["tls", "udp"], [Kind::Baresip, Kind::Baresip]);
}

#[test]
fn two_linphones_over_udp_and_tcp() {
    everybody_talks(["udp", "tcp"], [Kind::Linphone, Kind::Linphone]);
}

#[test]
fn pjsip_and_baresip_over_tls() {
    everybody_talks(["tls", "tls"], [Kind::Pjsua, Kind::Baresip]);
}

#[test]
fn two_of_our_own_over_udp_and_tcp() {
    everybody_talks(["udp", "tcp"], [Kind::Softphone, Kind::Softphone]);
}

#[test]
fn our_own_and_baresip_over_tls_and_udp() {
    everybody_talks(["tls", "udp"], [Kind::Softphone, Kind::Baresip]);
}

macro_rules! matrix {
    ($($name:ident: $kinds:expr;)*) => {$(
        #[test]
        #[ignore = "nine pairs of transports: make test-phones"]
        fn $name() {
            for transports in TRANSPORTS {
                eprintln!("{transports:?}");
                everybody_talks(transports, $kinds);
            }
        }
    )*};
}

matrix! {
    two_of_our_own: [Kind::Softphone, Kind::Softphone];
    baresip_and_our_own: [Kind::Baresip, Kind::Softphone];
    baresip_and_linphone: [Kind::Baresip, Kind::Linphone];
    linphone_and_baresip: [Kind::Linphone, Kind::Baresip];
    two_baresips: [Kind::Baresip, Kind::Baresip];
    two_linphones: [Kind::Linphone, Kind::Linphone];
    pjsip_and_linphone: [Kind::Pjsua, Kind::Linphone];
    baresip_and_pjsip: [Kind::Baresip, Kind::Pjsua];
}
