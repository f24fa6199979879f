//! What is said of work that the database holds up.
//!
//! **Whoever tells of trouble tells of its end**, each in words of its own, so that an operator who has read the first line need not
//! guess whether it still holds. And only an answer of the database ends it: that there was nothing to ask proves nothing.

use std::fmt;
use std::io::ErrorKind;
use std::time::{Duration, Instant};

use sqlx::ConnectOptions;
use sqlx::postgres::{PgConnectOptions, PgPool};

/// How often trouble that lasts is told again.
const AGAIN: Duration = Duration::from_secs(60);

/// The trouble of one piece of work: told when it begins, again while it lasts, and when it is over.
#[derive(Debug)]
pub struct Trouble {
    over: &'static str,
    told: Option<Instant>,
}

impl Trouble {
    /// None yet; `over` is the line that says that it has ended.
    pub const fn new(over: &'static str) -> Self {
        Self { over, told: None }
    }

    /// Whether it was told of and has not ended.
    pub fn lasts(&self) -> bool {
        self.told.is_some()
    }

    /// An attempt has failed: whether a line is due.
    #[must_use]
    pub fn must_tell(&mut self) -> bool {
        let is_due = self.told.is_none_or(|at| at.elapsed() > AGAIN);
        if is_due {
            self.told = Some(Instant::now());
        }
        is_due
    }

    /// The database has answered.
    pub fn end(&mut self) {
        if self.told.take().is_some() {
            tracing::info!("{}", self.over);
        }
    }
}

/// An error of the database in words that name its cause, and what to do about it.
#[derive(Debug)]
pub struct Diagnosis {
    /// What has happened.
    pub why: String,
    /// What to do.
    pub cure: &'static str,
}

impl fmt::Display for Diagnosis {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{}; {}", self.why, self.cure)
    }
}

/// Finds out what an error means. Takes two seconds at most, where the pool does not say why it found no connection.
pub async fn diagnose(pool: &PgPool, error: &sqlx::Error) -> Diagnosis {
    let behind = behind_timeout(pool, error).await;
    let why = match (error, &behind) {
        (_, Some(cause)) => cause.to_string(),
        (sqlx::Error::PoolTimedOut, None) => {
            "all connections of the pool were busy, or the server was slow".to_owned()
        }
        (_, None) => error.to_string(),
    };
    Diagnosis { why, cure: cure(behind.as_ref().unwrap_or(error), is_socket(&pool.connect_options())) }
}

/// A pool that found no connection in time does not say why; one more attempt without it does.
async fn behind_timeout(pool: &PgPool, error: &sqlx::Error) -> Option<sqlx::Error> {
    if !matches!(error, sqlx::Error::PoolTimedOut) {
        return None;
    }
    let options = pool.connect_options();
    match tokio::time::timeout(Duration::from_secs(2), options.connect()).await {
        Ok(attempt) => attempt.err(),
        Err(_) => {
            let silence = std::io::Error::new(ErrorKind::TimedOut, "the server does not answer");
            Some(sqlx::Error::Io(silence))
        }
    }
}

/// Whether the URL names the directory of a socket, so that there is no host and port to be wrong.
fn is_socket(options: &PgConnectOptions) -> bool {
    options.get_socket().is_some() || options.get_host().starts_with('/')
}

fn cure(error: &sqlx::Error, is_socket: bool) -> &'static str {
    let code = error.as_database_error().and_then(|error| error.code());
    match code.as_deref() {
        // undefined_table, undefined_column, undefined_function
        Some("42P01" | "42703" | "42883") => "the schema is not up to date: run `sbc migrate`",
        // insufficient_privilege
        Some("42501") => {
            "the user of database.url lacks a right: `GRANT sbc_runtime` to it, and see `sbc doctor`"
        }
        Some(code) if code.starts_with("28") => "the user or password of database.url is refused",
        // invalid_catalog_name
        Some("3D000") => "create the database that database.url names",
        // too_many_connections
        Some("53300") => "raise max_connections of the server, or let others use fewer",
        // admin_shutdown, crash_shutdown, cannot_connect_now
        Some("57P01" | "57P02" | "57P03") => "the server is stopping or starting; see that it comes up",
        Some(_) => "see the server's log",
        None => match error {
            sqlx::Error::Io(error) => cure_of_connection(error.kind(), is_socket),
            _ => "check database.url and the server",
        },
    }
}

fn cure_of_connection(kind: ErrorKind, is_socket: bool) -> &'static str {
    match (kind, is_socket) {
        (ErrorKind::NotFound, true) => {
            "there is no such socket: is the server up, and is that its directory?"
        }
        (ErrorKind::ConnectionRefused, true) => {
            "nothing listens at the socket of database.url: is the server up?"
        }
        (ErrorKind::PermissionDenied, true) => "this user may not open the socket of database.url",
        (ErrorKind::ConnectionRefused, false) => {
            "nothing listens there: is the server up, and is that its port?"
        }
        (
            ErrorKind::UnexpectedEof
            | ErrorKind::BrokenPipe
            | ErrorKind::ConnectionReset
            | ErrorKind::ConnectionAborted,
            _,
        ) => "the server has closed the connection: is it up?",
        (_, true) => "check the server, and the socket of database.url",
        (_, false) => "check the host and port of database.url, and the way there",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn host_and_port_are_spoken_of_only_where_the_url_names_some() {
        let options = |url: &str| url.parse::<PgConnectOptions>().unwrap();
        assert!(is_socket(&options("postgres://sbc@localhost/sbc?host=/run/postgresql")));
        assert!(is_socket(&options("postgres:///sbc?host=/run/postgresql")));
        assert!(!is_socket(&options("postgres://sbc@db.example/sbc")));
        for kind in [
            ErrorKind::NotFound,
            ErrorKind::ConnectionRefused,
            ErrorKind::PermissionDenied,
            ErrorKind::UnexpectedEof,
            ErrorKind::BrokenPipe,
            ErrorKind::ConnectionReset,
            ErrorKind::TimedOut,
            ErrorKind::Other,
        ] {
            let said = cure_of_connection(kind, true);
            assert!(!said.contains("host") && !said.contains("port"), "{kind}: {said}");
        }
        assert!(cure_of_connection(ErrorKind::TimedOut, false).contains("host and port"));
    }

    #[test]
    fn trouble_that_lasts_is_told_once_a_minute_and_again_after_it_was_over() {
        let mut trouble = Trouble::new("it goes on");
        assert!(trouble.must_tell() && trouble.lasts());
        assert!(!trouble.must_tell());
        trouble.end();
        assert!(!trouble.lasts() && trouble.must_tell());
    }
}
