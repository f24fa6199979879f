//! The nodes of an expression. Each reads facts where they stand and has an answer always.

use std::cmp::Ordering;
use std::sync::Arc;

use crate::facts::{Facts, cut};
use crate::pattern::Pattern;

/// What is true or not.
#[derive(Debug)]
pub(crate) enum Truth {
    Is(bool),
    Emergency,
    Not(Box<Truth>),
    And(Box<Truth>, Box<Truth>),
    Or(Box<Truth>, Box<Truth>),
    If(Box<(Truth, Truth, Truth)>),
    Same(Box<Truth>, Box<Truth>),
    Texts(Compare, Text, Text),
    Numbers(Compare, Number, Number),
    StartsWith(Text, Text),
    EndsWith(Text, Text),
    Contains(Text, Text),
    Matches(Text, Box<Pattern>),
    In(Text, List),
}

/// A comparison.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Compare {
    Equal,
    Unequal,
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
}

/// A text of at most [`crate::facts::LONGEST`] octets.
#[derive(Debug)]
pub(crate) enum Text {
    Literal(Box<str>),
    Realm,
    CallerKind,
    CallerName,
    CallerNumber,
    CallerHost,
    CalleeNumber,
    CalleeHost,
    UserAgent,
    Header(Arc<str>),
}

/// A number.
#[derive(Debug)]
pub(crate) enum Number {
    Literal(i64),
    RealmCalls,
    CallerCalls,
    GroupCalls(Arc<str>),
    /// Characters of a text.
    Length(Text),
    /// Entries of a list.
    Entries(List),
}

/// A list of texts.
#[derive(Debug, Clone, Copy)]
pub(crate) enum List {
    Groups,
    Codecs,
}

impl Truth {
    pub(crate) fn of(&self, facts: &Facts) -> bool {
        match self {
            Self::Is(known) => *known,
            Self::Emergency => facts.emergency,
            Self::Not(one) => !one.of(facts),
            Self::And(one, other) => one.of(facts) && other.of(facts),
            Self::Or(one, other) => one.of(facts) || other.of(facts),
            Self::If(parts) => {
                if parts.0.of(facts) {
                    parts.1.of(facts)
                } else {
                    parts.2.of(facts)
                }
            }
            Self::Same(one, other) => one.of(facts) == other.of(facts),
            Self::Texts(compare, one, other) => compare.fits(one.of(facts).cmp(other.of(facts))),
            Self::Numbers(compare, one, other) => compare.fits(one.of(facts).cmp(&other.of(facts))),
            Self::StartsWith(text, part) => text.of(facts).starts_with(part.of(facts)),
            Self::EndsWith(text, part) => text.of(facts).ends_with(part.of(facts)),
            Self::Contains(text, part) => text.of(facts).contains(part.of(facts)),
            Self::Matches(text, pattern) => pattern.is_in(text.of(facts)),
            Self::In(text, list) => list.has(text.of(facts), facts),
        }
    }
}

impl Compare {
    fn fits(self, order: Ordering) -> bool {
        match self {
            Self::Equal => order.is_eq(),
            Self::Unequal => order.is_ne(),
            Self::Less => order.is_lt(),
            Self::LessOrEqual => order.is_le(),
            Self::Greater => order.is_gt(),
            Self::GreaterOrEqual => order.is_ge(),
        }
    }
}

impl Text {
    fn of<'a>(&'a self, facts: &'a Facts) -> &'a str {
        cut(match self {
            Self::Literal(text) => text,
            Self::Realm => &facts.realm,
            Self::CallerKind => facts.caller.kind(),
            Self::CallerName => facts.caller.name(),
            Self::CallerNumber => &facts.from.number,
            Self::CallerHost => &facts.from.host,
            Self::CalleeNumber => &facts.to.number,
            Self::CalleeHost => &facts.to.host,
            Self::UserAgent => &facts.user_agent,
            Self::Header(name) => facts.header(name),
        })
    }
}

impl Number {
    fn of(&self, facts: &Facts) -> i64 {
        match self {
            Self::Literal(number) => *number,
            Self::RealmCalls => facts.load.realm.into(),
            Self::CallerCalls => facts.load.caller.into(),
            Self::GroupCalls(group) => facts.calls_of(group).into(),
            Self::Length(text) => count(text.of(facts).chars().count()),
            Self::Entries(List::Groups) => count(facts.groups.len()),
            Self::Entries(List::Codecs) => count(facts.codecs.len()),
        }
    }
}

fn count(of: usize) -> i64 {
    i64::try_from(of).unwrap_or(i64::MAX)
}

/// Entries of a list that are looked at.
const MOST: usize = 64;

impl List {
    fn has(self, text: &str, facts: &Facts) -> bool {
        match self {
            Self::Groups => facts.groups.iter().take(MOST).any(|group| &*group.name == text),
            Self::Codecs => facts.codecs.iter().take(MOST).any(|codec| &**codec == text),
        }
    }
}
