//! Faults that tests put into parts and readings. Not in a release build: there is no way to ask for one.

/// Where a reading panics if a test has asked for it: what is read (`what`: message, packet, description) holds the words
/// `fault-in-a-WHAT`.
#[inline]
pub fn stumble(what: &str, read: &[u8]) {
    #[cfg(debug_assertions)]
    parts::stumble(what, read);
    #[cfg(not(debug_assertions))]
    let _ = (what, read);
}

#[cfg(debug_assertions)]
pub(crate) use parts::{Fault, file, look};

#[cfg(debug_assertions)]
mod parts;
