//! Rows that the database refuses for good, and what is done so that they hold up no others.
//!
//! **Whoever writes rows of strangers writes them through [`sift`].** What many send is written in one statement, and one row that
//! can't be written fails it for all; tried again for ever, it would stop the writing of everybody's.

use std::collections::HashSet;
use std::fmt::Debug;
use std::fs::OpenOptions;
use std::hash::{BuildHasher, RandomState};
use std::io::Write;
use std::ops::Range;
use std::os::unix::fs::OpenOptionsExt;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};

use serde_json::{Value, json};
use sqlx::postgres::PgDatabaseError;

/// Rows set aside that are remembered, so that each is told once however often it comes.
const REMEMBERED: usize = 1_024;
/// The file of rows set aside grows no further; what comes then is only counted.
const ASIDE: u64 = 16 << 20;

/// What the store tells metrics, records apart (see [`crate::records::ship::ShipCounters`]).
#[derive(Debug, Default)]
pub struct StoreCounters {
    /// Batches that the database did not take at once.
    pub failures: AtomicU64,
    /// Rows that it will never take.
    pub refused: AtomicU64,
}

/// What an error says about the rows that met it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// They are wrong and stay so, however often they are sent.
    Rows,
    /// They may be wrong, or the schema is: they are, if the same statement takes others.
    Doubtful,
    /// Time, an operator or a migration heals it.
    Passing,
}

/// Judges an error by its class (PostgreSQL, Appendix A).
pub fn judge(error: &sqlx::Error) -> Verdict {
    match error {
        sqlx::Error::Encode(_) => return Verdict::Rows,
        sqlx::Error::Database(_) => {}
        _ => return Verdict::Passing,
    }
    let Some(error) = error.as_database_error().and_then(|error| error.try_downcast_ref::<PgDatabaseError>())
    else {
        return Verdict::Passing;
    };
    // An operator's trigger has its own errors, and they may be of one row only.
    let is_of_a_function = error.r#where().is_some();
    let code = error.code();
    match code.get(..2).unwrap_or_default() {
        // Cardinality, data, integrity, WITH CHECK OPTION, program limits (an index row that is too large among them).
        "21" | "22" | "23" | "44" | "54" => Verdict::Rows,
        // No connection; resources; locks and deadlocks; an operator's intervention; the system; a standby; a login; a database.
        "08" | "53" | "55" | "40" | "57" | "58" | "25" | "28" | "3D" | "3F" => Verdict::Passing,
        // A row-level security policy refuses the row; otherwise rights are missing.
        "42" if code == "42501" && error.routine() == Some("ExecWithCheckOptions") => Verdict::Rows,
        // No such table, column, function, type or key: a migration is missing.
        "42" if matches!(code, "42501" | "42P01" | "42703" | "42883" | "42704" | "42P10")
            && !is_of_a_function =>
        {
            Verdict::Passing
        }
        _ => Verdict::Doubtful,
    }
}

/// Writes rows, all in one go or none.
pub trait WriteRows<T: Sync> {
    /// Writes all of them or none.
    fn write(&self, rows: &[T]) -> impl Future<Output = Result<(), sqlx::Error>> + Send;
}

/// What became of rows.
#[derive(Debug, Default)]
pub struct Sifted {
    /// Written.
    pub taken: Vec<Range<usize>>,
    /// Refused for good, by their place, with the reason.
    pub refused: Vec<(usize, sqlx::Error)>,
    /// Why the others are to be tried again later; `None` if there are no others.
    pub left: Option<sqlx::Error>,
}

impl Sifted {
    /// For rows that may be written twice: those refused, or why all are to be tried again.
    pub fn or_again(self) -> Result<Vec<(usize, sqlx::Error)>, sqlx::Error> {
        self.left.map_or(Ok(self.refused), Err)
    }
}

/// Writes all rows that the database takes, in their order: in one go if it takes all, else in ever smaller parts.
pub async fn sift<T: Sync>(rows: &[T], writer: &(impl WriteRows<T> + Sync)) -> Sifted {
    let mut sifted = Sifted::default();
    let mut doubtful = Vec::new();
    let mut parts = Vec::from([Range { start: 0, end: rows.len() }]);
    while let Some(range) = parts.pop() {
        let part = rows.get(range.clone()).unwrap_or_default();
        if part.is_empty() {
            continue;
        }
        let Err(error) = writer.write(part).await else {
            sifted.taken.push(range);
            continue;
        };
        match (judge(&error), part.len()) {
            (Verdict::Passing, _) => {
                sifted.left = Some(error);
                break;
            }
            (Verdict::Rows, 1) => sifted.refused.push((range.start, error)),
            (Verdict::Doubtful, 1) => doubtful.push((range.start, error)),
            (_, length) => {
                let middle = range.start.saturating_add(length / 2);
                parts.push(middle..range.end);
                parts.push(range.start..middle);
            }
        }
    }
    if !sifted.taken.is_empty() {
        sifted.refused.append(&mut doubtful);
    } else if sifted.left.is_none() {
        sifted.left = doubtful.pop().map(|(_, error)| error);
    }
    sifted
}

/// Where rows go that the database refuses: a file of JSON lines, for the eyes of an operator.
#[derive(Debug)]
pub struct Aside {
    file: PathBuf,
    hasher: RandomState,
    told: HashSet<u64>,
}

impl Aside {
    /// Kept in this file, which is made when the first comes.
    pub fn new(file: PathBuf) -> Self {
        Self { file, hasher: RandomState::new(), told: HashSet::new() }
    }

    /// Sets a row aside, and tells of it unless this row was told of.
    pub fn keep(
        &mut self,
        table: &str,
        row: &(impl Debug + ?Sized),
        error: &sqlx::Error,
        counters: &StoreCounters,
    ) {
        counters.refused.fetch_add(1, Ordering::Relaxed);
        let row = format!("{row:?}");
        if self.told.len() >= REMEMBERED {
            self.told.clear();
        }
        if !self.told.insert(self.hasher.hash_one((table, &row))) {
            return;
        }
        let kept = self.append(&json!({"table": table, "error": error.to_string(), "row": row}));
        tracing::error!(
            %error,
            table,
            "the database refuses a row for good; it is set aside in {} and holds up no other: mend the rule that it breaks, or report it",
            self.file.display()
        );
        if let Err(error) = kept {
            tracing::error!(%error, "{} can't be written: the row is lost", self.file.display());
        }
    }

    fn append(&self, row: &Value) -> std::io::Result<()> {
        let mut file = OpenOptions::new().create(true).append(true).mode(0o600).open(&self.file)?;
        if file.metadata()?.len() > ASIDE {
            return Ok(());
        }
        let mut line = serde_json::to_vec(row)?;
        line.push(b'\n');
        file.write_all(&line)
    }
}
