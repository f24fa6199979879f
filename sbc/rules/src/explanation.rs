//! Why a call was decided as it was: every rule up to the last that mattered, and what the call missed it by.
//!
//! Told without the index, from the same conditions: that the two agree is what `tests/reference.rs` shows.

use std::fmt;
use std::sync::Arc;

use crate::decision::{Decision, Thing, Things};
use crate::facts::Facts;
use crate::set::{Rule, RuleSet};

/// The decision and the way to it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Explanation {
    /// What [`RuleSet::decide`] says too.
    pub decision: Decision,
    /// Rules in order, the deciding one last.
    pub steps: Vec<Step>,
}

/// One rule, and what became of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Step {
    /// Where it stands.
    pub position: i32,
    /// Its name.
    pub name: Arc<str>,
    /// What became of it.
    pub outcome: StepOutcome,
}

/// What became of a rule.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StepOutcome {
    /// It is disabled.
    Disabled,
    /// The call missed it by all of this.
    Missed(Vec<String>),
    /// It matched.
    Matched {
        /// What it decided of what was open.
        things: Things,
        /// Whether later rules were looked at.
        goes_on: bool,
    },
}

impl RuleSet {
    /// As [`Self::decide`], with reasons; looks at every rule, so it is for people, not for calls.
    pub fn explain(&self, facts: &Facts) -> Explanation {
        let mut decision = Decision { version: self.version(), ..Decision::default() };
        let mut steps = Vec::new();
        for rule in self.rules() {
            let outcome = rule.explained(facts, &mut decision);
            let is_last = matches!(outcome, StepOutcome::Matched { goes_on: false, .. });
            steps.push(Step { position: rule.position, name: rule.name.clone(), outcome });
            if is_last {
                break;
            }
        }
        Explanation { decision, steps }
    }
}

impl Rule {
    fn explained(&self, facts: &Facts, decision: &mut Decision) -> StepOutcome {
        if !self.enabled {
            return StepOutcome::Disabled;
        }
        if self.fits(facts, &mut decision.expressions) {
            let goes_on = !self.tell(facts, decision);
            let things = decision.by.last().map(|by| by.things).unwrap_or_default();
            return StepOutcome::Matched { things, goes_on };
        }
        let missed = self.conditions.iter().filter(|condition| !condition.holds(facts));
        StepOutcome::Missed(missed.map(|condition| condition.missed(facts)).collect())
    }
}

impl fmt::Display for Explanation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for step in &self.steps {
            writeln!(f, "{step}")?;
        }
        if self.decision.by.is_empty() {
            writeln!(f, "no rule matched")?;
        }
        Ok(())
    }
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} \"{}\": ", self.position, self.name)?;
        match &self.outcome {
            StepOutcome::Disabled => write!(f, "disabled"),
            StepOutcome::Missed(by) => write!(f, "{}", by.join("; ")),
            StepOutcome::Matched { things, goes_on } => {
                let words: Vec<&str> = things.iter().map(Thing::word).collect();
                let words = if words.is_empty() { "nothing that was open".into() } else { words.join(", ") };
                write!(f, "matches, decides {words}{}", if *goes_on { ", goes on" } else { "" })
            }
        }
    }
}
