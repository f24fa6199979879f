//! What the application has been shown of the call so far.

use std::time::Duration;

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Story {
    /// When the first description came, or all was on the relay again.
    pub(super) on_relay_since: Option<Duration>,
    pub(super) is_connecting: bool,
    pub(super) is_relayed: bool,
    /// When the first stream left the relay.
    pub(super) left: Option<Duration>,
    pub(super) is_direct: bool,
}
