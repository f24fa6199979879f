//! What is wrong with a row, for who wrote it.

use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

/// One thing that keeps rows from coming into force.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Finding {
    /// Where.
    pub row: Row,
    /// What, and what to do.
    pub reason: String,
}

/// A row of the operators' tables.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Row {
    /// A rule.
    Rule {
        /// Where it stands.
        position: i32,
        /// What it is called.
        name: Arc<str>,
    },
    /// A group of subscribers or trunks.
    Group(Arc<str>),
    /// A group of trunks that calls go to.
    TrunkGroup(Arc<str>),
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.row {
            Row::Rule { position, name } => write!(f, "rule {position} \"{name}\": {}", self.reason),
            Row::Group(name) => write!(f, "group \"{name}\": {}", self.reason),
            Row::TrunkGroup(name) => write!(f, "trunk group \"{name}\": {}", self.reason),
        }
    }
}
