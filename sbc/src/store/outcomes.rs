//! What became of moves off the relay, by pairs of phones: rows of `release_outcome`, that every media worker knows, of this node and
//! the others, and the next process too. It is no `follow::Table`: what this node has to write every two seconds it reads along with, and a
//! trigger would wake every node for each row that any of them writes.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use media_core::path::memory::{FAILURES, MOST, Outcome, Pair};
use sqlx::postgres::PgPool;
use sqlx::types::ipnet::IpNet;
use tokio::sync::mpsc::UnboundedReceiver;
use tokio::sync::watch;

use super::bounded;
use super::refusal::{Aside, StoreCounters, WriteRows, sift};
use super::trouble::{Trouble, diagnose};

/// How often outcomes are written, and those of other nodes and operators' changes looked for.
const LOOK: Duration = Duration::from_secs(2);
/// How long a pair is remembered that nobody has tried since, and how often such rows are looked for.
const KEEP_DAYS: i32 = 90;
const PRUNE: Duration = Duration::from_secs(3_600);

/// A pair, its failures in a row, and how long it still rests.
pub type Resting = (Pair, u32, Duration);

/// Outcomes of one pair that wait to be written.
#[derive(Debug, Clone, Default)]
struct Tally {
    worked: i64,
    failed: i64,
    /// Since it last worked, if it has.
    failed_in_row: i32,
    /// Seconds since 1970.
    worked_at: Option<f64>,
    failed_at: Option<f64>,
}

type Waiting = HashMap<Pair, Tally>;

/// As it was read: to tell a change.
#[derive(Debug, Clone, PartialEq)]
struct Row {
    pair: Pair,
    failed_in_row: i32,
    /// Seconds since 1970.
    rests_until: f64,
}

/// Where outcomes are written and read.
pub struct Outcomes {
    /// The database.
    pub pool: PgPool,
    /// How long a pair that failed twice rests.
    pub rest: Duration,
    /// For metrics.
    pub counters: Arc<StoreCounters>,
    /// Where rows go that the database refuses.
    pub aside: Aside,
}

/// Writes outcomes and reads what is known, until `stop` says true. `recall` gets all of it at start and whenever it has changed.
/// While the database is away outcomes wait, of as many pairs as are remembered, and what was read before stays in force.
pub async fn follow(
    mut store: Outcomes,
    mut outcomes: UnboundedReceiver<Outcome>,
    recall: impl Fn(Vec<Resting>),
    mut stop: watch::Receiver<bool>,
) {
    let mut waiting = Waiting::new();
    let mut known = Vec::new();
    let mut trouble = Trouble::new("outcomes of release are read and written again");
    let mut pruned: Option<Instant> = None;
    loop {
        let is_last = *stop.borrow_and_update();
        while let Ok(outcome) = outcomes.try_recv() {
            count(&mut waiting, outcome);
        }
        let must_prune = pruned.is_none_or(|at| at.elapsed() >= PRUNE);
        vitals::round();
        match bounded(store.look(&mut waiting, must_prune)).await {
            Ok(rows) => {
                trouble.end();
                if must_prune {
                    pruned = Some(Instant::now());
                }
                if rows != known {
                    let now = now();
                    recall(rows.iter().map(|row| resting(row, now)).collect());
                    known = rows;
                }
            }
            Err(error) => {
                store.counters.failures.fetch_add(1, Ordering::Relaxed);
                if trouble.must_tell() {
                    let found = diagnose(&store.pool, &error).await;
                    let harm = match waiting.len() {
                        0 => "those that come will wait",
                        _ => "a restart now would forget those that wait",
                    };
                    tracing::warn!(
                        error = found.why,
                        waiting = waiting.len(),
                        "outcomes of release can't be written; what was read before stays in force, {harm}: {}",
                        found.cure
                    );
                }
            }
        }
        if is_last {
            return;
        }
        // Nobody is left to say it.
        if let Ok(Err(_)) = tokio::time::timeout(LOOK, stop.changed()).await {
            return;
        }
    }
}

fn count(waiting: &mut Waiting, outcome: Outcome) {
    if waiting.len() >= MOST && !waiting.contains_key(&outcome.pair) {
        return;
    }
    let tally = waiting.entry(outcome.pair).or_default();
    if outcome.has_worked {
        tally.worked = tally.worked.saturating_add(1);
        tally.failed_in_row = 0;
        tally.worked_at = Some(now());
    } else {
        tally.failed = tally.failed.saturating_add(1);
        tally.failed_in_row = tally.failed_in_row.saturating_add(1);
        tally.failed_at = Some(now());
    }
}

/// Seconds since 1970: rows outlive the monotonic clock.
fn now() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64()
}

fn resting(row: &Row, now: f64) -> Resting {
    let rest = Duration::try_from_secs_f64(row.rests_until - now).unwrap_or_default();
    (row.pair.clone(), row.failed_in_row.unsigned_abs(), rest)
}

impl Outcomes {
    /// What waits comes first, so that what is read has it.
    async fn look(&mut self, waiting: &mut Waiting, must_prune: bool) -> Result<Vec<Row>, sqlx::Error> {
        if !waiting.is_empty() {
            let rows: Vec<(Pair, Tally)> =
                waiting.iter().map(|(pair, tally)| (pair.clone(), tally.clone())).collect();
            // Counts are added, so that each must be written once: what an attempt that failed wrote of them is written no more.
            let sifted = sift(&rows, &*self).await;
            for (pair, _) in sifted.taken.into_iter().filter_map(|range| rows.get(range)).flatten() {
                waiting.remove(pair);
            }
            for (place, error) in sifted.refused {
                self.counters.failures.fetch_add(1, Ordering::Relaxed);
                if let Some(row) = rows.get(place) {
                    self.aside.keep("release_outcome", row, &error, &self.counters);
                    waiting.remove(&row.0);
                }
            }
            if let Some(error) = sifted.left {
                return Err(error);
            }
        }
        if must_prune {
            prune(&self.pool).await?;
        }
        read(&self.pool).await
    }
}

/// Models and networks come and go: without this the table grows for ever.
async fn prune(pool: &PgPool) -> Result<(), sqlx::Error> {
    sqlx::query!(
        "DELETE FROM release_outcome WHERE greatest(worked_at, failed_at) < now() - make_interval(days => $1)",
        KEEP_DAYS
    )
    .execute(pool)
    .await?;
    Ok(())
}

/// Pairs that rest, or will after more failures; the latest, if there are too many.
async fn read(pool: &PgPool) -> Result<Vec<Row>, sqlx::Error> {
    let rows = sqlx::query!(
        r#"SELECT one_model, one_network AS "one_network: IpNet", one_nat,
            other_model, other_network AS "other_network: IpNet", other_nat, failed_in_row,
            coalesce(extract(epoch FROM rests_until), 0)::float8 AS "rests_until!"
         FROM release_outcome WHERE failed_in_row > 0 ORDER BY failed_at DESC LIMIT $1"#,
        MOST as i64
    )
    .fetch_all(pool)
    .await?;
    let row = rows.into_iter().map(|row| Row {
        pair: Pair::new([
            (&row.one_model, row.one_network.addr(), row.one_nat),
            (&row.other_model, row.other_network.addr(), row.other_nat),
        ]),
        failed_in_row: row.failed_in_row,
        rests_until: row.rests_until,
    });
    Ok(row.collect())
}

impl WriteRows<(Pair, Tally)> for Outcomes {
    /// One statement, however many pairs there are.
    async fn write(&self, rows: &[(Pair, Tally)]) -> Result<(), sqlx::Error> {
        let [one, other] = [0, 1].map(|end: usize| {
            let ends = rows.iter().filter_map(|(pair, _)| pair.ends().get(end));
            let models: Vec<String> = ends.clone().map(|end| end.product.to_string()).collect();
            let networks: Vec<IpNet> = ends.clone().map(|end| end.network).collect();
            (models, networks, ends.map(|end| end.is_translated).collect::<Vec<bool>>())
        });
        let tallies = rows.iter().map(|(_, tally)| tally);
        let worked: Vec<i64> = tallies.clone().map(|tally| tally.worked).collect();
        let failed: Vec<i64> = tallies.clone().map(|tally| tally.failed).collect();
        let failed_in_row: Vec<i32> = tallies.clone().map(|tally| tally.failed_in_row).collect();
        let worked_at: Vec<Option<f64>> = tallies.clone().map(|tally| tally.worked_at).collect();
        let failed_at: Vec<Option<f64>> = tallies.map(|tally| tally.failed_at).collect();
        sqlx::query!(
        "INSERT INTO release_outcome AS old (one_model, one_network, one_nat, other_model, other_network, other_nat,
            worked, failed, failed_in_row, worked_at, failed_at, rests_until)
         SELECT one_model, one_network, one_nat, other_model, other_network, other_nat, worked, failed, failed_in_row,
            to_timestamp(worked_at), to_timestamp(failed_at),
            CASE WHEN failed_in_row >= $12::integer THEN to_timestamp(failed_at + $13::float8) END
         FROM unnest($1::text[], $2::cidr[], $3::boolean[], $4::text[], $5::cidr[], $6::boolean[],
            $7::bigint[], $8::bigint[], $9::integer[], $10::float8[], $11::float8[])
            AS new (one_model, one_network, one_nat, other_model, other_network, other_nat,
                worked, failed, failed_in_row, worked_at, failed_at)
         ON CONFLICT (one_model, one_network, one_nat, other_model, other_network, other_nat) DO UPDATE SET
            worked = old.worked + EXCLUDED.worked,
            failed = old.failed + EXCLUDED.failed,
            failed_in_row = least(2147483647, EXCLUDED.failed_in_row::bigint
                + CASE WHEN EXCLUDED.worked > 0 THEN 0 ELSE old.failed_in_row END)::integer,
            worked_at = coalesce(EXCLUDED.worked_at, old.worked_at),
            failed_at = coalesce(EXCLUDED.failed_at, old.failed_at),
            rests_until = CASE
                WHEN EXCLUDED.worked > 0 THEN EXCLUDED.rests_until
                WHEN old.failed_in_row::bigint + EXCLUDED.failed_in_row >= $12::integer
                    THEN EXCLUDED.failed_at + make_interval(secs => $13::float8)
            END",
        &one.0,
        &one.1 as _,
        &one.2,
        &other.0,
        &other.1 as _,
        &other.2,
        &worked,
        &failed,
        &failed_in_row,
        &worked_at as _,
        &failed_at as _,
        FAILURES as i32,
        self.rest.as_secs_f64()
    )
    .execute(&self.pool)
    .await?;
        Ok(())
    }
}
