//! CRUSH's formats: HANDOFF messages and the lines of descriptions and fragments, read, written and read again.

use media_wire::handoff::{Envelope, Indication, Request, read_switches, write_success};
use media_wire::sdp::crush::{Candidate, Fragment, NatBehaviour, Support};
use media_wire::stun::{Class, Incoming, Key, Method, is_stun};

/// Reads `bytes` as a packet of a media port, as a description and as the body of an INFO.
pub fn crush(bytes: &[u8]) {
    packet(bytes);
    let text = String::from_utf8_lossy(bytes);
    if let Some(support) = Support::find(&text) {
        assert_eq!(Support::find(&support.to_string()).as_ref(), Some(&support));
    }
    if let Some(fragment) = Fragment::read(&text) {
        assert_eq!(Fragment::read(&fragment.write("audio")).as_ref(), Some(&fragment));
    }
    for line in text.lines() {
        if let Some(candidate) = Candidate::read(line) {
            assert_eq!(Candidate::read(&candidate.to_string()).as_ref(), Some(&candidate));
        }
        if let Some(nat) = NatBehaviour::read(line) {
            assert_eq!(NatBehaviour::read(&nat.to_string()), Some(nat));
        }
    }
}

fn packet(bytes: &[u8]) {
    let Some(message) = Incoming::read(bytes) else { return };
    assert!(is_stun(bytes));
    let key = Key::new("a password of nobody");
    assert!(!message.authentic(&key), "authentic without the key");
    // Whatever they hold, none of these may panic.
    let _ = (message.username(), message.error_code(), message.mapped_address(), message.other_address());
    if message.method() != Method::Handoff {
        return;
    }
    match message.class() {
        Class::Request => {
            let Some(request) = Request::read(&message) else { return };
            let written = request.write(&Envelope {
                transaction: message.transaction(),
                receiver: "receiver",
                sender: "sender",
                key: &key,
            });
            let again = Incoming::read(&written).expect("what we write can be read");
            assert!(again.authentic(&key));
            assert_eq!(Request::read(&again), Some(request));
        }
        Class::Indication => {
            let Some((number, indication)) = Indication::read(&message) else { return };
            let written = indication.write(
                number,
                &Envelope {
                    transaction: message.transaction(),
                    receiver: "receiver",
                    sender: "sender",
                    key: &key,
                },
            );
            let again = Incoming::read(&written).expect("what we write can be read");
            assert_eq!(Indication::read(&again), Some((number, indication)));
        }
        Class::Success => {
            let switches = read_switches(&message);
            let written = write_success(message.transaction(), &switches, &key);
            let again = Incoming::read(&written).expect("what we write can be read");
            assert_eq!(read_switches(&again), switches);
        }
        Class::Error => {}
    }
}
