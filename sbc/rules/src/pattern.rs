//! Patterns whose cost is known before they run: a table of states, one step for each octet.
//!
//! A table is made whole when a rule is compiled; a pattern whose table would be too large is refused. So a match costs at most
//! [`crate::facts::LONGEST`] steps whatever the pattern says, which no engine that makes states while it matches can promise.

use regex_automata::dfa::{Automaton, StartKind, dense};
use regex_automata::nfa::thompson;
use regex_automata::util::syntax;
use regex_automata::{Anchored, Input};

use crate::facts::cut;

/// Octets of a pattern's text.
pub(crate) const LONGEST: usize = 128;

/// Octets of its table.
const TABLE: usize = 64 * 1024;

/// One pattern; it is found anywhere in a text unless it says `^` or `$`. ASCII alone has classes.
#[derive(Clone)]
pub(crate) struct Pattern {
    text: Box<str>,
    table: Box<dense::DFA<Vec<u32>>>,
}

impl std::fmt::Debug for Pattern {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Pattern({})", self.text)
    }
}

impl Pattern {
    /// Of this text; why not, in words that go on "the pattern ...".
    pub(crate) fn new(text: &str) -> Result<Self, String> {
        if text.is_empty() {
            return Err("is empty, and would fit everything: leave the column empty".into());
        }
        if text.len() > LONGEST {
            return Err(format!("has {} octets: {LONGEST} are the most", text.len()));
        }
        let table = dense::Builder::new()
            .syntax(syntax::Config::new().unicode(false).utf8(false).nest_limit(16))
            .thompson(thompson::Config::new().utf8(false).nfa_size_limit(Some(TABLE)))
            .configure(
                dense::Config::new()
                    .start_kind(StartKind::Unanchored)
                    .dfa_size_limit(Some(TABLE))
                    .determinize_size_limit(Some(4 * TABLE)),
            )
            .build(text)
            .map_err(|error| why(&error))?;
        Ok(Self { text: text.into(), table: Box::new(table) })
    }

    /// Whether it is in a text; what is past the longest is not looked at.
    pub(crate) fn is_in(&self, text: &str) -> bool {
        let input = Input::new(cut(text)).anchored(Anchored::No).earliest(true);
        // No octet makes it quit, and it may start anywhere: it cannot fail.
        matches!(self.table.try_search_fwd(&input), Ok(Some(_)))
    }

    /// As the operator wrote it.
    pub(crate) fn text(&self) -> &str {
        &self.text
    }
}

fn why(error: &dense::BuildError) -> String {
    use std::error::Error;
    let mut cause: &dyn Error = error;
    while let Some(deeper) = cause.source() {
        cause = deeper;
    }
    if error.is_size_limit_exceeded() || cause.to_string().contains("limit") {
        return "would need a table of more than 64 KiB: write it shorter, with fewer or smaller repetitions"
            .into();
    }
    // The last line says what is wrong; those before draw it.
    let text = cause.to_string();
    let last = text.lines().last().unwrap_or_default();
    format!("cannot be read: {}", last.strip_prefix("error: ").unwrap_or(last))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pattern_is_found_anywhere_unless_it_is_anchored() {
        let found = |pattern: &str, text: &str| Pattern::new(pattern).unwrap().is_in(text);
        assert!(found("30", "+4930") && !found("^30", "+4930") && found(r"^\+49\d{2}$", "+4930"));
        assert!(found("(?i)friendly-scanner", "Friendly-Scanner 1"));
        assert!(!found("x$", &format!("{}x", "y".repeat(300))), "what is past the cut is not seen");
    }

    #[test]
    fn a_pattern_that_would_need_a_large_table_is_refused_with_the_reason() {
        for (pattern, reason) in [
            ("(a|b)*a(a|b){14}", "64 KiB"),
            ("a{1000}{1000}", "64 KiB"),
            ("(", "unclosed group"),
            ("", "empty"),
            (r"(a)\1", "backreferences"),
        ] {
            let why = Pattern::new(pattern).unwrap_err();
            assert!(why.contains(reason), "{pattern}: {why}");
        }
    }
}
