//! Records lie by month: the tables of the months to come are made ahead, by a function of the owner's, since the program may make none.

use std::time::Duration;

use sqlx::PgPool;

use crate::store::bounded;
use crate::store::trouble::{Trouble, diagnose};

/// Months beyond this one. A database that is away for as long finds its records a place all the same.
const AHEAD: i32 = 3;
const LOOK: Duration = Duration::from_secs(6 * 3600);
/// After a failure.
const AGAIN: Duration = Duration::from_secs(60);

/// Does so for ever.
pub async fn keep(pool: PgPool) {
    let mut trouble = Trouble::new("tables for the records of months to come are made again");
    loop {
        let pause = match bounded(make(&pool)).await {
            Ok(made) => {
                trouble.end();
                if made > 0 {
                    tracing::info!(tables = made, "there is a place for the records of months to come");
                }
                LOOK
            }
            Err(error) => {
                if trouble.must_tell() {
                    let found = diagnose(&pool, &error).await;
                    tracing::warn!(
                        error = found.why,
                        "tables for the records of months to come can't be made; until then `call_other` takes them: {}",
                        found.cure
                    );
                }
                AGAIN
            }
        };
        vitals::round();
        tokio::time::sleep(pause).await;
    }
}

/// How many tables were made.
async fn make(pool: &PgPool) -> Result<i32, sqlx::Error> {
    sqlx::query_scalar!(r#"SELECT sbc_make_months($1) AS "made!""#, AHEAD).fetch_one(pool).await
}
