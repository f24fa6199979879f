//! Where descriptions of peers may not point: each address is judged before a stream is told of it.
//!
//! One kind of address of ours is right: a proxy or PBX behind us may send a call that came through us on through us, with the description
//! that we wrote. Its media then goes from one of our ports to another, and both halves belong together. Such a description is
//! known by its o= line, which is ours, and by the port, which is open for the very leg that it was written for. A session may be
//! joined so on one of its sides only: else descriptions could be led in a circle, and a packet would run in it for ever.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use martian::Unfit;

use crate::ice::Spoken;
use crate::sdp::{DISCARD, Description, Media};
use crate::session::{Endpoint, Refusal};
use crate::worker::Worker;

/// The RTP ports that are open at any worker, as descriptions name them, with the number in the o= line of their leg.
#[derive(Debug, Clone, Default)]
pub struct OpenPorts(Arc<Mutex<BTreeMap<SocketAddr, u64>>>);

impl OpenPorts {
    pub(crate) fn opened(&self, rtp: SocketAddr, origin: u64) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(rtp, origin);
    }

    pub(crate) fn closed(&self, rtp: SocketAddr) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).remove(&rtp);
    }

    /// Whether a description with this number was written by us with this port, or with the one before it for RTP.
    fn were_told(&self, address: SocketAddr, origin: u64) -> bool {
        let open = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let rtp = address.port().checked_sub(1).map(|port| SocketAddr::new(address.ip(), port));
        [Some(address), rtp].into_iter().flatten().any(|rtp| open.get(&rtp) == Some(&origin))
    }
}

impl Worker {
    /// Reads what a party of a realm says, and judges where it points.
    pub(crate) fn read(
        &mut self,
        id: u64,
        (author, realm): (Endpoint, u16),
        sdp: Bytes,
    ) -> Result<Description, Refusal> {
        let mut description = Description::parse(sdp).map_err(|_| Refusal::Malformed)?;
        let origin = description.origin();
        let mut is_joined = false;
        for media in description.media.iter_mut().filter(|media| media.port != 0 && media.is_datagram()) {
            for address in [media.rtp, media.rtcp].into_iter().flatten() {
                match self.settings.addresses.judge(realm, address) {
                    Ok(()) => {}
                    Err(_) if is_nowhere(media, address) => {}
                    Err(Unfit::Ours) if media.has_ice && self.relay_addresses(id).contains(&address) => {}
                    Err(Unfit::Ours)
                        if origin.is_some_and(|origin| self.open_ports().were_told(address, origin)) =>
                    {
                        is_joined = true;
                    }
                    Err(unfit) => return Err(Refusal::Unfit(unfit)),
                }
            }
            if media.rtp.is_some_and(|rtp| is_nowhere(media, rtp)) {
                (media.rtp, media.rtcp) = (None, None);
            }
        }
        if let Some(session) = self.sessions.get_mut(&id) {
            let others = session.legs.iter().filter(|(other, _)| other.party != author.party);
            if is_joined && others.into_iter().any(|(_, leg)| leg.is_joined) {
                return Err(Refusal::Unfit(Unfit::Ours));
            }
        }
        description.is_joined = is_joined;
        Ok(description)
    }

    /// What it says of ICE, without the candidates where nothing is sent.
    pub(crate) fn spoken(&self, description: &Description, realm: u16) -> Spoken {
        let mut spoken = Spoken::read(description.text());
        spoken.keep(|address| self.settings.addresses.judge(realm, address).is_ok());
        spoken
    }

    /// Whether an answer to an offer of our own points where nothing is sent.
    pub(crate) fn is_astray(&mut self, id: u64, author: Endpoint, sdp: &Bytes) -> bool {
        let leg = self.sessions.get(&id).and_then(|session| session.leg(author));
        let Some(realm) = leg.map(|leg| leg.party.realm) else { return false };
        matches!(self.read(id, (author, realm), sdp.clone()), Err(Refusal::Unfit(_)))
    }

    fn open_ports(&self) -> &OpenPorts {
        &self.streams.open
    }
}

/// With ICE the discard port of any address means that none is known yet (RFC 8840 §4.1.1 wants the unspecified address there).
fn is_nowhere(media: &Media, address: SocketAddr) -> bool {
    let is_odd = martian::nature(address.ip()).is_some();
    media.has_ice && media.port == DISCARD && is_odd
}
