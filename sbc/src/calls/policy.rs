//! What operators want of single calls while they last: rows of `call_policy`.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream;
use seam::path::Constraint;
use sip_engine::door::{CallId, CallOrder};
use sqlx::postgres::{PgListener, PgPool};

use super::{Calls, Refused};
use crate::store::follow::{Table, Waited, notified};
use crate::store::{self, bounded};

/// How many calls are told at a time: one shard that is silent must not hold up the others', and none gets more letters at once than its
/// inbox takes.
const AT_ONCE: usize = 256;
/// After so long a home that was silent is told again.
const AGAIN: Duration = Duration::from_secs(1);

/// The policy of single calls, and what was said of it.
struct CallPolicy {
    calls: Arc<Calls>,
    said: HashMap<CallId, Word>,
}

/// What was last said of a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Word {
    order: CallOrder,
    /// Otherwise it may or may not have been heard.
    is_answered: bool,
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

    async fn wait(&mut self, listener: &mut PgListener) -> Result<Waited, sqlx::Error> {
        if self.said.values().all(|word| word.is_answered) {
            return notified(listener).await;
        }
        tokio::time::timeout(AGAIN, notified(listener)).await.unwrap_or(Ok(Waited::Notified))
    }
}

impl CallPolicy {
    /// Says of these calls what is wanted, and of others no more. Those of other nodes are theirs to say; those that are over need
    /// nothing.
    async fn say(&mut self, wanted: HashMap<CallId, Constraint>) {
        let calls = &self.calls;
        let answers = stream::iter(due(&self.said, wanted, |call| calls.are_home_of(call)))
            .map(|(call, order)| async move {
                let result = calls.order(call, order).await;
                vitals::round();
                (call, Word { order, is_answered: result != Err(Refused::Silent) })
            })
            .buffer_unordered(AT_ONCE)
            .collect::<Vec<_>>()
            .await;
        let silent = answers.iter().find(|(_, word)| !word.is_answered);
        if let Some((call, _)) = silent {
            let call = uuid::Uuid::from_u128(call.0);
            tracing::warn!(%call, "what is wanted of a call (and maybe of others) has reached nobody in time; it is said again");
        }
        for (call, word) in answers {
            if word == (Word { order: CallOrder::Release, is_answered: true }) {
                self.said.remove(&call);
            } else {
                self.said.insert(call, word);
            }
        }
    }
}

/// What is to be said of which calls that live here, after what was said.
fn due(
    said: &HashMap<CallId, Word>,
    wanted: HashMap<CallId, Constraint>,
    is_ours: impl Fn(CallId) -> bool,
) -> Vec<(CallId, CallOrder)> {
    let gone = said.keys().filter(|call| !wanted.contains_key(call)).map(|call| (*call, CallOrder::Release));
    let mut due: Vec<_> = gone.collect();
    let wanted = wanted.into_iter().map(|(call, constraint)| (call, CallOrder::Constrain(constraint)));
    due.extend(wanted.filter(|(call, order)| {
        is_ours(*call) && said.get(call) != Some(&Word { order: *order, is_answered: true })
    }));
    due
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
