//! What was decided about a call, and by which rules.

use std::sync::Arc;

use seam::path::Constraint;
use smallvec::SmallVec;

use crate::known::Member;
use crate::row::Block;

/// What the rules say of one call. What is `None` no rule has decided.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Decision {
    /// Of the rules.
    pub version: u64,
    /// Whether the call may be.
    pub admission: Option<Admission>,
    /// Where it goes.
    pub route: Option<Route>,
    /// What becomes of the caller's number.
    pub caller: Option<Arc<Rewrite>>,
    /// What becomes of the dialled number.
    pub callee: Option<Arc<Rewrite>>,
    /// The set of header rules.
    pub headers: Option<Arc<str>>,
    /// Codecs, in the order wanted.
    pub codecs: Option<Arc<Codecs>>,
    /// What its media may do.
    pub media: Option<Constraint>,
    /// Share of time anchored as cover, in per cent; what comes of it for one call is not decided here.
    pub cover: Option<u8>,
    /// Whether it is marked to be recorded.
    pub record: Option<bool>,
    /// Limits that count it.
    pub limits: Option<Arc<[Arc<str>]>>,
    /// Which rules matched, in order, and what each decided.
    pub by: SmallVec<[By; 2]>,
    /// How many expressions were reached.
    pub expressions: u32,
}

/// What one rule had its say in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct By {
    /// Where it stands.
    pub position: i32,
    /// Its name.
    pub name: Arc<str>,
    /// What it decided.
    pub things: Things,
}

/// Whether a call may be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Admission {
    /// It may.
    Admit,
    /// It may not.
    Reject(Arc<Rejection>),
}

/// How a call is refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rejection {
    /// What kind of block.
    pub kind: Block,
    /// Status, 400 to 699.
    pub status: u16,
    /// Reason phrase.
    pub phrase: Arc<str>,
    /// Cause of Q.850 for a Reason header.
    pub cause: Option<u8>,
    /// Text of that header.
    pub text: Option<Arc<str>>,
}

/// What becomes of a number.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rewrite {
    /// Characters taken off the front.
    pub strip: usize,
    /// What is put before the rest.
    pub prepend: Arc<str>,
    /// What stands in place of it all.
    pub replace: Option<Arc<str>>,
}

/// A list of codecs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Codecs {
    /// Its name.
    pub name: Arc<str>,
    /// Codecs, in the order wanted.
    pub codecs: Arc<[Arc<str>]>,
}

/// A group of trunks, without the one that the call came from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Route {
    /// Its name.
    pub group: Arc<str>,
    /// By priority, then by name.
    pub(crate) members: Arc<[Member]>,
    /// The trunk that the call may not go back to.
    pub without: Option<Arc<str>>,
}

impl Route {
    /// The trunks that may be tried, by priority; those of one priority stand together.
    pub fn members(&self) -> impl Iterator<Item = &Member> {
        self.members.iter().filter(|member| self.without.as_ref() != Some(&member.trunk))
    }

    /// The order in which they are tried. Of one priority the one that a draw falls to is first, the others follow in turn: over all draws
    /// each is first as often as its weight says.
    pub fn order(&self, draw: u64) -> Vec<Arc<str>> {
        let members: Vec<&Member> = self.members().collect();
        let mut order = Vec::with_capacity(members.len());
        for equal in members.chunk_by(|one, other| one.priority == other.priority) {
            let weight = |member: &Member| u64::from(member.weight.unsigned_abs());
            let all: u64 = equal.iter().map(|member| weight(member)).sum();
            let mut left = draw.checked_rem(all).unwrap_or(0);
            let first = equal.iter().position(|member| {
                let here = left < weight(member);
                left = left.saturating_sub(weight(member));
                here
            });
            let (before, after) = equal.split_at(first.unwrap_or(0));
            order.extend(after.iter().chain(before).map(|member| member.trunk.clone()));
        }
        order
    }
}

impl Rewrite {
    /// The number that comes of one; what is shorter than what is taken off it is empty then.
    pub fn apply(&self, number: &str) -> String {
        let rest = match &self.replace {
            Some(instead) => instead,
            None => {
                number.char_indices().nth(self.strip).map_or("", |(at, _)| number.get(at..).unwrap_or(""))
            }
        };
        format!("{}{rest}", self.prepend)
    }
}

/// A set of what rules decide.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Things(u16);

/// What rules decide.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Thing {
    /// Whether the call may be.
    Admission,
    /// Where it goes.
    Route,
    /// The caller's number.
    CallerNumber,
    /// The dialled number.
    CalleeNumber,
    /// Header rules.
    Headers,
    /// Codecs.
    Codecs,
    /// The path of media.
    Media,
    /// The share of cover.
    Cover,
    /// The recording mark.
    Record,
    /// Limits.
    Limits,
}

impl Thing {
    /// All of them.
    pub const ALL: [Self; 10] = [
        Self::Admission,
        Self::Route,
        Self::CallerNumber,
        Self::CalleeNumber,
        Self::Headers,
        Self::Codecs,
        Self::Media,
        Self::Cover,
        Self::Record,
        Self::Limits,
    ];

    /// In words.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Admission => "admission",
            Self::Route => "route",
            Self::CallerNumber => "caller number",
            Self::CalleeNumber => "callee number",
            Self::Headers => "headers",
            Self::Codecs => "codecs",
            Self::Media => "media",
            Self::Cover => "cover",
            Self::Record => "recording",
            Self::Limits => "limits",
        }
    }
}

impl Things {
    /// Adds one.
    pub(crate) fn add(&mut self, thing: Thing) {
        self.0 |= 1 << thing as u8;
    }

    /// Whether it is among them.
    pub fn has(self, thing: Thing) -> bool {
        self.0 & (1 << thing as u8) != 0
    }

    /// All of them, in the order of [`Thing::ALL`].
    pub fn iter(self) -> impl Iterator<Item = Thing> {
        Thing::ALL.into_iter().filter(move |thing| self.has(*thing))
    }

    /// Whether there is none.
    pub fn is_empty(self) -> bool {
        self.0 == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn member(trunk: &str, priority: i32, weight: i32) -> Member {
        Member { trunk: trunk.into(), priority, weight }
    }

    #[test]
    fn trunks_come_by_priority_and_share_by_weight_and_never_the_one_it_came_from() {
        let members = [member("a", 1, 3), member("b", 1, 1), member("c", 1, 0), member("d", 2, 1)];
        let mut route = Route { group: "g".into(), members: members.into(), without: None };
        let firsts = (0..400).filter(|draw| *route.order(*draw)[0] == *"a").count();
        assert_eq!(firsts, 300);
        assert!((0..9).all(|draw| *route.order(draw)[3] == *"d" && *route.order(draw)[0] != *"c"));
        route.without = Some("a".into());
        assert_eq!(route.order(17), ["b", "c", "d"].map(Arc::from));
    }

    #[test]
    fn a_number_is_stripped_prepended_or_replaced() {
        let rewrite = |strip, prepend: &str, replace: Option<&str>| Rewrite {
            strip,
            prepend: prepend.into(),
            replace: replace.map(Into::into),
        };
        assert_eq!(rewrite(1, "00", None).apply("+4930"), "004930");
        assert_eq!(rewrite(9, "1", None).apply("+49"), "1");
        assert_eq!(rewrite(0, "+", Some("4930")).apply("anonymous"), "+4930");
    }
}
