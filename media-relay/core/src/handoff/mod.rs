//! The SBC's part of CRUSH (docs/crush.md): who takes part, what each leg's `a=crush` says, and what may leave the relay.
//!
//! Binding requests and HANDOFF on media ports are in `binding.rs`, candidates in `fragment.rs`, what becomes of the path in
//! `path.rs`.

mod binding;
mod fragment;
mod path;

use std::net::SocketAddr;

use fragment::Shown;
use hmac::{Hmac, Mac};
use media_wire::handoff::Sending;
use media_wire::sdp::crush::{Policy, Support, Temper};
use seam::Endpoint;
use seam::path::Constraint;
use sha1::Sha1;
use smallvec::SmallVec;

use crate::policy::Mode;
use crate::worker::Worker;
pub(crate) use path::{Handoff, LEAST_INACTIVITY};

/// What CRUSH needs of the operator.
#[derive(Clone)]
pub struct HandoffSettings {
    /// What the credentials of legs are made from: random, and known to nobody else.
    pub secret: [u8; 32],
    /// Primary addresses of discovery services, one of each family at most.
    pub discovery: Vec<SocketAddr>,
    /// The pace of new flows that a realm's network is known to bear, by realm: haste harms only those behind it, so only its operator can say
    /// that it is harmless. Nothing is said of those that are not here.
    pub tempers: Vec<Option<Temper>>,
}

impl std::fmt::Debug for HandoffSettings {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(out, "HandoffSettings({:?})", self.discovery)
    }
}

/// A leg in CRUSH.
#[derive(Debug, Default)]
pub(crate) struct Side {
    /// The `a=crush` of descriptions for it, and what that says may leave the relay.
    pub(crate) line: Option<Box<str>>,
    policy: Policy,
    /// Ufrag of its endpoint, by the last agreed description; `None`: it does not take part, or its peer does not.
    theirs: Option<Box<str>>,
    /// By m-line.
    lines: SmallVec<[Line; 2]>,
    /// What of its endpoint's candidates its peer was shown.
    shown: Shown,
}

/// What an endpoint's authenticated requests have said of one m-line.
#[derive(Debug, Clone, Copy, Default)]
struct Line {
    /// The greatest CRUSH-SEQUENCE so far.
    sequence: u32,
    /// `None`: nothing.
    sending: Option<Sending>,
}

impl Side {
    /// For another branch of the same INVITE.
    pub(crate) fn of_branch(&self) -> Self {
        Self { line: self.line.clone(), policy: self.policy, ..Self::default() }
    }

    pub(crate) fn takes_part(&self) -> bool {
        self.theirs.is_some()
    }

    /// Its endpoint's ufrag in an agreed description; another one's numbers begin anew.
    fn agree(&mut self, theirs: Option<Box<str>>) {
        if self.theirs != theirs {
            (self.theirs, self.lines) = (theirs, SmallVec::new());
        }
    }

    fn line_mut(&mut self, index: u16) -> Option<&mut Line> {
        let index = usize::from(index);
        if self.lines.len() <= index {
            self.lines.resize(index.saturating_add(1), Line::default());
        }
        self.lines.get_mut(index)
    }
}

/// Letters of a ufrag or password (RFC 8839 §5.4), six bits each.
const LETTERS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
/// 48 bits, and 144.
const UFRAG: usize = 8;
const PASSWORD: usize = 24;

/// Ours towards one party: ufrag and password. All its branches share them, as they share its ports.
fn credentials(secret: &[u8; 32], session: u64, party: u16) -> (String, String) {
    let block = |number: u8| {
        let mut code = Hmac::<Sha1>::new_from_slice(secret).ok()?;
        code.update(&session.to_be_bytes());
        code.update(&party.to_be_bytes());
        code.update(&[number]);
        Some(code.finalize().into_bytes())
    };
    let letters: String = [0, 1]
        .into_iter()
        .filter_map(block)
        .flatten()
        .filter_map(|byte| LETTERS.get(usize::from(byte & 63)).copied().map(char::from))
        .collect();
    let (ufrag, rest) = letters.split_at(UFRAG.min(letters.len()));
    (ufrag.to_owned(), rest.chars().take(PASSWORD).collect())
}

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
