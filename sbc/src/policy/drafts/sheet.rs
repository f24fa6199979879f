//! Rows of policy from CSV (RFC 4180): the first line names columns, and every mistake is told with its line.

use std::collections::HashMap;
use std::fmt;
use std::io::Read;

use csv::StringRecord;
use serde_json::{Map, Value};

/// More mistakes than this are counted only.
const SHOWN: usize = 50;

/// What drafts may hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Kind {
    /// Which calls go to which trunk.
    Route,
}

/// What a column holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Column {
    /// Nothing stands for none (NULL).
    Name,
    Text,
    Number,
}

impl Kind {
    /// As the database calls it.
    pub fn word(self) -> &'static str {
        match self {
            Kind::Route => "route",
        }
    }

    /// Its columns; those of its key first, and how many they are.
    fn columns(self) -> (&'static [(&'static str, Column)], usize) {
        match self {
            Kind::Route => {
                const ROUTE: &[(&str, Column)] = &[
                    ("from_realm", Column::Name),
                    ("prefix", Column::Text),
                    ("trunk", Column::Name),
                    ("priority", Column::Number),
                    ("weight", Column::Number),
                    ("strip", Column::Number),
                    ("prepend", Column::Text),
                ];
                (ROUTE, 3)
            }
        }
    }
}

/// What is wrong with a sheet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mistake {
    /// From 1.
    pub line: u64,
    /// What is there, and what should be.
    pub what: String,
}

/// All that is wrong with it: nothing of it is taken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mistakes(Vec<Mistake>);

impl fmt::Display for Mistakes {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        for Mistake { line, what } in self.0.iter().take(SHOWN) {
            writeln!(out, "line {line}: {what}")?;
        }
        if let Some(more) = self.0.len().checked_sub(SHOWN).filter(|more| *more > 0) {
            writeln!(out, "and {more} more")?;
        }
        write!(out, "{} mistakes: nothing was taken", self.0.len())
    }
}

impl std::error::Error for Mistakes {}

/// The rows of a sheet, as `sbc_draft_put` takes them.
///
/// # Errors
/// All mistakes, of all lines.
pub fn rows(kind: Kind, sheet: impl Read) -> Result<Vec<Value>, Mistakes> {
    let mut reader = csv::ReaderBuilder::new().flexible(true).trim(csv::Trim::All).from_reader(sheet);
    let mut mistakes = Vec::new();
    let head = match reader.headers() {
        Ok(head) => columns(kind, head).map_err(|what| Mistakes(vec![Mistake { line: 1, what }]))?,
        Err(error) => return Err(Mistakes(vec![mistake(&error)])),
    };
    let (mut rows, mut seen) = (Vec::new(), HashMap::new());
    for record in reader.records() {
        let record = match record {
            Ok(record) => record,
            Err(error) => {
                mistakes.push(mistake(&error));
                // What can't be read at all does not get better behind it.
                if !matches!(error.kind(), csv::ErrorKind::Utf8 { .. }) {
                    break;
                }
                continue;
            }
        };
        let line = record.position().map_or(0, csv::Position::line);
        match row(kind, &head, &record) {
            Ok((key, row)) => {
                if let Some(before) = seen.insert(key, line) {
                    mistakes.push(Mistake { line, what: format!("the same as line {before}") });
                }
                rows.push(Value::Object(row));
            }
            Err(wrong) => mistakes.extend(wrong.into_iter().map(|what| Mistake { line, what })),
        }
    }
    if mistakes.is_empty() { Ok(rows) } else { Err(Mistakes(mistakes)) }
}

fn mistake(error: &csv::Error) -> Mistake {
    let line = error.position().map_or(1, csv::Position::line);
    let what = match error.kind() {
        csv::ErrorKind::Utf8 { .. } => "is not UTF-8".to_owned(),
        _ => error.to_string(),
    };
    Mistake { line, what }
}

/// The columns of the first line.
fn columns(kind: Kind, head: &StringRecord) -> Result<Vec<(&'static str, Column)>, String> {
    let (known, keys) = kind.columns();
    let names = || known.iter().map(|(name, _)| *name).collect::<Vec<_>>().join(", ");
    let mut columns: Vec<(&str, Column)> = Vec::new();
    for name in head {
        let Some(column) = known.iter().find(|(known, _)| *known == name) else {
            return Err(format!("a {} has no column {name:?}; it has: {}", kind.word(), names()));
        };
        if columns.contains(column) {
            return Err(format!("two columns {name}"));
        }
        columns.push(*column);
    }
    // Where they are left out all rows would be one.
    let missing = known.iter().take(keys).skip(1).find(|column| !columns.contains(column));
    match missing {
        Some((name, _)) => Err(format!("the column {name} is missing; a {} has: {}", kind.word(), names())),
        None => Ok(columns),
    }
}

type Row = Map<String, Value>;

/// Its key and itself, or all that is wrong with it.
fn row(
    kind: Kind,
    head: &[(&'static str, Column)],
    record: &StringRecord,
) -> Result<(Vec<String>, Row), Vec<String>> {
    if record.len() != head.len() {
        return Err(vec![format!("{} fields, where the first line names {}", record.len(), head.len())]);
    }
    let (mut row, mut wrong) = (Row::new(), Vec::new());
    for ((name, column), field) in head.iter().zip(record) {
        let value = match column {
            Column::Name | Column::Number if field.is_empty() => continue,
            Column::Name | Column::Text => Value::from(field),
            Column::Number => match field.parse::<i32>() {
                Ok(number) => Value::from(number),
                Err(_) => {
                    wrong.push(format!("{name}: {field:?} is no whole number"));
                    continue;
                }
            },
        };
        row.insert((*name).to_owned(), value);
    }
    let (known, keys) = kind.columns();
    let keys = known.iter().take(keys);
    let key = keys.map(|(name, _)| row.get(*name).map(Value::to_string).unwrap_or_default()).collect();
    if wrong.is_empty() { Ok((key, row)) } else { Err(wrong) }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn said(sheet: &str) -> Vec<String> {
        let Mistakes(mistakes) = rows(Kind::Route, sheet.as_bytes()).unwrap_err();
        mistakes.into_iter().map(|Mistake { line, what }| format!("{line}: {what}")).collect()
    }

    #[test]
    fn columns_come_in_any_order_and_what_is_left_out_is_not_said() {
        let sheet = "trunk,prefix,weight,prepend\n carrier , +49,2,\n\"the other, one\",\"\",,00\n";
        let expected = [
            json!({"trunk": "carrier", "prefix": "+49", "weight": 2, "prepend": ""}),
            json!({"trunk": "the other, one", "prefix": "", "prepend": "00"}),
        ];
        assert_eq!(rows(Kind::Route, sheet.as_bytes()).unwrap(), expected);
        assert_eq!(rows(Kind::Route, "prefix,trunk\r\n".as_bytes()).unwrap(), Vec::<Value>::new());
    }

    #[test]
    fn every_mistake_is_told_with_its_line() {
        let sheet = "prefix,trunk,weight,strip\n+1,a,1,0\n+2,a,many,1.5\n+3,a\n+1,a,3,0\n+4,a,9999999999,\n";
        assert_eq!(
            said(sheet),
            [
                "3: weight: \"many\" is no whole number",
                "3: strip: \"1.5\" is no whole number",
                "4: 2 fields, where the first line names 4",
                "5: the same as line 2",
                "6: weight: \"9999999999\" is no whole number",
            ]
        );
        assert_eq!(said("prefix,trunk\n+1,a\n+\u{fffd},a\n+1,a\n"), ["4: the same as line 2"]);
    }

    #[test]
    fn a_first_line_that_names_other_columns_is_told_what_there_are() {
        let all = "from_realm, prefix, trunk, priority, weight, strip, prepend";
        assert_eq!(
            said("prefix,trunk,colour\n"),
            [format!("1: a route has no column \"colour\"; it has: {all}")]
        );
        assert_eq!(said("prefix,weight\n"), [format!("1: the column trunk is missing; a route has: {all}")]);
        assert_eq!(said("prefix,trunk,trunk\n"), ["1: two columns trunk"]);
        assert_eq!(said(""), [format!("1: the column prefix is missing; a route has: {all}")]);
        let Mistakes(mistakes) = rows(Kind::Route, &b"prefix,trunk\n+1,\xff\n+2,a\n"[..]).unwrap_err();
        assert_eq!(mistakes, [Mistake { line: 2, what: "is not UTF-8".to_owned() }]);
    }
}
