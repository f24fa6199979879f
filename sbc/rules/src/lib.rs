//! What policy decides about a call: rules in rows, compiled once, found by index, explained in words.
//!
//! No I/O, no clock, no randomness: rows come in ([`row::RuleRow`]), facts come in ([`facts::Facts`]), a decision comes out
//! ([`decision::Decision`]). **What a call costs does not depend on how many rules there are** ([`index`](set::RuleSet)), nothing
//! that an operator writes can fail at call time, for [`set::RuleSet::compile`] refuses it with row and reason.
//! `docs/policy.md` tells the same to operators.

mod compile;
mod condition;
pub mod decision;
pub mod explanation;
mod expression;
pub mod facts;
pub mod finding;
mod index;
pub mod known;
mod pattern;
pub mod portability;
pub mod prefixes;
pub mod row;
pub mod set;
pub mod stored;
pub mod when;
