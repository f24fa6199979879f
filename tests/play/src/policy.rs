//! What operators have configured, as a test says it.

use std::fmt::{Debug, Formatter};
use std::net::IpAddr;
use std::sync::Arc;

use sip_engine::digest::{Algorithm, Ha1};
use sip_engine::io::RealmId;
use sip_engine::question::{Policy, RouteQuestion, RouteRefusal, RouteStep, TrunkTarget};

use crate::settings::signalling::DOMAIN;

/// Where a request shall go.
pub type Route = Result<Vec<RouteStep>, RouteRefusal>;
type Routes = dyn Fn(&RouteQuestion<'_>) -> Route + Send + Sync;
/// Of a domain and a user.
type Passwords = dyn Fn(&str, &str) -> Vec<Ha1> + Send + Sync;
/// Of a realm, an address of it and the names of a certificate.
type Sources = dyn Fn(RealmId, IpAddr, &[Arc<str>]) -> Option<Arc<str>> + Send + Sync;

/// Routes, subscribers and trunks. Nobody has a password and no address is known until a test says so.
#[derive(Clone)]
pub struct Table {
    routes: Arc<Routes>,
    passwords: Arc<Passwords>,
    sources: Arc<Sources>,
    trunks: Arc<[Arc<TrunkTarget>]>,
}

impl Debug for Table {
    fn fmt(&self, f: &mut Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Table").field("trunks", &self.trunks).finish_non_exhaustive()
    }
}

impl Table {
    /// These routes.
    pub fn new(routes: impl Fn(&RouteQuestion<'_>) -> Route + Send + Sync + 'static) -> Self {
        Self {
            routes: Arc::new(routes),
            passwords: Arc::new(|_, _| Vec::new()),
            sources: Arc::new(|_, _, _| None),
            trunks: Arc::default(),
        }
    }

    /// Whatever starts with a digit goes to these trunks, in order, and all else to the AOR of that name.
    pub fn dialled(trunks: Vec<Arc<TrunkTarget>>) -> Self {
        let targets = trunks.clone();
        let routes = move |question: &RouteQuestion<'_>| match question
            .user
            .starts_with(|first: char| first.is_ascii_digit())
        {
            true => Ok(targets.iter().flat_map(|target| through(target, question.user)).collect()),
            false => Ok(to(question.user)),
        };
        Self::new(routes).trunks(trunks)
    }

    /// All calls go to one trunk.
    pub fn through(target: &Arc<TrunkTarget>) -> Self {
        let own = target.clone();
        Self::new(move |question| Ok(through(&own, question.user))).trunks(vec![target.clone()])
    }

    /// Trunks that can be asked for.
    #[must_use]
    pub fn trunks(self, trunks: Vec<Arc<TrunkTarget>>) -> Self {
        Self { trunks: trunks.into(), ..self }
    }

    /// Everybody is a subscriber, with one password.
    #[must_use]
    pub fn password(self, password: &'static str, algorithms: &'static [Algorithm]) -> Self {
        self.passwords(move |domain, user| {
            algorithms.iter().map(|algorithm| Ha1::of(*algorithm, user, domain, password)).collect()
        })
    }

    /// Who subscribes, by domain and user.
    #[must_use]
    pub fn passwords(self, of: impl Fn(&str, &str) -> Vec<Ha1> + Send + Sync + 'static) -> Self {
        Self { passwords: Arc::new(of), ..self }
    }

    /// The trunk that is at an address of a realm, with the names of its certificate.
    #[must_use]
    pub fn sources(
        self,
        of: impl Fn(RealmId, IpAddr, &[Arc<str>]) -> Option<Arc<str>> + Send + Sync + 'static,
    ) -> Self {
        Self { sources: Arc::new(of), ..self }
    }
}

impl Policy for Table {
    fn credentials(&self, domain: &str, username: &str) -> Vec<Ha1> {
        (self.passwords)(domain, username)
    }

    fn source(&self, realm: RealmId, address: IpAddr) -> Option<Arc<str>> {
        (self.sources)(realm, address, &[])
    }

    fn peer(&self, realm: RealmId, address: IpAddr, names: &[Arc<str>]) -> Option<Arc<str>> {
        (self.sources)(realm, address, names)
    }

    fn route(&self, question: &RouteQuestion<'_>) -> Route {
        (self.routes)(question)
    }

    fn trunk(&self, name: &str) -> Option<Arc<TrunkTarget>> {
        self.trunks.iter().find(|trunk| *trunk.name == *name).cloned()
    }

    fn trunks(&self) -> Arc<[Arc<TrunkTarget>]> {
        self.trunks.clone()
    }
}

/// To the contacts of a user of [`DOMAIN`].
pub fn to(user: &str) -> Vec<RouteStep> {
    vec![RouteStep::Aor { aor: format!("{user}@{DOMAIN}").into() }]
}

/// To this user, over this trunk.
pub fn through(target: &Arc<TrunkTarget>, user: &str) -> Vec<RouteStep> {
    vec![RouteStep::Trunk { target: target.clone(), user: user.into() }]
}

/// A trunk in the core realm that is asked for nothing.
pub fn trunk(name: &str, host: &str) -> TrunkTarget {
    TrunkTarget {
        name: name.into(),
        realm: RealmId(1),
        host: host.into(),
        port: None,
        transport: None,
        credentials: None,
        timeout: None,
        ping: None,
    }
}
