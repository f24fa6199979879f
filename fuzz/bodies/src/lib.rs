//! What the fuzz targets do with their input: read it, and check what must hold of whatever was read. A broken promise
//! panics. `targets/` hands the input of libFuzzer to these functions, `tests/replay.rs` what is kept in the
//! repository.

#![allow(clippy::panic, clippy::unwrap_used, clippy::expect_used, reason = "a finding is a panic")]

mod agent;
mod body;
mod crush;
mod latch;
mod registrar;
mod rtcp;
mod sdp;
mod sip;
mod srtp;
mod stun;

pub use agent::{agent, paths_after};
pub use body::body;
pub use crush::crush;
pub use latch::latch;
pub use registrar::registrar;
pub use rtcp::rtcp;
pub use sdp::sdp;
pub use sip::sip;
pub use srtp::srtp;
pub use stun::stun;
