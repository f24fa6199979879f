//! Settings of two realms, the first of which has telephones and the second the core: a test changes what it is about.

#[cfg(feature = "media")]
pub mod media;
#[cfg(feature = "signalling")]
pub mod signalling;
