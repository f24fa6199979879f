//! Subscribers: who may register, and the digests that prove it.

use std::cmp::Ordering;
use std::collections::HashMap;
use std::sync::Arc;

use sip_engine::digest::{Algorithm, Ha1};

use super::leaves::{Entry, Leaves, Text};

/// The digests of one subscriber, in octets instead of their hex digits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Digests {
    md5: [u8; 16],
    sha256: [u8; 32],
    has_md5: bool,
    has_sha256: bool,
}

impl Digests {
    /// From hex digits, as rows have them; what is none is left out.
    pub fn new(md5: Option<&str>, sha256: Option<&str>) -> Self {
        let (md5, sha256) = (md5.and_then(octets::<16>), sha256.and_then(octets::<32>));
        Self {
            md5: md5.unwrap_or_default(),
            sha256: sha256.unwrap_or_default(),
            has_md5: md5.is_some(),
            has_sha256: sha256.is_some(),
        }
    }

    fn secrets(&self) -> Vec<Ha1> {
        let mut secrets = Vec::with_capacity(2);
        if self.has_sha256 {
            secrets.push(Ha1 { algorithm: Algorithm::Sha256, value: hex(&self.sha256).into() });
        }
        if self.has_md5 {
            secrets.push(Ha1 { algorithm: Algorithm::Md5, value: hex(&self.md5).into() });
        }
        secrets
    }
}

fn octets<const N: usize>(hex: &str) -> Option<[u8; N]> {
    let mut octets = [0; N];
    let digits = hex.as_bytes().chunks_exact(2);
    if digits.len() != N || !digits.remainder().is_empty() {
        return None;
    }
    for (octet, digits) in octets.iter_mut().zip(digits) {
        *octet = u8::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()?;
    }
    Some(octets)
}

fn hex(octets: &[u8]) -> String {
    const DIGITS: [char; 16] =
        ['0', '1', '2', '3', '4', '5', '6', '7', '8', '9', 'a', 'b', 'c', 'd', 'e', 'f'];
    let digit = |value: u8| DIGITS.get(usize::from(value & 15)).copied().unwrap_or('0');
    octets.iter().flat_map(|octet| [digit(octet >> 4), digit(*octet)]).collect()
}

#[derive(Debug, Clone)]
struct Subscriber {
    username: Text,
    domain: u32,
    digests: Digests,
}

impl Entry for Subscriber {
    fn key(&self) -> &[u8] {
        self.username.as_bytes()
    }
}

impl Ord for Subscriber {
    fn cmp(&self, other: &Self) -> Ordering {
        self.key().cmp(other.key()).then(self.domain.cmp(&other.domain))
    }
}

impl PartialOrd for Subscriber {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Subscriber {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for Subscriber {}

/// All of them, by user name and then domain: an extension may be known in ten thousand domains.
#[derive(Debug, Clone, Default)]
pub struct Subscribers {
    table: Leaves<Subscriber>,
    /// Domains by name. Those that we serve come first, in their order, so that the first of a user's is the one to take.
    domains: Arc<HashMap<Arc<str>, u32>>,
    served: Vec<Arc<str>>,
}

impl Subscribers {
    /// None yet; these domains are served.
    pub fn new(served: &[Arc<str>]) -> Self {
        let mut unique: Vec<Arc<str>> = Vec::new();
        let mut domains = HashMap::new();
        for domain in served {
            if let Ok(number) = u32::try_from(unique.len())
                && !domains.contains_key(domain)
            {
                domains.insert(domain.clone(), number);
                unique.push(domain.clone());
            }
        }
        Self { table: Leaves::default(), domains: Arc::new(domains), served: unique }
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.table.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn number(&mut self, domain: &str) -> u32 {
        if let Some(number) = self.domains.get(domain) {
            return *number;
        }
        let domains = Arc::make_mut(&mut self.domains);
        let number = u32::try_from(domains.len()).unwrap_or(u32::MAX);
        domains.insert(domain.into(), number);
        number
    }

    fn find(&self, domain: &str, username: &str) -> Option<&Subscriber> {
        let number = self.domains.get(domain)?;
        let of_name = self.table.of(username.as_bytes());
        let place = of_name.binary_search_by(|one| one.domain.cmp(number)).ok()?;
        of_name.get(place)
    }

    /// The digest secrets of a user of a domain.
    pub fn secrets(&self, domain: &str, username: &str) -> Vec<Ha1> {
        self.find(domain, username).map(|found| found.digests.secrets()).unwrap_or_default()
    }

    /// Whether there is such a user.
    pub fn contains(&self, domain: &str, username: &str) -> bool {
        self.find(domain, username).is_some()
    }

    /// Whether a domain is one that we serve.
    pub fn serves(&self, domain: &str) -> bool {
        self.domains.get(domain).is_some_and(|number| (*number as usize) < self.served.len())
    }

    /// The first of the domains that we serve in which there is a user of this name.
    pub fn served_domain_of(&self, username: &str) -> Option<&Arc<str>> {
        self.served.get(self.table.of(username.as_bytes()).first()?.domain as usize)
    }

    /// Puts one, or replaces it; `None` removes it.
    pub fn put(&mut self, domain: &str, username: &str, digests: Option<Digests>) {
        let number = self.number(domain);
        let come = digests.map(|digests| Subscriber { username: username.into(), domain: number, digests });
        self.table.replace(username.as_bytes(), |one| one.domain == number, come.into_iter().collect());
    }
}

/// Collects all subscribers.
#[derive(Debug)]
pub struct SubscriberList {
    list: Vec<Subscriber>,
    into: Subscribers,
}

impl SubscriberList {
    /// Of domains of which these are served.
    pub fn new(served: &[Arc<str>]) -> Self {
        Self { list: Vec::new(), into: Subscribers::new(served) }
    }

    /// One more.
    pub fn push(&mut self, domain: &str, username: &str, digests: Digests) {
        let domain = self.into.number(domain);
        self.list.push(Subscriber { username: username.into(), domain, digests });
    }

    /// The table.
    pub fn finish(self) -> Subscribers {
        Subscribers { table: Leaves::build(self.list), ..self.into }
    }
}
