//! Who takes part in CRUSH, and what each leg's `a=crush` says.

use media_wire::sdp::crush::{Policy, Support};
use seam::Endpoint;
use seam::path::Constraint;

use crate::handoff::credentials;
use crate::policy::Mode;
use crate::worker::Worker;

impl Worker {
    /// What is written of CRUSH to `reader`, in descriptions of `author` that tell of it or not.
    pub(crate) fn write_support(&mut self, id: u64, reader: Endpoint, author: Endpoint, is_told: bool) {
        let policy = self.policy_between(id, reader, author);
        let Some(settings) = self.settings.handoff.as_ref().filter(|_| is_told) else {
            if let Some(leg) = self.sessions.get_mut(&id).and_then(|session| session.leg_mut(reader)) {
                leg.handoff.line = None;
            }
            return;
        };
        let (ufrag, pwd) = credentials(&settings.secret, id, reader.party);
        let servers = settings.discovery.clone();
        let realm = self.sessions.get(&id).and_then(|session| Some(session.leg(reader)?.party.realm.0));
        let temper = realm.and_then(|realm| settings.tempers.get(usize::from(realm)).copied().flatten());
        let support = Support { ufrag, pwd, policy, servers, temper };
        if let Some(leg) = self.sessions.get_mut(&id).and_then(|session| session.leg_mut(reader)) {
            (leg.handoff.line, leg.handoff.policy) = (Some(support.to_string().into()), policy);
        }
    }

    /// Two have agreed, each with the ufrag of its description if it had one: both take part, or neither.
    pub(crate) fn agree_support(
        &mut self,
        id: u64,
        offerer: (Endpoint, Option<Box<str>>),
        answerer: (Endpoint, Option<Box<str>>),
    ) {
        let do_both = self.settings.handoff.is_some() && offerer.1.is_some() && answerer.1.is_some();
        self.write_support(id, offerer.0, answerer.0, do_both);
        let Some(session) = self.sessions.get_mut(&id) else { return };
        for (endpoint, theirs) in [offerer, answerer] {
            let Some(leg) = session.leg_mut(endpoint) else { continue };
            leg.handoff.agree(theirs.filter(|_| do_both));
            if !do_both {
                leg.handoff.line = None;
            }
        }
    }

    /// What of two legs' media may leave the relay.
    pub(crate) fn policy_between(&self, id: u64, one: Endpoint, other: Endpoint) -> Policy {
        let session = self.sessions.get(&id);
        let parties = session.and_then(|session| Some((session, session.leg(one)?, session.leg(other)?)));
        let Some((session, one, other)) = parties else { return Policy::Relay };
        if one.party.is_private || other.party.is_private {
            return Policy::Relay;
        }
        match session.constraint() {
            Some(Constraint::MustAnchor) => return Policy::Relay,
            Some(Constraint::VideoOnly) => return Policy::VideoOnly,
            Some(Constraint::MayRelease | Constraint::PreferRelease) => return Policy::Direct,
            None => {}
        }
        let release = self.settings.release.as_ref();
        match release.map_or(Mode::Anchor, |release| release.mode(one.party.realm.0, other.party.realm.0)) {
            Mode::Anchor => Policy::Relay,
            Mode::Video => Policy::VideoOnly,
            Mode::Allow | Mode::Prefer => Policy::Direct,
        }
    }
}
