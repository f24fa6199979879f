//! What the shell needs of the program round it.

use sip_engine::io::{Input, Output};
use sip_engine::time::Now;

/// What carries out everything but sends: policy, media, journal, store.
///
/// One per shard, called on the shard's thread: it must not wait for a disk, a lock that others hold over a system call, or the network.
pub trait Host {
    /// Carries out an output that is no send. What can be answered at once comes back as an input; what takes longer
    /// comes through the shard's [`ShardHandle`](crate::ShardHandle).
    fn carry_out(&mut self, output: Output, now: Now) -> Option<Input>;

    /// An answer is about to leave that promises something. If what was carried out for it is not kept yet: a number to ask
    /// [`Host::is_kept`] with, after [`ShardHandle::look_again`](crate::ShardHandle::look_again); until then the answer waits, and nothing else.
    fn promised(&mut self, promise: Promise) -> Option<u64> {
        let _ = promise;
        None
    }

    /// Whether an answer that waits may leave.
    fn is_kept(&self, promise: Promise, number: u64) -> bool {
        let _ = (promise, number);
        true
    }
}

/// What a final answer of ours promises to its receiver.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Promise {
    /// A call was answered: that is recorded.
    Answered,
    /// A call is over: its record is complete.
    Ended,
    /// A binding was made, refreshed or removed: that outlives the process.
    Registered,
}
