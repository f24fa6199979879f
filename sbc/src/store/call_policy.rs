//! What operators want of single calls while they last: rows of `call_policy`.

use std::sync::Arc;
use std::time::{Duration, Instant};

use media_core::path::Constraint;
use sqlx::postgres::{PgListener, PgPool};

use super::snapshot::changed;
use super::{bounded, cure, explain};
use crate::calls::Calls;

const CHANNEL: &str = "sbc_call_policy";
/// How often an error that lasts is told again.
const COMPLAIN: Duration = Duration::from_secs(60);

/// Does for ever what the table says, at once after each notification.
pub async fn follow(pool: PgPool, calls: Arc<Calls>) {
    let mut complained: Option<Instant> = None;
    loop {
        vitals::round();
        match follow_once(&pool, &calls).await {
            Ok(()) => complained = None,
            Err(error) if complained.is_none_or(|at| at.elapsed() > COMPLAIN) => {
                complained = Some(Instant::now());
                let why = explain(&pool, &error).await;
                tracing::error!(
                    error = why,
                    "the policy of single calls can't be read; what was read before stays in force: {}",
                    cure(&error)
                );
            }
            Err(_) => {}
        }
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
}

async fn follow_once(pool: &PgPool, calls: &Calls) -> Result<(), sqlx::Error> {
    // Listening comes before reading, so that no change falls between.
    let mut listener = bounded(PgListener::connect_with(pool)).await?;
    bounded(listener.listen(CHANNEL)).await?;
    loop {
        bounded(apply(pool, calls)).await?;
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
        let constraint = match row.release.as_str() {
            "allow" => Constraint::MayRelease,
            "prefer" => Constraint::PreferRelease,
            "video" => Constraint::VideoOnly,
            _ => Constraint::MustAnchor,
        };
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
