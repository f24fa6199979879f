//! What operators want of single calls while they last: rows of `call_policy`.

use std::sync::Arc;

use seam::path::Constraint;
use sqlx::postgres::PgPool;

use super::Calls;
use crate::store::follow::Table;
use crate::store::{self, bounded};

/// The policy of single calls, and the calls that it is of.
pub struct CallPolicy {
    /// The open calls.
    pub calls: Arc<Calls>,
}

impl Table for CallPolicy {
    const CHANNEL: &'static str = "sbc_call_policy";
    const WHAT: &'static str = "the policy of single calls";
    const OVER: &'static str = "the policy of single calls is read again";

    async fn look(&mut self, pool: &PgPool) -> Result<(), sqlx::Error> {
        bounded(apply(pool, &self.calls)).await
    }
}

/// Does for ever what the table says, at once after each notification.
pub async fn follow(pool: PgPool, calls: Arc<Calls>) {
    store::follow::follow(pool, CallPolicy { calls }).await;
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
