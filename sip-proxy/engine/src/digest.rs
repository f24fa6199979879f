//! Digest authentication (RFC 7616, RFC 8760): both sides.

use ahash::AHashMap;
use hmac::{Hmac, Mac};
use md5::Md5;
use sha2::{Digest as _, Sha256};
use sip_wire::{Message, Method, Name, Values, unquote};
use std::fmt::Write as _;
use std::sync::Arc;
use std::time::Duration;
use subtle::ConstantTimeEq;

use crate::ids::Ids;
use crate::time::Now;

/// Hash algorithms of RFC 8760 that phones have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Algorithm {
    /// For phones that know nothing better.
    Md5,
    /// Preferred.
    Sha256,
}

impl Algorithm {
    /// Its token.
    pub fn as_str(self) -> &'static str {
        match self {
            Algorithm::Md5 => "MD5",
            Algorithm::Sha256 => "SHA-256",
        }
    }

    fn of(token: &[u8]) -> Option<Self> {
        [Algorithm::Md5, Algorithm::Sha256]
            .into_iter()
            .find(|algorithm| token.eq_ignore_ascii_case(algorithm.as_str().as_bytes()))
    }

    fn hash(self, parts: &[&[u8]]) -> String {
        match self {
            Algorithm::Md5 => hex(&parts.iter().fold(Md5::new(), Md5::chain_update).finalize()),
            Algorithm::Sha256 => hex(&parts.iter().fold(Sha256::new(), Sha256::chain_update).finalize()),
        }
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

/// H(username:realm:password) in lower-case hex (RFC 7616 §3.4.2).
#[derive(Clone, PartialEq, Eq)]
pub struct Ha1 {
    /// With which algorithm.
    pub algorithm: Algorithm,
    /// Its hex digits.
    pub value: Arc<str>,
}

impl std::fmt::Debug for Ha1 {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Ha1").field("algorithm", &self.algorithm).finish_non_exhaustive()
    }
}

impl Ha1 {
    /// From a password in clear.
    pub fn of(algorithm: Algorithm, username: &str, realm: &str, password: &str) -> Self {
        let value =
            algorithm.hash(&[username.as_bytes(), b":", realm.as_bytes(), b":", password.as_bytes()]).into();
        Self { algorithm, value }
    }
}

/// What came of a request's credentials.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// They are right: the user name.
    Accepted(String),
    /// None for this realm: challenge.
    Missing,
    /// The nonce is old: challenge with `stale`.
    Stale,
    /// Wrong, replayed or of an unknown user.
    Wrong,
}

/// The server side. Nonces carry their time and our signature, so that none need be kept but those in use, for their
/// `nc` (RFC 7616 §3.4: a count that does not grow is a replay).
#[derive(Debug)]
pub struct Authenticator {
    key: [u8; 32],
    lifetime: Duration,
    counts: AHashMap<Box<[u8]>, (u32, Duration)>,
    swept: Duration,
}

impl Authenticator {
    /// Nonces live for `lifetime`.
    pub fn new(ids: &mut Ids, lifetime: Duration) -> Self {
        let mut key = [0; 32];
        ids.fill(&mut key);
        Self { key, lifetime, counts: AHashMap::new(), swept: Duration::ZERO }
    }

    /// The values of the challenge headers, in the order given (RFC 8760 §2.4: preferred first).
    pub fn challenge(
        &self,
        realm: &str,
        algorithms: &[Algorithm],
        is_stale: bool,
        now: Now,
        ids: &mut Ids,
    ) -> Vec<String> {
        let nonce = self.nonce(realm, now, ids);
        let stale = if is_stale { ", stale=true" } else { "" };
        let one = |algorithm: &Algorithm| {
            format!(
                "Digest realm=\"{realm}\", nonce=\"{nonce}\", algorithm={}, qop=\"auth\"{stale}",
                algorithm.as_str()
            )
        };
        algorithms.iter().map(one).collect()
    }

    fn nonce(&self, realm: &str, now: Now, ids: &mut Ids) -> String {
        let time = format!("{:012x}{}", now.monotonic.as_millis(), ids.word(8));
        let signature = self.sign(realm, time.as_bytes());
        time + &signature
    }

    fn sign(&self, realm: &str, time: &[u8]) -> String {
        let Ok(mac) = Hmac::<Sha256>::new_from_slice(&self.key) else { return String::new() };
        let mac =
            mac.chain_update(realm.as_bytes()).chain_update(b"\0").chain_update(time).finalize().into_bytes();
        hex(&mac[..16])
    }

    /// Judges the credentials in `header` for `realm`. `secrets` finds a user's.
    pub fn judge(
        &mut self,
        request: &Message,
        header: Name,
        realm: &str,
        now: Now,
        secrets: impl Fn(&str) -> Vec<Ha1>,
    ) -> Verdict {
        self.sweep(now);
        let mut verdict = Verdict::Missing;
        for value in request.values(header) {
            let Some(given) = Fields::parse(value) else { continue };
            if given.get(b"realm").is_none_or(|named| *named != *realm.as_bytes()) {
                continue;
            }
            verdict = self.judge_one(&given, request, realm, now, &secrets);
            if let Verdict::Accepted(_) = verdict {
                break;
            }
        }
        verdict
    }

    fn judge_one(
        &mut self,
        given: &Fields<'_>,
        request: &Message,
        realm: &str,
        now: Now,
        secrets: &impl Fn(&str) -> Vec<Ha1>,
    ) -> Verdict {
        let text = |name: &[u8]| given.get(name);
        let (Some(username), Some(nonce), Some(uri), Some(response)) =
            (text(b"username"), text(b"nonce"), text(b"uri"), text(b"response"))
        else {
            return Verdict::Wrong;
        };
        let Some(algorithm) = text(b"algorithm").map_or(Some(Algorithm::Md5), |token| Algorithm::of(&token))
        else {
            return Verdict::Wrong;
        };
        let (Some(time), Some(signature)) = (nonce.get(..20), nonce.get(20..)) else { return Verdict::Stale };
        if !bool::from(self.sign(realm, time).as_bytes().ct_eq(signature)) {
            return Verdict::Stale;
        }
        let issued =
            time.get(..12).and_then(|digits| u64::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok());
        if issued.is_none_or(|issued| now.monotonic > Duration::from_millis(issued) + self.lifetime) {
            return Verdict::Stale;
        }
        let Ok(username) = std::str::from_utf8(&username) else { return Verdict::Wrong };
        let Some(ha1) = secrets(username).into_iter().find(|secret| secret.algorithm == algorithm) else {
            return Verdict::Wrong;
        };
        let method = request.method().unwrap_or(Method::INVITE);
        let ha2 = algorithm.hash(&[method.as_bytes(), b":", &uri]);
        let expected = match text(b"qop") {
            None => return Verdict::Wrong,
            Some(qop) if !qop.eq_ignore_ascii_case(b"auth") => return Verdict::Wrong,
            Some(qop) => {
                let (nc, cnonce) = (text(b"nc").unwrap_or_default(), text(b"cnonce").unwrap_or_default());
                algorithm.hash(&[
                    ha1.value.as_bytes(),
                    b":",
                    &nonce,
                    b":",
                    &nc,
                    b":",
                    &cnonce,
                    b":",
                    &qop,
                    b":",
                    ha2.as_bytes(),
                ])
            }
        };
        if !bool::from(expected.as_bytes().ct_eq(&response.to_ascii_lowercase())) {
            return Verdict::Wrong;
        }
        let count = text(b"nc")
            .and_then(|nc| u32::from_str_radix(std::str::from_utf8(&nc).ok()?, 16).ok())
            .unwrap_or(0);
        let latest = self.counts.entry(nonce.as_ref().into()).or_insert((0, now.monotonic + self.lifetime));
        if count <= latest.0 {
            return Verdict::Stale;
        }
        latest.0 = count;
        Verdict::Accepted(username.to_owned())
    }

    fn sweep(&mut self, now: Now) {
        if now.monotonic > self.swept + self.lifetime {
            self.swept = now.monotonic;
            self.counts.retain(|_, entry| entry.1 > now.monotonic);
        }
    }
}

/// The client side: the header that answers a 401 or 407, and its name. `None` if no challenge can be answered.
pub fn answer(
    challenged: &Message,
    method: Method<'_>,
    uri: &[u8],
    username: &str,
    password: &str,
    ids: &mut Ids,
) -> Option<(Name, String)> {
    let (from, to) = match challenged.status()? {
        401 => (Name::WwwAuthenticate, Name::Authorization),
        407 => (Name::ProxyAuthenticate, Name::ProxyAuthorization),
        _ => return None,
    };
    let challenges: Vec<_> = challenged.values(from).filter_map(Fields::parse).collect();
    let algorithm_of = |challenge: &Fields<'_>| {
        challenge.get(b"algorithm").map_or(Some(Algorithm::Md5), |token| Algorithm::of(&token))
    };
    let challenge = [Algorithm::Sha256, Algorithm::Md5].into_iter().find_map(|algorithm| {
        challenges.iter().find(|challenge| algorithm_of(challenge) == Some(algorithm))
    })?;
    let algorithm = algorithm_of(challenge)?;
    let (realm, nonce) = (challenge.get(b"realm")?, challenge.get(b"nonce")?);
    let realm = String::from_utf8_lossy(&realm).into_owned();
    let ha1 = Ha1::of(algorithm, username, &realm, password);
    let ha2 = algorithm.hash(&[method.as_bytes(), b":", uri]);
    let nonce_text = String::from_utf8_lossy(&nonce).into_owned();
    let mut value =
        format!("Digest username=\"{username}\", realm=\"{realm}\", nonce=\"{nonce_text}\", uri=\"");
    value.push_str(&String::from_utf8_lossy(uri));
    let _ = write!(value, "\", algorithm={}", algorithm.as_str());
    let offers_auth = challenge
        .get(b"qop")
        .is_some_and(|qop| Values::of_list(&qop).any(|one| one.eq_ignore_ascii_case(b"auth")));
    let response = if offers_auth {
        let cnonce = ids.word(16);
        let _ = write!(value, ", qop=auth, nc=00000001, cnonce=\"{cnonce}\"");
        algorithm.hash(&[
            ha1.value.as_bytes(),
            b":",
            &nonce,
            b":00000001:",
            cnonce.as_bytes(),
            b":auth:",
            ha2.as_bytes(),
        ])
    } else {
        algorithm.hash(&[ha1.value.as_bytes(), b":", &nonce, b":", ha2.as_bytes()])
    };
    let _ = write!(value, ", response=\"{response}\"");
    if let Some(opaque) = challenge.get(b"opaque") {
        let _ = write!(value, ", opaque=\"{}\"", String::from_utf8_lossy(&opaque));
    }
    Some((to, value))
}

/// `Digest name=value, name="value"`.
struct Fields<'a>(&'a [u8]);

impl<'a> Fields<'a> {
    fn parse(value: &'a [u8]) -> Option<Self> {
        let scheme = value.get(..7)?;
        scheme.eq_ignore_ascii_case(b"Digest ").then(|| Fields(&value[7..]))
    }

    fn get(&self, name: &[u8]) -> Option<std::borrow::Cow<'a, [u8]>> {
        Values::of_list(self.0).find_map(|field| {
            let equals = memchr::memchr(b'=', field)?;
            field[..equals]
                .trim_ascii()
                .eq_ignore_ascii_case(name)
                .then(|| unquote(field[equals + 1..].trim_ascii()))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rfc_7616_example_hashes() {
        let ha1 = Ha1::of(Algorithm::Md5, "Mufasa", "http-auth@example.org", "Circle of Life");
        assert_eq!(&*ha1.value, "3d78807defe7de2157e2b0b6573a855f");
    }

    fn request(authorization: Option<&str>) -> Message {
        let line = authorization.map(|value| format!("Authorization: {value}\r\n")).unwrap_or_default();
        Message::parse(format!("REGISTER sip:example.com SIP/2.0\r\n{line}\r\n").into()).unwrap()
    }

    #[test]
    fn an_answer_is_accepted_once_and_neither_replayed_nor_forged_nor_late() {
        let mut ids = Ids::new([1; 32], 0);
        let mut authenticator = Authenticator::new(&mut ids, Duration::from_secs(300));
        let now = Now { monotonic: Duration::from_secs(1000), wall: Duration::ZERO };
        let secrets = |user: &str| {
            if user == "alice" {
                vec![Ha1::of(Algorithm::Sha256, "alice", "example.com", "secret")]
            } else {
                vec![]
            }
        };
        let mut judge = |message: &Message, now| {
            authenticator.judge(message, Name::Authorization, "example.com", now, secrets)
        };
        assert_eq!(judge(&request(None), now), Verdict::Missing);
        let signer = Authenticator::new(&mut Ids::new([1; 32], 0), Duration::from_secs(300));
        let values =
            signer.challenge("example.com", &[Algorithm::Sha256, Algorithm::Md5], false, now, &mut ids);
        let challenge = format!(
            "SIP/2.0 401 Unauthorized\r\nWWW-Authenticate: {}\r\nWWW-Authenticate: {}\r\n\r\n",
            values[0], values[1]
        );
        let challenge = Message::parse(challenge.into()).unwrap();
        let mut answer_with = |password| {
            answer(&challenge, Method::REGISTER, b"sip:example.com", "alice", password, &mut ids).unwrap().1
        };
        let right = request(Some(&answer_with("secret")));
        assert_eq!(judge(&request(Some(&answer_with("guess"))), now), Verdict::Wrong);
        assert_eq!(judge(&right, now), Verdict::Accepted("alice".into()));
        assert_eq!(judge(&right, now), Verdict::Stale, "a replay");
        let later = Now { monotonic: Duration::from_secs(1301), ..now };
        assert_eq!(judge(&request(Some(&answer_with("secret"))), later), Verdict::Stale);
    }
}
