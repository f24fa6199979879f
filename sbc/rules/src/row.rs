//! A rule as the database holds it: plain data, nothing checked.

use std::sync::Arc;

use seam::path::Constraint;
use serde::{Deserialize, Serialize};

/// One rule. What a column leaves open (`None`, empty) is not asked.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct RuleRow {
    /// Its place; the lowest is looked at first. No two rules have the same.
    pub position: i32,
    /// What operators, records and explanations call it. No two rules have the same.
    pub name: Arc<str>,
    /// Whether it is looked at.
    pub enabled: bool,
    /// The realm that the call came from.
    pub realm: Option<Arc<str>>,
    /// The trunk that it came from.
    pub trunk: Option<Arc<str>>,
    /// AOR of the subscriber that calls, in lower case.
    pub subscriber: Option<Arc<str>>,
    /// A group that the caller is in, directly or not.
    pub group: Option<Arc<str>>,
    /// What the caller's number begins with: at most 16 of digits, `+`, `*` and `#`.
    pub caller_prefix: Option<Arc<str>>,
    /// A pattern somewhere in the caller's number.
    pub caller_pattern: Option<Arc<str>>,
    /// What the dialled number begins with.
    pub callee_prefix: Option<Arc<str>>,
    /// A pattern somewhere in the dialled number.
    pub callee_pattern: Option<Arc<str>>,
    /// IANA name of the zone that days and times are in.
    pub zone: Option<Arc<str>>,
    /// Days that a span begins on, Monday 1 to Sunday 7; empty for all.
    pub days: Vec<i8>,
    /// Local time that a span begins at, `HH:MM`; midnight if left open.
    pub from: Option<Arc<str>>,
    /// Local time that it ends before, `HH:MM` or `24:00`; on the next day if it is before `from`.
    pub until: Option<Arc<str>>,
    /// A codec among those offered.
    pub codec: Option<Arc<str>>,
    /// A pattern somewhere in User-Agent.
    pub user_agent: Option<Arc<str>>,
    /// So many calls now, or more.
    pub load: Option<LoadRow>,
    /// An expression in CEL.
    pub expression: Option<Arc<str>>,
    /// Whether later rules add what this one leaves open.
    pub goes_on: bool,
    /// What it decides.
    pub decides: Decides,
}

/// A threshold of calls.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LoadRow {
    /// Whose calls.
    pub of: LoadOf,
    /// The rule matches from here on.
    pub at_least: i64,
}

/// Whose calls are counted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum LoadOf {
    /// The realm's.
    Realm,
    /// The calling subscriber's or trunk's.
    Caller,
    /// A group's; 0 if the caller is not in it.
    Group(Arc<str>),
}

/// What one rule decides; what is `None` it leaves open.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Decides {
    /// Whether the call may be.
    pub admission: Option<AdmissionRow>,
    /// Where it goes.
    pub route: Option<RouteRow>,
    /// What becomes of the caller's number.
    pub caller: Option<RewriteRow>,
    /// What becomes of the dialled number.
    pub callee: Option<RewriteRow>,
    /// Name of a set of header rules.
    pub headers: Option<Arc<str>>,
    /// Name of a list of codecs.
    pub codecs: Option<Arc<str>>,
    /// What its media may do.
    pub media: Option<Constraint>,
    /// Share of time that is anchored as cover, in per cent.
    pub cover: Option<i32>,
    /// Whether it is marked to be recorded.
    pub record: Option<bool>,
    /// Names of limits that count it.
    pub limits: Option<Vec<Arc<str>>>,
}

/// Whether a call may be.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum AdmissionRow {
    /// It may.
    Admit,
    /// It may not.
    Reject(RejectRow),
}

/// How a call is refused.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RejectRow {
    /// What kind of block.
    pub kind: Block,
    /// 400 to 699, but for challenges.
    pub status: i32,
    /// Reason phrase of the status line; the kind's own if `None`.
    pub phrase: Option<Arc<str>>,
    /// Cause of ITU-T Q.850, 1 to 127, for a Reason header.
    pub cause: Option<i32>,
    /// Text of that header.
    pub text: Option<Arc<str>>,
}

/// Kinds of blocks, which answer differently and are kept for redress.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Block {
    /// The operator's rule.
    Policy,
    /// Analytics: 603 "Network Blocked", ATIS-1000099.
    Analytics,
    /// The caller's number never originates calls.
    DoNotOriginate,
    /// The caller hides and the callee does not take that (RFC 5079).
    Anonymous,
}

/// Where a call goes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RouteRow {
    /// Name of a group of trunks.
    pub group: Arc<str>,
    /// Whether it may go back to the trunk that it came from.
    pub may_return: bool,
}

/// What becomes of a number: `replace` instead of it, or `strip` characters off its front; then `prepend` before it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct RewriteRow {
    /// Characters taken off the front, 0 to 32.
    pub strip: i32,
    /// What is put before the rest.
    pub prepend: Arc<str>,
    /// What stands in place of it all.
    pub replace: Option<Arc<str>>,
}
