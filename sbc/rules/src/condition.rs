//! One thing that a rule asks of a call: whether it is so, and in words why not.

use std::sync::Arc;

use crate::expression::Expression;
use crate::facts::Facts;
use crate::pattern::Pattern;
use crate::row::LoadOf;
use crate::when::When;

/// From the cheapest to the dearest, as a rule asks them.
#[derive(Debug)]
pub(crate) enum Condition {
    Realm(Arc<str>),
    Trunk(Arc<str>),
    Subscriber(Arc<str>),
    CallerPrefix(Arc<str>),
    CalleePrefix(Arc<str>),
    Load(LoadOf, u32),
    Group(Arc<str>),
    Codec(Arc<str>),
    CallerPattern(Pattern),
    CalleePattern(Pattern),
    UserAgent(Pattern),
    When(Arc<When>),
    Expression(Expression),
}

impl Condition {
    pub(crate) fn holds(&self, facts: &Facts) -> bool {
        match self {
            Self::Realm(realm) => facts.realm == *realm,
            Self::Trunk(trunk) => facts.caller.trunk() == Some(trunk),
            Self::Subscriber(aor) => facts.caller.subscriber() == Some(aor),
            Self::CallerPrefix(prefix) => facts.from.number.starts_with(&**prefix),
            Self::CalleePrefix(prefix) => facts.to.number.starts_with(&**prefix),
            Self::Load(of, least) => load(facts, of) >= *least,
            Self::Group(group) => facts.is_in(group),
            Self::Codec(codec) => facts.codecs.contains(codec),
            Self::CallerPattern(pattern) => pattern.is_in(&facts.from.number),
            Self::CalleePattern(pattern) => pattern.is_in(&facts.to.number),
            Self::UserAgent(pattern) => pattern.is_in(&facts.user_agent),
            Self::When(when) => when.holds(facts.at),
            Self::Expression(expression) => expression.holds(facts),
        }
    }

    /// What the call missed it by; for what does not hold.
    pub(crate) fn missed(&self, facts: &Facts) -> String {
        let number = |side: &str, number: &str, what: &str, text: &str| {
            format!("{side} {} does not {what} {text}", named(number))
        };
        match self {
            Self::Realm(realm) => format!("realm {} is not {realm}", named(&facts.realm)),
            Self::Trunk(trunk) => format!("it comes from {}, not from trunk {trunk}", who(facts)),
            Self::Subscriber(aor) => format!("it comes from {}, not from subscriber {aor}", who(facts)),
            Self::CallerPrefix(prefix) => number("caller", &facts.from.number, "begin with", prefix),
            Self::CalleePrefix(prefix) => number("callee", &facts.to.number, "begin with", prefix),
            Self::CallerPattern(pattern) => number("caller", &facts.from.number, "match", pattern.text()),
            Self::CalleePattern(pattern) => number("callee", &facts.to.number, "match", pattern.text()),
            Self::UserAgent(pattern) => number("User-Agent", &facts.user_agent, "match", pattern.text()),
            Self::Load(of, least) => {
                let whose = match of {
                    LoadOf::Realm => format!("realm {}", facts.realm),
                    LoadOf::Caller => who(facts),
                    LoadOf::Group(group) => format!("group {group}"),
                };
                format!("{whose} has {} calls, fewer than {least}", load(facts, of))
            }
            Self::Group(group) => format!("{} is not in group {group}", who(facts)),
            Self::Codec(codec) => format!("codec {codec} is not offered"),
            Self::When(when) => when.missed(facts.at),
            Self::Expression(expression) => format!("the expression is false: {}", expression.text()),
        }
    }

    pub(crate) fn is_expression(&self) -> bool {
        matches!(self, Self::Expression(_))
    }
}

fn load(facts: &Facts, of: &LoadOf) -> u32 {
    match of {
        LoadOf::Realm => facts.load.realm,
        LoadOf::Caller => facts.load.caller,
        LoadOf::Group(group) => facts.calls_of(group),
    }
}

fn named(text: &str) -> &str {
    if text.is_empty() { "(none)" } else { text }
}

fn who(facts: &Facts) -> String {
    let kind = facts.caller.kind();
    if facts.caller.name().is_empty() { kind.into() } else { format!("{kind} {}", facts.caller.name()) }
}
