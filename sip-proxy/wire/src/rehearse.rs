//! Reading a message for nothing.

use std::hint::black_box;

use crate::message::Message;
use crate::multipart::session_description;
use crate::name::Name;
use crate::text::Values;
use crate::uri::Uri;
use crate::via::Via;

/// Reads all that anybody reads of a message, and forgets it. Values are read when somebody asks for them, then and there;
/// a mistake in that reading would end whoever asks, in the midst of what he does. Whatever it is has happened here before,
/// where nothing else can be harmed (`vitals::contained`).
pub fn rehearse(message: &Message) {
    let _ = black_box(message.request_uri().map(|uri| Uri::parse(uri).map(|uri| read_uri(&uri))));
    let _ = black_box((message.cseq(), message.call_id(), message.number(Name::MaxForwards)));
    for address in [message.from(), message.to()].into_iter().flatten() {
        black_box((address.tag(), read_uri(&address.uri)));
    }
    for line in message.lines() {
        match line.name {
            Name::Via => {
                for via in Values::of_list(line.value).filter_map(|value| Via::parse(value).ok()) {
                    black_box((via.branch(), via.received(), via.has_rport(), via.host.address()));
                }
            }
            Name::Contact
            | Name::Route
            | Name::RecordRoute
            | Name::ReferTo
            | Name::ReferredBy
            | Name::Path
            | Name::Diversion
            | Name::HistoryInfo
            | Name::PAssertedIdentity => {
                for value in Values::of_list(line.value) {
                    if let Ok(address) = crate::address::Address::parse(value) {
                        black_box((address.parameter(b"expires"), read_uri(&address.uri)));
                    }
                }
            }
            _ => {
                black_box(crate::text::parameter(line.value, b"refresher"));
            }
        }
    }
    black_box((message.media_type().is_some(), session_description(message)));
}

fn read_uri(uri: &Uri<'_>) -> usize {
    let user = Uri::unescape(uri.user()).len();
    black_box((
        uri.host().address(),
        uri.port(),
        uri.header(b"Replaces"),
        uri.parameters().get(b"transport"),
    ));
    user
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whatever_stands_in_a_message_it_is_read_without_harm() {
        let text = "INVITE sip:%zz@[::1;x SIP/2.0\r\nVia: SIP/2.0/UDP [::1]:99999;branch\r\nFrom: \"a <sip:b;tag\r\nTo: <\r\n\
                    Contact: *, <sip:a?Replaces=%4>;expires=\"\r\nRoute: ,,<>\r\nContent-Type: multipart/mixed;boundary\r\n\r\n--";
        for end in 0..text.len() {
            if let Ok(message) = Message::parse(bytes::Bytes::copy_from_slice(&text.as_bytes()[..end])) {
                rehearse(&message);
            }
        }
    }
}
