//! What holds between two endpoints until one of them begins anew with other credentials (docs/crush.md §4 and §9).

use std::net::SocketAddr;
use std::time::Duration;

use media_wire::sdp::crush::Candidate;
use media_wire::stun::Key;

use super::family::Families;
use super::io::SocketId;
use crate::find::Finder;
use crate::handoff::Window;
use crate::random::Random;

/// One side's credentials.
#[derive(Debug, Clone)]
pub(super) struct Credentials {
    pub(super) ufrag: String,
    pub(super) pwd: String,
    pub(super) key: Key,
}

impl Credentials {
    pub(super) fn new(ufrag: &str, pwd: &str) -> Self {
        Self { ufrag: ufrag.to_owned(), pwd: pwd.to_owned(), key: Key::new(pwd) }
    }

    /// 48 and 144 random bits (RFC 8445 §5.3 asks for 24 and 128).
    pub(super) fn random(random: &mut Random) -> Self {
        Self::new(&random.token(8), &random.token(24))
    }
}

/// Measuring the newest port once more, or that of a socket nobody knows.
#[derive(Debug, Clone, Copy)]
pub(super) struct Measure {
    pub(super) socket: SocketId,
    pub(super) local: SocketAddr,
    pub(super) is_fresh: bool,
    pub(super) transaction: u128,
    pub(super) sent: u32,
    pub(super) next: Duration,
}

/// CRUSH-SEQUENCE (docs/crush.md §7.3): what was sent, and what was taken.
#[derive(Debug, Default)]
pub(super) struct Numbers {
    /// Requests and indications sent.
    pub(super) requests: u32,
    pub(super) indications: u32,
    /// The highest request taken, and what the newest one was answered.
    pub(super) highest: u32,
    pub(super) last_response: Option<(u128, Vec<u8>)>,
    /// Indications taken by the relay, and on the direct path: test packets come on both.
    pub(super) relay_window: Window,
    pub(super) direct_window: Window,
}

/// See the module.
#[derive(Debug)]
pub(super) struct Generation {
    pub(super) ours: Credentials,
    pub(super) theirs: Option<Credentials>,
    pub(super) finder: Finder,
    pub(super) families: Families,
    pub(super) candidates: Vec<Candidate>,
    pub(super) trickled: String,
    pub(super) trickle_at: Option<Duration>,
    pub(super) measure: Option<Measure>,
    /// A socket that the peer is to know once it has sent, and its mapped address.
    pub(super) fresh: Option<(SocketId, SocketAddr)>,
    /// Sockets that the application opened for it.
    pub(super) extra: Vec<SocketId>,
    pub(super) numbers: Numbers,
}

impl Generation {
    pub(super) fn new(ours: Credentials, theirs: Option<Credentials>, finder: Finder) -> Self {
        Self {
            ours,
            theirs,
            finder,
            families: Families::default(),
            candidates: Vec::new(),
            trickled: String::new(),
            trickle_at: None,
            measure: None,
            fresh: None,
            extra: Vec::new(),
            numbers: Numbers::default(),
        }
    }

    /// USERNAME of a request to us: `ours:theirs`, the second part as far as it is known.
    pub(super) fn is_for_us(&self, username: &str) -> bool {
        let Some((receiver, sender)) = username.split_once(':') else {
            return false;
        };
        receiver == self.ours.ufrag && self.theirs.as_ref().is_none_or(|theirs| theirs.ufrag == sender)
    }
}
