//! One snapshot of what operators configured in the store, as the engine asks for it.
//!
//! **What a call costs must not depend on how many rows there are, and what a change costs must not either**: everything is found by
//! index, and a changed copy shares what stayed with the snapshot before it ([`leaves`]).

pub mod drafts;
mod leaves;
pub mod routes;
pub mod rows;
mod shares;
pub mod subscribers;
pub mod trunks;

use std::net::IpAddr;
use std::sync::Arc;

use sip_engine::digest::Ha1;
use sip_engine::io::RealmId;
use sip_engine::question::{Caller, Policy, RouteQuestion, RouteRefusal, RouteStep, TrunkTarget};

pub use routes::{Route, Routes};
use shares::Shares;
pub use subscribers::{Digests, Subscribers};
pub use trunks::{Trunk, Trunks};

/// Immutable; swapped whole when the store changes.
#[derive(Debug, Clone, Default)]
pub struct Snapshot {
    /// Who may register.
    pub subscribers: Subscribers,
    /// Where calls come from and go to.
    pub trunks: Arc<Trunks>,
    /// Which calls go to which trunk.
    pub routes: Routes,
    /// Realms whose users have the core for everything: realm, and the registrar behind it.
    pub forwarding: Vec<(RealmId, Arc<TrunkTarget>)>,
    /// Whose turn it is among equal routes.
    shares: Arc<Shares>,
}

impl Policy for Snapshot {
    fn credentials(&self, domain: &str, username: &str) -> Vec<Ha1> {
        self.subscribers.secrets(domain, username)
    }

    fn source(&self, realm: RealmId, address: IpAddr) -> Option<Arc<str>> {
        self.trunks.source(realm, address).cloned()
    }

    fn peer(&self, realm: RealmId, address: IpAddr, names: &[Arc<str>]) -> Option<Arc<str>> {
        self.trunks.peer(realm, address, names).cloned()
    }

    fn route(&self, question: &RouteQuestion<'_>) -> Result<Vec<RouteStep>, RouteRefusal> {
        let aor = |domain: &str| vec![RouteStep::Aor { aor: format!("{}@{domain}", question.user).into() }];
        if self.subscribers.serves(question.host) {
            if self.subscribers.contains(question.host, question.user) {
                return Ok(aor(question.host));
            }
            // A phone knows the other networks' users under its own domain.
            if let Some(domain) = self.subscribers.served_domain_of(question.user) {
                return Ok(aor(domain));
            }
        }
        if let Some((_, registrar)) = self.forwarding.iter().find(|forwarding| forwarding.0 == question.realm)
        {
            return Ok(vec![RouteStep::Trunk { target: registrar.clone(), user: question.user.into() }]);
        }
        // A call from a trunk to a subscriber may name us by address.
        if matches!(question.caller, Caller::Trunk { .. })
            && let Some(domain) = self.subscribers.served_domain_of(question.user)
        {
            return Ok(aor(domain));
        }
        self.to_trunks(question)
    }

    fn trunk(&self, name: &str) -> Option<Arc<TrunkTarget>> {
        self.trunks.get(name).cloned()
    }

    fn trunks(&self) -> Arc<[Arc<TrunkTarget>]> {
        self.trunks.list().clone()
    }
}

impl Snapshot {
    /// Of these; no realm forwards.
    pub fn new(subscribers: Subscribers, trunks: Trunks, routes: Routes) -> Self {
        Self { subscribers, trunks: Arc::new(trunks), routes, ..Self::default() }
    }

    /// The routes of the longest prefix that has any for this call, by priority; equal ones by their shares.
    fn to_trunks(&self, question: &RouteQuestion<'_>) -> Result<Vec<RouteStep>, RouteRefusal> {
        let mut fitting: Vec<(&routes::Kept, &Arc<TrunkTarget>)> = Vec::new();
        for of_prefix in self.routes.of(question.user) {
            let fits = of_prefix.iter().filter(|route| route.from.is_none_or(|from| from == question.realm));
            fitting
                .extend(fits.filter_map(|route| Some((route, self.trunks.get(self.routes.trunk(route)?)?))));
            if !fitting.is_empty() {
                break;
            }
        }
        let Some(priority) = fitting.first().map(|(route, _)| route.priority) else {
            return Err(RouteRefusal::NotFound);
        };
        let equal = fitting.iter().take_while(|(route, _)| route.priority == priority);
        let group: Vec<(i64, u32)> = equal.map(|(route, _)| (route.id, route.weight)).collect();
        let chosen = self.shares.choose(&group);
        if let Some(equal) = fitting.get_mut(..group.len()) {
            equal.rotate_left(chosen);
        }
        let steps = fitting.into_iter().filter_map(|(route, target)| {
            let rule = self.routes.rule(route)?;
            let rest: String = question.user.chars().skip(rule.strip).collect();
            Some(RouteStep::Trunk { target: target.clone(), user: format!("{}{rest}", rule.prepend).into() })
        });
        Ok(steps.collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn target(name: &str) -> Arc<TrunkTarget> {
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

    fn trunk(name: &str, networks: &[&str], certificate: Option<&str>) -> Trunk {
        Trunk {
            target: target(name),
            networks: networks.iter().map(|network| network.parse().unwrap()).collect(),
            certificate: certificate.map(Into::into),
        }
    }

    fn route(prefix: &str, name: &str, priority: i32, weight: u32) -> Route {
        static NUMBER: std::sync::atomic::AtomicI64 = std::sync::atomic::AtomicI64::new(0);
        Route {
            id: NUMBER.fetch_add(1, std::sync::atomic::Ordering::Relaxed),
            from: None,
            prefix: prefix.into(),
            trunk: name.into(),
            priority,
            weight,
            strip: 1,
            prepend: "00".into(),
        }
    }

    fn with_routes(routes: Vec<Route>) -> Snapshot {
        let mut names: Vec<Arc<str>> = routes.iter().map(|route| route.trunk.clone()).collect();
        names.sort();
        names.dedup();
        let trunks = names.iter().map(|name| trunk(name, &[], None)).collect();
        Snapshot { trunks: Arc::new(Trunks::new(trunks)), routes: Routes::new(routes), ..Snapshot::default() }
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
        let snapshot = with_routes(vec![
            route("+", "all", 1, 1),
            route("+49", "de-2", 2, 1),
            route("+49", "de-1", 1, 1),
        ]);
        assert_eq!(names(&snapshot, "+4930"), ["de-1:004930", "de-2:004930"]);
        assert_eq!(names(&snapshot, "+1"), ["all:001"]);
        assert!(names(&snapshot, "bob").is_empty());
        let even = with_routes(vec![route("", "a", 1, 3), route("", "b", 1, 1)]);
        let first = (0..400).filter(|_| names(&even, "x1")[0].starts_with("a:")).count();
        assert!((280..=320).contains(&first), "{first}");
    }

    #[test]
    fn shares_are_exact_over_the_calls_of_each_group_whatever_other_groups_do() {
        let snapshot = with_routes(vec![
            route("1", "a", 1, 1),
            route("1", "b", 1, 1),
            route("2", "a", 1, 1),
            route("2", "b", 1, 1),
            route("3", "a", 1, 3),
            route("3", "b", 1, 2),
            route("3", "c", 1, 5),
        ]);
        let mut counts = std::collections::HashMap::new();
        // By turns: one counter for all would give each of the first two groups one trunk only.
        for call in 0..60 {
            let number = ["11", "22", "33"][call % 3];
            let first = names(&snapshot, number).swap_remove(0);
            *counts.entry((number, first[..1].to_owned())).or_insert(0) += 1;
        }
        let count = |number: &'static str, trunk: &str| counts[&(number, trunk.to_owned())];
        assert_eq!([count("11", "a"), count("11", "b"), count("22", "a"), count("22", "b")], [10; 4]);
        assert_eq!([count("33", "a"), count("33", "b"), count("33", "c")], [6, 4, 10]);
    }

    #[test]
    fn weights_of_any_size_share_and_overflow_nothing() {
        let most = i32::MAX.unsigned_abs();
        let snapshot = with_routes(["a", "b", "c"].map(|name| route("", name, 1, most)).to_vec());
        let firsts: Vec<String> = (0..6).map(|_| names(&snapshot, "1").swap_remove(0)).collect();
        assert_eq!(firsts, ["a:00", "b:00", "c:00", "a:00", "b:00", "c:00"]);
    }

    #[test]
    fn a_route_whose_trunk_is_not_in_use_leaves_the_call_to_a_shorter_prefix() {
        let mut snapshot = with_routes(vec![route("1", "a", 1, 1), route("12", "b", 1, 1)]);
        assert_eq!(names(&snapshot, "12"), ["b:002"]);
        snapshot.trunks = Arc::new(Trunks::new(vec![trunk("a", &[], None)]));
        assert_eq!(names(&snapshot, "12"), ["a:002"]);
    }

    #[test]
    fn a_change_by_key_is_what_a_table_made_anew_would_be() {
        let mut changed =
            Routes::new([route("1", "a", 1, 1), route("12", "a", 1, 1), route("12", "b", 1, 1)]);
        changed.replace("12", vec![route("12", "b", 1, 1)]);
        changed.replace("1", Vec::new());
        changed.replace(
            "123456789012345678901234567890",
            vec![route("123456789012345678901234567890", "c", 1, 1)],
        );
        assert_eq!((changed.len(), changed.count_of("1"), changed.count_of("12")), (2, 0, 1));
        let snapshot =
            Snapshot { routes: changed, ..with_routes(vec![route("x", "b", 1, 1), route("x", "c", 1, 1)]) };
        assert_eq!(names(&snapshot, "1"), [""; 0]);
        assert_eq!(names(&snapshot, "123"), ["b:0023"]);
        assert_eq!(names(&snapshot, "1234567890123456789012345678901").len(), 1);
        let mut users = Subscribers::new(&["one.example".into(), "two.example".into()]);
        let digests = Digests::new(Some("00112233445566778899aabbccddeeff"), None);
        users.put("two.example", "100", Some(digests));
        users.put("other.example", "100", Some(digests));
        assert_eq!(users.served_domain_of("100").map(|domain| &**domain), Some("two.example"));
        users.put("one.example", "100", Some(digests));
        assert_eq!(users.served_domain_of("100").map(|domain| &**domain), Some("one.example"));
        assert_eq!(&*users.secrets("two.example", "100")[0].value, "00112233445566778899aabbccddeeff");
        users.put("two.example", "100", None);
        assert!(users.secrets("two.example", "100").is_empty() && users.contains("other.example", "100"));
        assert_eq!(users.len(), 2);
    }

    #[test]
    fn a_trunk_known_by_certificate_needs_it_and_its_address_if_it_has_one() {
        let trunks = Trunks::new(vec![
            trunk("plain", &["192.0.2.0/24"], None),
            trunk("both", &["198.51.100.0/24"], Some("both.example")),
            trunk("roaming", &[], Some("roaming.example")),
            trunk("inner", &["192.0.2.9/32", "2001:db8::/32"], None),
        ]);
        let snapshot = Snapshot { trunks: Arc::new(trunks), ..Snapshot::default() };
        let peer = |address: &str, names: &[&str]| {
            let names: Vec<Arc<str>> = names.iter().map(|name| (*name).into()).collect();
            snapshot.peer(RealmId(1), address.parse().unwrap(), &names).map(|trunk| trunk.to_string())
        };
        assert_eq!(peer("192.0.2.7", &[]).as_deref(), Some("plain"));
        assert_eq!(peer("192.0.2.9", &[]).as_deref(), Some("inner"), "the smallest network");
        assert_eq!(peer("2001:db8::9", &[]).as_deref(), Some("inner"));
        assert_eq!(peer("198.51.100.7", &[]), None, "the address alone");
        assert_eq!(peer("198.51.100.7", &["both.example"]).as_deref(), Some("both"));
        assert_eq!(peer("203.0.113.7", &["both.example"]), None, "the certificate alone");
        assert_eq!(peer("203.0.113.7", &["roaming.example"]).as_deref(), Some("roaming"));
    }
}
