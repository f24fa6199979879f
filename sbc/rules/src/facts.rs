//! What is known of one call when policy is asked: the whole vocabulary, version 1.

use std::sync::Arc;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

/// Of this vocabulary; a fact that is added, or means something else, makes it the next.
pub const VERSION: u8 = 1;

/// Octets of one text that patterns and expressions look at; what is longer is cut there, at the border of a character.
pub const LONGEST: usize = 256;

/// The inputs of one call. Texts are as the request had them, but for what each field says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Facts {
    /// Name of the realm that the call came from.
    #[serde(rename = "r")]
    pub realm: Arc<str>,
    /// Who calls, as far as it was proven.
    #[serde(rename = "w")]
    pub caller: Caller,
    /// Groups of the subscriber or trunk, with those that these stand in ([`crate::known::Known::all_groups`]).
    #[serde(rename = "g", default, skip_serializing_if = "Vec::is_empty")]
    pub groups: Vec<Group>,
    /// Whom the call says it is from.
    #[serde(rename = "f")]
    pub from: Party,
    /// Whom it is for.
    #[serde(rename = "t")]
    pub to: Party,
    /// An emergency call, as the engine has found it; never by a header alone.
    #[serde(rename = "e", default, skip_serializing_if = "std::ops::Not::not")]
    pub emergency: bool,
    /// Codecs offered, in their order; names in lower case, as in `a=rtpmap`.
    #[serde(rename = "c", default, skip_serializing_if = "Vec::is_empty")]
    pub codecs: Vec<Arc<str>>,
    /// User-Agent; empty if there is none.
    #[serde(rename = "u", default, skip_serializing_if = "str::is_empty")]
    pub user_agent: Arc<str>,
    /// When the call came, or now if it runs already.
    #[serde(rename = "a")]
    pub at: Timestamp,
    /// Calls that run now, without this one.
    #[serde(rename = "l")]
    pub load: Load,
    /// Headers that a rule names ([`crate::set::RuleSet::headers`]), names in lower case; the first value of each.
    #[serde(rename = "h", default, skip_serializing_if = "Vec::is_empty")]
    pub headers: Vec<(Arc<str>, Arc<str>)>,
}

/// Who calls.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Caller {
    /// A subscriber, by digest or over its registered flow.
    #[serde(rename = "s")]
    Subscriber(Arc<str>),
    /// A trunk, by address or certificate.
    #[serde(rename = "t")]
    Trunk(Arc<str>),
    /// Nobody we know.
    #[serde(rename = "a")]
    Anonymous,
}

/// One side's number.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Party {
    /// The user part, unescaped, visual separators removed.
    #[serde(rename = "n")]
    pub number: Arc<str>,
    /// The host in lower case; empty for `tel:`.
    #[serde(rename = "h")]
    pub host: Arc<str>,
}

/// A group of the caller.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Group {
    /// Its name.
    #[serde(rename = "n")]
    pub name: Arc<str>,
    /// Calls that its members have now.
    #[serde(rename = "l")]
    pub calls: u32,
}

/// Calls that run now.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Load {
    /// Of the realm.
    #[serde(rename = "r")]
    pub realm: u32,
    /// Of the subscriber or trunk; 0 for who is anonymous.
    #[serde(rename = "c")]
    pub caller: u32,
}

impl Facts {
    /// Whether the caller is in a group.
    pub fn is_in(&self, group: &str) -> bool {
        self.groups.iter().any(|one| &*one.name == group)
    }

    /// Calls of one of the caller's groups; 0 for another group.
    pub fn calls_of(&self, group: &str) -> u32 {
        self.groups.iter().find(|one| &*one.name == group).map_or(0, |one| one.calls)
    }

    /// A header's value by its name in lower case; empty if there is none.
    pub fn header(&self, name: &str) -> &str {
        self.headers.iter().find(|one| &*one.0 == name).map_or("", |one| cut(&one.1))
    }
}

impl Caller {
    /// Its AOR or its trunk's name; empty for nobody.
    pub fn name(&self) -> &str {
        match self {
            Self::Subscriber(name) | Self::Trunk(name) => name,
            Self::Anonymous => "",
        }
    }

    /// What it is, in the words of expressions.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Subscriber(_) => "subscriber",
            Self::Trunk(_) => "trunk",
            Self::Anonymous => "anonymous",
        }
    }

    /// The trunk that the call came from.
    pub fn trunk(&self) -> Option<&str> {
        if let Self::Trunk(name) = self { Some(name) } else { None }
    }

    /// The subscriber that calls.
    pub fn subscriber(&self) -> Option<&str> {
        if let Self::Subscriber(aor) = self { Some(aor) } else { None }
    }
}

/// As much of a text as patterns and expressions see.
pub(crate) fn cut(text: &str) -> &str {
    beginning(text, LONGEST)
}

/// At most so many octets of a text, whole characters.
pub(crate) fn beginning(text: &str, most: usize) -> &str {
    text.get(..text.floor_char_boundary(most)).unwrap_or(text)
}
