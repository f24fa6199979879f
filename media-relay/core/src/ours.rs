//! Where descriptions of peers may not point: each address is judged before a stream is told of it.
//!
//! One kind of address of ours is right: a proxy or PBX behind us may send a call that came through us on through us, with the description
//! that we wrote. Its media then goes from one of our ports to another, and both halves belong together (`moving/chain.rs`). Such a
//! description is known by its o= line, which is ours, and by the port, which is open for the very leg that it was written for. A
//! session that is joined so on both sides is the middle of a chain, and allowed only where its end is seen: else descriptions could be
//! led in a circle, and a packet would run in it for ever.

use std::net::SocketAddr;

use ahash::AHashMap;
use bytes::Bytes;
use martian::Unfit;
use media_wire::sdp::ice::Spoken;
use media_wire::sdp::{DISCARD, Description, Media};
use seam::{Endpoint, Refusal};
use smallvec::SmallVec;

use crate::legs::{Leg, Session};
use crate::open_ports::Facing;
pub use crate::open_ports::OpenPorts;
use crate::settings::Settings;
use crate::stream::Streams;

/// A chain of more sessions than this is a circle.
const MOST: usize = 8;

/// What descriptions are judged by.
#[derive(Clone, Copy)]
pub(crate) struct Judge<'a> {
    pub(crate) sessions: &'a AHashMap<u64, Session>,
    pub(crate) streams: &'a Streams,
    pub(crate) settings: &'a Settings,
}

impl Judge<'_> {
    /// Reads what a party of a realm says, and judges where it points.
    pub(crate) fn read(
        self,
        id: u64,
        (author, realm): (Endpoint, u16),
        sdp: Bytes,
    ) -> Result<Description, Refusal> {
        let mut description = Description::parse(sdp).map_err(|_| Refusal::Malformed)?;
        let origin = description.origin();
        let mut joined = None;
        for media in description.media.iter_mut().filter(|media| media.port != 0 && media.is_datagram()) {
            for address in [media.rtp, media.rtcp].into_iter().flatten() {
                match self.settings.addresses.judge(realm, address) {
                    Ok(()) => {}
                    Err(_) if is_nowhere(media, address) => {}
                    Err(Unfit::Ours) if media.has_ice && self.is_its_own(id, address) => {}
                    Err(Unfit::Ours) => {
                        let facing = origin.and_then(|origin| self.streams.open.were_told(address, origin));
                        joined = Some(facing.ok_or(Refusal::Unfit(Unfit::Ours))?);
                    }
                    Err(unfit) => return Err(Refusal::Unfit(unfit)),
                }
            }
            if media.rtp.is_some_and(|rtp| is_nowhere(media, rtp)) {
                (media.rtp, media.rtcp) = (None, None);
            }
        }
        if joined.is_some_and(|facing| !self.may_be_joined(id, author.party, facing)) {
            return Err(Refusal::Unfit(Unfit::Ours));
        }
        description.is_joined = joined.is_some();
        Ok(description)
    }

    fn is_its_own(self, id: u64, address: SocketAddr) -> bool {
        let session = self.sessions.get(&id);
        session.is_some_and(|session| session.relay_addresses(self.streams).contains(&address))
    }

    /// Whether a session that may be joined at other parties can be joined at this one: both ways there must be an end, and it must be
    /// another one.
    fn may_be_joined(self, id: u64, party: u16, facing: Facing) -> bool {
        let Some(session) = self.sessions.get(&id) else { return true };
        let mut beside =
            session.legs.iter().filter(|(end, leg)| end.party != party && leg.is_joined).peekable();
        if beside.peek().is_none() {
            // What is open on one side is no circle, whatever is on the other.
            return true;
        }
        let Some(there) = self.sessions_from(id, facing) else { return false };
        beside.all(|(_, leg)| {
            let here = self.joined_to(leg).and_then(|other| self.sessions_from(id, other));
            here.is_some_and(|here| !here.iter().any(|session| there.contains(session)))
        })
    }

    /// For whom the port that a joined leg's peer named is open.
    fn joined_to(self, leg: &Leg) -> Option<Facing> {
        let mut streams = leg.streams.iter().flatten().filter_map(|stream| self.streams.get(*stream));
        let port = streams.find_map(|stream| stream.rtp.signalled())?;
        self.streams.open.facing(port)
    }

    /// The sessions from here to a party that is none of us, `facing` first; `None` where they lead back to this one, or nobody knows
    /// where.
    fn sessions_from(self, id: u64, mut facing: Facing) -> Option<SmallVec<[u64; MOST]>> {
        let mut seen: SmallVec<[u64; MOST]> = SmallVec::new();
        while seen.len() < MOST && facing.session != id && !seen.contains(&facing.session) {
            seen.push(facing.session);
            let legs = &self.sessions.get(&facing.session)?.legs;
            let mut joined = legs.iter().filter(|(end, leg)| end.party != facing.party && leg.is_joined);
            let Some((_, leg)) = joined.next() else { return Some(seen) };
            // Several branches that are all led back to us: nobody follows them all.
            facing = self.joined_to(leg).filter(|_| joined.next().is_none())?;
        }
        None
    }

    /// What it says of ICE, without the candidates where nothing is sent.
    pub(crate) fn spoken(self, description: &mut Description, realm: u16) -> Spoken {
        let mut spoken = std::mem::take(&mut description.ice);
        spoken.keep(|address| self.settings.addresses.judge(realm, address).is_ok());
        spoken
    }

    /// Whether an answer to an offer of our own points where nothing is sent.
    pub(crate) fn is_astray(self, id: u64, author: Endpoint, sdp: &Bytes) -> bool {
        let leg = self.sessions.get(&id).and_then(|session| session.leg(author));
        let Some(realm) = leg.map(|leg| leg.party.realm.0) else { return false };
        matches!(self.read(id, (author, realm), sdp.clone()), Err(Refusal::Unfit(_)))
    }
}

/// With ICE the discard port of any address means that none is known yet (RFC 8840 §4.1.1 wants the unspecified address there).
fn is_nowhere(media: &Media, address: SocketAddr) -> bool {
    let is_odd = martian::nature(address.ip()).is_some();
    media.has_ice && media.port == DISCARD && is_odd
}
