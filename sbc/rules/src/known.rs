//! The names that rules may use, as the other tables have them.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::finding::{Finding, Row};

/// What rules may name. A rule that names anything else is refused.
#[derive(Debug, Clone, Default)]
pub struct Known {
    /// Realms.
    pub realms: BTreeSet<Arc<str>>,
    /// Trunks.
    pub trunks: BTreeSet<Arc<str>>,
    /// Groups of subscribers and trunks: name, and the groups that stand in it.
    pub groups: BTreeMap<Arc<str>, Vec<Arc<str>>>,
    /// Groups of trunks that calls can go to.
    pub trunk_groups: BTreeMap<Arc<str>, Vec<Member>>,
    /// Sets of header rules.
    pub header_sets: BTreeSet<Arc<str>>,
    /// Lists of codecs, in the order wanted; names in lower case.
    pub codec_lists: BTreeMap<Arc<str>, Vec<Arc<str>>>,
    /// Limits.
    pub limits: BTreeSet<Arc<str>>,
}

/// A trunk in a group of trunks.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Member {
    /// Its name.
    pub trunk: Arc<str>,
    /// The lowest is tried first.
    pub priority: i32,
    /// Its share among those of one priority; 0 is only tried after them.
    pub weight: i32,
}

impl Known {
    /// These groups, and all that they stand in, each once and in order of name: what [`crate::facts::Facts::groups`] has.
    pub fn all_groups(&self, direct: &[Arc<str>]) -> Vec<Arc<str>> {
        let mut all: BTreeSet<Arc<str>> = direct.iter().cloned().collect();
        let mut grown = true;
        while grown {
            let above = |group: &&Arc<str>| {
                !all.contains(*group)
                    && self
                        .groups
                        .get(*group)
                        .is_some_and(|within| within.iter().any(|one| all.contains(one)))
            };
            let found: Vec<Arc<str>> = self.groups.keys().filter(above).cloned().collect();
            grown = !found.is_empty();
            all.extend(found);
        }
        all.into_iter().collect()
    }

    /// What is wrong with the groups themselves.
    pub(crate) fn findings(&self) -> Vec<Finding> {
        let mut findings = Vec::new();
        for (name, within) in &self.groups {
            let mut find = |reason: String| findings.push(Finding { row: Row::Group(name.clone()), reason });
            for unknown in within.iter().filter(|one| !self.groups.contains_key(*one)) {
                find(format!("names the group \"{unknown}\", which does not exist"));
            }
            if self.below(name).contains(name) {
                find(
                    "stands in itself, directly or through groups it names: take it out of one of them"
                        .into(),
                );
            }
        }
        for (name, members) in &self.trunk_groups {
            let mut find =
                |reason: String| findings.push(Finding { row: Row::TrunkGroup(name.clone()), reason });
            if members.is_empty() {
                find("has no trunk: a call sent to it could go nowhere".into());
            }
            for member in members {
                if !self.trunks.contains(&member.trunk) {
                    find(format!("names the trunk \"{}\", which does not exist", member.trunk));
                }
                if member.weight < 0 {
                    find(format!("gives \"{}\" the weight {}: take 0 or more", member.trunk, member.weight));
                }
            }
        }
        findings
    }

    /// All groups that stand in one, at any depth; itself only if it is in a circle.
    fn below(&self, group: &Arc<str>) -> BTreeSet<Arc<str>> {
        let mut below = BTreeSet::new();
        let mut open = vec![group.clone()];
        while let Some(next) = open.pop() {
            for one in self.groups.get(&next).into_iter().flatten() {
                if below.insert(one.clone()) {
                    open.push(one.clone());
                }
            }
        }
        below
    }
}
