//! `sbc policy`: drafts from the command line. What they mean is the database's to say (migration 14).

pub mod sheet;

use std::fmt::Write;
use std::path::PathBuf;

use clap::Subcommand;
use serde_json::Value;
use sqlx::postgres::{PgConnection, PgRow};
use sqlx::{Connection, Error, Row};

pub use sheet::Kind;

/// Rows of a sheet that go to the database at a time.
const BATCH: usize = 2_000;

/// What is done with drafts.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// The drafts there are, and the version in force.
    List,
    /// A new draft.
    Open {
        /// Its name.
        draft: String,
        /// What it is for.
        #[arg(long, default_value = "")]
        comment: String,
    },
    /// Rows as they shall be, from a CSV file whose first line names columns; all of them, or none if a line has a mistake.
    Import {
        /// The draft.
        draft: String,
        /// What they are.
        kind: Kind,
        /// The file; `-` is standard input.
        file: PathBuf,
        /// The rows shall not be any more; columns that are not of their key are passed over.
        #[arg(long)]
        remove: bool,
    },
    /// What a draft would change.
    Show {
        /// The draft.
        draft: String,
    },
    /// All that is wrong with a draft.
    Check {
        /// The draft.
        draft: String,
    },
    /// Bring a draft into force: all of it, or nothing.
    Activate {
        /// The draft.
        draft: String,
    },
    /// Throw a draft away.
    Discard {
        /// The draft.
        draft: String,
    },
    /// A draft that takes back all that came after a version.
    Rollback {
        /// The version to go back to; 0 is what was before the first.
        version: i64,
        /// The draft's name.
        draft: String,
    },
    /// The versions, the last one at the end.
    History,
}

/// Who does it, and what is known besides the database.
#[derive(Debug)]
pub struct Desk {
    /// The person, as `sbc.actor` names him; `None`: the database's user.
    pub actor: Option<String>,
    /// The realms of the configuration, if it could be read: a route from another one is a mistake.
    pub realms: Option<Vec<String>>,
}

/// Why a command came to nothing.
#[derive(Debug, thiserror::Error)]
pub enum Refused {
    /// The file has mistakes.
    #[error("{0}")]
    Sheet(#[from] sheet::Mistakes),
    /// It can't be read.
    #[error("{0}: {1}")]
    File(String, std::io::Error),
    /// The draft has mistakes; a line each.
    #[error("{0}")]
    Draft(String),
    /// The database says why, and maybe what to do.
    #[error("{}", told(.0))]
    Database(#[from] Error),
}

fn told(error: &Error) -> String {
    let Some(error) = error.as_database_error() else { return error.to_string() };
    let hint = error.try_downcast_ref::<sqlx::postgres::PgDatabaseError>().and_then(|error| error.hint());
    match (error.code().as_deref(), hint) {
        (Some("42501"), None) => {
            format!("{error}; connect as a member of sbc_operator (--database, or SBC_OPERATOR_URL)")
        }
        (_, Some(hint)) => format!("{error}. {hint}"),
        (_, None) => error.to_string(),
    }
}

impl Desk {
    /// Does it; what is to be shown.
    pub async fn run(&self, command: &Command, url: &str) -> Result<String, Refused> {
        let mut connection = PgConnection::connect(url).await?;
        if let Some(actor) = &self.actor {
            sqlx::query("SELECT set_config('sbc.actor', $1, false)")
                .bind(actor)
                .execute(&mut connection)
                .await?;
        }
        let done = match command {
            Command::List => list(&mut connection).await,
            Command::Open { draft, comment } => {
                sqlx::query("SELECT sbc_draft_open($1, $2)")
                    .bind(draft)
                    .bind(comment)
                    .execute(&mut connection)
                    .await?;
                Ok(format!("the draft {draft} is open\n"))
            }
            Command::Import { draft, kind, file, remove } => {
                let rows = sheet::rows(*kind, opened(file)?)?;
                import(&mut connection, draft, *kind, &rows, *remove).await
            }
            Command::Show { draft } => show(&mut connection, draft).await,
            Command::Check { draft } => {
                self.check(&mut connection, draft).await?;
                Ok(format!("the draft {draft} can come into force\n"))
            }
            Command::Activate { draft } => {
                self.check(&mut connection, draft).await?;
                let version: i64 = sqlx::query_scalar("SELECT sbc_draft_activate($1)")
                    .bind(draft)
                    .fetch_one(&mut connection)
                    .await?;
                Ok(format!("version {version} is in force\n"))
            }
            Command::Discard { draft } => {
                sqlx::query("SELECT sbc_draft_discard($1)").bind(draft).execute(&mut connection).await?;
                Ok(format!("the draft {draft} is gone\n"))
            }
            Command::Rollback { version, draft } => {
                sqlx::query("SELECT sbc_draft_rollback($1, $2)")
                    .bind(version)
                    .bind(draft)
                    .execute(&mut connection)
                    .await?;
                Ok(format!(
                    "the draft {draft} takes back what came after version {version}; look at it, then activate it\n"
                ))
            }
            Command::History => history(&mut connection).await,
        };
        Ok(done?)
    }

    /// Says all that is wrong with a draft.
    async fn check(&self, connection: &mut PgConnection, draft: &str) -> Result<(), Refused> {
        let found = sqlx::query("SELECT kind, key::text, reason FROM sbc_draft_check($1)")
            .bind(draft)
            .fetch_all(&mut *connection)
            .await?;
        let mut mistakes = String::new();
        for row in &found {
            let (kind, key, reason): (String, String, String) =
                (row.try_get(0)?, row.try_get(1)?, row.try_get(2)?);
            let _ = writeln!(mistakes, "{kind} {}: {reason}", shown(&key));
        }
        if let Some(realms) = &self.realms {
            let strange = sqlx::query(
                "SELECT key::text, key ->> 'from_realm' FROM draft_change
                 WHERE draft = $1 AND kind = 'route' AND wanted IS NOT NULL AND key ->> 'from_realm' <> ALL ($2) ORDER BY key",
            );
            for row in strange.bind(draft).bind(realms).fetch_all(connection).await? {
                let (key, realm): (String, String) = (row.try_get(0)?, row.try_get(1)?);
                let _ = writeln!(
                    mistakes,
                    "route {}: the configuration has no realm {realm:?}; it has: {}",
                    shown(&key),
                    realms.join(", ")
                );
            }
        }
        if mistakes.is_empty() { Ok(()) } else { Err(Refused::Draft(mistakes.trim_end().to_owned())) }
    }
}

fn opened(file: &PathBuf) -> Result<Box<dyn std::io::Read>, Refused> {
    if file.as_os_str() == "-" {
        return Ok(Box::new(std::io::stdin()));
    }
    match std::fs::File::open(file) {
        Ok(file) => Ok(Box::new(std::io::BufReader::new(file))),
        Err(error) => Err(Refused::File(file.display().to_string(), error)),
    }
}

async fn import(
    connection: &mut PgConnection,
    draft: &str,
    kind: Kind,
    rows: &[Value],
    remove: bool,
) -> Result<String, Error> {
    let statement = if remove {
        "SELECT count(sbc_draft_drop($1, $2, row)) FROM unnest($3::jsonb[]) AS row"
    } else {
        "SELECT count(sbc_draft_put($1, $2, row)) FROM unnest($3::jsonb[]) AS row"
    };
    let mut transaction = connection.begin().await?;
    for rows in rows.chunks(BATCH) {
        sqlx::query(statement).bind(draft).bind(kind.word()).bind(rows).execute(&mut *transaction).await?;
    }
    transaction.commit().await?;
    Ok(format!("{} rows are in the draft {draft}\n", rows.len()))
}

async fn list(connection: &mut PgConnection) -> Result<String, Error> {
    let version: i64 = sqlx::query_scalar("SELECT sbc_policy_version()").fetch_one(&mut *connection).await?;
    let mut out = format!("version {version} is in force\n");
    let drafts = sqlx::query(
        "SELECT name, comment, base, opened_by, to_char(opened_at, 'YYYY-MM-DD HH24:MI'), count(draft)
         FROM draft LEFT JOIN draft_change ON draft = name GROUP BY name ORDER BY name",
    );
    for row in drafts.fetch_all(connection).await? {
        let (name, comment): (String, String) = (row.try_get(0)?, row.try_get(1)?);
        let (base, by): (i64, String) = (row.try_get(2)?, row.try_get(3)?);
        let (at, count): (String, i64) = (row.try_get(4)?, row.try_get(5)?);
        let comment = if comment.is_empty() { String::new() } else { format!(": {}", shown(&comment)) };
        let _ = writeln!(
            out,
            "draft {}, {count} rows, opened on version {base} by {} at {at}{comment}",
            shown(&name),
            shown(&by)
        );
    }
    Ok(out)
}

async fn show(connection: &mut PgConnection, draft: &str) -> Result<String, Error> {
    let rows = sqlx::query("SELECT kind, key::text, was, wanted, changed_by FROM draft_difference WHERE draft = $1 ORDER BY kind, key")
        .bind(draft)
        .fetch_all(connection)
        .await?;
    let mut out = String::new();
    for row in &rows {
        difference(row, &mut out)?;
    }
    let _ = writeln!(out, "{} rows", rows.len());
    Ok(out)
}

fn difference(row: &PgRow, out: &mut String) -> Result<(), Error> {
    let (kind, key, by): (String, String, String) = (row.try_get(0)?, row.try_get(1)?, row.try_get(4)?);
    let (was, wanted): (Option<Value>, Option<Value>) = (row.try_get(2)?, row.try_get(3)?);
    let what = match (&was, &wanted) {
        (None, None) => "is not there, and shall not be".to_owned(),
        (Some(_), None) => "goes".to_owned(),
        (None, Some(wanted)) => format!("comes: {wanted}"),
        (Some(was), Some(wanted)) => format!("was {was}, becomes {wanted}"),
    };
    let _ = writeln!(out, "{kind} {} {} ({})", shown(&key), shown(&what), shown(&by));
    Ok(())
}

async fn history(connection: &mut PgConnection) -> Result<String, Error> {
    let rows = sqlx::query(
        "SELECT version, to_char(at, 'YYYY-MM-DD HH24:MI:SS'), by, array_to_string(authors, ', '), draft, comment,
            (SELECT count(*) FROM policy_history WHERE policy_history.version = policy_version.version)
         FROM policy_version ORDER BY version",
    );
    let mut out = String::new();
    for row in rows.fetch_all(connection).await? {
        let (version, at): (i64, String) = (row.try_get(0)?, row.try_get(1)?);
        let text = |column: usize| row.try_get::<String, _>(column).map(|text| shown(&text));
        let (by, authors, draft, comment) = (text(2)?, text(3)?, text(4)?, text(5)?);
        let count: i64 = row.try_get(6)?;
        let comment = if comment.is_empty() { comment } else { format!(": {comment}") };
        let _ = writeln!(
            out,
            "version {version}, {at}, by {by}: draft {draft} of {authors}, {count} rows{comment}"
        );
    }
    if out.is_empty() {
        out.push_str("no draft has come into force yet\n");
    }
    Ok(out)
}

/// On a terminal nothing but letters.
fn shown(text: &str) -> String {
    text.chars().map(|letter| if letter.is_control() { '\u{fffd}' } else { letter }).collect()
}
