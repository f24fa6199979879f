//! What became of the calls of each pair of phones and NATs.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::time::Duration;

use serde_json::{Value, json};

use play::ground::Place;
use play::phone::plain::Kind;

/// One call.
#[derive(Debug)]
pub(crate) struct Call {
    pub(crate) phones: [Kind; 2],
    pub(crate) place: Place,
    /// After the answer.
    pub(crate) direct_at: Option<Duration>,
    /// From a direct path, or from a move that was given up.
    pub(crate) returned: bool,
    pub(crate) is_silent: bool,
    /// The longest that somebody heard nothing.
    pub(crate) longest: Duration,
    /// The same until something was done to the call, where the path worked until then.
    pub(crate) gap: Option<Duration>,
}

#[derive(Debug, Default)]
struct Row {
    runs: usize,
    direct: Vec<f64>,
    returned: usize,
    silent: usize,
    gaps: Vec<f64>,
}

impl Row {
    fn add(&mut self, call: &Call) {
        self.runs += 1;
        self.direct.extend(call.direct_at.map(|at| at.as_secs_f64()));
        self.returned += usize::from(call.returned);
        self.silent += usize::from(call.is_silent);
        self.gaps.extend(call.gap.map(|gap| gap.as_secs_f64() * 1000.0));
    }
}

/// The share's value, `None` of nothing.
fn quantile(values: &[f64], share: f64) -> Option<f64> {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let last = sorted.len().checked_sub(1)?;
    sorted.get((last as f64 * share).round() as usize).copied()
}

#[derive(Debug, Default)]
pub(crate) struct Census {
    rows: BTreeMap<[String; 4], Row>,
}

fn nat_name(place: Place, index: usize) -> String {
    match place {
        Place::OneLan => "one LAN".to_owned(),
        Place::Realms(addresses) => addresses[index].to_owned(),
        Place::Apart(nats) => nats[index].map_or("none".to_owned(), |nat| nat.name().to_owned()),
    }
}

impl Census {
    pub(crate) fn add(&mut self, call: Call) {
        let mut ends = [0, 1].map(|index| {
            (format!("{:?}", call.phones[index]).to_ascii_lowercase(), nat_name(call.place, index))
        });
        ends.sort();
        let [(a, nat_a), (b, nat_b)] = ends;
        self.rows.entry([a, b, nat_a, nat_b]).or_default().add(&call);
    }

    /// By pairs of phones, all NATs together, and by pairs of NATs, all phones together.
    pub(crate) fn table(&self) -> String {
        let mut text = String::new();
        for pick in [[0, 1], [2, 3]] {
            let mut sums: BTreeMap<[&str; 2], Row> = BTreeMap::new();
            for (key, row) in &self.rows {
                let mut names = pick.map(|index| key[index].as_str());
                names.sort_unstable();
                let sum = sums.entry(names).or_default();
                sum.runs += row.runs;
                sum.direct.extend(&row.direct);
                sum.returned += row.returned;
                sum.silent += row.silent;
                sum.gaps.extend(&row.gaps);
            }
            let _ = writeln!(
                text,
                "{:<22} {:<22} {:>6} {:>6} {:>8} {:>6}   time to direct, s: median 95 %   gap, ms: median 95 % most",
                "", "", "runs", "direct", "returned", "silent"
            );
            for ([a, b], row) in &sums {
                let number = |value: Option<f64>| value.map_or("-".to_owned(), |value| format!("{value:.1}"));
                let _ = writeln!(
                    text,
                    "{a:<22} {b:<22} {:>6} {:>6} {:>8} {:>6} {:>27} {:>6} {:>17} {:>5} {:>5}",
                    row.runs,
                    row.direct.len(),
                    row.returned,
                    row.silent,
                    number(quantile(&row.direct, 0.5)),
                    number(quantile(&row.direct, 0.95)),
                    number(quantile(&row.gaps, 0.5)),
                    number(quantile(&row.gaps, 0.95)),
                    number(quantile(&row.gaps, 1.0)),
                );
            }
        }
        text
    }

    pub(crate) fn json(&self) -> String {
        let rows: Vec<Value> = self
            .rows
            .iter()
            .map(|([a, b, nat_a, nat_b], row)| {
                json!({
                    "a": a, "b": b, "nat_a": nat_a, "nat_b": nat_b,
                    "runs": row.runs, "direct": row.direct.len(), "returned": row.returned, "silent": row.silent,
                    "time_to_direct_s": {
                        "median": quantile(&row.direct, 0.5), "p95": quantile(&row.direct, 0.95)
                    },
                    "gap_ms": {
                        "median": quantile(&row.gaps, 0.5), "p95": quantile(&row.gaps, 0.95),
                        "max": quantile(&row.gaps, 1.0)
                    },
                })
            })
            .collect();
        format!("{:#}\n", Value::from(rows))
    }
}
