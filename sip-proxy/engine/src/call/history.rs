//! What the next target is told of those who sent a call on to it: Diversion (RFC 5806), which networks of telephones
//! read, and History-Info (RFC 7044), which says the same in order.

use sip_wire::{Message, Name, Uri, parameter};

use super::diversion::Diverted;

/// Diversion values, from the last that sent the call on to the first; all at `host`.
pub(super) fn diversions(all: &[&Diverted], host: &str) -> Vec<String> {
    let value = |one: &&Diverted| {
        let user = Uri::escape(one.user.as_bytes());
        format!("<sip:{user}@{host}>;reason={};counter=1", one.why.word())
    };
    all.iter().map(value).collect()
}

/// History-Info values: whom the call was for at first, and each whom it was sent on to, up to `target` (a user part).
/// They continue what the request knows already, if that passes (`before`).
pub(super) fn history(all: &[&Diverted], target: &str, host: &str, before: Option<&Message>) -> Vec<String> {
    let Some(first) = all.last() else { return Vec::new() };
    let known = before.and_then(|request| request.values(Name::HistoryInfo).last());
    let known =
        known.and_then(|value| parameter(value, b"index")).and_then(|index| std::str::from_utf8(index).ok());
    let is_index =
        |index: &&str| index.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.') && index.len() < 64;
    let mut index = known.filter(is_index).map_or_else(|| "1".to_owned(), |index| format!("{index}.1"));
    let mut out = vec![format!("<sip:{}@{host}>;index={index}", Uri::escape(first.user.as_bytes()))];
    let next = all.iter().rev().skip(1).map(|one| one.user.as_str()).chain(std::iter::once(target));
    for (one, user) in all.iter().rev().zip(next) {
        let (user, from) = (Uri::escape(user.as_bytes()), index.clone());
        index.push_str(".1");
        out.push(format!("<sip:{user}@{host};cause={}>;index={index};mp={from}", one.why.cause()));
    }
    out
}
