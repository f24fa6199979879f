//! What a 2xx to REGISTER grants us (RFC 3261 §10.2.4), and when to ask again.
//!
//! It lists all bindings of the account: those of other phones, and perhaps one that we had before a restart, with our very URI. So
//! a binding is told by its instance and reg-id where both sides speak RFC 5626, and by its URI only where none is named.

use std::time::Duration;

use sip_wire::{Address, Message, Name, Uri, unquote};

use crate::registrar::are_equal;

/// The reg-id of the one flow that we register (RFC 5626 §4.2).
pub(super) const REG_ID: u32 = 1;
/// What an expiry that cannot be read means (RFC 3261 §10.2.1.1).
const UNREADABLE: Duration = Duration::from_secs(3600);
/// No refresh follows sooner, whatever is granted: a registrar that grants next to nothing is not to be flooded.
const SOONEST: Duration = Duration::from_secs(2);
/// Nor do those that follow on one another, each upon next to nothing, stay so close: their pauses double up to this.
const SLOWEST: Duration = Duration::from_secs(30);
/// A refresh is earlier by a quarter of its time, at most by this: early enough for a retransmission to arrive.
const AHEAD: Duration = Duration::from_secs(60);

/// What our binding is called.
pub(super) struct Ours<'a> {
    /// Our Contact, a URI.
    pub(super) uri: &'a str,
    /// Our instance, a URN without its angle brackets.
    pub(super) instance: Option<&'a str>,
}

/// How well a listed binding fits ours; the greatest is it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Fit {
    /// The only one, of our user, where the registrar keeps no instances: it has written what it saw of us into Contact.
    Rewritten,
    Uri,
    Instance,
    Flow,
}

/// For how long the binding that we asked `asked` for stands; zero: it is not there.
pub(super) fn granted(response: &Message, ours: &Ours<'_>, asked: Duration) -> Duration {
    let header = || response.number(Name::Expires).and_then(Result::ok).map(seconds);
    if response.count(Name::Contact) == 0 {
        return header().unwrap_or_default();
    }
    let is_alone = response.contacts().count() == 1;
    let listed = response.contacts().flatten().filter_map(|contact| {
        let fit = fit(&contact, ours, is_alone)?;
        let granted = match contact.parameter(b"expires") {
            Some(text) => sip_wire::number(text).map_or(UNREADABLE, seconds),
            None => header().unwrap_or(asked),
        };
        Some((fit, granted))
    });
    listed.max().map_or(Duration::ZERO, |(_, granted)| granted)
}

fn seconds(number: u32) -> Duration {
    Duration::from_secs(u64::from(number))
}

fn fit(listed: &Address<'_>, ours: &Ours<'_>, is_alone: bool) -> Option<Fit> {
    if let Some(named) = listed.parameter(b"+sip.instance") {
        let named = unquote(named);
        let named = named.trim_ascii().strip_prefix(b"<").and_then(|named| named.strip_suffix(b">"));
        // Of another phone, though it may have our URI.
        if !named.zip(ours.instance).is_some_and(|(named, ours)| named.eq_ignore_ascii_case(ours.as_bytes()))
        {
            return None;
        }
        return match listed.parameter(b"reg-id") {
            None => Some(Fit::Instance),
            Some(id) => (sip_wire::number(id) == Some(REG_ID)).then_some(Fit::Flow),
        };
    }
    let uri = Uri::parse(ours.uri.as_bytes()).ok()?;
    if are_equal(&listed.uri, &uri) {
        return Some(Fit::Uri);
    }
    (is_alone && listed.uri.user() == uri.user()).then_some(Fit::Rewritten)
}

/// When to ask again after a grant that was not zero. `brief`: how many grants before this one were too short to be kept up.
pub(super) fn refresh_after(granted: Duration, asked: Duration, brief: u32) -> Duration {
    if granted <= SOONEST {
        return SOONEST.saturating_mul(2_u32.saturating_pow(brief)).min(SLOWEST);
    }
    // Who grants more than was asked for is refreshed as we meant: a registrar that restarts may forget us.
    let stands = granted.min(asked.max(SOONEST));
    stands.saturating_sub(stands.checked_div(4).unwrap_or_default().min(AHEAD)).max(SOONEST)
}

/// Whether a grant is too short to be kept up by refreshes.
pub(super) fn is_brief(granted: Duration) -> bool {
    granted <= SOONEST
}

#[cfg(test)]
mod tests {
    use super::*;

    const URI: &str = "sip:alice@10.0.0.5:5060";
    const INSTANCE: &str = "urn:uuid:00000000-0000-4000-8000-00000000000a";

    /// What is granted by a 200 with these header fields, of 600 s that were asked for.
    fn of(headers: &[&str]) -> u64 {
        let headers = headers.join("\r\n");
        let response = format!(
            "SIP/2.0 200 OK\r\nVia: SIP/2.0/UDP h;branch=z9hG4bKa\r\nFrom: <sip:a@b>;tag=a\r\nTo: <sip:a@b>;tag=b\r\n\
             Call-ID: c\r\nCSeq: 1 REGISTER\r\n{headers}\r\nContent-Length: 0\r\n\r\n"
        );
        let response = Message::parse(response.into()).unwrap();
        let ours = Ours { uri: URI, instance: Some(INSTANCE) };
        granted(&response, &ours, Duration::from_secs(600)).as_secs()
    }

    fn ours(expires: &str) -> String {
        format!("Contact: <{URI}>{expires};+sip.instance=\"<{INSTANCE}>\";reg-id=1")
    }

    #[test]
    fn of_several_bindings_ours_is_the_one_of_our_instance_and_flow_whatever_its_uri() {
        let other = "Contact: <sip:alice@10.0.0.5:5060>;expires=1;+sip.instance=\"<urn:uuid:b>\";reg-id=1";
        let second = format!("Contact: <{URI}>;expires=2;+sip.instance=\"<{INSTANCE}>\";reg-id=2");
        assert_eq!(of(&[other, &ours(";expires=60")]), 60);
        assert_eq!(of(&[&ours(";expires=60"), other]), 60);
        assert_eq!(of(&[&second, &ours(";expires=60")]), 60);
        assert_eq!(of(&[&second, other]), 0);
        // The registrar has written what it saw.
        let rewritten = ours(";expires=60").replace("10.0.0.5:5060", "192.0.2.1:40000").to_uppercase();
        assert_eq!(of(&[other, &rewritten]), 60);
    }

    #[test]
    fn a_registrar_that_names_no_instances_is_understood_by_the_uri() {
        assert_eq!(
            of(&["Contact: <sip:bob@10.0.0.6>;expires=9, <sip:%61lice@10.0.0.5:5060>;expires=60"]),
            60
        );
        assert_eq!(of(&["Contact: <sip:alice@192.0.2.1:40000>;expires=60"]), 60);
        assert_eq!(
            of(&["Contact: <sip:alice@192.0.2.1:40000>;expires=60, <sip:alice@192.0.2.2>;expires=9"]),
            0
        );
        assert_eq!(of(&["Contact: <sip:bob@10.0.0.6>;expires=9"]), 0);
    }

    #[test]
    fn an_expiry_may_be_missing_or_absurd() {
        assert_eq!(of(&[&ours(""), "Expires: 90"]), 90);
        assert_eq!(of(&[&ours("")]), 600);
        assert_eq!(of(&[&ours(";expires=99999999999")]), 3600);
        assert_eq!(of(&[&ours(";expires=soon")]), 3600);
        assert_eq!(of(&[&ours(";expires=0")]), 0);
        assert_eq!(of(&["Expires: 90"]), 90);
        assert_eq!(of(&["Supported: path"]), 0);
    }

    #[test]
    fn a_refresh_is_early_enough_and_never_a_storm() {
        let after = |granted, brief| {
            refresh_after(Duration::from_secs(granted), Duration::from_secs(600), brief).as_millis()
        };
        assert_eq!(after(600, 0), 540_000);
        assert_eq!(after(60, 0), 45_000);
        assert_eq!(after(6, 0), 4_500);
        assert_eq!(after(3, 0), 2_250);
        // Longer than was asked for, up to absurdity.
        assert_eq!(after(u64::from(u32::MAX), 0), 540_000);
        for granted in [0, 1, 2] {
            assert_eq!(
                [0, 1, 3, 4, 99].map(|brief| after(granted, brief)),
                [2_000, 4_000, 16_000, 30_000, 30_000]
            );
        }
    }
}
