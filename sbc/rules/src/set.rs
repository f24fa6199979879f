//! All rules of one version.

use std::collections::BTreeMap;
use std::sync::Arc;

use jiff::Timestamp;
use seam::path::Constraint;

use crate::compile::Compiling;
use crate::condition::Condition;
use crate::decision::{Admission, By, Codecs, Decision, Rewrite, Route, Thing, Things};
use crate::expression::Names;
use crate::facts::Facts;
use crate::finding::{Finding, Row};
use crate::index::Index;
use crate::known::Known;
use crate::row::RuleRow;
use crate::when::When;

/// Immutable; a copy shares all, so a new version is in force when one pointer is swapped.
#[derive(Debug, Clone)]
pub struct RuleSet {
    version: u64,
    rules: Arc<[Arc<Rule>]>,
    index: Arc<Index>,
    /// The different spans of all rules.
    spans: Arc<[Arc<When>]>,
    headers: Arc<[Arc<str>]>,
}

/// One rule, compiled.
#[derive(Debug)]
pub(crate) struct Rule {
    pub(crate) position: i32,
    pub(crate) name: Arc<str>,
    pub(crate) enabled: bool,
    pub(crate) goes_on: bool,
    /// From the cheapest to the dearest.
    pub(crate) conditions: Box<[Condition]>,
    pub(crate) outcome: Outcome,
}

/// What a rule decides.
#[derive(Debug)]
pub(crate) struct Outcome {
    pub(crate) admission: Option<Admission>,
    pub(crate) route: Option<Routing>,
    pub(crate) caller: Option<Arc<Rewrite>>,
    pub(crate) callee: Option<Arc<Rewrite>>,
    pub(crate) headers: Option<Arc<str>>,
    pub(crate) codecs: Option<Arc<Codecs>>,
    pub(crate) media: Option<Constraint>,
    pub(crate) cover: Option<u8>,
    pub(crate) record: Option<bool>,
    pub(crate) limits: Option<Arc<[Arc<str>]>>,
}

/// A route before it is known where the call came from.
#[derive(Debug)]
pub(crate) struct Routing {
    pub(crate) route: Route,
    pub(crate) may_return: bool,
}

impl Default for RuleSet {
    fn default() -> Self {
        Self::of(Vec::new(), &Names::default())
    }
}

impl RuleSet {
    /// Of these rows, in any order; of version 0.
    ///
    /// # Errors
    /// All that is wrong with all of them, disabled ones too, in order of position.
    pub fn compile(rows: &[RuleRow], names: &Known) -> Result<Self, Vec<Finding>> {
        let mut findings = names.findings();
        let mut sorted: Vec<&RuleRow> = rows.iter().collect();
        sorted.sort_by_key(|row| row.position);
        let (mut positions, mut called) = (BTreeMap::new(), BTreeMap::new());
        let mut named = Names::default();
        let mut rules = Vec::with_capacity(rows.len());
        for row in sorted {
            let mut compiling = Compiling { known: names, names: &mut named, reasons: Vec::new() };
            rules.push(Arc::new(compiling.rule(row)));
            let mut reasons = compiling.reasons;
            if let Some(other) = positions.insert(row.position, &row.name) {
                reasons.push(format!("stands where \"{other}\" stands: which is first must be certain"));
            }
            if let Some(other) = called.insert(&row.name, row.position) {
                reasons.push(format!("has the name of rule {other}: records would not tell them apart"));
            }
            let place = Row::Rule { position: row.position, name: row.name.clone() };
            findings.extend(reasons.into_iter().map(|reason| Finding { row: place.clone(), reason }));
        }
        if findings.is_empty() { Ok(Self::of(rules, &named)) } else { Err(findings) }
    }

    /// The same, as this version: what decisions are marked with.
    #[must_use]
    pub fn numbered(self, version: u64) -> Self {
        Self { version, ..self }
    }

    fn of(rules: Vec<Arc<Rule>>, names: &Names) -> Self {
        let mut spans: Vec<Arc<When>> = Vec::new();
        for condition in rules.iter().filter(|rule| rule.enabled).flat_map(|rule| &rule.conditions) {
            if let Condition::When(when) = condition
                && !spans.contains(when)
            {
                spans.push(when.clone());
            }
        }
        let index = Arc::new(Index::new(&rules));
        let headers = names.headers.iter().cloned().collect();
        Self { version: 0, rules: rules.into(), index, spans: spans.into(), headers }
    }

    /// Which version.
    pub fn version(&self) -> u64 {
        self.version
    }

    /// How many rules there are, disabled ones too.
    pub fn len(&self) -> usize {
        self.rules.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.rules.is_empty()
    }

    /// Headers that rules name, in lower case: the only ones that facts have.
    pub fn headers(&self) -> &[Arc<str>] {
        &self.headers
    }

    /// What the rules say of a call.
    pub fn decide(&self, facts: &Facts) -> Decision {
        let mut decision = Decision { version: self.version, ..Decision::default() };
        for place in self.index.candidates(facts) {
            let Some(rule) = self.rules.get(place as usize) else { continue };
            if rule.fits(facts, &mut decision.expressions) && rule.tell(facts, &mut decision) {
                break;
            }
        }
        decision
    }

    /// What they say of the path of its media; for a call that runs, with its facts and the time now.
    pub fn constraint(&self, facts: &Facts) -> Option<Constraint> {
        for place in self.index.candidates(facts) {
            let Some(rule) = self.rules.get(place as usize) else { continue };
            if rule.fits(facts, &mut 0) && (rule.outcome.media.is_some() || !rule.goes_on) {
                return rule.outcome.media;
            }
        }
        None
    }

    /// When a time condition of any enabled rule opens or closes next: until then time alone changes no decision.
    pub fn next_change(&self, now: Timestamp) -> Option<Timestamp> {
        self.spans.iter().filter_map(|span| span.next_change(now)).min()
    }

    /// All rules, in order.
    pub(crate) fn rules(&self) -> &[Arc<Rule>] {
        &self.rules
    }
}

impl Rule {
    /// Whether all its conditions hold; counts the expressions that it reached.
    pub(crate) fn fits(&self, facts: &Facts, expressions: &mut u32) -> bool {
        self.conditions.iter().all(|condition| {
            *expressions += u32::from(condition.is_expression());
            condition.holds(facts)
        })
    }

    /// Adds what it decides to what is open; whether that is the end.
    pub(crate) fn tell(&self, facts: &Facts, decision: &mut Decision) -> bool {
        let mut things = Things::default();
        let outcome = &self.outcome;
        let mut fill = Fill { things: &mut things };
        fill.one(&mut decision.admission, &outcome.admission, Thing::Admission);
        if decision.route.is_none()
            && let Some(routing) = &outcome.route
        {
            decision.route = Some(routing.of(facts));
            fill.things.add(Thing::Route);
        }
        fill.one(&mut decision.caller, &outcome.caller, Thing::CallerNumber);
        fill.one(&mut decision.callee, &outcome.callee, Thing::CalleeNumber);
        fill.one(&mut decision.headers, &outcome.headers, Thing::Headers);
        fill.one(&mut decision.codecs, &outcome.codecs, Thing::Codecs);
        fill.one(&mut decision.media, &outcome.media, Thing::Media);
        fill.one(&mut decision.cover, &outcome.cover, Thing::Cover);
        fill.one(&mut decision.record, &outcome.record, Thing::Record);
        fill.one(&mut decision.limits, &outcome.limits, Thing::Limits);
        decision.by.push(By { position: self.position, name: self.name.clone(), things });
        !self.goes_on
    }
}

impl Routing {
    fn of(&self, facts: &Facts) -> Route {
        let came_from = facts.caller.trunk().filter(|_| !self.may_return);
        let back = self.route.members.iter().find(|member| Some(&*member.trunk) == came_from);
        Route { without: back.map(|member| member.trunk.clone()), ..self.route.clone() }
    }
}

struct Fill<'a> {
    things: &'a mut Things,
}

impl Fill<'_> {
    fn one<T: Clone>(&mut self, open: &mut Option<T>, decided: &Option<T>, thing: Thing) {
        if open.is_none() && decided.is_some() {
            open.clone_from(decided);
            self.things.add(thing);
        }
    }
}
