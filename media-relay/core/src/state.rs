//! A session as plain data: taken out of one worker, and gone on with by another, of another process, with another clock, other sockets
//! and other names of streams.
//!
//! All of it goes on: where each party was heard, what was counted and reported, the descriptions and their versions, what moves its
//! media and why, its agents of ICE, its credentials of CRUSH. What is the process's stays behind: the numbers of sockets (ports are opened
//! again by their address), the node's secrets (credentials that were told are in the data, new ones are made of the successor's
//! secret), and the configuration of networks.
//!
//! Only what rests is taken: no offer is open, and no wish of ours. Two halves of one call (`moving/chain.rs`) are taken one after
//! the other, so they part before, at home, and are put together again when both are there.

use std::fmt;
use std::net::SocketAddr;
use std::time::Duration;

use ahash::AHashMap;
use seam::{Endpoint, ExchangeId};
use serde::{Deserialize, Serialize};
use smallvec::SmallVec;

use crate::clock::{Shift, Timed};
use crate::legs::Session;
use crate::motion::{Motion, Motions};
use crate::ports::{PortPair, Ports, StreamId, Turn};
use crate::settings::Settings;
use crate::stream::{Stream, Streams};

/// Of the data: another one is not read.
pub const VERSION: u32 = 1;

/// See [`VERSION`].
type Version = seam::Version<VERSION>;

/// A session that is in no worker. Its descriptions hold keys and passwords: what prints it shows none of them.
#[derive(Serialize, Deserialize)]
pub struct StoredSession {
    version: Version,
    /// Its number there.
    number: u64,
    /// When it was taken out, by the clock of the worker that had it.
    at: Duration,
    session: Session,
    /// Their places here are what the rest names them by.
    streams: Vec<Stream>,
    motion: Option<Motion>,
}

impl fmt::Debug for StoredSession {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let legs: SmallVec<[Endpoint; 2]> = self.session.legs.iter().map(|(end, _)| *end).collect();
        let ports: Vec<SocketAddr> = self.streams.iter().map(|stream| stream.ports.address).collect();
        let packets: Vec<u64> = self.streams.iter().map(|stream| stream.reception.packets).collect();
        out.debug_struct("StoredSession")
            .field("version", &VERSION)
            .field("number", &self.number)
            .field("legs", &legs)
            .field("ports", &ports)
            .field("packets", &packets)
            .field("is_held", &self.session.is_held)
            .field("listeners", &self.session.listeners)
            .field("moved_by", &self.motion.as_ref().map(Motion::name))
            .finish_non_exhaustive()
    }
}

/// Why a session cannot be taken out; but for the first, it can be a moment later.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NotSteady {
    /// It is not here.
    #[error("there is no such media session")]
    Unknown,
    /// No branch has been chosen.
    #[error("the call is not answered yet")]
    Unanswered,
    /// An exchange of its parties.
    #[error("an offer has no answer yet")]
    Offer,
    /// A re-INVITE of ours.
    #[error("a party has not answered yet where its media is to go")]
    Wish,
    /// It is one of several sessions of a call that is direct as a whole; from now on it is called home.
    #[error("the media of the longer call that it is a part of is on its way home")]
    Away,
}

/// Why a session cannot be taken in; nothing has changed then.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum CannotTakeIn {
    /// There is one of this number.
    #[error("there is a media session of this number already")]
    Known,
    /// It cannot be opened.
    #[error("the media ports at {0} are taken, or none of these realms'")]
    Port(SocketAddr),
    /// The data name streams that are not there.
    #[error("the stored media session contradicts itself")]
    Contradictory,
}

/// What of a worker a session is taken out of, or comes to.
pub(crate) struct House<'a> {
    pub(crate) sessions: &'a mut AHashMap<u64, Session>,
    pub(crate) motions: &'a mut Motions,
    pub(crate) streams: &'a mut Streams,
}

impl House<'_> {
    /// Whether nothing is open in it.
    pub(crate) fn is_steady(&self, id: u64) -> Result<(), NotSteady> {
        let session = self.sessions.get(&id).ok_or(NotSteady::Unknown)?;
        session.selected.ok_or(NotSteady::Unanswered)?;
        if session.exchanges.iter().any(|open| open.id != ExchangeId::INITIAL) {
            return Err(NotSteady::Offer);
        }
        let motion = self.motions.get(self.motions.host_of(id));
        if motion.is_some_and(Motion::has_asked) { Err(NotSteady::Wish) } else { Ok(()) }
    }

    /// Its ports are closed. Whoever moves it moves nothing else.
    pub(crate) fn take_out(&mut self, id: u64, turn: &mut Turn<'_>) -> Result<StoredSession, NotSteady> {
        let mut session = self.sessions.remove(&id).ok_or(NotSteady::Unknown)?;
        session.catch_up(self.streams);
        let own: Vec<StreamId> = session.stream_ids().collect();
        let mut motion = self.motions.take(id);
        let name = |stream: StreamId| Some(own.iter().position(|own| *own == stream)? as StreamId);
        let mut streams: Vec<Stream> =
            own.iter().filter_map(|stream| self.streams.remove(*stream, turn.ports)).collect();
        session.rename(name);
        streams.iter_mut().for_each(|stream| stream.consumers.rename(name));
        if let Some(motion) = &mut motion {
            motion.rename(name);
        }
        Ok(StoredSession { version: Version::default(), number: id, at: turn.now, session, streams, motion })
    }

    /// Its ports are opened where they were.
    pub(crate) fn take_in(
        &mut self,
        id: u64,
        stored: StoredSession,
        settings: &Settings,
        turn: &mut Turn<'_>,
    ) -> Result<(), CannotTakeIn> {
        if self.sessions.contains_key(&id) {
            return Err(CannotTakeIn::Known);
        }
        if !stored.is_whole() {
            return Err(CannotTakeIn::Contradictory);
        }
        let opened = stored.reopen(turn.ports)?;
        let at = |address: SocketAddr| opened.iter().find(|pair| pair.address == address).copied();
        let StoredSession { number, at: then, mut session, streams, mut motion, .. } = stored;
        let by = Shift::between(then, turn.now);
        let mut names: Vec<StreamId> = Vec::with_capacity(streams.len());
        for mut stream in streams {
            stream.shift(by);
            stream.owner.session = id;
            stream.ports = at(stream.ports.address).unwrap_or(stream.ports);
            stream.second.spare = stream.second.spare.and_then(|spare| at(spare.address));
            names.push(self.streams.insert(stream));
        }
        let name = |stream: StreamId| names.get(stream as usize).copied();
        for stream in &names {
            if let Some(stream) = self.streams.get_mut(*stream) {
                stream.consumers.rename(name);
            }
        }
        session.shift(by);
        session.rename(name);
        session.settle_in(self.streams, settings);
        if let Some(motion) = &mut motion {
            motion.shift(by);
            motion.rename(name);
            motion.settle_in(number, id, &session, settings);
        }
        self.sessions.insert(id, session);
        if let Some(motion) = motion {
            self.motions.put(id, motion);
        }
        Ok(())
    }
}

impl StoredSession {
    /// Whether all streams that it names are its own.
    fn is_whole(&self) -> bool {
        let is_there = |stream: StreamId| (stream as usize) < self.streams.len();
        let peers = self.streams.iter().flat_map(|stream| stream.consumers.peers());
        let moved = self.motion.iter().flat_map(Motion::streams);
        let is_owned = |stream: &Stream| self.session.leg(stream.owner.endpoint).is_some();
        self.session.stream_ids().chain(peers).chain(moved).all(is_there)
            && self.streams.iter().all(is_owned)
            && !matches!(self.motion, Some(Motion::Guest(_)))
    }

    /// All of its ports, or none.
    fn reopen(&self, ports: &mut dyn Ports) -> Result<Vec<PortPair>, CannotTakeIn> {
        let mut opened: Vec<PortPair> = Vec::new();
        for stream in &self.streams {
            let leg = self.session.leg(stream.owner.endpoint).ok_or(CannotTakeIn::Contradictory)?;
            for address in
                [Some(stream.ports), stream.second.spare].into_iter().flatten().map(|pair| pair.address)
            {
                // Branches of one party share theirs.
                if opened.iter().any(|pair| pair.address == address) {
                    continue;
                }
                let Some(pair) = ports.reopen(leg.party.realm.0, address) else {
                    opened.into_iter().for_each(|pair| ports.close_unheard(pair));
                    return Err(CannotTakeIn::Port(address));
                };
                opened.push(pair);
            }
        }
        Ok(opened)
    }
}
