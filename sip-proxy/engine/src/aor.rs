//! Addresses of record.

use sip_wire::Uri;

/// The canonical form of an address of record: `user@host`, user unescaped, host in lower case; `None` for what has no
/// user or host.
pub fn aor_of(uri: &Uri<'_>) -> Option<String> {
    let host = std::str::from_utf8(uri.host().as_bytes()).ok()?;
    let user = Uri::unescape(uri.user());
    let user = std::str::from_utf8(&user).ok()?;
    (!host.is_empty() && !user.is_empty()).then(|| format!("{user}@{}", host.to_ascii_lowercase()))
}
