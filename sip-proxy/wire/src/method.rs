//! Methods: any token is one (RFC 3261 §7.1).

use std::fmt;

/// A method, compared byte for byte: methods are case-sensitive.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Method<'a>(&'a [u8]);

macro_rules! methods {
    ($($name:ident)*) => {
        impl Method<'static> {
            $(#[doc = concat!("`", stringify!($name), "`.")] pub const $name: Self = Method(stringify!($name).as_bytes());)*

            /// Those with a name here.
            pub const KNOWN: &'static [Self] = &[$(Self::$name),*];
        }
    };
}
methods! { INVITE ACK BYE CANCEL OPTIONS REGISTER PRACK UPDATE INFO REFER SUBSCRIBE NOTIFY MESSAGE PUBLISH }

impl<'a> Method<'a> {
    /// `token` must be one (RFC 3261 §25.1).
    pub fn new(token: &'a [u8]) -> Self {
        Self(token)
    }

    /// Its bytes.
    pub fn as_bytes(self) -> &'a [u8] {
        self.0
    }
}

impl fmt::Display for Method<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&String::from_utf8_lossy(self.0))
    }
}

impl fmt::Debug for Method<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}
