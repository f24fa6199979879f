//! Nonces that carry their time, their home and our signature, so that none need be kept but those in use.

use std::time::Duration;

use hmac::{Hmac, Mac};
use sha2::Sha256;
use subtle::ConstantTimeEq;

use super::hex;
use crate::ids::Ids;
use crate::slot::{SLOTS, Slot};
use crate::time::Now;

/// Marks a nonce as ours, so that its home is sought only for those.
const MARK: &str = "n1";
/// Milliseconds, random letters, the home.
const TIME: usize = 12;
const RANDOM: usize = 8;
const HOME: usize = 3;
/// What is signed.
const HEAD: usize = MARK.len() + TIME + RANDOM + HOME;
/// Octets of the signature; its digits are twice as many.
const SIGNATURE: usize = 12;

/// What nonces are signed with.
#[derive(Debug)]
pub(super) struct Signer {
    key: [u8; 32],
    pub(super) lifetime: Duration,
    pub(super) home: Slot,
}

/// What a nonce is good for, beside its time: a realm, and the network that it was given to. Whoever hears the answer
/// elsewhere cannot use it from there.
#[derive(Debug, Clone, Copy)]
pub(super) struct Scope<'a> {
    pub(super) realm: &'a str,
    pub(super) network: u128,
}

impl Signer {
    pub(super) fn new(ids: &mut Ids, lifetime: Duration) -> Self {
        let mut key = [0; 32];
        ids.fill(&mut key);
        Self { key, lifetime, home: Slot::new(0) }
    }

    pub(super) fn make(&self, scope: Scope<'_>, now: Now, ids: &mut Ids) -> String {
        let mut nonce = format!(
            "{MARK}{:012x}{}{:03x}",
            now.monotonic.as_millis(),
            ids.word(RANDOM),
            self.home.number() % SLOTS
        );
        nonce.push_str(&self.sign(scope, nonce.as_bytes()));
        nonce
    }

    /// Whether the nonce is ours, of this home, for this scope, and not too old.
    pub(super) fn is_good(&self, nonce: &[u8], scope: Scope<'_>, now: Now) -> bool {
        let Some((head, signature)) = nonce.split_at_checked(HEAD) else { return false };
        if !bool::from(self.sign(scope, head).as_bytes().ct_eq(signature)) {
            return false;
        }
        let time = head
            .get(MARK.len()..)
            .and_then(|rest| rest.get(..TIME))
            .and_then(|digits| std::str::from_utf8(digits).ok());
        time.and_then(|digits| u64::from_str_radix(digits, 16).ok()).is_some_and(|issued| {
            now.monotonic <= Duration::from_millis(issued).saturating_add(self.lifetime)
        })
    }

    fn sign(&self, scope: Scope<'_>, head: &[u8]) -> String {
        let Ok(mac) = Hmac::<Sha256>::new_from_slice(&self.key) else { return String::new() };
        let mac = mac
            .chain_update(scope.realm.as_bytes())
            .chain_update(b"\0")
            .chain_update(scope.network.to_be_bytes())
            .chain_update(head)
            .finalize()
            .into_bytes();
        hex(mac.get(..SIGNATURE).unwrap_or_default())
    }
}

/// The home that a nonce of ours names; `None` for any other text.
pub(super) fn home_of(nonce: &[u8]) -> Option<Slot> {
    let rest = nonce.strip_prefix(MARK.as_bytes())?;
    let digits = rest.get(TIME + RANDOM..TIME + RANDOM + HOME)?;
    let is_whole = nonce.len() == HEAD + 2 * SIGNATURE;
    let number = u16::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()?;
    is_whole.then(|| Slot::new(number))
}
