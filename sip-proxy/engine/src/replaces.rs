//! Which dialog is meant (RFC 3891).

/// Call-ID, to-tag and from-tag of a Replaces value.
pub(crate) fn read_replaces(value: &[u8]) -> Option<(&[u8], &[u8], &[u8])> {
    let end = value.iter().position(|byte| *byte == b';')?;
    Some((
        value.get(..end)?.trim_ascii(),
        sip_wire::parameter(value, b"to-tag")?,
        sip_wire::parameter(value, b"from-tag")?,
    ))
}
