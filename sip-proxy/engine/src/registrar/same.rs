//! Which registrations are of one phone, and which Contacts are the same.

use sip_wire::Uri;

use super::BindingRecord;
use crate::flow::Flow;

/// What marks the `reg-id` behind an instance in [`BindingRecord::instance`].
pub(super) const REG_ID: &str = ";reg-id=";

/// One binding: as [`names`] has it. Or the phone's last one over a stream that is gone: its Contact named a port that will
/// never be again.
pub(super) fn is_same(known: &BindingRecord, new: &BindingRecord) -> bool {
    let is_gone = known.flow.transport.is_reliable() && known.flow.connection.is_none();
    let lacks_instance = known.instance.is_none() || new.instance.is_none();
    Uri::parse(new.uri.as_bytes()).is_ok_and(|uri| names(known, new.instance.as_deref(), &uri, &new.flow))
        || (lacks_instance && is_gone && comes_after(known, new))
}

/// Whether a Contact, with the instance that it names, means this binding: the same flow of one instance (RFC 5626 §6), or the same
/// URI (RFC 3261 §10.3 step 7) where an instance is missing. A URI alone tells two instances not apart: private addresses are many
/// phones'. But a port has one phone behind it: who registers from there with the very Contact under another instance has been
/// restarted and makes up an instance at each start, and would else be called twice until the old one expires.
pub(super) fn names(known: &BindingRecord, instance: Option<&str>, uri: &Uri<'_>, flow: &Flow) -> bool {
    let has_its_uri = || Uri::parse(known.uri.as_bytes()).is_ok_and(|known| are_equal(&known, uri));
    match (known.instance.as_deref(), instance) {
        (Some(one), Some(other)) if instance_of(one) == instance_of(other) => one == other,
        (Some(_), Some(_)) => !flow.transport.is_reliable() && known.flow == *flow && has_its_uri(),
        _ => has_its_uri(),
    }
}

/// Whether a registration is of the phone that had another: whoever replaces it, by whatever name, is to be found in its
/// calls (RFC 5626 §5.3).
pub(super) fn is_same_phone(one: &BindingRecord, new: &BindingRecord) -> bool {
    is_same(one, new) || comes_after(one, new)
}

/// A later REGISTER of one run of a phone (RFC 3261 §10.2: it keeps its Call-ID).
fn comes_after(known: &BindingRecord, new: &BindingRecord) -> bool {
    known.call_id == new.call_id && known.cseq < new.cseq && known.instance == new.instance
}

/// Whether the binding is one of RFC 5626's: reached over its flow or not at all.
pub(super) fn is_outbound(record: &BindingRecord) -> bool {
    record.instance.as_ref().is_some_and(|instance| instance.contains(REG_ID))
}

/// The instance without its `reg-id`.
pub(super) fn instance_of(named: &str) -> &str {
    named.rsplit_once(REG_ID).map_or(named, |(instance, _)| instance)
}

/// RFC 3261 §19.1.4. A transport in one alone makes two of them, as its examples have it.
pub(crate) fn are_equal(one: &Uri<'_>, other: &Uri<'_>) -> bool {
    let names = |uri: &Uri<'_>| (uri.scheme(), uri.port());
    if names(one) != names(other)
        || !one.host().as_bytes().eq_ignore_ascii_case(other.host().as_bytes())
        || Uri::unescape(one.user()) != Uri::unescape(other.user())
    {
        return false;
    }
    let fits = |one: &Uri<'_>, other: &Uri<'_>| {
        one.parameters().all(|(name, value)| match other.parameters().get(name) {
            Some(known) => same_text(value, known),
            None => ![b"user".as_slice(), b"ttl", b"method", b"maddr", b"transport"]
                .iter()
                .any(|must| name.eq_ignore_ascii_case(must)),
        })
    };
    fits(one, other) && fits(other, one) && sorted_headers(one) == sorted_headers(other)
}

fn same_text(one: Option<&[u8]>, other: Option<&[u8]>) -> bool {
    let plain = |value: Option<&[u8]>| value.map(|value| Uri::unescape(value).to_ascii_lowercase());
    plain(one) == plain(other)
}

fn sorted_headers(uri: &Uri<'_>) -> Vec<Vec<u8>> {
    let mut headers: Vec<_> = uri
        .headers()
        .split(|byte| *byte == b'&')
        .map(|header| Uri::unescape(header).to_ascii_lowercase())
        .collect();
    headers.sort();
    headers
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn contacts_are_compared_as_the_rfc_has_it() {
        let same = |one: &str, other: &str| {
            are_equal(&Uri::parse(one.as_bytes()).unwrap(), &Uri::parse(other.as_bytes()).unwrap())
        };
        for (one, other) in [
            ("sip:%61lice@atlanta.com;transport=TCP", "sip:alice@AtLanTa.CoM;Transport=tcp"),
            ("sip:carol@chicago.com", "sip:carol@chicago.com;newparam=5"),
            ("sip:carol@chicago.com;security=on", "sip:carol@chicago.com;newparam=5"),
            (
                "sip:b@x;transport=tcp;method=REGISTER?to=sip:b%40x",
                "sip:b@x;method=REGISTER;transport=tcp?to=sip:b%40x",
            ),
            ("sip:a@x?subject=project%20x&priority=urgent", "sip:a@x?priority=urgent&subject=project%20x"),
        ] {
            assert!(same(one, other), "{one} {other}");
        }
        for (one, other) in [
            ("SIP:ALICE@AtLanTa.CoM", "sip:alice@AtLanTa.CoM"),
            ("sip:bob@biloxi.com", "sip:bob@biloxi.com:5060"),
            ("sip:bob@biloxi.com", "sip:bob@biloxi.com;transport=udp"),
            ("sip:carol@chicago.com;security=on", "sip:carol@chicago.com;security=off"),
            ("sip:carol@chicago.com", "sip:carol@chicago.com?Subject=next"),
            ("sip:bob@phone21.boxesbybob.com", "sip:bob@192.0.2.4"),
        ] {
            assert!(!same(one, other), "{one} {other}");
        }
    }
}
