//! A call that is direct, as plain data that an earlier version wrote.

use media_core::state::StoredSession;
use play::anchor::{Anchor, at, rtp};
use play::ground::relays;
use play::ports::Counted;
use play::settings::media::{allowing, party, release, two_realms};
use seam::path::Constraint;
use seam::{Action, Event, Renegotiated, Reply};
use serde_json::Value;

use crate::second;

/// As it was written when version 1 was made: a baresip and a linphone that talk past the relay for some seconds.
const SAMPLE: &str = include_str!("stored_session_1.json");
const PHONES: [&str; 2] = ["198.51.100.7:4000", "203.0.113.8:4000"];
const NUMBER: u64 = 5;

/// A worker that takes it in at the moment at which it was taken out.
fn taken_in() -> Anchor {
    let stored: StoredSession = serde_json::from_str(SAMPLE).expect("an earlier version wrote it");
    let settings = two_realms(release(vec![allowing(); 2]), &relays(), 20_000..=29_999);
    let parties = PHONES.map(|phone| party(0, at(phone)));
    let anchor = Anchor::new(settings, Counted::at(relays()).from_port(20_000), parties.into());
    let mut anchor = Anchor { session: NUMBER, now: second(114), ..anchor };
    let Anchor { worker, ports, now, .. } = &mut anchor;
    worker.take_in(NUMBER, stored, *now, ports).expect("its ports are free");
    anchor
}

/// The places at which two values are not the same.
fn differences(place: &str, one: Option<&Value>, other: Option<&Value>, found: &mut Vec<String>) {
    match (one, other) {
        (Some(Value::Object(one)), Some(Value::Object(other))) => {
            let more = other.keys().filter(|name| !one.contains_key(*name));
            for name in one.keys().chain(more) {
                differences(&format!("{place}/{name}"), one.get(name), other.get(name), found);
            }
        }
        (Some(Value::Array(one)), Some(Value::Array(other))) => {
            for index in 0..one.len().max(other.len()) {
                differences(&format!("{place}/{index}"), one.get(index), other.get(index), found);
            }
        }
        (one, other) if one == other => {}
        _ => found.push(place.to_owned()),
    }
}

/// If this fails, what is written is of another version now: give it another number, and say what becomes of the data of the one before.
#[test]
fn a_session_is_written_today_as_it_was() {
    let mut anchor = taken_in();
    let Anchor { worker, ports, now, .. } = &mut anchor;
    let again = worker.take_out(NUMBER, *now, ports).expect("it rests");
    let (then, today) =
        (serde_json::from_str(SAMPLE).expect("JSON"), serde_json::to_value(again).expect("plain data"));
    let mut found = Vec::new();
    differences("", Some(&then), Some(&today), &mut found);
    assert_eq!(found, [""; 0]);
}

/// What a phone answers where it is told to go.
fn answer(phone: &str) -> String {
    let phone = at(phone);
    format!(
        "v=0\r\no=- 7 9 IN IP4 {ip}\r\ns=-\r\nc=IN IP4 {ip}\r\nt=0 0\r\nm=audio {port} RTP/AVP 0 101\r\na=rtpmap:101 telephone-event/8000\r\n",
        ip = phone.ip(),
        port = phone.port()
    )
}

#[test]
fn a_session_that_was_written_long_ago_is_read_and_goes_on() {
    let mut anchor = taken_in();
    anchor.wait(second(10));
    anchor.act(Action::Constrain(Constraint::MustAnchor));
    let mut told = [0; 2];
    for event in (0..10).flat_map(|_| anchor.wait(second(1) / 20)).collect::<Vec<_>>() {
        let Event::Renegotiate { wish, legs, .. } = event else { continue };
        for (endpoint, sdp) in legs {
            let (side, sdp) = (usize::from(endpoint.party), sdp.expect("an offer"));
            assert!(String::from_utf8_lossy(&sdp).contains("c=IN IP4 192.0.2.1\r\n"), "{sdp:?}");
            told[side] += 1;
            let outcome = Renegotiated::Accepted(answer(PHONES[side]).into());
            anchor.act(Action::Renegotiated { wish, endpoint, outcome });
        }
    }
    assert_eq!(told, [1; 2], "both are called home");
    let sockets =
        ["192.0.2.1:20000", "192.0.2.1:20002"].map(|port| anchor.ports.socket(at(port)).expect("open"));
    // The numbers that the two have come to meanwhile.
    for (from, number) in [59115, 59628].into_iter().enumerate() {
        let places = anchor.places(sockets[from], PHONES[from], &rtp(number, 0x1000 + from as u32));
        assert_eq!(places, [(sockets[1 - from], at(PHONES[1 - from]))]);
    }
    let Some(Reply::Deleted { direct, streams }) = anchor.act(Action::Delete) else { panic!("no count") };
    assert_eq!(streams.iter().map(|stream| stream.packets).collect::<Vec<_>>(), [280, 279]);
    assert_eq!(direct.as_secs(), 18, "{direct:?}");
}
