//! One snapshot of what operators configured in the store, as the engine asks for it.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;

use sip_engine::digest::{Algorithm, Ha1};
use sip_engine::io::RealmId;
use sip_engine::question::{Caller, Policy, RouteQuestion, RouteRefusal, RouteStep, TrunkTarget};

/// Immutable; swapped whole when the store changes.
#[derive(Debug, Default)]
pub struct Snapshot {
    /// By domain, then user.
    pub subscribers: HashMap<String, HashMap<String, Vec<Ha1>>>,
    /// By name.
    pub trunks: HashMap<String, Arc<TrunkTarget>>,
    /// Networks that trunks' requests come from, by realm.
    pub sources: Vec<(RealmId, ipnet::IpNet, Arc<str>)>,
    /// Trunks that are known by a certificate, and by the name in it (lower case).
    pub certificates: Vec<(RealmId, Arc<str>, Arc<str>)>,
    /// In order of preference: longest prefix, then priority.
    pub routes: Vec<Route>,
    /// Domains that local registrars serve.
    pub domains: Vec<Arc<str>>,
    /// Realms whose users have the core for everything: realm, and the registrar behind it.
    pub forwarding: Vec<(RealmId, Arc<TrunkTarget>)>,
}

/// One way to a trunk.
#[derive(Debug, Clone)]
pub struct Route {
    /// Only from this realm.
    pub from: Option<RealmId>,
    /// Of the dialled user part.
    pub prefix: String,
    /// Where to.
    pub trunk: Arc<TrunkTarget>,
    /// Lower first.
    pub priority: i32,
    /// Among equals.
    pub weight: u32,
    /// Characters removed from the front.
    pub strip: usize,
    /// What is put there.
    pub prepend: String,
}

impl Snapshot {
    /// Puts routes into the order in which they are tried.
    pub fn sort(&mut self) {
        self.routes.sort_by(|one, other| {
            other.prefix.len().cmp(&one.prefix.len()).then(one.priority.cmp(&other.priority))
        });
    }
}

impl Policy for Snapshot {
    fn credentials(&self, domain: &str, username: &str) -> Vec<Ha1> {
        self.subscribers.get(domain).and_then(|users| users.get(username)).cloned().unwrap_or_default()
    }

    fn source(&self, realm: RealmId, address: IpAddr) -> Option<Arc<str>> {
        let mut matching =
            self.sources.iter().filter(|source| source.0 == realm && source.1.contains(&address));
        let first = matching.next()?;
        Some(
            matching
                .fold(first, |best, one| if one.1.prefix_len() > best.1.prefix_len() { one } else { best })
                .2
                .clone(),
        )
    }

    /// A trunk with a certificate's name needs that certificate wherever it calls from; if it has addresses too, both.
    fn peer(&self, realm: RealmId, address: IpAddr, names: &[Arc<str>]) -> Option<Arc<str>> {
        let by_address = self.source(realm, address);
        let has_addresses = |trunk: &str| self.sources.iter().any(|source| *source.2 == *trunk);
        let certified = self.certificates.iter().find(|(of, name, trunk)| {
            *of == realm
                && names.contains(name)
                && (by_address.as_ref() == Some(trunk) || !has_addresses(trunk))
        });
        match certified {
            Some((_, _, trunk)) => Some(trunk.clone()),
            None => by_address.filter(|trunk| !self.certificates.iter().any(|known| known.2 == *trunk)),
        }
    }

    fn route(&self, question: &RouteQuestion<'_>) -> Result<Vec<RouteStep>, RouteRefusal> {
        let has = |domain: &str| {
            self.subscribers.get(domain).is_some_and(|users| users.contains_key(question.user))
        };
        let is_local = self.domains.iter().any(|domain| **domain == *question.host);
        if is_local {
            // A phone knows the other networks' users under its own domain.
            let own = has(question.host).then_some(question.host);
            if let Some(domain) =
                own.or_else(|| self.domains.iter().map(|domain| &**domain).find(|domain| has(domain)))
            {
                return Ok(vec![RouteStep::Aor { aor: format!("{}@{domain}", question.user).into() }]);
            }
        }
        if let Some((_, registrar)) = self.forwarding.iter().find(|forwarding| forwarding.0 == question.realm)
        {
            return Ok(vec![RouteStep::Trunk { target: registrar.clone(), user: question.user.into() }]);
        }
        // A call from a trunk to a subscriber may name us by address.
        if matches!(question.caller, Caller::Trunk { .. })
            && let Some(domain) = self.domains.iter().find(|domain| has(domain))
        {
            return Ok(vec![RouteStep::Aor { aor: format!("{}@{domain}", question.user).into() }]);
        }
        let fits = |route: &&Route| {
            route.from.is_none_or(|from| from == question.realm) && question.user.starts_with(&route.prefix)
        };
        let Some(best) = self.routes.iter().find(fits) else { return Err(RouteRefusal::NotFound) };
        let mut same: Vec<&Route> =
            self.routes.iter().filter(fits).filter(|route| route.prefix == best.prefix).collect();
        spread(&mut same, question.user);
        let steps = same.into_iter().map(|route| {
            let rest: String = question.user.chars().skip(route.strip).collect();
            RouteStep::Trunk { target: route.trunk.clone(), user: format!("{}{rest}", route.prepend).into() }
        });
        Ok(steps.collect())
    }

    fn trunk(&self, name: &str) -> Option<Arc<TrunkTarget>> {
        self.trunks.get(name).cloned()
    }

    fn trunks(&self) -> Vec<Arc<TrunkTarget>> {
        self.trunks.values().cloned().collect()
    }
}

/// Among routes of one priority the first is drawn by weight. The draw comes from a counter, so that shares are exact
/// over many calls and no randomness is needed.
fn spread(routes: &mut [&Route], _user: &str) {
    use std::sync::atomic::{AtomicU32, Ordering};
    static TURN: AtomicU32 = AtomicU32::new(0);
    let Some(priority) = routes.first().map(|route| route.priority) else { return };
    let equal = routes.iter().take_while(|route| route.priority == priority).count();
    let total: u32 = routes[..equal].iter().map(|route| route.weight).sum();
    let mut turn = TURN.fetch_add(1, Ordering::Relaxed) % total.max(1);
    let chosen = routes[..equal].iter().position(|route| {
        let is_it = turn < route.weight;
        turn = turn.saturating_sub(route.weight);
        is_it
    });
    routes[..equal].rotate_left(chosen.unwrap_or(0));
}

/// The secrets of a subscriber's row.
pub(crate) fn secrets(md5: Option<String>, sha256: Option<String>) -> Vec<Ha1> {
    [(Algorithm::Sha256, sha256), (Algorithm::Md5, md5)]
        .into_iter()
        .filter_map(|(algorithm, value)| Some(Ha1 { algorithm, value: value?.into() }))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn trunk(name: &str) -> Arc<TrunkTarget> {
        Arc::new(TrunkTarget {
            name: name.into(),
            realm: RealmId(1),
            host: "192.0.2.1".into(),
            port: None,
            transport: None,
            credentials: None,
            timeout: None,
            ping: None,
        })
    }

    fn route(prefix: &str, name: &str, priority: i32, weight: u32) -> Route {
        Route {
            from: None,
            prefix: prefix.into(),
            trunk: trunk(name),
            priority,
            weight,
            strip: 1,
            prepend: "00".into(),
        }
    }

    fn names(snapshot: &Snapshot, user: &str) -> Vec<String> {
        let question =
            RouteQuestion { realm: RealmId(0), caller: &Caller::Anonymous, user, host: "example.net" };
        let steps = snapshot.route(&question).unwrap_or_default();
        steps
            .into_iter()
            .map(|step| match step {
                RouteStep::Trunk { target, user } => format!("{}:{user}", target.name),
                RouteStep::Aor { aor } => aor.to_string(),
            })
            .collect()
    }

    #[test]
    fn the_longest_prefix_wins_then_priority_then_weight() {
        let mut snapshot = Snapshot {
            routes: vec![route("+", "all", 1, 1), route("+49", "de-2", 2, 1), route("+49", "de-1", 1, 1)],
            ..Snapshot::default()
        };
        snapshot.sort();
        assert_eq!(names(&snapshot, "+4930"), ["de-1:004930", "de-2:004930"]);
        assert_eq!(names(&snapshot, "+1"), ["all:001"]);
        assert!(names(&snapshot, "bob").is_empty());
        let mut even =
            Snapshot { routes: vec![route("", "a", 1, 3), route("", "b", 1, 1)], ..Snapshot::default() };
        even.sort();
        let first = (0..400).filter(|_| names(&even, "x1")[0].starts_with("a:")).count();
        assert!((280..=320).contains(&first), "{first}");
    }

    #[test]
    fn a_trunk_known_by_certificate_needs_it_and_its_address_if_it_has_one() {
        let snapshot = Snapshot {
            sources: vec![
                (RealmId(1), "192.0.2.0/24".parse().unwrap(), "plain".into()),
                (RealmId(1), "198.51.100.0/24".parse().unwrap(), "both".into()),
            ],
            certificates: vec![
                (RealmId(1), "both.example".into(), "both".into()),
                (RealmId(1), "roaming.example".into(), "roaming".into()),
            ],
            ..Snapshot::default()
        };
        let peer = |address: &str, names: &[&str]| {
            let names: Vec<Arc<str>> = names.iter().map(|name| (*name).into()).collect();
            snapshot.peer(RealmId(1), address.parse().unwrap(), &names).map(|trunk| trunk.to_string())
        };
        assert_eq!(peer("192.0.2.7", &[]).as_deref(), Some("plain"));
        assert_eq!(peer("198.51.100.7", &[]), None, "the address alone");
        assert_eq!(peer("198.51.100.7", &["both.example"]).as_deref(), Some("both"));
        assert_eq!(peer("203.0.113.7", &["both.example"]), None, "the certificate alone");
        assert_eq!(peer("203.0.113.7", &["roaming.example"]).as_deref(), Some("roaming"));
    }
}
