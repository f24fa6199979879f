//! Which bodies pass from one side to the other, and as what.

use bytes::Bytes;
use sip_wire::{Body, BodyFault, Builder, Message};

use crate::core::Core;
use crate::translation::Translation;

/// Content-Type and octets.
pub(super) type Written = Option<(Vec<u8>, Bytes)>;

/// Adds a body, if there is one.
pub(super) fn add(out: Builder, body: Written) -> Builder {
    match body {
        Some((kind, octets)) => out.body(&kind, octets),
        None => out,
    }
}

/// Adds a message's body as [`body_for`] makes it.
pub(super) fn with_body(
    out: Builder,
    message: &Message,
    sdp: Option<&Bytes>,
    names: &mut Translation<'_>,
    core: &Core,
) -> Result<Builder, BodyFault> {
    Ok(add(out, body_for(message, sdp, names, core)?))
}

/// A message's body for the other side, with `sdp` in the place of its session description. What it names of its own
/// side is rewritten; a body that cannot be passed is a fault, never left out.
pub(super) fn body_for(
    message: &Message,
    sdp: Option<&Bytes>,
    names: &mut Translation<'_>,
    core: &Core,
) -> Result<Written, BodyFault> {
    if message.body().is_empty() {
        return Ok(sdp.map(|sdp| (b"application/sdp".to_vec(), sdp.clone())));
    }
    let body = Body::of(message)?;
    names.add_dialogs(message.body(), core);
    let names = &*names;
    let translate = |text: &[u8]| {
        let is_markup = text.trim_ascii_start().starts_with(b"<");
        // The closure's lifetimes are one; what is not changed is known by being equal.
        if is_markup { names.apply_markup(text).into_owned() } else { names.apply(text).into_owned() }
    };
    if let Some(fragment) = bare_fragment(message, &translate) {
        return Ok(Some((b"message/sipfrag;version=2.0".to_vec(), fragment)));
    }
    body.write(sdp, &translate)
}

/// Of a message/sipfrag (RFC 3420) that names its own side the status line, which is all that a transfer is told by
/// (RFC 3515 §2.4.5).
fn bare_fragment(message: &Message, translate: &dyn Fn(&[u8]) -> Vec<u8>) -> Option<Bytes> {
    if !message.media_type()?.is("message/sipfrag") {
        return None;
    }
    let body = message.body_bytes();
    let end = memchr::memchr(b'\n', &body)?.saturating_add(1);
    let (line, rest) = body.split_at_checked(end)?;
    let is_bare = line.starts_with(b"SIP/2.0 ") && (translate(rest) != rest || has_addresses(rest));
    is_bare.then(|| translate(line).into())
}

/// Whether headers of a fragment tell where its author's message went.
fn has_addresses(headers: &[u8]) -> bool {
    use sip_wire::Name;
    headers.split(|byte| *byte == b'\n').any(|line| {
        let name = line.split(|byte| *byte == b':').next().unwrap_or_default().trim_ascii();
        matches!(
            Name::of(name),
            Name::Via | Name::Route | Name::RecordRoute | Name::Contact | Name::CallId | Name::Path
        )
    })
}
