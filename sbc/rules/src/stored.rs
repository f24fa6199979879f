//! The facts of a call as its record keeps them: at most [`MOST`] octets of JSON, so that a year of calls has a known size.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::facts::{Caller, Facts, Group, Party, VERSION, beginning};

/// Octets of JSON that one call's facts may take.
pub const MOST: usize = 1000;

/// What a text ends with of which something is missing, and the last entry of a list that was longer.
pub const MARK: &str = "…";

/// The limits that are tried one after the other: octets of a text, entries of a list. The last always fits.
const LIMITS: [(usize, usize); 9] =
    [(512, 64), (256, 32), (128, 16), (96, 12), (64, 8), (32, 8), (16, 4), (8, 2), (0, 0)];

/// Facts with their version, cut where they must be.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stored {
    /// Of the vocabulary.
    #[serde(rename = "v")]
    pub version: u8,
    /// Whether anything was cut: what a rule would say of it is not certain then.
    #[serde(rename = "x", default, skip_serializing_if = "std::ops::Not::not")]
    pub is_cut: bool,
    /// What is left.
    #[serde(rename = "f")]
    pub facts: Facts,
}

impl Stored {
    /// Of these facts. The longest texts are cut first, all at one length.
    pub fn of(facts: &Facts) -> Self {
        let whole = Self { version: VERSION, is_cut: false, facts: facts.clone() };
        if whole.fits() {
            return whole;
        }
        let mut last = whole;
        for (text, list) in LIMITS {
            last = Self { version: VERSION, is_cut: true, facts: shorter(facts, text, list) };
            if last.fits() {
                break;
            }
        }
        last
    }

    /// As a record keeps it.
    pub fn to_json(&self) -> String {
        serde_json::to_string(self).unwrap_or_default()
    }

    /// What [`Self::to_json`] wrote.
    ///
    /// # Errors
    /// What is not such a text, or is of another version of the vocabulary.
    pub fn from_json(text: &str) -> Result<Self, serde_json::Error> {
        let read: Self = serde_json::from_str(text)?;
        if read.version == VERSION {
            return Ok(read);
        }
        Err(serde::de::Error::custom(format!("facts of version {}, not {VERSION}", read.version)))
    }

    fn fits(&self) -> bool {
        self.to_json().len() <= MOST
    }
}

fn text(whole: &Arc<str>, most: usize) -> Arc<str> {
    if whole.len() <= most { whole.clone() } else { format!("{}{MARK}", beginning(whole, most)).into() }
}

fn list<T>(whole: &[T], most: usize, one: impl Fn(&T) -> T, mark: T) -> Vec<T> {
    let mut kept: Vec<T> = whole.iter().take(most).map(one).collect();
    if whole.len() > most {
        kept.push(mark);
    }
    kept
}

fn shorter(facts: &Facts, most: usize, entries: usize) -> Facts {
    let party = |party: &Party| Party { number: text(&party.number, most), host: text(&party.host, most) };
    Facts {
        realm: text(&facts.realm, most),
        caller: match &facts.caller {
            Caller::Subscriber(aor) => Caller::Subscriber(text(aor, most)),
            Caller::Trunk(name) => Caller::Trunk(text(name, most)),
            Caller::Anonymous => Caller::Anonymous,
        },
        groups: list(
            &facts.groups,
            entries,
            |group| Group { name: text(&group.name, most), calls: group.calls },
            Group { name: MARK.into(), calls: 0 },
        ),
        from: party(&facts.from),
        to: party(&facts.to),
        codecs: list(&facts.codecs, entries, |codec| text(codec, most), MARK.into()),
        user_agent: text(&facts.user_agent, most),
        headers: list(
            &facts.headers,
            entries,
            |(name, value)| (text(name, most), text(value, most)),
            (MARK.into(), MARK.into()),
        ),
        ..*facts
    }
}
