//! Routes to trunks, by prefix.

use std::cmp::Ordering;
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use sip_engine::io::RealmId;

use super::leaves::{Entry, Leaves, Text};

/// A row of routes.
#[derive(Debug, Clone)]
pub struct Route {
    /// Of its row; among equals the lesser comes first.
    pub id: i64,
    /// Only from this realm.
    pub from: Option<RealmId>,
    /// Of the dialled user part.
    pub prefix: String,
    /// Where to.
    pub trunk: Arc<str>,
    /// Lower first.
    pub priority: i32,
    /// Among equals.
    pub weight: u32,
    /// Characters removed from the front.
    pub strip: usize,
    /// What is put there.
    pub prepend: String,
}

/// How a route changes the number.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Rule {
    pub(super) strip: usize,
    pub(super) prepend: Arc<str>,
}

/// A route as the table holds it.
#[derive(Debug, Clone)]
pub(super) struct Kept {
    prefix: Text,
    pub(super) id: i64,
    pub(super) priority: i32,
    pub(super) weight: u32,
    trunk: u32,
    rule: u32,
    pub(super) from: Option<RealmId>,
}

impl Entry for Kept {
    fn key(&self) -> &[u8] {
        self.prefix.as_bytes()
    }
}

impl Ord for Kept {
    fn cmp(&self, other: &Self) -> Ordering {
        self.key().cmp(other.key()).then(self.priority.cmp(&other.priority)).then(self.id.cmp(&other.id))
    }
}

impl PartialOrd for Kept {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Kept {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for Kept {}

/// Values that many routes have, each once.
#[derive(Debug, Clone)]
struct Interned<T> {
    list: Vec<T>,
    numbers: HashMap<T, u32>,
}

impl<T> Default for Interned<T> {
    fn default() -> Self {
        Self { list: Vec::new(), numbers: HashMap::new() }
    }
}

impl<T: Clone + Eq + std::hash::Hash> Interned<T> {
    fn number(this: &mut Arc<Self>, value: T) -> u32 {
        if let Some(number) = this.numbers.get(&value) {
            return *number;
        }
        let this = Arc::make_mut(this);
        let number = u32::try_from(this.list.len()).unwrap_or(u32::MAX);
        this.list.push(value.clone());
        this.numbers.insert(value, number);
        number
    }

    fn get(&self, number: u32) -> Option<&T> {
        self.list.get(number as usize)
    }
}

/// All of them.
#[derive(Debug, Clone, Default)]
pub struct Routes {
    table: Leaves<Kept>,
    /// How many routes have a prefix of so many octets: a number is looked up once for each length that there is, and carriers'
    /// tables have about a dozen.
    lengths: BTreeMap<usize, usize>,
    trunks: Arc<Interned<Arc<str>>>,
    rules: Arc<Interned<Rule>>,
}

impl Routes {
    /// A table of these.
    pub fn new(routes: impl IntoIterator<Item = Route>) -> Self {
        let mut list = RouteList::default();
        routes.into_iter().for_each(|route| list.push(route));
        list.finish()
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.table.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn kept(&mut self, route: Route) -> Kept {
        let rule = Rule { strip: route.strip, prepend: route.prepend.into() };
        Kept {
            prefix: Text::from(&*route.prefix),
            id: route.id,
            priority: route.priority,
            weight: route.weight,
            trunk: Interned::number(&mut self.trunks, route.trunk),
            rule: Interned::number(&mut self.rules, rule),
            from: route.from,
        }
    }

    /// The routes of each prefix of a number, the longest prefix first; those of one prefix by priority.
    pub(super) fn of<'a>(&'a self, number: &'a str) -> impl Iterator<Item = &'a [Kept]> {
        self.lengths.range(..=number.len()).rev().filter_map(|(length, _)| {
            let routes = self.table.of(number.as_bytes().get(..*length)?);
            (!routes.is_empty()).then_some(routes)
        })
    }

    pub(super) fn trunk(&self, route: &Kept) -> Option<&Arc<str>> {
        self.trunks.get(route.trunk)
    }

    pub(super) fn rule(&self, route: &Kept) -> Option<&Rule> {
        self.rules.get(route.rule)
    }

    /// Replaces all routes of a prefix.
    pub fn replace(&mut self, prefix: &str, routes: Vec<Route>) {
        let come: Vec<Kept> = routes.into_iter().map(|route| self.kept(route)).collect();
        let added = come.len();
        let gone = self.table.replace(prefix.as_bytes(), |_| true, come).len();
        let count = self.lengths.entry(prefix.len()).or_default();
        *count = count.saturating_add(added).saturating_sub(gone);
        if *count == 0 {
            self.lengths.remove(&prefix.len());
        }
    }

    /// Every prefix with a route, in no order.
    #[cfg(test)]
    pub(crate) fn count_of(&self, prefix: &str) -> usize {
        self.table.of(prefix.as_bytes()).len()
    }
}

/// Collects all routes.
#[derive(Debug, Default)]
pub struct RouteList {
    list: Vec<Kept>,
    into: Routes,
}

impl RouteList {
    /// One more.
    pub fn push(&mut self, route: Route) {
        let kept = self.into.kept(route);
        let count = self.into.lengths.entry(kept.prefix.len()).or_default();
        *count = count.saturating_add(1);
        self.list.push(kept);
    }

    /// The table.
    pub fn finish(self) -> Routes {
        Routes { table: Leaves::build(self.list), ..self.into }
    }
}
