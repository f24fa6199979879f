//! Which shard something is at home in, and what each has of the node's limits.

use std::sync::Arc;

use sip_engine::config::Config;
use sip_engine::io::ConnectionId;
use sip_engine::slot::Slot;

/// What one of `shards` may have of a configuration's limits.
pub(crate) fn share_of(config: &Arc<Config>, shards: usize) -> Arc<Config> {
    let mut share = Config::clone(config);
    share.limits.calls = share.limits.calls.div_ceil(shards);
    share.limits.transactions = share.limits.transactions.div_ceil(shards);
    // The calls of one user are spread by chance: half as many again leaves room for that.
    let calls = share.limits.calls_per_user;
    share.limits.calls_per_user = calls.saturating_mul(3).div_ceil(shards.saturating_mul(2)).min(calls);
    Arc::new(share)
}

/// The shard that is a slot's home.
pub fn shard_of(slot: Slot, shards: usize) -> usize {
    usize::from(slot.number()).checked_rem(shards).unwrap_or(0)
}

/// Connections are numbered so that the number names the shard that owns them.
pub(crate) const OWNER_SHIFT: u32 = 48;

/// Which shard owns a connection.
pub(crate) fn owner(connection: ConnectionId) -> usize {
    (connection.0 >> OWNER_SHIFT) as usize
}
