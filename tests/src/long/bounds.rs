//! What must hold of a row of the table, one bound at a time, so that a summary can say of each by how many rows it was kept. All of it is
//! read from the row as it is kept: what was played earlier is judged like what was played now.

use serde_json::Value;

use super::row::Row;

/// Direct for at least this share of the time after the first proof.
const DIRECT: f64 = 0.95;
/// No silence is longer without loss, ms.
const SILENCE: f64 = 200.0;
/// With loss: none is, ms.
const SILENCE_WITH_LOSS: f64 = 600.0;
/// With loss this share of the moves ...
const MOST: f64 = 0.95;
/// ... is no longer silent, ms.
const SHORT_MOVE: f64 = 250.0;
/// From a cut to media through the relay, ms: ordinary phones show it in their next report, whose interval RFC 3550 §6.2 and §6.3.1 bound ...
const HOME: f64 = 7_000.0;
/// ... by 6.2 s (5 s, times 1.5, by e - 1.5), so that each report which was lost may cost as much more.
const REPORT: f64 = 6_200.0;
/// Endpoints that speak CRUSH, each behind a NAT of 20 ms.
const CRUSH_HOME: f64 = 300.0;
/// Once home, a call may try again after a minute, and a trial of a path that is cut costs a second.
const LATER: f64 = 1_000.0;

/// One thing that must hold of each row that it concerns.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Bound {
    /// The call was what the row says, and ended as its caller wanted.
    Played,
    /// It was direct at all.
    Proven,
    /// It stayed so.
    Direct,
    /// Without loss.
    Silence,
    /// With it.
    SilenceWithLoss,
    /// After a cut.
    Home,
    /// Of two that speak CRUSH.
    CrushHome,
    /// After that.
    Later,
}

/// All.
pub const ALL: [Bound; 8] = [
    Bound::Played,
    Bound::Proven,
    Bound::Direct,
    Bound::Silence,
    Bound::SilenceWithLoss,
    Bound::Home,
    Bound::CrushHome,
    Bound::Later,
];

impl Bound {
    /// For people.
    pub fn name(self) -> &'static str {
        match self {
            Self::Played => "played as the row says, ended by its caller",
            Self::Proven => "direct at all",
            Self::Direct => "direct for 95 % of the time after the first proof",
            Self::Silence => "without loss: silence of at most 200 ms, but at a cut",
            Self::SilenceWithLoss => "with loss: silence of at most 600 ms, but at a cut",
            Self::Home => {
                "home within 7 s of a cut, and 6.2 s for each lost report, and each that rests after one"
            }
            Self::CrushHome => "home within 300 ms of a cut, of two that speak CRUSH",
            Self::Later => "heard to the end after a cut, silence of at most 1 s",
        }
    }

    /// Whether it says anything of a row.
    pub fn concerns(self, row: &Row, value: &Value) -> bool {
        let is_cut = value["cut_s"].is_number();
        match self {
            Self::Played | Self::Proven => true,
            Self::Direct => value["proof_s"].is_number(),
            Self::Silence => row.loss == 0,
            Self::SilenceWithLoss => row.loss > 0,
            // A cut that nobody could hear shows nothing.
            Self::Home => is_cut && !row.is_crush() && value["home"] != "nothing missed",
            Self::CrushHome => is_cut && row.is_crush() && value["home"] != "nothing missed",
            Self::Later => is_cut,
        }
    }

    /// How much room a row left, if there is a number: the less the worse.
    pub fn room(self, row: &Row, value: &Value) -> Option<f64> {
        let number = |name: &str| value[name].as_f64();
        match self {
            Self::Played | Self::Proven => None,
            Self::Direct => number("direct_share").map(|share| share - DIRECT),
            Self::Silence => number("longest_silence_ms").map(|ms| SILENCE - ms),
            Self::SilenceWithLoss => number("longest_silence_ms").map(|ms| SILENCE_WITH_LOSS - ms),
            Self::Home | Self::CrushHome => number("home_ms").map(|ms| limit_home(row, value) - ms),
            Self::Later => number("later_silence_ms").map(|ms| LATER - ms),
        }
    }

    /// What of it was missed by a row that it concerns.
    pub fn missed(self, row: &Row, value: &Value) -> Vec<String> {
        let is_kept = self.room(row, value).is_some_and(|room| room >= 0.0);
        let number = |name: &str| value[name].as_f64().unwrap_or_default();
        let missed = match self {
            Self::Played => return words(&value["faults"]),
            Self::Proven if value["proof_s"].is_number() => return Vec::new(),
            Self::Proven => "never direct".to_owned(),
            _ if is_kept => return Vec::new(),
            Self::Direct => format!(
                "direct for {:.1} %: {}",
                100.0 * number("direct_share"),
                words(&value["reasons"]).join(", ")
            ),
            Self::Silence | Self::SilenceWithLoss => {
                format!("silent for {} ms", number("longest_silence_ms"))
            }
            Self::Home | Self::CrushHome if value["home"] == "never" => {
                "silent to the end after the cut".to_owned()
            }
            Self::Home | Self::CrushHome => format!(
                "home {} ms after the cut, {} reports lost",
                number("home_ms"),
                number("telling_reports_lost")
            ),
            Self::Later => format!("silent for {} ms after it was home", number("later_silence_ms")),
        };
        vec![missed]
    }
}

fn limit_home(row: &Row, value: &Value) -> f64 {
    let lost = value["telling_reports_lost"].as_f64().unwrap_or_default();
    if row.is_crush() { CRUSH_HOME } else { HOME + REPORT * lost }
}

fn words(value: &Value) -> Vec<String> {
    value.as_array().into_iter().flatten().filter_map(Value::as_str).map(str::to_owned).collect()
}

/// What of all bounds a row has missed.
pub fn missed(row: &Row, value: &Value) -> Vec<String> {
    let concerning = ALL.into_iter().filter(|bound| bound.concerns(row, value));
    concerning.flat_map(|bound| bound.missed(row, value)).collect()
}

/// A line of the summary.
#[derive(Debug, Clone, PartialEq)]
pub struct Line {
    /// What must hold.
    pub name: String,
    /// Of how many, rows or moves, and by how many it was kept.
    pub kept: [usize; 2],
    /// It holds.
    pub holds: bool,
    /// The one that left the least room.
    pub worst: Option<String>,
}

/// Each bound over all rows.
pub fn summary(rows: &[(Row, &Value)]) -> Vec<Line> {
    let mut lines: Vec<Line> = ALL.into_iter().map(|bound| over(bound, rows)).collect();
    lines.push(moves(rows));
    lines
}

fn over(bound: Bound, rows: &[(Row, &Value)]) -> Line {
    let concerned: Vec<_> = rows.iter().filter(|(row, value)| bound.concerns(row, value)).collect();
    let kept = concerned.iter().filter(|(row, value)| bound.missed(row, value).is_empty()).count();
    let room = |(row, value): &&(Row, &Value)| bound.room(row, value);
    let rooms = concerned.iter().filter_map(|one| room(one).map(|room| (room, one)));
    let worst = rooms.min_by(|one, other| one.0.total_cmp(&other.0)).map(|(_, (row, value))| {
        let number = match bound {
            Bound::Direct => format!("{:.1} %", 100.0 * value["direct_share"].as_f64().unwrap_or_default()),
            Bound::Home | Bound::CrushHome => format!("{} ms", value["home_ms"]),
            Bound::Later => format!("{} ms", value["later_silence_ms"]),
            _ => format!("{} ms", value["longest_silence_ms"]),
        };
        format!("{number}: {row}")
    });
    Line {
        name: bound.name().to_owned(),
        kept: [concerned.len(), kept],
        holds: kept == concerned.len(),
        worst,
    }
}

/// The moves of all rows with loss together.
fn moves(rows: &[(Row, &Value)]) -> Line {
    let with_loss = rows.iter().filter(|(row, _)| row.loss > 0);
    let all = with_loss.flat_map(|(_, value)| value["moves_ms"].as_array().into_iter().flatten());
    let mut silences: Vec<f64> = all.filter_map(Value::as_f64).collect();
    silences.sort_by(f64::total_cmp);
    let short = silences.iter().filter(|silence| **silence <= SHORT_MOVE).count();
    let rank = (silences.len() as f64 * MOST).ceil() as usize;
    let quantile = silences.get(rank.saturating_sub(1));
    Line {
        name: "with loss: silence of 95 % of the moves at most 250 ms".to_owned(),
        kept: [silences.len(), short],
        holds: short as f64 >= silences.len() as f64 * MOST,
        worst: quantile.map(|silence| format!("{silence} ms at 95 %")),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::row::{Cut, Vad};
    use super::*;
    use crate::phone::Kind;

    fn row(loss: u8, cut: Cut) -> Row {
        Row { kinds: [Kind::Linphone, Kind::Pjsua], loss, vad: Vad::One, cut, seconds: 180, run: 1 }
    }

    fn with(more: Value) -> Value {
        let mut value = json!({
            "direct_share": 1.0, "longest_silence_ms": 100, "proof_s": 6.0, "moves_ms": [100, 40], "reasons": [], "faults": [],
        });
        if let (Some(value), Value::Object(more)) = (value.as_object_mut(), more) {
            value.extend(more);
        }
        value
    }

    fn cut(home: u64, lost: u32) -> Value {
        let home = json!({ "home": "heard", "home_ms": home, "telling_reports_lost": lost });
        let mut value = with(json!({ "cut_s": 30.0, "later_silence_ms": 20 }));
        value.as_object_mut().unwrap().extend(home.as_object().unwrap().clone());
        value
    }

    #[test]
    fn each_lost_report_gives_a_cut_path_its_interval_more() {
        let row = row(0, Cut::Both);
        assert!(missed(&row, &cut(6_900, 0)).is_empty());
        assert_eq!(missed(&row, &cut(7_100, 0)).len(), 1);
        assert!(missed(&row, &cut(13_100, 1)).is_empty());
        let crush = Row { kinds: [Kind::Softphone; 2], ..row };
        assert_eq!(missed(&crush, &cut(310, 1)).len(), 1);
    }

    #[test]
    fn silence_has_another_limit_with_loss() {
        let silent = with(json!({ "longest_silence_ms": 300 }));
        assert_eq!(missed(&row(0, Cut::None), &silent), ["silent for 300 ms"]);
        assert!(missed(&row(2, Cut::None), &silent).is_empty());
    }

    #[test]
    fn what_is_not_in_a_row_is_not_kept() {
        let row = row(0, Cut::Both);
        let never = with(json!({ "proof_s": null, "direct_share": 0.0 }));
        assert_eq!(missed(&row, &never), ["never direct"]);
        let mut silent = cut(0, 0);
        silent["home"] = "never".into();
        silent["home_ms"] = Value::Null;
        assert_eq!(missed(&row, &silent), ["silent to the end after the cut"]);
        silent["home"] = "nothing missed".into();
        assert!(missed(&row, &silent).is_empty());
    }

    #[test]
    fn the_summary_has_each_bound_and_the_moves_of_all_rows_with_loss() {
        let rows = [
            (row(2, Cut::None), with(json!({ "moves_ms": [10, 20, 300] }))),
            (
                row(0, Cut::None),
                with(json!({ "direct_share": 0.9, "reasons": ["returning quality at 9 s"] })),
            ),
        ];
        let rows: Vec<_> = rows.iter().map(|(row, value)| (*row, value)).collect();
        let lines = summary(&rows);
        assert_eq!(lines.len(), ALL.len() + 1);
        let failed: Vec<_> = lines.iter().filter(|line| !line.holds).map(|line| line.kept).collect();
        assert_eq!(failed, [[2, 1], [3, 2]]);
    }
}
