//! Telephones: what a description, a packet or a check makes them do.

#[cfg(feature = "crush")]
pub mod checking;
#[cfg(feature = "crush")]
pub mod crush;
#[cfg(feature = "crush")]
pub mod device;
pub mod ice;
pub mod plain;
pub mod rtcp;
