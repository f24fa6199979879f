//! What operators want of single calls while they last: rows of `call_policy`.

use std::sync::Arc;
use std::time::Duration;

use seam::path::Constraint;
use sqlx::postgres::{PgListener, PgPool};

use super::bounded;
use super::snapshot::changed;
use super::trouble::{Trouble, diagnose};
use crate::calls::Calls;

const CHANNEL: &str = "sbc_call_policy";

/// Does for ever what the table says, at once after each notification.
pub async fn follow(pool: PgPool, calls: Arc<Calls>) {
    let mut trouble = Trouble::new("the policy of single calls is read again");
    loop {
        vitals::round();
        if let Err(error) = follow_once(&pool, &calls, &mut trouble).await
            && trouble.must_tell()
        {
            let found = diagnose(&pool, &error).await;
            tracing::error!(
                error = found.why,
                "the policy of single calls can't be read; what was read before stays in force: {}",
                found.cure
            );
        }
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
}

async fn follow_once(pool: &PgPool, calls: &Calls, trouble: &mut Trouble) -> Result<(), sqlx::Error> {
    // Listening comes before reading, so that no change falls between.
    let mut listener = bounded(PgListener::connect_with(pool)).await?;
    bounded(listener.listen(CHANNEL)).await?;
    loop {
        bounded(apply(pool, calls)).await?;
        trouble.end();
        if !changed(&mut listener).await? {
            return Ok(());
        }
        while listener.next_buffered().is_some() {}
    }
}

async fn apply(pool: &PgPool, calls: &Calls) -> Result<(), sqlx::Error> {
    let rows = sqlx::query!("SELECT call, release FROM call_policy").fetch_all(pool).await?;
    let said = rows.into_iter().map(|row| {
        // The table takes no other words; what a later version's says is kept to what is safe.
        let constraint = Constraint::of(&row.release).unwrap_or(Constraint::MustAnchor);
        (row.call.as_u128(), constraint)
    });
    calls.say(&said.collect());
    // What was said of calls that are over has been said.
    sqlx::query!(
        "DELETE FROM call_policy USING call WHERE call.id = call_policy.call AND call.ended_at IS NOT NULL"
    )
    .execute(pool)
    .await?;
    Ok(())
}
