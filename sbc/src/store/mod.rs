//! PostgreSQL: the pool, the schema, and what is read and written there apart from call records.

pub mod bindings;
pub mod call_policy;
pub mod names;
pub mod outcomes;
pub mod refusal;
pub mod snapshot;

use std::time::Duration;

use sqlx::ConnectOptions;
use sqlx::migrate::{Migrate, Migrator};
use sqlx::postgres::{PgPool, PgPoolOptions};

/// The schema, compiled in.
pub static MIGRATIONS: Migrator = sqlx::migrate!("../migrations");

/// A pool that connects when it is needed: the SBC starts without its database.
pub fn pool(url: &str, connections: u32) -> Result<PgPool, String> {
    let options =
        PgPoolOptions::new().max_connections(connections.max(2)).acquire_timeout(Duration::from_secs(3));
    options.connect_lazy(url).map_err(|error| format!("database.url: {error}"))
}

/// A server that has vanished says nothing for a quarter of an hour: what is asked of it ends sooner, and the task that
/// asked comes round.
pub async fn bounded<T>(asked: impl Future<Output = Result<T, sqlx::Error>>) -> Result<T, sqlx::Error> {
    const PATIENCE: Duration = Duration::from_secs(60);
    match tokio::time::timeout(PATIENCE, asked).await {
        Ok(answered) => answered,
        Err(_) => Err(sqlx::Error::Io(std::io::Error::new(
            std::io::ErrorKind::TimedOut,
            "the database has not answered within a minute",
        ))),
    }
}

/// How many migrations the schema lacks.
pub async fn missing_migrations(pool: &PgPool) -> Result<usize, sqlx::Error> {
    let mut connection = pool.acquire().await?;
    let known = MIGRATIONS.iter().filter(|migration| !migration.migration_type.is_down_migration());
    let is_new: Option<String> = sqlx::query_scalar("SELECT to_regclass('_sqlx_migrations')::text")
        .fetch_one(&mut *connection)
        .await?;
    if is_new.is_none() {
        return Ok(known.count());
    }
    let applied = connection
        .list_applied_migrations("_sqlx_migrations")
        .await
        .map_err(|error| sqlx::Error::Migrate(Box::new(error)))?;
    Ok(known.filter(|migration| !applied.iter().any(|applied| applied.version == migration.version)).count())
}

/// An error of the database in words that name its cause.
pub async fn explain(pool: &PgPool, error: &sqlx::Error) -> String {
    match (error, behind_timeout(pool, error).await) {
        (_, Some(cause)) => cause.to_string(),
        (sqlx::Error::PoolTimedOut, None) => {
            "all connections of the pool were busy, or the server was slow".to_owned()
        }
        (_, None) => error.to_string(),
    }
}

/// The same with what to do about it, for a command's user.
pub async fn complaint(pool: &PgPool, error: &sqlx::Error) -> String {
    let cause = behind_timeout(pool, error).await;
    format!("{}; {}", explain(pool, error).await, cure(cause.as_ref().unwrap_or(error)))
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
            let silence = std::io::Error::new(std::io::ErrorKind::TimedOut, "the server does not answer");
            Some(sqlx::Error::Io(silence))
        }
    }
}

/// What to do about an error of the database, for its log line.
pub fn cure(error: &sqlx::Error) -> &'static str {
    let code = error.as_database_error().and_then(|error| error.code());
    match code.as_deref() {
        // undefined_table, undefined_column, undefined_function
        Some("42P01" | "42703" | "42883") => "the schema is not up to date: run `sbc migrate`",
        // insufficient_privilege
        Some("42501") => "grant the user of database.url access to the tables",
        Some(code) if code.starts_with("28") => "the user or password of database.url is refused",
        // invalid_catalog_name
        Some("3D000") => "create the database that database.url names",
        _ => match error {
            sqlx::Error::Io(error) => match error.kind() {
                std::io::ErrorKind::ConnectionRefused => {
                    "nothing listens there: is the server up, and is that its port?"
                }
                std::io::ErrorKind::NotFound => {
                    "there is no such socket: is the server up, and is that its directory?"
                }
                _ => "check the host and port of database.url, and the way there",
            },
            _ => "check database.url and the server",
        },
    }
}
