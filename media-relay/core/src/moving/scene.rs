//! What of a session could move: its m-lines, and what policy says of them.

use seam::Endpoint;
use seam::path::Constraint;
use smallvec::SmallVec;

use crate::legs::{Leg, Session};
use crate::policy::ReleasePolicy;
use crate::ports::StreamId;
use crate::stream::{Standing, Streams};
use crate::transport::{Carried, Mux};

/// The number of each m-line that carries RTP, and what the parties send in it.
pub(crate) type Lines = SmallVec<[(usize, [StreamId; 2]); 1]>;

/// The m-lines between two legs that could move: those with rtcp-mux only where `may_mux` says that nothing needs to be proven.
pub(crate) fn lines_between(legs: [&Leg; 2], streams: &Streams, may_mux: bool) -> Option<Lines> {
    let mut lines = SmallVec::new();
    let [first, second] = legs;
    for (index, pair) in first.streams.iter().zip(&second.streams).enumerate() {
        let (Some(left), Some(right)) = pair else { continue };
        // Fax, keys that only the ends have, one port for all: nothing that reports could prove.
        for stream in [left, right].map(|stream| streams.get(*stream)) {
            stream.filter(|stream| {
                stream.carried == Carried::Clear
                    && (may_mux || stream.mux != Mux::Yes)
                    && stream.standing.is_agreed()
                    && stream.standing != Standing::Refused
            })?;
        }
        lines.push((index, [*left, *right]));
    }
    (!lines.is_empty()).then_some(lines)
}

/// What policy says of a session; `None` if it is never to move.
pub(crate) fn constraint(
    session: &Session,
    ends: [Endpoint; 2],
    policy: &ReleasePolicy,
) -> Option<Constraint> {
    let realms = ends.map(|end| session.leg(end).map(|leg| leg.party.realm.0));
    let [Some(one), Some(other)] = realms else { return None };
    session.constraint().map(Constraint::of_all_media).or_else(|| policy.between(one, other))
}
