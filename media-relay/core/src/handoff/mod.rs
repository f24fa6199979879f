//! The SBC's part of CRUSH (docs/crush.md): who takes part, what each leg's `a=crush` says, and what may leave the relay.
//!
//! Binding requests and HANDOFF on media ports are in `binding.rs`, candidates in `fragment.rs`, what becomes of the path in
//! `path.rs`.

mod binding;
mod fragment;
mod path;
mod support;

use std::net::SocketAddr;

pub(crate) use binding::{Bindings, Bound};
use fragment::Shown;
pub(crate) use fragment::{Trickled, Trickling};
use hmac::{Hmac, Mac};
use media_wire::handoff::Sending;
use media_wire::sdp::crush::{Policy, Temper};
use media_wire::sdp::ice::Credentials;
pub(crate) use path::{Claim, Handoff, LEAST_INACTIVITY};
use serde::{Deserialize, Serialize};
use sha1::Sha1;
use smallvec::SmallVec;

use crate::clock::timed;

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
#[derive(Debug, Default, Serialize, Deserialize)]
pub(crate) struct Side {
    /// The `a=crush` of descriptions for it, and what that says may leave the relay.
    pub(crate) line: Option<Box<str>>,
    pub(crate) policy: Policy,
    /// Ours towards it, once they were told.
    pub(crate) ours: Option<Credentials>,
    /// Ufrag of its endpoint, by the last agreed description; `None`: it does not take part, or its peer does not.
    pub(crate) theirs: Option<Box<str>>,
    /// By m-line.
    pub(crate) lines: SmallVec<[Line; 2]>,
    /// What of its endpoint's candidates its peer was shown.
    pub(crate) shown: Shown,
}

timed!(Side { shown; line, policy, ours, theirs, lines });

/// What an endpoint's authenticated requests have said of one m-line.
#[derive(Debug, Clone, Copy, Default, Serialize, Deserialize)]
pub(crate) struct Line {
    /// The greatest CRUSH-SEQUENCE so far.
    pub(crate) sequence: u32,
    /// `None`: nothing.
    pub(crate) sending: Option<Sending>,
}

impl Side {
    /// For another branch of the same INVITE.
    pub(crate) fn of_branch(&self) -> Self {
        Self { line: self.line.clone(), policy: self.policy, ours: self.ours.clone(), ..Self::default() }
    }

    pub(crate) fn takes_part(&self) -> bool {
        self.theirs.is_some()
    }

    /// Its endpoint's ufrag in an agreed description; another one's numbers begin anew.
    pub(crate) fn agree(&mut self, theirs: Option<Box<str>>) {
        if self.theirs != theirs {
            (self.theirs, self.lines) = (theirs, SmallVec::new());
        }
    }

    pub(crate) fn line_mut(&mut self, index: u16) -> Option<&mut Line> {
        let index = usize::from(index);
        if self.lines.len() <= index {
            self.lines.resize(index.saturating_add(1), Line::default());
        }
        self.lines.get_mut(index)
    }
}

/// Letters of a ufrag or password (RFC 8839 §5.4), six bits each.
pub(crate) const LETTERS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
/// 48 bits, and 144.
pub(crate) const UFRAG: usize = 8;
pub(crate) const PASSWORD: usize = 24;

/// Ours towards one party. All its branches share them, as they share its ports.
pub(crate) fn credentials(secret: &[u8; 32], session: u64, party: u16) -> Credentials {
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
    Credentials { ufrag: ufrag.to_owned(), password: rest.chars().take(PASSWORD).collect() }
}
