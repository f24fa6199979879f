//! A session's legs and what is being negotiated between them.

use std::time::Duration;

use smallvec::SmallVec;

use crate::sdp::Media;
use crate::session::{Endpoint, Party, StreamStatistics};
use crate::stream::StreamId;
use crate::stun::Credentials;

/// The exchange of the initial offer: several branches may answer it.
pub(crate) const INITIAL: u32 = 1;

/// An offer without its last answer.
#[derive(Debug)]
pub(crate) struct Exchange {
    pub(crate) id: u32,
    pub(crate) offerer: Endpoint,
    pub(crate) media: Vec<Media>,
    /// What was opened for it, to be closed if it comes to nothing.
    pub(crate) opened: SmallVec<[StreamId; 2]>,
}

/// An endpoint, as one side of offers and answers.
#[derive(Debug)]
pub(crate) struct Leg {
    pub(crate) party: Party,
    /// By m-line.
    pub(crate) streams: SmallVec<[Option<StreamId>; 2]>,
    /// o= of the descriptions it gets: id and version.
    pub(crate) origin: u64,
    pub(crate) version: u64,
    /// Of the last one, without its version.
    pub(crate) last: Option<u64>,
    /// What its STUN must be signed with.
    pub(crate) credentials: Option<Box<Credentials>>,
}

/// One call's media.
#[derive(Debug, Default)]
pub(crate) struct Session {
    /// Few; looked through from the start.
    pub(crate) legs: SmallVec<[(Endpoint, Leg); 2]>,
    pub(crate) exchanges: SmallVec<[Exchange; 1]>,
    pub(crate) selected: Option<Endpoint>,
    /// Of streams that are gone.
    pub(crate) past: Vec<StreamStatistics>,
    pub(crate) heard: Duration,
    pub(crate) is_held: bool,
    pub(crate) told_inactive: bool,
}

impl Session {
    pub(crate) fn leg(&self, endpoint: Endpoint) -> Option<&Leg> {
        self.legs.iter().find(|known| known.0 == endpoint).map(|known| &known.1)
    }

    pub(crate) fn leg_mut(&mut self, endpoint: Endpoint) -> Option<&mut Leg> {
        self.legs.iter_mut().find(|known| known.0 == endpoint).map(|known| &mut known.1)
    }
}
