//! The table of long calls: which are to be played, and what came of them, a row each, kept after every one.

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::Value;

use super::row::{Cut, Row, Vad, kind};
use crate::phone::Kind;
use crate::{Failure, Result};

/// What is chosen of all rows.
#[derive(Debug, Clone)]
pub struct Choice {
    /// Pairs of phones, caller first.
    pub pairs: Vec<[Kind; 2]>,
    /// Percent of loss at each NAT.
    pub loss: Vec<u8>,
    /// Who falls silent.
    pub vad: Vec<Vad>,
    /// What becomes of the path.
    pub cuts: Vec<Cut>,
    /// How long a call is that is not cut.
    pub seconds: u32,
    /// How often each is played.
    pub runs: u32,
}

/// How long a call is whose path is cut: its proof, a random time, and what it may take to come home.
const CUT_SECONDS: u32 = 90;

impl Default for Choice {
    /// Each pair of the three families, both orders; of the project's own phone the cuts alone.
    fn default() -> Self {
        let families = [Kind::Baresip, Kind::Linphone, Kind::Pjsua];
        let mut pairs: Vec<[Kind; 2]> =
            families.into_iter().flat_map(|one| families.map(|other| [one, other])).collect();
        pairs.push([Kind::Softphone; 2]);
        let (loss, vad, cuts) = (vec![0, 2], Vad::ALL.to_vec(), Cut::ALL.to_vec());
        Self { pairs, loss, vad, cuts, seconds: 180, runs: 1 }
    }
}

impl Choice {
    /// The rows: long calls first. Of cuts each pair's three ways share the kinds of silence, so that a third of what could be is played.
    pub fn rows(&self) -> Vec<Row> {
        let mut rows = Vec::new();
        for run in 1..=self.runs {
            for &cut in &self.cuts {
                for &loss in &self.loss {
                    for &vad in &self.vad {
                        let seconds = if cut == Cut::None { self.seconds } else { CUT_SECONDS };
                        let row = |&kinds: &[Kind; 2]| Row { kinds, loss, vad, cut, seconds, run };
                        rows.extend(self.pairs.iter().map(row).filter(|row| self.is_wanted(row)));
                    }
                }
            }
        }
        rows
    }

    fn is_wanted(&self, row: &Row) -> bool {
        if row.is_crush() {
            // Its voice is a tone, and it has comparisons, which relay a second of fifteen.
            return row.cut != Cut::None && row.vad == Vad::None;
        }
        // Who asks for one kind of silence gets it.
        let vads = [(Cut::Both, Vad::None), (Cut::Out, Vad::One), (Cut::In, Vad::Both)];
        row.cut == Cut::None || self.vad.len() < Vad::ALL.len() || vads.contains(&(row.cut, row.vad))
    }
}

/// Words with spaces or commas between them.
pub fn list<T>(text: &str, read: impl Fn(&str) -> Result<T>) -> Result<Vec<T>> {
    text.split([' ', ',']).filter(|word| !word.is_empty()).map(read).collect()
}

/// A pair: `baresip-linphone`.
pub fn pair(text: &str) -> Result<[Kind; 2]> {
    let (one, other) = text
        .split_once('-')
        .ok_or_else(|| Failure(format!("{text:?} is no pair: write baresip-linphone")))?;
    Ok([kind(one)?, kind(other)?])
}

/// The rows that are kept in a file.
#[derive(Debug)]
pub struct Table {
    path: PathBuf,
    rows: Vec<Value>,
}

impl Table {
    /// What is in the file, if there is one.
    pub fn open(path: &Path) -> Result<Self> {
        let rows = match fs::read_to_string(path) {
            Ok(text) => serde_json::from_str(&text)
                .map_err(|error| Failure(format!("{}: {error}; mend it or remove it", path.display())))?,
            Err(_) => Vec::new(),
        };
        Ok(Self { path: path.to_owned(), rows })
    }

    /// All rows.
    pub fn rows(&self) -> &[Value] {
        &self.rows
    }

    /// The row of a call that was played.
    pub fn row(&self, of: &Row) -> Option<&Value> {
        self.rows.iter().find(|row| of.is(row))
    }

    /// Appends a row, in the place of an earlier one of the same call, and writes the file.
    pub fn put(&mut self, of: &Row, row: Value) -> Result<()> {
        self.rows.retain(|row| !of.is(row));
        self.rows.push(row);
        let text: Vec<String> = self.rows.iter().map(Value::to_string).collect();
        // A file that is half written would be no table any more.
        let fresh = self.path.with_extension("json.new");
        fs::write(&fresh, format!("[\n{}\n]\n", text.join(",\n")))?;
        Ok(fs::rename(&fresh, &self.path)?)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::super::row::Outcome;
    use super::*;

    #[test]
    fn all_pairs_are_played_with_and_without_loss_silence_and_cuts() {
        let rows = Choice::default().rows();
        let long: Vec<_> = rows.iter().filter(|row| row.cut == Cut::None).collect();
        assert_eq!(long.len(), 9 * 2 * 3);
        assert_eq!(rows.len() - long.len(), 9 * 2 * 3 + 2 * 3);
        let chosen = Choice {
            vad: vec![Vad::Both],
            pairs: vec![pair("baresip-pjsua2").unwrap()],
            ..Choice::default()
        };
        assert_eq!(chosen.rows().len(), 2 * 4);
    }

    #[test]
    fn a_second_run_goes_on_where_the_first_stopped() {
        let path = std::env::temp_dir().join(format!("long-{}.json", std::process::id()));
        let rows = Choice::default().rows();
        let outcome = Outcome { proven: Some(Duration::ZERO), direct_share: 1.0, ..Outcome::default() };
        let mut table = Table::open(&path).unwrap();
        table.put(&rows[0], outcome.row(&rows[0])).unwrap();
        table.put(&rows[1], outcome.row(&rows[1])).unwrap();
        table.put(&rows[0], outcome.row(&rows[0])).unwrap();
        let again = Table::open(&path).unwrap();
        std::fs::remove_file(&path).unwrap();
        assert_eq!(again.rows().len(), 2);
        assert!(again.row(&rows[0]).is_some() && again.row(&rows[2]).is_none());
    }
}
