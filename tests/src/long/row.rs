//! What is played, what came of it, and what must hold.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use serde_json::{Value, json};

use super::bounds;
use super::homecoming::{Home, Homecoming};
use super::listening::Move;
use crate::Failure;
use crate::phone::Kind;

/// Who falls silent now and then.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Vad {
    /// Nobody.
    None,
    /// The caller.
    One,
    /// Both.
    Both,
}

/// What becomes of the direct path.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Cut {
    /// Nothing.
    None,
    /// It is cut both ways.
    Both,
    /// It is cut from the caller to the called.
    Out,
    /// It is cut from the called to the caller.
    In,
}

/// One call.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Row {
    /// Who calls, and who is called.
    pub kinds: [Kind; 2],
    /// Percent of all packets that each NAT's line loses, each way.
    pub loss: u8,
    /// Who falls silent now and then.
    pub vad: Vad,
    /// What becomes of the direct path.
    pub cut: Cut,
    /// How long the call is.
    pub seconds: u32,
    /// Which repetition of the same.
    pub run: u32,
}

/// What came of a call.
#[derive(Debug, Clone, Default)]
pub struct Outcome {
    /// From the answer to the first proof, if there was one.
    pub proven: Option<Duration>,
    /// The share of the time from there to the end, or to the cut, in which both directions were direct.
    pub direct_share: f64,
    /// The longest stretch in which a phone heard nothing although the other spoke; up to the cut.
    pub longest_silence: Duration,
    /// Moves of what a phone hears, and the silence of each; up to the cut.
    pub moves: Vec<Move>,
    /// Why the call came home, if it did, or stayed, after the first proof; up to the cut.
    pub reasons: Vec<String>,
    /// Reports that the phones sent, and how many of them did not come to the SBC.
    pub reports: [usize; 2],
    /// Of a call whose path was cut.
    pub cut: Option<Homecoming>,
    /// Of a call that ended otherwise than by its caller, or was not what the row says: then it shows nothing.
    pub faults: Vec<String>,
    /// The processors were busy for this share of the call.
    pub busy: f64,
    /// Where captures and logs are, of a call that missed a target.
    pub kept: Option<String>,
}

impl Row {
    /// Whether both speak CRUSH.
    pub fn is_crush(&self) -> bool {
        self.kinds == [Kind::Softphone; 2]
    }

    /// A number for what is random in it.
    pub fn seed(&self) -> u64 {
        // FNV-1a over its name.
        let octets = self.to_string().into_bytes();
        octets.iter().fold(0xcbf2_9ce4_8422_2325, |hash, octet| {
            (hash ^ u64::from(*octet)).wrapping_mul(0x0100_0000_01b3)
        })
    }

    /// Whether a row of the table is of this call.
    pub fn is(&self, row: &Value) -> bool {
        let key = self.key();
        key.as_object().is_some_and(|key| key.iter().all(|(name, value)| row.get(name) == Some(value)))
    }

    fn key(&self) -> Value {
        let [a, b] = self.kinds.map(name);
        json!({
            "a": a, "b": b, "loss": self.loss, "vad": self.vad.to_string(), "seconds": self.seconds,
            "cut": self.cut.to_string(), "run": self.run,
        })
    }
}

impl Outcome {
    /// The row of the table.
    pub fn row(&self, row: &Row) -> Value {
        let ms = |time: Duration| time.as_millis() as u64;
        let (home, home_ms) = match self.cut.map(|cut| cut.home) {
            None => (None, None),
            Some(Home::NothingMissed) => (Some("nothing missed"), None),
            Some(Home::After(missed)) => (Some("heard"), Some(ms(missed))),
            Some(Home::Never) => (Some("never"), None),
        };
        let more = json!({
            "direct_share": rounded(self.direct_share), "longest_silence_ms": ms(self.longest_silence),
            "proof_s": self.proven.map(seconds), "moves_ms": self.moves.iter().map(|one| ms(one.silence)).collect::<Vec<_>>(),
            "reasons": self.reasons, "reports": self.reports[0], "reports_lost": self.reports[1],
            "cut_s": self.cut.map(|cut| seconds(cut.at)), "home": home, "home_ms": home_ms,
            "telling_reports_lost": self.cut.map(|cut| cut.lost),
            "later_silence_ms": self.cut.map(|cut| ms(cut.later)), "faults": self.faults, "busy": rounded(self.busy),
        });
        let mut value = row.key();
        if let (Some(value), Value::Object(more)) = (value.as_object_mut(), more) {
            value.extend(more);
        }
        value["missed"] = bounds::missed(row, &value).into();
        value
    }

    /// What of the bounds was missed.
    pub fn missed(&self, row: &Row) -> Vec<String> {
        bounds::missed(row, &self.row(row))
    }
}

/// A product's name in tables.
pub fn name(kind: Kind) -> &'static str {
    match kind {
        Kind::Baresip => "baresip",
        Kind::Linphone => "linphone",
        Kind::Pjsua => "pjsua2",
        Kind::Softphone => "phone",
    }
}

/// The product of this name.
pub fn kind(text: &str) -> Result<Kind, Failure> {
    let all = [Kind::Baresip, Kind::Linphone, Kind::Pjsua, Kind::Softphone];
    all.into_iter().find(|kind| name(*kind) == text).ok_or_else(|| {
        Failure(format!("no phone is called {text:?}; there are {}", all.map(name).join(", ")))
    })
}

fn seconds(time: Duration) -> f64 {
    rounded(time.as_secs_f64())
}

fn rounded(number: f64) -> f64 {
    (number * 1000.0).round() / 1000.0
}

impl Vad {
    /// All.
    pub const ALL: [Self; 3] = [Self::None, Self::One, Self::Both];

    /// Whether the phone of a side, 0 for the caller, falls silent.
    pub fn is_of(self, side: usize) -> bool {
        self == Self::Both || (self == Self::One && side == 0)
    }
}

impl Cut {
    /// All.
    pub const ALL: [Self; 4] = [Self::None, Self::Both, Self::Out, Self::In];

    /// Which phones hear nothing any more by the direct path.
    pub fn deaf(self) -> &'static [usize] {
        match self {
            Self::None => &[],
            Self::Both => &[0, 1],
            Self::Out => &[1],
            Self::In => &[0],
        }
    }
}

impl fmt::Display for Vad {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::None => "none",
            Self::One => "one",
            Self::Both => "both",
        })
    }
}

impl fmt::Display for Cut {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::None => "none",
            Self::Both => "both",
            Self::Out => "out",
            Self::In => "in",
        })
    }
}

impl FromStr for Vad {
    type Err = Failure;

    fn from_str(text: &str) -> Result<Self, Failure> {
        let found = Self::ALL.into_iter().find(|one| one.to_string() == text);
        found.ok_or_else(|| Failure(format!("{text:?} is none of none, one, both")))
    }
}

impl FromStr for Cut {
    type Err = Failure;

    fn from_str(text: &str) -> Result<Self, Failure> {
        let found = Self::ALL.into_iter().find(|one| one.to_string() == text);
        found.ok_or_else(|| Failure(format!("{text:?} is none of none, both, out, in")))
    }
}

impl fmt::Display for Row {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b] = self.kinds.map(name);
        let Self { loss, vad, cut, seconds, run, .. } = self;
        write!(f, "{a:8} {b:8} loss {loss} % vad {vad:4} cut {cut:4} {seconds:3} s run {run}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(loss: u8, cut: Cut) -> Row {
        Row { kinds: [Kind::Linphone, Kind::Pjsua], loss, vad: Vad::One, cut, seconds: 180, run: 1 }
    }

    #[test]
    fn a_row_is_found_again_by_what_was_played() {
        let outcome =
            Outcome { proven: Some(Duration::from_secs(6)), direct_share: 0.99, ..Outcome::default() };
        let (one, other) = (row(2, Cut::None), row(0, Cut::None));
        let kept = outcome.row(&one);
        assert!(one.is(&kept) && !other.is(&kept), "{kept}");
        assert_eq!(kept["missed"], json!([]));
    }
}
