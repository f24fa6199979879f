//! Which rules a call can fit at all.
//!
//! Each rule stands in one bucket: of its columns that are indexed, the one whose value the fewest other rules have. A call looks up its
//! own values, and the few buckets it finds are merged by position. The rest of the rules, however many, is not touched.

use std::collections::HashMap;
use std::sync::Arc;

use smallvec::SmallVec;

use crate::condition::Condition;
use crate::facts::Facts;
use crate::prefixes::Prefixes;
use crate::set::Rule;

/// Rules by their place in the set, in order.
type Bucket = Box<[u32]>;

/// Keys are names that operators gave, so the hash need not be secret.
type Table = HashMap<Arc<str>, Bucket, ahash::RandomState>;

/// Values of a column while buckets are filled.
type Filling = HashMap<Arc<str>, Vec<u32>, ahash::RandomState>;

/// The columns, the one that tells most first where two are equal.
const COLUMNS: usize = 6;

#[derive(Debug)]
pub(crate) struct Index {
    subscribers: Table,
    callees: Numbers,
    callers: Numbers,
    trunks: Table,
    groups: Table,
    realms: Table,
    /// Rules that no column finds.
    rest: Bucket,
}

#[derive(Debug)]
struct Numbers {
    prefixes: Prefixes,
    buckets: Box<[Bucket]>,
}

fn hasher() -> ahash::RandomState {
    ahash::RandomState::with_seeds(11, 12, 13, 14)
}

/// Which column a condition is of, and its value.
fn column(condition: &Condition) -> Option<(usize, &Arc<str>)> {
    Some(match condition {
        Condition::Subscriber(aor) => (0, aor),
        Condition::CalleePrefix(prefix) => (1, prefix),
        Condition::CallerPrefix(prefix) => (2, prefix),
        Condition::Trunk(trunk) => (3, trunk),
        Condition::Group(group) => (4, group),
        Condition::Realm(realm) => (5, realm),
        _ => return None,
    })
}

impl Index {
    /// Of the rules that are enabled.
    pub(crate) fn new(rules: &[Arc<Rule>]) -> Self {
        let enabled = || rules.iter().zip(0..).filter(|(rule, _)| rule.enabled);
        let mut counts: HashMap<(usize, Arc<str>), usize, ahash::RandomState> =
            HashMap::with_hasher(hasher());
        for (rule, _) in enabled() {
            for (column, value) in rule.conditions.iter().filter_map(column) {
                *counts.entry((column, value.clone())).or_default() += 1;
            }
        }
        let mut filling: [Filling; COLUMNS] = std::array::from_fn(|_| Filling::with_hasher(hasher()));
        let mut rest = Vec::new();
        for (rule, place) in enabled() {
            let columns = rule.conditions.iter().filter_map(column);
            let best =
                columns.min_by_key(|(column, value)| (counts.get(&(*column, (*value).clone())), *column));
            match best.and_then(|(column, value)| Some((filling.get_mut(column)?, value))) {
                Some((column, value)) => column.entry(value.clone()).or_default().push(place),
                None => rest.push(place),
            }
        }
        let [subscribers, callees, callers, trunks, groups, realms] = filling;
        Self {
            subscribers: table(subscribers),
            callees: Numbers::new(callees),
            callers: Numbers::new(callers),
            trunks: table(trunks),
            groups: table(groups),
            realms: table(realms),
            rest: rest.into(),
        }
    }

    /// The places of the rules that may fit, in order.
    pub(crate) fn candidates<'a>(&'a self, facts: &Facts) -> Candidates<'a> {
        let mut heads: SmallVec<[&'a [u32]; 16]> = SmallVec::new();
        let mut add = |bucket: Option<&'a Bucket>| {
            heads.extend(bucket.map(|bucket| &**bucket).filter(|bucket| !bucket.is_empty()));
        };
        add(Some(&self.rest));
        add(self.realms.get(&*facts.realm));
        match &facts.caller {
            crate::facts::Caller::Subscriber(aor) => add(self.subscribers.get(aor)),
            crate::facts::Caller::Trunk(name) => add(self.trunks.get(name)),
            crate::facts::Caller::Anonymous => {}
        }
        if !self.groups.is_empty() {
            facts.groups.iter().for_each(|group| add(self.groups.get(&group.name)));
        }
        self.callees.of(&facts.to.number).for_each(|bucket| add(Some(bucket)));
        self.callers.of(&facts.from.number).for_each(|bucket| add(Some(bucket)));
        Candidates { heads, last: None }
    }
}

fn table(filling: Filling) -> Table {
    let mut table = Table::with_hasher(hasher());
    table.extend(filling.into_iter().map(|(value, bucket)| (value, bucket.into())));
    table
}

impl Numbers {
    fn new(filling: Filling) -> Self {
        let (texts, buckets): (Vec<Arc<str>>, Vec<Bucket>) =
            filling.into_iter().map(|(text, bucket)| (text, bucket.into())).unzip();
        let prefixes = Prefixes::new(texts.iter().map(|text| &**text).zip(0..));
        Self { prefixes, buckets: buckets.into() }
    }

    fn of<'a>(&'a self, number: &str) -> impl Iterator<Item = &'a Bucket> {
        self.prefixes.of(number).filter_map(|value| self.buckets.get(value as usize))
    }
}

/// Merges buckets. A group that the facts name twice gives its rules once.
pub(crate) struct Candidates<'a> {
    heads: SmallVec<[&'a [u32]; 16]>,
    last: Option<u32>,
}

impl Iterator for Candidates<'_> {
    type Item = u32;

    fn next(&mut self) -> Option<u32> {
        loop {
            let first = self.heads.iter_mut().min_by_key(|head| head.first().copied().unwrap_or(u32::MAX))?;
            let (place, rest) = first.split_first()?;
            *first = rest;
            if self.last != Some(*place) {
                self.last = Some(*place);
                return Some(*place);
            }
        }
    }
}
