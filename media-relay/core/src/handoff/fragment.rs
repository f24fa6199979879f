//! What of an endpoint's candidates its peer is shown (docs/crush.md §4): only where both may leave the relay, only what may be
//! the endpoint's, and what the relay has seen of it.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use martian::Rules;
use media_wire::sdp::clean;
use media_wire::sdp::crush::{CANDIDATES, Candidate, CandidateKind, DISCOVERED, Excess, Fragment, priority};
use seam::Endpoint;
use serde::{Deserialize, Serialize};
use smallvec::SmallVec;

use crate::clock::{Shift, Timed};
use crate::legs::Session;
use crate::path::place::{Networks, is_local};
use crate::settings::Settings;
use crate::stream::Streams;

/// More is no list of candidates.
const MAX_LENGTH: usize = 8_192;
/// Of a candidate that the relay adds: type preference 100 (docs/crush.md §4).
const PRIORITY: u32 = priority(DISCOVERED, u16::MAX);
/// Lines that pass; whatever else stands there could name its author's network.
const PASSING: [&str; 7] =
    ["a=ice-ufrag:", "a=ice-pwd:", "a=ice-options:", "a=crush-nat:", "a=mid:", "m=", "a=end-of-candidates"];

/// What became of a fragment.
pub(crate) enum Trickled {
    /// It is not for the other end, or nothing that is understood.
    Nothing,
    /// Policy keeps it.
    Kept,
    /// This of it is the other end's to see.
    Shown(Bytes),
}

/// A session whose endpoints trickle candidates.
pub(crate) struct Trickling<'a> {
    pub(crate) session: &'a mut Session,
    pub(crate) streams: &'a Streams,
    pub(crate) settings: &'a Settings,
}

impl Trickling<'_> {
    /// What `to` sees of a fragment of `from`.
    pub(crate) fn pass(&mut self, [from, to]: [Endpoint; 2], fragment: &Bytes, now: Duration) -> Trickled {
        let legs = self.session.leg(from).zip(self.session.leg(to));
        let do_both = legs.is_some_and(|(near, far)| near.handoff.takes_part() && far.handoff.takes_part());
        if !do_both || fragment.len() > MAX_LENGTH {
            return Trickled::Nothing;
        }
        let Ok(fragment) = clean(fragment.clone()) else { return Trickled::Nothing };
        let text = std::str::from_utf8(&fragment).ok();
        let Some((text, Fragment { ufrag, .. })) = text.and_then(|text| Some((text, Fragment::read(text)?)))
        else {
            return Trickled::Nothing;
        };
        if !self.session.may_trickle([from, to], self.streams, self.settings) {
            return Trickled::Kept;
        }
        self.sift([from, to], (text, &ufrag), now).map_or(Trickled::Nothing, Trickled::Shown)
    }

    fn sift(
        &mut self,
        [from, to]: [Endpoint; 2],
        (text, ufrag): (&str, &str),
        now: Duration,
    ) -> Option<Bytes> {
        let shown = &mut self.session.leg_mut(from)?.handoff.shown;
        if !shown.admits(ufrag, now) {
            return None;
        }
        let mut shown = std::mem::take(shown);
        let (near, far) = (self.session.leg(from)?, self.session.leg(to)?);
        let streams = self.session.streams(self.streams);
        let mut own: Vec<IpAddr> = streams.map(|stream| stream.ports.address.ip().to_canonical()).collect();
        own.extend(self.settings.handoff.iter().flat_map(|settings| &settings.discovery).map(SocketAddr::ip));
        let first = near.streams.iter().flatten().next().and_then(|stream| self.streams.get(*stream))?;
        let release = self.settings.release.as_ref();
        let sieve = Sieve {
            observed: first.rtp.heard().map(|heard| heard.0),
            signalling: near.party.signalling.ip().to_canonical(),
            own,
            is_one_realm: near.party.realm == far.party.realm,
            networks: release.map(|release| release.networks(near.party.realm.0, far.party.realm.0)),
            addresses: self.settings.addresses.clone(),
            realm: near.party.realm.0,
        };
        let filtered = sieve.filter(text, &mut shown);
        self.session.leg_mut(from)?.handoff.shown = shown;
        Some(filtered.into())
    }
}

/// What an endpoint's peer was shown. Each of its fragments is bounded by its length; this bounds them all, so that nobody has a peer look for
/// thousands of addresses bit by bit, or begin anew again and again.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(crate) struct Shown {
    excess: Excess,
    ufrag: Option<Box<str>>,
    /// Of the generation with that ufrag.
    addresses: SmallVec<[SocketAddr; 8]>,
}

impl Timed for Shown {
    fn shift(&mut self, by: Shift) {
        self.excess.retime(|moment| by.of(moment));
    }
}

impl Shown {
    /// Whether a fragment of this generation may pass.
    fn admits(&mut self, ufrag: &str, now: Duration) -> bool {
        let is_known = self.ufrag.as_deref() == Some(ufrag);
        if !self.excess.admits_fragment(now)
            || (!is_known && self.ufrag.is_some() && !self.excess.admits_generation(now))
        {
            return false;
        }
        if !is_known {
            self.addresses.clear();
            self.ufrag = Some(ufrag.into());
        }
        true
    }

    /// Whether a candidate at this address may pass, as one of those that have or one of few more.
    fn takes(&mut self, address: SocketAddr) -> bool {
        if self.addresses.contains(&address) {
            return true;
        }
        let has_room = self.addresses.len() < CANDIDATES;
        if has_room {
            self.addresses.push(address);
        }
        has_room
    }
}

/// What decides on one endpoint's candidates.
struct Sieve {
    /// Where the relay hears its first stream.
    observed: Option<SocketAddr>,
    /// Where its signalling comes from.
    signalling: IpAddr,
    /// Addresses of ours.
    own: Vec<IpAddr>,
    /// Both parties are in one realm.
    is_one_realm: bool,
    networks: Option<Arc<Networks>>,
    /// Where nothing is sent, of whatever its realm names.
    addresses: Arc<Rules>,
    realm: u16,
}

impl Sieve {
    fn shows(&self, place: SocketAddr) -> bool {
        let address = place.ip().to_canonical();
        let is_unfit = self.addresses.judge(self.realm, place).is_err();
        if is_unfit || self.own.contains(&address) || address.is_loopback() {
            return false;
        }
        if is_local(address) {
            let is_routable = |networks: &Arc<Networks>| {
                let mut groups = networks.routable.iter();
                groups.any(|group| group.iter().any(|prefix| prefix.contains(&address)))
            };
            return self.is_one_realm || self.networks.as_ref().is_some_and(is_routable);
        }
        let seen = [self.observed.map(|seen| seen.ip().to_canonical()), Some(self.signalling)];
        let mut of_family = seen.into_iter().flatten().filter(|seen| seen.is_ipv4() == address.is_ipv4());
        // Of the family that it does not reach us by, nothing can be said.
        of_family.clone().next().is_none() || of_family.any(|seen| seen == address)
    }

    fn filter(&self, text: &str, shown: &mut Shown) -> String {
        let mut out = String::with_capacity(text.len().saturating_add(96));
        // As far as it is not there, or names nothing that is hidden from outside.
        let is_known = text
            .lines()
            .filter_map(Candidate::read)
            .any(|candidate| self.observed.is_some_and(|observed| observed.ip() == candidate.address.ip()));
        let mut owed = self.observed.filter(|_| !is_known).map(|observed| {
            let foundation = "relay".to_owned();
            let kind = CandidateKind::ServerReflexive;
            Candidate { foundation, priority: PRIORITY, address: observed, kind, related: None }.to_string()
        });
        let mut streams = 0_usize;
        for line in text.lines().map(str::trim_end) {
            streams = streams.saturating_add(usize::from(line.starts_with("m=")));
            // Under the first m-line, before anything that ends it.
            if (line == "a=end-of-candidates" || (line.starts_with("m=") && streams == 2))
                && let Some(candidate) = owed.take_if(|_| streams > 0)
            {
                put(&mut out, &candidate);
            }
            if let Some(mut candidate) = Candidate::read(line) {
                if self.shows(candidate.address) && shown.takes(candidate.address) {
                    candidate.related = candidate.related.filter(|related| self.shows(*related));
                    put(&mut out, &candidate.to_string());
                }
            } else if PASSING.iter().any(|passing| line.starts_with(passing)) {
                put(&mut out, line);
            }
        }
        if let Some(candidate) = owed {
            put(&mut out, &candidate);
        }
        out
    }
}

fn put(out: &mut String, line: &str) {
    out.push_str(line);
    out.push_str("\r\n");
}
