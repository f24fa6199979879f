//! Bindings: rows that outlive the process.

use std::collections::{HashMap, HashSet};
use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use futures_util::TryStreamExt;
use serde_json::Value;
use sip_engine::registrar::{BindingChange, BindingRecord};
use sqlx::postgres::PgPool;
use tokio::sync::mpsc::UnboundedReceiver;
use tokio::sync::oneshot;

use crate::blocking::blocking;
use crate::records::journal::{Journal, Kept, Replay, line};

use crate::store::names::Names;
use crate::store::refusal::{Aside, StoreCounters, WriteRows, sift};
use crate::store::trouble::{Trouble, diagnose};

/// How long to wait after an error.
const AGAIN: Duration = Duration::from_millis(500);
/// Changes of one statement.
const BATCH: usize = 500;
/// A statement that takes longer is given up and tried again: its connection is dead.
const PATIENCE: Duration = Duration::from_secs(10);
/// Changes that a file of the journal holds, about.
const CHANGES_A_FILE: usize = 8_000;
/// Without a change it says so often that it lives.
const IDLE: Duration = Duration::from_secs(20);
/// How often rows are looked for whose bindings nobody ended: expired while no process ran, or left by one that was replaced.
const SWEEP: Duration = Duration::from_secs(600);
/// Deletions that wait while it is not known yet which rows there are; what comes then is left to the sweep.
const BLIND: usize = 100_000;

/// Address of record and Contact URI.
type Key = (Arc<str>, String);

/// A change that waits: `None` deletes the row.
#[derive(Debug, Clone)]
struct Change {
    key: Key,
    record: Option<Arc<BindingRecord>>,
}

/// What the rows of this node hold.
#[derive(Debug, Default)]
pub struct Restored {
    /// Bindings that have not expired.
    pub records: Vec<BindingRecord>,
    /// Rows whose realm or listener is gone, or that are damaged: dropped.
    pub dropped: usize,
    /// The reason of the first.
    pub reason: Option<String>,
    keys: Vec<Key>,
}

/// What reads and writes them.
pub struct Bindings {
    /// Where.
    pub pool: PgPool,
    /// The number of this node: others' rows are theirs.
    pub node: u8,
    /// What rows call realms and listeners.
    pub names: Names,
    /// For metrics.
    pub counters: Arc<StoreCounters>,
    /// Where rows go that the database refuses.
    pub aside: Aside,
    /// What keeps changes until they are rows.
    pub journal: Option<Arc<Journal>>,
}

impl Bindings {
    /// The bindings of this node that have not expired.
    pub async fn read(&self) -> Result<Restored, sqlx::Error> {
        // One after the other: all rows of a town at once would take ten times the room of its bindings.
        let mut rows = sqlx::query!(
            r#"SELECT aor, uri, record AS "record: Value" FROM binding WHERE node = $1 AND expires_at > now()"#,
            i16::from(self.node)
        )
        .fetch(&self.pool);
        let mut restored = Restored::default();
        while let Some(row) = rows.try_next().await? {
            match self.names.resolve(row.record) {
                Ok(record) => restored.records.push(record),
                Err(reason) => {
                    restored.dropped = restored.dropped.saturating_add(1);
                    restored.reason.get_or_insert_with(|| reason.to_string());
                }
            }
            restored.keys.push((row.aor.into(), row.uri));
        }
        Ok(restored)
    }

    /// Reads the rows as soon as the database lets it, hands them over with what the process before had kept on disk only, and
    /// writes changes as they come, until all senders are gone. A database that is away at the start costs no phone its
    /// registration, and what it missed is written when it is back, latest state only.
    pub async fn run(
        mut self,
        mut changes: UnboundedReceiver<Kept>,
        replay: Replay,
        restored: oneshot::Sender<Vec<BindingRecord>>,
    ) {
        let mut waiting = Waiting::replayed(replay);
        let mut restored = Some(restored);
        let mut trouble = Trouble::new("bindings are read and written again");
        let mut swept: Option<Instant> = None;
        let mut received = Vec::new();
        loop {
            vitals::round();
            if waiting.changes.is_empty() && restored.is_none() {
                let idle = if trouble.lasts() { AGAIN } else { IDLE };
                match tokio::time::timeout(idle, changes.recv_many(&mut received, BATCH)).await {
                    Ok(0) => return,
                    Ok(_) => received.drain(..).for_each(|change| waiting.take(change)),
                    Err(_) => {}
                }
            }
            while let Ok(change) = changes.try_recv() {
                waiting.take(change);
            }
            // What waited may be out of date by now, and then nothing is left to write: the database is asked all the same.
            let must_sweep = trouble.lasts() || swept.is_none_or(|at| at.elapsed() >= SWEEP);
            let outcome = {
                let step = self.step(&waiting, restored.is_some(), must_sweep);
                let step = tokio::time::timeout(PATIENCE, step);
                tokio::pin!(step);
                // What comes meanwhile is taken, so that a database that hangs makes no queue of what is out of date.
                loop {
                    tokio::select! {
                        outcome = &mut step => break outcome.unwrap_or(Err(sqlx::Error::PoolTimedOut)),
                        () = tokio::time::sleep(AGAIN), if !changes.is_closed() => {
                            while received.len() < BLIND && let Ok(change) = changes.try_recv() {
                                received.push(change);
                            }
                        }
                    }
                }
            };
            match outcome {
                Ok(Step::Restored(found)) => {
                    trouble.end();
                    if let Some(restored) = restored.take() {
                        let _ = restored.send(waiting.adopt(found));
                    }
                }
                Ok(Step::Written { batch, refused }) => {
                    trouble.end();
                    if must_sweep {
                        swept = Some(Instant::now());
                    }
                    if !refused.is_empty() {
                        self.counters.failures.fetch_add(1, Ordering::Relaxed);
                    }
                    for (place, error) in &refused {
                        if let Some((change, _)) = batch.get(*place) {
                            self.aside.keep("binding", &change.record, error, &self.counters);
                        }
                    }
                    waiting.written(batch, &refused);
                    self.forget_what_is_written(&mut waiting).await;
                }
                Err(error) => {
                    self.counters.failures.fetch_add(1, Ordering::Relaxed);
                    if trouble.must_tell() {
                        let found = diagnose(&self.pool, &error).await;
                        let harm = if restored.is_some() {
                            "read, and calls and registrations get 503 until they are"
                        } else {
                            "written; registrations are in force and wait in the journal"
                        };
                        tracing::warn!(
                            error = found.why,
                            waiting = waiting.changes.len(),
                            "bindings can't be {harm}: {}",
                            found.cure
                        );
                    }
                    if changes.is_closed() {
                        return;
                    }
                    self.keep_only_the_latest(&mut waiting).await;
                    tokio::time::sleep(AGAIN).await;
                }
            }
            received.drain(..).for_each(|change| waiting.take(change));
        }
    }

    /// What is in rows needs no file any more.
    async fn forget_what_is_written(&self, waiting: &mut Waiting) {
        if !waiting.changes.is_empty() {
            return;
        }
        let (Some(turn), Some(journal)) = (waiting.turn.take(), self.journal.clone()) else { return };
        let forget = move || journal.forget_registrations(turn);
        if let Err(error) = blocking(forget).await {
            tracing::warn!(%error, "files of bindings that the database has can't be deleted: see to the directory of the journal");
        }
        waiting.turns = 0;
    }

    /// While the database is away, files grow with each refresh; what is out of date in them goes.
    async fn keep_only_the_latest(&self, waiting: &mut Waiting) {
        // Rewriting costs what waits: not before as much has come as will be written.
        let room = waiting.changes.len() / CHANGES_A_FILE;
        let (Some(turn), Some(journal)) = (waiting.turn, self.journal.clone()) else { return };
        if waiting.turns <= room.saturating_add(1) {
            return;
        }
        let changes: Vec<BindingChange> = waiting
            .changes
            .iter()
            .map(|(key, (record, _))| match record {
                Some(record) => BindingChange::Put(Box::new(BindingRecord::clone(record))),
                None => BindingChange::Delete { aor: key.0.clone(), uri: key.1.clone() },
            })
            .collect();
        let names = self.names.clone();
        let compact = move || {
            let lines: Vec<Vec<u8>> =
                changes.iter().map(|change| line(&names, change)).collect::<Result<_, _>>()?;
            journal.compact_registrations(turn, &lines)
        };
        if let Err(error) = blocking(compact).await {
            tracing::warn!(%error, "files of bindings can't be made smaller: see to the directory of the journal");
        }
        waiting.turns = 0;
    }

    /// Reads what there is, or writes some of what waits.
    async fn step(&self, waiting: &Waiting, must_read: bool, must_sweep: bool) -> Result<Step, sqlx::Error> {
        if must_read {
            return Ok(Step::Restored(self.read().await?));
        }
        if must_sweep {
            sqlx::query!(
                "DELETE FROM binding WHERE node = $1 AND expires_at < now() - interval '1 minute'",
                i16::from(self.node)
            )
            .execute(&self.pool)
            .await?;
        }
        let batch = waiting.batch();
        let rows: Vec<Change> = batch.iter().map(|(change, _)| change.clone()).collect();
        let refused = sift(&rows, self).await.or_again()?;
        Ok(Step::Written { batch, refused })
    }
}

/// What a step came to.
enum Step {
    Restored(Restored),
    /// The batch with the generations of its changes, and who of it was refused.
    Written {
        batch: Vec<(Change, u64)>,
        refused: Vec<(usize, sqlx::Error)>,
    },
}

/// Changes that wait to be written, the latest for each binding.
///
/// A binding that comes and goes while the database is away leaves nothing here: only rows that there are need a deletion. So
/// a phone that changes its Contact with each REGISTER costs no more memory than one that does not.
#[derive(Debug, Default)]
struct Waiting {
    changes: HashMap<Key, (Option<Arc<BindingRecord>>, u64)>,
    generation: u64,
    /// Which rows there are, by the hash of their key; `None` until they were read.
    rows: Option<HashSet<u64>>,
    hasher: RandomState,
    /// Changes of a binding up to this one were made by the process before.
    replayed: u64,
    /// What has come is in files up to this number, and how many were finished since the last time that old ones went.
    turn: Option<u64>,
    turns: usize,
}

impl Waiting {
    /// What the process before had kept comes first.
    fn replayed(replay: Replay) -> Self {
        let mut waiting = Self::default();
        for change in replay.changes {
            waiting.change(change);
        }
        waiting.replayed = waiting.generation;
        waiting.turn = (replay.turn > 0).then_some(replay.turn);
        waiting
    }

    fn take(&mut self, kept: Kept) {
        match kept {
            Kept::Change(change) => self.change(change),
            Kept::Turned(turn) => {
                self.turn = Some(turn);
                self.turns = self.turns.saturating_add(1);
            }
        }
    }

    fn change(&mut self, change: BindingChange) {
        self.generation = self.generation.wrapping_add(1);
        match change {
            BindingChange::Put(record) => {
                let key = (record.aor.clone(), record.uri.clone());
                self.changes.insert(key, (Some(Arc::from(record)), self.generation));
            }
            BindingChange::Delete { aor, uri } => {
                let key = (aor, uri);
                let hash = self.hasher.hash_one(&key);
                let has_row = match &self.rows {
                    Some(rows) => rows.contains(&hash),
                    None => self.changes.len() < BLIND,
                };
                if has_row {
                    self.changes.insert(key, (None, self.generation));
                } else {
                    self.changes.remove(&key);
                }
            }
        }
    }

    /// The rows are known now. What they say of bindings that have changed since is out of date.
    fn adopt(&mut self, restored: Restored) -> Vec<BindingRecord> {
        let Restored { records, dropped, reason, keys } = restored;
        self.rows = Some(keys.iter().map(|key| self.hasher.hash_one(key)).collect());
        if let Some(reason) = reason {
            tracing::warn!(
                bindings = dropped,
                reason,
                "bindings are dropped: their phones can't be reached where they registered, and must register again"
            );
        }
        let is_known =
            |record: &BindingRecord| self.changes.contains_key(&(record.aor.clone(), record.uri.clone()));
        let mut records: Vec<BindingRecord> =
            records.into_iter().filter(|record| !is_known(record)).collect();
        let replayed = self.changes.values().filter(|(_, generation)| *generation <= self.replayed);
        records.extend(replayed.filter_map(|(record, _)| record.as_deref().cloned()));
        records
    }

    fn batch(&self) -> Vec<(Change, u64)> {
        let change = |(key, (record, generation)): (&Key, &(Option<Arc<BindingRecord>>, u64))| {
            (Change { key: key.clone(), record: record.clone() }, *generation)
        };
        self.changes.iter().take(BATCH).map(change).collect()
    }

    /// A batch was dealt with; what has changed again meanwhile still waits.
    fn written(&mut self, batch: Vec<(Change, u64)>, refused: &[(usize, sqlx::Error)]) {
        let rows = self.rows.get_or_insert_default();
        for (place, (change, generation)) in batch.into_iter().enumerate() {
            let hash = self.hasher.hash_one(&change.key);
            if !refused.iter().any(|refused| refused.0 == place) {
                match change.record {
                    Some(_) => rows.insert(hash),
                    None => rows.remove(&hash),
                };
            }
            if self.changes.get(&change.key).is_some_and(|waiting| waiting.1 == generation) {
                self.changes.remove(&change.key);
            }
        }
    }
}

impl WriteRows<Change> for Bindings {
    /// One transaction of two statements, however many changes there are.
    async fn write(&self, changes: &[Change]) -> Result<(), sqlx::Error> {
        let node = i16::from(self.node);
        let gone = changes.iter().filter(|change| change.record.is_none());
        let (gone_aors, gone_uris): (Vec<String>, Vec<String>) =
            gone.map(|change| (printable(&change.key.0), printable(&change.key.1))).unzip();
        let put: Vec<&BindingRecord> = changes.iter().filter_map(|change| change.record.as_deref()).collect();
        let text = |pick: fn(&BindingRecord) -> String| -> Vec<String> {
            put.iter().map(|record| printable(&pick(record))).collect()
        };
        let realms: Vec<String> = put.iter().map(|record| self.names.realm(record).to_owned()).collect();
        let listeners: Vec<String> =
            put.iter().map(|record| self.names.listener(record).to_owned()).collect();
        let expiries: Vec<f64> = put.iter().map(|record| record.expires.as_secs_f64()).collect();
        let records: Vec<Value> = put
            .iter()
            .map(|record| self.names.to_kept(record).map(clean))
            .collect::<Result<_, _>>()
            .map_err(|error| sqlx::Error::Encode(error.into()))?;
        let mut transaction = self.pool.begin().await?;
        if !gone_aors.is_empty() {
            sqlx::query!(
                "DELETE FROM binding USING unnest($2::text[], $3::text[]) AS gone (aor, uri)
                 WHERE node = $1 AND md5(binding.aor) = md5(gone.aor) AND md5(binding.uri) = md5(gone.uri)",
                node,
                &gone_aors,
                &gone_uris
            )
            .execute(&mut *transaction)
            .await?;
        }
        if !put.is_empty() {
            sqlx::query!(
                "INSERT INTO binding (node, aor, uri, realm, listener, expires_at, user_agent, source, record)
                 SELECT $1, aor, uri, realm, listener, to_timestamp(expires), user_agent, source, record
                 FROM unnest($2::text[], $3::text[], $4::text[], $5::text[], $6::float8[], $7::text[], $8::text[], $9::jsonb[])
                    AS put (aor, uri, realm, listener, expires, user_agent, source, record)
                 ON CONFLICT (node, md5(aor), md5(uri)) DO UPDATE SET realm = EXCLUDED.realm, listener = EXCLUDED.listener,
                    expires_at = EXCLUDED.expires_at, user_agent = EXCLUDED.user_agent, source = EXCLUDED.source,
                    record = EXCLUDED.record",
                node,
                &text(|record| record.aor.to_string()),
                &text(|record| record.uri.clone()),
                &realms,
                &listeners,
                &expiries,
                &text(|record| record.user_agent.clone()),
                &text(|record| record.flow.remote.to_string()),
                &records
            )
            .execute(&mut *transaction)
            .await?;
        }
        transaction.commit().await
    }
}

/// PostgreSQL's text holds no NUL, and phones write it.
fn printable(text: &str) -> String {
    text.replace('\0', "\u{fffd}")
}

/// The same for all text in a document.
fn clean(value: Value) -> Value {
    match value {
        Value::String(text) => Value::String(printable(&text)),
        Value::Array(items) => items.into_iter().map(clean).collect(),
        Value::Object(fields) => fields.into_iter().map(|(name, value)| (name, clean(value))).collect(),
        other => other,
    }
}
