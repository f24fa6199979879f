//! Who takes part in CRUSH, and what each leg's `a=crush` says.

use media_wire::sdp::crush::{Policy, Support};
use seam::Endpoint;
use seam::path::Constraint;

use crate::handoff::credentials;
use crate::legs::Session;
use crate::policy::Mode;
use crate::settings::Settings;
use crate::stream::Streams;

impl Session {
    /// What is written of CRUSH to `reader`, in descriptions of `author` that tell of it or not.
    pub(crate) fn write_support(
        &mut self,
        id: u64,
        [reader, author]: [Endpoint; 2],
        is_told: bool,
        settings: &Settings,
    ) {
        let policy = self.policy_between(reader, author, settings);
        let Some(leg) = self.leg_mut(reader) else { return };
        let Some(settings) = settings.handoff.as_ref().filter(|_| is_told) else {
            leg.handoff.line = None;
            return;
        };
        let ours = leg.handoff.ours.get_or_insert_with(|| credentials(&settings.secret, id, reader.party));
        let (ufrag, pwd) = (ours.ufrag.clone(), ours.password.clone());
        let servers = settings.discovery.clone();
        let realm = usize::from(leg.party.realm.0);
        let temper = settings.tempers.get(realm).copied().flatten();
        let support = Support { ufrag, pwd, policy, servers, temper };
        (leg.handoff.line, leg.handoff.policy) = (Some(support.to_string().into()), policy);
    }

    /// Two have agreed, each with the ufrag of its description if it had one: both take part, or neither.
    pub(crate) fn agree_support(
        &mut self,
        id: u64,
        offerer: (Endpoint, Option<Box<str>>),
        answerer: (Endpoint, Option<Box<str>>),
        settings: &Settings,
    ) {
        let do_both = settings.handoff.is_some() && offerer.1.is_some() && answerer.1.is_some();
        self.write_support(id, [offerer.0, answerer.0], do_both, settings);
        for (endpoint, theirs) in [offerer, answerer] {
            let Some(leg) = self.leg_mut(endpoint) else { continue };
            leg.handoff.agree(theirs.filter(|_| do_both));
            if !do_both {
                leg.handoff.line = None;
            }
        }
    }

    /// What of two legs' media may leave the relay.
    pub(crate) fn policy_between(&self, one: Endpoint, other: Endpoint, settings: &Settings) -> Policy {
        let (Some(one), Some(other)) = (self.leg(one), self.leg(other)) else { return Policy::Relay };
        if one.party.is_private || other.party.is_private {
            return Policy::Relay;
        }
        match self.constraint() {
            Some(Constraint::MustAnchor) => return Policy::Relay,
            Some(Constraint::VideoOnly) => return Policy::VideoOnly,
            Some(Constraint::MayRelease | Constraint::PreferRelease) => return Policy::Direct,
            None => {}
        }
        let release = settings.release.as_ref();
        match release.map_or(Mode::Anchor, |release| release.mode(one.party.realm.0, other.party.realm.0)) {
            Mode::Anchor => Policy::Relay,
            Mode::Video => Policy::VideoOnly,
            Mode::Allow | Mode::Prefer => Policy::Direct,
        }
    }

    /// Whether policy lets something of two legs leave the relay, so that they may know each other's candidates.
    pub(super) fn may_trickle(&self, ends: [Endpoint; 2], streams: &Streams, settings: &Settings) -> bool {
        let [one, other] = ends;
        match self.policy_between(one, other, settings) {
            Policy::Relay => false,
            Policy::VideoOnly => {
                ends.iter().all(|end| self.leg(*end).is_some_and(|leg| leg.has_video(streams)))
            }
            Policy::Direct => true,
        }
    }
}
