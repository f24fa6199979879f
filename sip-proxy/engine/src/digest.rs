//! Digest authentication (RFC 7616, RFC 8760): both sides.

mod nonce;
mod resource;

use ahash::AHashMap;
use md5::Md5;
use sha2::{Digest as _, Sha256};
use sip_wire::{Message, Method, Name, Values, unquote};
use std::fmt::Write as _;
use std::sync::Arc;
use std::time::Duration;
use subtle::ConstantTimeEq;

use crate::ids::Ids;
use crate::slot::Slot;
use crate::time::Now;

use nonce::{Scope, Signer};

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
    bytes.iter().fold(String::with_capacity(bytes.len().saturating_mul(2)), |mut text, byte| {
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
    /// The nonce is old, was used, or was given to another network: challenge with `stale`.
    Stale,
    /// They are wrong.
    Wrong {
        /// Whose they claim to be, as the operator may read it.
        user: String,
        /// In what way.
        fault: Fault,
    },
    /// They are right, for another resource than the request asks for (RFC 7616 §3.4.6): 400.
    OtherResource(String),
    /// Too many wrong ones have come for this user from there: not judged before this time is over.
    Delayed(Duration),
}

/// What is wrong with credentials.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// Fields are missing, or of a kind that was not offered.
    Unreadable,
    /// There is no such user, or it has no password for this algorithm.
    NoUser,
    /// The password.
    Password,
    /// They are of RFC 2069, without `qop`, where the realm wants it.
    NoQop,
}

/// Who asks for credentials (RFC 3261 §22.1). Its status, its header and the header of the answer follow from that.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Challenger {
    /// A registrar: 401.
    Registrar,
    /// A proxy, and a B2BUA in its place: 407.
    Proxy,
}

impl Challenger {
    /// The status of its challenge.
    pub fn status(self) -> u16 {
        match self {
            Challenger::Registrar => 401,
            Challenger::Proxy => 407,
        }
    }

    /// The header of its challenge.
    pub fn challenge(self) -> Name {
        match self {
            Challenger::Registrar => Name::WwwAuthenticate,
            Challenger::Proxy => Name::ProxyAuthenticate,
        }
    }

    /// The header that answers it.
    pub fn credentials(self) -> Name {
        match self {
            Challenger::Registrar => Name::Authorization,
            Challenger::Proxy => Name::ProxyAuthorization,
        }
    }
}

/// A user's name and password, in clear.
#[derive(Clone, Copy)]
pub struct Login<'a> {
    /// The name.
    pub username: &'a str,
    /// The password.
    pub password: &'a str,
}

/// What credentials are judged for.
#[derive(Debug, Clone, Copy)]
pub struct Realm<'a> {
    /// Who wants them.
    pub by: Challenger,
    /// The domain.
    pub name: &'a str,
    /// The network that the request comes from, see [`crate::buckets::network_of`].
    pub network: u128,
    /// Whether an answer without `qop` is refused. RFC 3261 §22.4 (7) leaves it optional to receive.
    pub demands_qop: bool,
    /// What it offers (RFC 8760 §2.4: preferred first).
    pub algorithms: &'a [Algorithm],
}

impl<'a> Realm<'a> {
    fn scope(&self) -> Scope<'a> {
        Scope { realm: self.name, network: self.network }
    }
}

/// The server side. Nonces carry their time and our signature, so that none need be kept but those in use, for their
/// `nc` (RFC 7616 §3.4: a count that does not grow is a replay). Each has a home, which alone judges it: a count is
/// accepted once, whichever shard it comes to.
#[derive(Debug)]
pub struct Authenticator {
    signer: Signer,
    counts: AHashMap<Box<[u8]>, (u32, Duration)>,
    swept: Duration,
}

/// The count of a nonce that was answered without `qop`: that is good once.
const USED_UP: u32 = u32::MAX;

impl Authenticator {
    /// Nonces live for `lifetime`.
    pub fn new(ids: &mut Ids, lifetime: Duration) -> Self {
        Self { signer: Signer::new(ids, lifetime), counts: AHashMap::new(), swept: Duration::ZERO }
    }

    /// The home of the nonces that it makes.
    pub fn set_home(&mut self, home: Slot) {
        self.signer.home = home;
    }

    /// The values of the challenge headers, one for each of the realm's algorithms.
    pub fn challenge(&self, realm: Realm<'_>, is_stale: bool, now: Now, ids: &mut Ids) -> Vec<String> {
        let nonce = self.signer.make(realm.scope(), now, ids);
        let stale = if is_stale { ", stale=true" } else { "" };
        let one = |algorithm: &Algorithm| {
            format!(
                "Digest realm=\"{}\", nonce=\"{nonce}\", algorithm={}, qop=\"auth\"{stale}",
                realm.name,
                algorithm.as_str()
            )
        };
        realm.algorithms.iter().map(one).collect()
    }

    /// Judges a request's credentials for `realm`. `secrets` finds a user's.
    pub fn judge(
        &mut self,
        request: &Message,
        realm: Realm<'_>,
        now: Now,
        secrets: impl Fn(&str) -> Vec<Ha1>,
    ) -> Verdict {
        self.sweep(now);
        let mut verdict = Verdict::Missing;
        for value in request.values(realm.by.credentials()) {
            let Some(given) = Fields::parse(value) else { continue };
            if given.get(b"realm").is_none_or(|named| *named != *realm.name.as_bytes()) {
                continue;
            }
            verdict = self.judge_one(&Credentials { given, request }, realm, now, &secrets);
            if let Verdict::Accepted(_) = verdict {
                break;
            }
        }
        verdict
    }

    fn judge_one(
        &mut self,
        credentials: &Credentials<'_>,
        realm: Realm<'_>,
        now: Now,
        secrets: &impl Fn(&str) -> Vec<Ha1>,
    ) -> Verdict {
        let Credentials { given, request } = credentials;
        let text = |name: &[u8]| given.get(name);
        let named = text(b"username");
        let username = named.as_deref().and_then(|name| user_of(name, realm.name));
        let wrong = |fault| Verdict::Wrong { user: shown(named.as_deref().unwrap_or_default()), fault };
        let (Some(username), Some(nonce), Some(uri), Some(response)) =
            (username, text(b"nonce"), text(b"uri"), text(b"response"))
        else {
            return wrong(Fault::Unreadable);
        };
        let Some(algorithm) = text(b"algorithm").map_or(Some(Algorithm::Md5), |token| Algorithm::of(&token))
        else {
            return wrong(Fault::Unreadable);
        };
        if !self.signer.is_good(&nonce, realm.scope(), now) {
            return Verdict::Stale;
        }
        let Some(ha1) = secrets(username).into_iter().find(|secret| secret.algorithm == algorithm) else {
            return wrong(Fault::NoUser);
        };
        let method = request.method().unwrap_or(Method::INVITE);
        let ha2 = algorithm.hash(&[method.as_bytes(), b":", &uri]);
        let (ha1, ha2) = (ha1.value.as_bytes(), ha2.as_bytes());
        let (expected, count) = match text(b"qop") {
            None if realm.demands_qop => return wrong(Fault::NoQop),
            // RFC 2069: nothing counts its uses, so that it has one.
            None => (algorithm.hash(&[ha1, b":", &nonce, b":", ha2]), Some(USED_UP)),
            Some(qop) if !qop.eq_ignore_ascii_case(b"auth") => return wrong(Fault::Unreadable),
            Some(qop) => {
                let (nc, cnonce) = (text(b"nc").unwrap_or_default(), text(b"cnonce").unwrap_or_default());
                let parts: [&[u8]; 11] = [ha1, b":", &nonce, b":", &nc, b":", &cnonce, b":", &qop, b":", ha2];
                (algorithm.hash(&parts), count_of(&nc))
            }
        };
        if !bool::from(expected.as_bytes().ct_eq(&response.to_ascii_lowercase())) {
            return wrong(Fault::Password);
        }
        if !resource::is_same(&uri, request.request_uri().unwrap_or_default(), method) {
            return Verdict::OtherResource(shown(username.as_bytes()));
        }
        let Some(count) = count else { return Verdict::Stale };
        let until = now.monotonic.saturating_add(self.signer.lifetime);
        let latest = self.counts.entry(nonce.as_ref().into()).or_insert((0, until));
        if count <= latest.0 || (count == USED_UP && latest.0 > 0) {
            return Verdict::Stale;
        }
        latest.0 = count;
        Verdict::Accepted(username.to_owned())
    }

    fn sweep(&mut self, now: Now) {
        if now.monotonic > self.swept.saturating_add(self.signer.lifetime) {
            self.swept = now.monotonic;
            self.counts.retain(|_, entry| entry.1 > now.monotonic);
        }
    }
}

/// The user that a digest names: alone, or with the domain that it is for.
fn user_of<'a>(named: &'a [u8], domain: &str) -> Option<&'a str> {
    let named = std::str::from_utf8(named).ok()?;
    match named.rsplit_once('@') {
        Some((user, of)) if of.eq_ignore_ascii_case(domain) => Some(user),
        _ => Some(named),
    }
}

/// A name of a stranger's making, as an operator may read it.
pub(crate) fn shown(name: &[u8]) -> String {
    String::from_utf8_lossy(name).chars().take(64).flat_map(char::escape_debug).collect()
}

/// `nc`: eight hex digits; the last number is kept for answers without one.
fn count_of(nc: &[u8]) -> Option<u32> {
    let count = u32::from_str_radix(std::str::from_utf8(nc).ok()?, 16).ok()?;
    (count < USED_UP).then_some(count)
}

/// The home of the nonce that a request's credentials answer, if it is one of ours.
pub fn home_of(request: &Message) -> Option<Slot> {
    [Name::Authorization, Name::ProxyAuthorization]
        .into_iter()
        .flat_map(|name| request.values(name))
        .find_map(|value| nonce::home_of(&Fields::parse(value)?.get(b"nonce")?))
}

/// The user that a request's credentials name for a domain, if any do.
pub(crate) fn named_user(request: &Message, header: Name, domain: &str) -> Option<String> {
    request.values(header).find_map(|value| {
        let given = Fields::parse(value)?;
        given.get(b"realm").filter(|named| **named == *domain.as_bytes())?;
        user_of(&given.get(b"username")?, domain).map(str::to_owned)
    })
}

/// The client side: the header that answers a 401 or 407, and its name. `None` if no challenge can be answered.
pub fn answer(
    challenged: &Message,
    method: Method<'_>,
    uri: &[u8],
    login: Login<'_>,
    ids: &mut Ids,
) -> Option<(Name, String)> {
    let Login { username, password } = login;
    let by = [Challenger::Registrar, Challenger::Proxy]
        .into_iter()
        .find(|by| Some(by.status()) == challenged.status())?;
    let challenges: Vec<_> = challenged.values(by.challenge()).filter_map(Fields::parse).collect();
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
    Some((by.credentials(), value))
}

/// What a request shows, and the request.
struct Credentials<'a> {
    given: Fields<'a>,
    request: &'a Message,
}

/// `Digest name=value, name="value"`.
struct Fields<'a>(&'a [u8]);

impl<'a> Fields<'a> {
    fn parse(value: &'a [u8]) -> Option<Self> {
        let (scheme, fields) = value.split_at_checked(7)?;
        scheme.eq_ignore_ascii_case(b"Digest ").then_some(Fields(fields))
    }

    fn get(&self, name: &[u8]) -> Option<std::borrow::Cow<'a, [u8]>> {
        Values::of_list(self.0).find_map(|field| {
            let (found, value) = field.split_at_checked(memchr::memchr(b'=', field)?)?;
            let value = value.strip_prefix(b"=")?;
            found.trim_ascii().eq_ignore_ascii_case(name).then(|| unquote(value.trim_ascii()))
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

    const HERE: Realm<'_> = Realm {
        by: Challenger::Registrar,
        name: "example.com",
        network: 1,
        demands_qop: false,
        algorithms: &[Algorithm::Sha256, Algorithm::Md5],
    };

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
        let mut judge = |message: &Message, now| authenticator.judge(message, HERE, now, secrets);
        assert_eq!(judge(&request(None), now), Verdict::Missing);
        let signer = Authenticator::new(&mut Ids::new([1; 32], 0), Duration::from_secs(300));
        let values = signer.challenge(HERE, false, now, &mut ids);
        let challenge = format!(
            "SIP/2.0 401 Unauthorized\r\nWWW-Authenticate: {}\r\nWWW-Authenticate: {}\r\n\r\n",
            values[0], values[1]
        );
        let challenge = Message::parse(challenge.into()).unwrap();
        let mut answer_with = |password| {
            let login = Login { username: "alice", password };
            answer(&challenge, Method::REGISTER, b"sip:example.com", login, &mut ids).unwrap().1
        };
        let right = request(Some(&answer_with("secret")));
        let guess = judge(&request(Some(&answer_with("guess"))), now);
        assert_eq!(guess, Verdict::Wrong { user: "alice".into(), fault: Fault::Password });
        assert_eq!(judge(&right, now), Verdict::Accepted("alice".into()));
        assert_eq!(judge(&right, now), Verdict::Stale, "a replay");
        let later = Now { monotonic: Duration::from_secs(1301), ..now };
        assert_eq!(judge(&request(Some(&answer_with("secret"))), later), Verdict::Stale);
    }

    /// A node's nonce, and the answer to it in the form of RFC 2069.
    fn old_answer(authenticator: &Authenticator, now: Now, ids: &mut Ids) -> String {
        let realm = Realm { algorithms: &[Algorithm::Md5], ..HERE };
        let challenge = authenticator.challenge(realm, false, now, ids).remove(0);
        let nonce =
            String::from_utf8_lossy(&Fields::parse(challenge.as_bytes()).unwrap().get(b"nonce").unwrap())
                .into_owned();
        let ha1 = Ha1::of(Algorithm::Md5, "alice", "example.com", "secret");
        let ha2 = Algorithm::Md5.hash(&[b"REGISTER:sip:example.com"]);
        let response =
            Algorithm::Md5.hash(&[ha1.value.as_bytes(), b":", nonce.as_bytes(), b":", ha2.as_bytes()]);
        format!(
            "Digest username=\"alice@example.com\", realm=\"example.com\", nonce=\"{nonce}\", uri=\"sip:example.com\", response=\"{response}\""
        )
    }

    #[test]
    fn an_answer_without_qop_is_good_once_where_the_realm_allows_it_and_from_where_it_was_asked_for() {
        let mut ids = Ids::new([1; 32], 0);
        let mut authenticator = Authenticator::new(&mut ids, Duration::from_secs(300));
        let now = Now { monotonic: Duration::from_secs(1000), wall: Duration::ZERO };
        let secrets = |_: &str| vec![Ha1::of(Algorithm::Md5, "alice", "example.com", "secret")];
        let answer = request(Some(&old_answer(&authenticator, now, &mut ids)));
        let mut judge = |realm| authenticator.judge(&answer, realm, now, secrets);
        assert_eq!(
            judge(Realm { demands_qop: true, ..HERE }),
            Verdict::Wrong { user: "alice@example.com".into(), fault: Fault::NoQop }
        );
        assert_eq!(judge(Realm { network: 2, ..HERE }), Verdict::Stale);
        assert_eq!(judge(HERE), Verdict::Accepted("alice".into()));
        assert_eq!(judge(HERE), Verdict::Stale, "a replay");
    }

    #[test]
    fn a_digest_is_good_for_the_resource_that_it_was_made_for() {
        let mut ids = Ids::new([1; 32], 0);
        let mut authenticator = Authenticator::new(&mut ids, Duration::from_secs(300));
        let now = Now { monotonic: Duration::from_secs(1000), wall: Duration::ZERO };
        let secrets = |_: &str| vec![Ha1::of(Algorithm::Md5, "alice", "example.com", "secret")];
        let answer = old_answer(&authenticator, now, &mut ids);
        let elsewhere = Message::parse(
            format!("REGISTER sip:example.org SIP/2.0\r\nAuthorization: {answer}\r\n\r\n").into(),
        )
        .unwrap();
        let verdict = authenticator.judge(&elsewhere, HERE, now, secrets);
        assert_eq!(verdict, Verdict::OtherResource("alice".into()));
    }

    #[test]
    fn a_nonce_names_its_home_and_no_other_text_does() {
        let mut ids = Ids::new([1; 32], 0);
        let mut authenticator = Authenticator::new(&mut ids, Duration::from_secs(300));
        authenticator.set_home(Slot::new(0xabc));
        let answer = old_answer(&authenticator, Now::default(), &mut ids);
        assert_eq!(home_of(&request(Some(&answer))), Some(Slot::new(0xabc)));
        assert_eq!(home_of(&request(Some(&answer.replace("n1", "n2")))), None);
        assert_eq!(home_of(&request(None)), None);
    }
}
