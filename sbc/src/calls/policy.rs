//! What operators want of single calls while they last: rows of `call_policy`.

use std::collections::HashMap;
use std::sync::Arc;

use seam::path::Constraint;
use sip_engine::door::{CallId, CallOrder};
use sqlx::postgres::PgPool;

use super::{Calls, Refused};
use crate::store::follow::Table;
use crate::store::{self, bounded};

/// The policy of single calls, and what was said of it.
struct CallPolicy {
    calls: Arc<Calls>,
    said: HashMap<CallId, Constraint>,
}

impl Table for CallPolicy {
    const CHANNEL: &'static str = "sbc_call_policy";
    const WHAT: &'static str = "the policy of single calls";
    const OVER: &'static str = "the policy of single calls is read again";

    async fn look(&mut self, pool: &PgPool) -> Result<(), sqlx::Error> {
        let wanted = bounded(read(pool)).await?;
        self.say(wanted).await;
        bounded(prune(pool)).await
    }
}

impl CallPolicy {
    /// Says of these calls what is wanted, and of others no more. Those of other nodes are theirs to say; those that are over need
    /// nothing.
    async fn say(&mut self, wanted: HashMap<CallId, Constraint>) {
        for (call, constraint) in &wanted {
            if self.calls.are_home_of(*call)
                && self.said.get(call) != Some(constraint)
                && self.order(*call, CallOrder::Constrain(*constraint)).await
            {
                self.said.insert(*call, *constraint);
            }
        }
        let gone: Vec<CallId> = self.said.keys().filter(|call| !wanted.contains_key(call)).copied().collect();
        for call in gone {
            if self.order(call, CallOrder::Release).await {
                self.said.remove(&call);
            }
        }
    }

    /// Whether there is no more to say. A home that is silent is told again at the next look.
    async fn order(&self, call: CallId, order: CallOrder) -> bool {
        let result = self.calls.order(call, order).await;
        vitals::round();
        if result == Err(Refused::Silent) {
            let call = uuid::Uuid::from_u128(call.0);
            tracing::warn!(%call, "what is wanted of a call has reached nobody in time; it is said again with the next change");
            return false;
        }
        true
    }
}

/// Does for ever what the table says, at once after each notification.
pub async fn follow(pool: PgPool, calls: Arc<Calls>) {
    store::follow::follow(pool, CallPolicy { calls, said: HashMap::new() }).await;
}

async fn read(pool: &PgPool) -> Result<HashMap<CallId, Constraint>, sqlx::Error> {
    let rows = sqlx::query!("SELECT call, release FROM call_policy").fetch_all(pool).await?;
    let said = rows.into_iter().map(|row| {
        // The table takes no other words; what a later version's says is kept to what is safe.
        let constraint = Constraint::of(&row.release).unwrap_or(Constraint::MustAnchor);
        (CallId(row.call.as_u128()), constraint)
    });
    Ok(said.collect())
}

/// What was said of calls that are over has been said.
async fn prune(pool: &PgPool) -> Result<(), sqlx::Error> {
    sqlx::query!(
        "DELETE FROM call_policy USING call WHERE call.id = call_policy.call AND call.ended_at IS NOT NULL"
    )
    .execute(pool)
    .await?;
    Ok(())
}
