//! Expressions in CEL, with a known cost and known types.
//!
//! CEL's own parser reads them. What it read is turned into a tree of typed nodes ([`lower`]): a name that does not exist, a comparison
//! of a text with a number, anything that could fail or take long is refused there. What is left reads facts where they stand,
//! allocates nothing and always has an answer ([`node`]).

mod lower;
mod node;

use std::collections::BTreeSet;
use std::sync::Arc;

use crate::facts::Facts;
use node::Truth;

/// Octets of an expression.
pub(crate) const LONGEST: usize = 1000;

/// One expression.
#[derive(Debug)]
pub(crate) struct Expression {
    text: Arc<str>,
    truth: Truth,
}

impl Expression {
    /// Of this text; the groups and headers that it names are added. Why not, in words that go on "the expression ...".
    pub(crate) fn new(text: &Arc<str>, names: &mut Names) -> Result<Self, String> {
        if text.len() > LONGEST {
            return Err(format!("has {} octets: {LONGEST} are the most", text.len()));
        }
        if depth(text) > DEEPEST {
            return Err(format!("nests deeper than {DEEPEST}"));
        }
        let parser = cel::parser::Parser::new().max_recursion_depth(DEEPEST.into()).error_recovery_limit(1);
        let parsed = parser.parse(text).map_err(|errors| {
            let first = errors.errors.first();
            let what = first.map_or_else(String::new, |error| error.msg.clone());
            let column = first.map_or(0, |error| error.pos.1);
            format!("does not compile: {what} (column {column})")
        })?;
        let truth = lower::Lowering::new(names).truth(&parsed)?;
        Ok(Self { text: text.clone(), truth })
    }

    pub(crate) fn holds(&self, facts: &Facts) -> bool {
        self.truth.of(facts)
    }

    /// As the operator wrote it.
    pub(crate) fn text(&self) -> &str {
        &self.text
    }
}

/// What expressions name.
#[derive(Debug, Default)]
pub(crate) struct Names {
    pub(crate) groups: BTreeSet<Arc<str>>,
    /// In lower case.
    pub(crate) headers: BTreeSet<Arc<str>>,
}

/// Brackets in brackets, and `!` or `-` before each other.
const DEEPEST: u8 = 24;

/// How deep brackets and signs go, before anything that recurses reads them.
fn depth(text: &str) -> u8 {
    let (mut now, mut most, mut signs) = (0_u8, 0, 0_u8);
    for octet in text.bytes() {
        match octet {
            b'(' | b'[' | b'{' | b'?' => now = now.saturating_add(1),
            b')' | b']' | b'}' => now = now.saturating_sub(1),
            _ => {}
        }
        signs = if matches!(octet, b'!' | b'-') { signs.saturating_add(1) } else { 0 };
        most = most.max(now).max(signs);
    }
    most
}

#[cfg(test)]
mod tests;
