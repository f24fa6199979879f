//! Why a call has nothing that could move: told once, so that whoever asks why it stays on the relay finds a reason. What has moves, or
//! tries, tells its own ([`Release`](crate::path::Release)).

use seam::Endpoint;
use seam::path::Stay;

use crate::legs::Leg;
use crate::moving::chain::{self, parties};
use crate::moving::follow::Chains;
use crate::policy::ReleasePolicy;
use crate::stream::{Standing, Streams};
use crate::transport::{Carried, Mux};

impl Chains<'_> {
    /// `None` while two have not agreed, where something moves, and where policy keeps it.
    pub(crate) fn why_kept(self, id: u64, policy: &ReleasePolicy) -> Option<(Stay, [Endpoint; 2])> {
        let session = self.sessions.get(&id).filter(|_| self.motions.ends(id).is_none())?;
        let ends = parties(session)?;
        let chain = self.chain(id)?;
        // By far the most calls of many nodes; a row for each would be a third more to write.
        chain::constraint(self.sessions, &chain, policy)?;
        Some((why_not_between(chain::outer(self.sessions, &chain)?, self.streams), ends))
    }
}

/// Why of two legs no m-lines could move; see [`lines_between`](super::lines_between).
fn why_not_between(legs: [&Leg; 2], streams: &Streams) -> Stay {
    let [first, second] = legs;
    let mut found = Vec::new();
    for (left, right) in
        first.streams.iter().zip(&second.streams).filter_map(|(left, right)| left.zip(*right))
    {
        for stream in [left, right].into_iter().filter_map(|stream| streams.get(stream)) {
            let why = match stream.carried {
                _ if stream.standing == Standing::Refused || !stream.standing.is_agreed() => continue,
                Carried::Other => Stay::NotRtp,
                Carried::Secure => Stay::Srtp,
                Carried::Clear if stream.mux == Mux::Yes => Stay::Muxed,
                Carried::Clear => Stay::Unlike,
            };
            found.push(why);
        }
    }
    // What stands in the way most comes first.
    let order = [Stay::NotRtp, Stay::Srtp, Stay::Muxed, Stay::Unlike];
    order.into_iter().find(|why| found.contains(why)).unwrap_or(Stay::NoMedia)
}
