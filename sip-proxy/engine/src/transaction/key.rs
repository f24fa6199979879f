//! What makes two messages belong to one transaction (RFC 3261 §17.1.3, §17.2.3).

use sip_wire::{Message, Method};

const COOKIE: &[u8] = b"z9hG4bK";

/// Branch and method of a request of ours, or of the response that came back for it. `None` without a branch.
pub(super) fn of_client(message: &Message) -> Option<Box<[u8]>> {
    let via = message.via().ok()?;
    let cseq = message.cseq().ok()?;
    Some(client(via.branch()?, cseq.method))
}

/// The key of a client transaction.
pub(super) fn client(branch: &[u8], method: Method<'_>) -> Box<[u8]> {
    let mut key = Vec::with_capacity(branch.len().saturating_add(11));
    key.extend_from_slice(branch);
    key.push(b' ');
    key.extend_from_slice(method.as_bytes());
    key.into_boxed_slice()
}

/// The key of the server transaction that a request belongs to, an ACK to that of its INVITE.
pub(super) fn of_server(request: &Message) -> Option<Box<[u8]>> {
    let method = match request.method()? {
        method if method == Method::ACK => Method::INVITE,
        method => method,
    };
    server(request, method)
}

/// The key of the INVITE that a CANCEL cancels.
pub(super) fn of_cancelled(cancel: &Message) -> Option<Box<[u8]>> {
    server(cancel, Method::INVITE)
}

fn server(request: &Message, method: Method<'_>) -> Option<Box<[u8]>> {
    let via = request.via().ok()?;
    let mut key = Vec::with_capacity(96);
    key.extend_from_slice(method.as_bytes());
    key.push(b' ');
    key.extend(via.host.as_bytes().iter().map(u8::to_ascii_lowercase));
    key.push(b' ');
    key.extend_from_slice(&via.port.unwrap_or(5060).to_be_bytes());
    match via.branch().filter(|branch| branch.len() > COOKIE.len() && branch.starts_with(COOKIE)) {
        Some(branch) => key.extend_from_slice(branch),
        // A peer of RFC 2543: all that an ACK and a CANCEL share with their INVITE. The To tag is left out: an ACK
        // carries the one that our response gave. Of the Vias only the top one counts, however it is spaced and
        // whatever stands beside it in its line.
        None => {
            let mut top_via = via.transport.to_ascii_lowercase();
            for (name, value) in via.parameters() {
                top_via.push(b';');
                top_via.extend(name.iter().map(u8::to_ascii_lowercase));
                top_via.push(b'=');
                top_via.extend_from_slice(value.unwrap_or_default());
            }
            let from = request.from().ok()?;
            for part in
                [request.request_uri()?, from.tag().unwrap_or_default(), request.call_id().ok()?, &*top_via]
            {
                key.push(0);
                key.extend_from_slice(part);
            }
            key.extend_from_slice(&request.cseq().ok()?.number.to_be_bytes());
        }
    }
    Some(key.into_boxed_slice())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(method: &str, via: &str) -> Option<Box<[u8]>> {
        let text = format!(
            "{method} sip:a@b SIP/2.0\r\nVia: {via}\r\nFrom: <sip:a@b>;tag=f\r\nTo: <sip:a@b>\r\nCall-ID: i\r\nCSeq: 1 {method}\r\n\r\n"
        );
        of_server(&Message::parse(text.into()).unwrap())
    }

    #[test]
    fn the_ack_of_an_old_peer_belongs_to_its_invite_however_its_via_is_spaced() {
        let invite =
            key("INVITE", "SIP  / 2.0\r\n /UDP\r\n    192.0.2.2;branch=390skdjuw, SIP/2.0/TCP other.example");
        assert!(invite.is_some());
        assert_eq!(invite, key("ACK", "SIP/2.0/UDP 192.0.2.2 ; branch=390skdjuw"));
        assert_ne!(invite, key("ACK", "SIP/2.0/UDP 192.0.2.2;branch=another"));
    }
}
