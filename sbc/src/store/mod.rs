//! PostgreSQL: the pool, the schema, and what is read and written there apart from call records.

pub mod follow;
pub mod names;
pub mod outcomes;
pub mod refusal;
pub mod trouble;

use std::time::Duration;

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

/// What the user of a connection may, of what matters to who runs the SBC.
#[derive(Debug, Clone, PartialEq, Eq, sqlx::FromRow)]
pub struct Powers {
    /// Its name.
    pub user: String,
    /// Nothing is refused to it.
    pub is_superuser: bool,
    /// It may change or drop what it owns.
    pub owns_tables: bool,
    /// It may make new tables.
    pub may_create: bool,
    /// It may what the SBC must.
    pub is_runtime: bool,
}

/// What the user of these connections may.
pub async fn powers(pool: &PgPool) -> Result<Powers, sqlx::Error> {
    sqlx::query_as(
        "SELECT current_user::text AS user, rolsuper AS is_superuser,
            EXISTS (
                SELECT FROM pg_class WHERE relnamespace = to_regnamespace(current_schema()) AND relkind IN ('r', 'p', 'v')
                AND pg_has_role(relowner, 'USAGE')
            ) AS owns_tables,
            coalesce(has_schema_privilege(current_schema(), 'CREATE'), false) AS may_create,
            coalesce(
                (SELECT pg_has_role(runtime.oid, 'USAGE') FROM pg_roles AS runtime WHERE runtime.rolname = 'sbc_runtime'), false
            ) AS is_runtime
        FROM pg_roles WHERE rolname = current_user",
    )
    .fetch_one(pool)
    .await
}
