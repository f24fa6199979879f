//! From the journal to PostgreSQL: in batches, in order, idempotent by key, so that every record arrives exactly once.

mod record;

use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use sip_engine::event::CallEvent;
use sqlx::PgPool;
use tokio::sync::watch;

use crate::blocking::blocking;
use crate::records::journal::{Journal, Position};
use crate::store::bounded;
use crate::store::refusal::{WriteRows, sift};
use crate::store::trouble::{Trouble, diagnose};

const BATCH: usize = 500;
/// How long a record may wait when the journal was empty.
const PAUSE: Duration = Duration::from_millis(100);

/// What the shipper tells metrics.
#[derive(Debug, Default)]
pub struct ShipCounters {
    /// Events in the database.
    pub shipped: AtomicU64,
    /// Batches that failed and will be tried again.
    pub failed: AtomicU64,
    /// Events that the database will never take; they are kept in `rejected.jsonl`.
    pub rejected: AtomicU64,
    /// Bytes of the journal that are not shipped (gauge).
    pub backlog: AtomicU64,
}

/// Why a step did not go on.
#[derive(Debug, thiserror::Error)]
enum ShipError {
    #[error("the journal can't be read: {0}")]
    Journal(#[from] std::io::Error),
    #[error("the database: {0}")]
    Database(#[from] sqlx::Error),
}

/// Moves events from the journal to the database.
#[derive(Debug)]
pub struct Shipper {
    /// Where to.
    pub pool: PgPool,
    /// Where from.
    pub journal: Arc<Journal>,
    /// The number of this node.
    pub node: u8,
    /// For metrics.
    pub counters: Arc<ShipCounters>,
}

impl Shipper {
    /// Ships until `stop` says true, and then what is left, as far as the database takes it.
    pub async fn run(self, mut stop: watch::Receiver<bool>) {
        let mut position = self.journal.shipped();
        let mut pause = PAUSE;
        let mut journal = Trouble::new("the journal can be read again");
        let mut database = Trouble::new("call records reach the database again");
        loop {
            vitals::round();
            match self.step(position).await {
                Ok((count, next)) => {
                    position = next;
                    pause = PAUSE;
                    journal.end();
                    // With nothing to write the database was not asked.
                    if count > 0 {
                        database.end();
                    }
                    self.counters.shipped.fetch_add(count as u64, Ordering::Relaxed);
                    let backlog = if count < BATCH { 0 } else { self.journal.backlog(position) };
                    self.counters.backlog.store(backlog, Ordering::Relaxed);
                    if count > 0 {
                        continue;
                    }
                    if *stop.borrow() {
                        return;
                    }
                }
                Err(error) => {
                    self.counters.failed.fetch_add(1, Ordering::Relaxed);
                    let backlog = self.journal.backlog(position);
                    self.counters.backlog.store(backlog, Ordering::Relaxed);
                    match error {
                        ShipError::Database(error) if database.must_tell() => {
                            let found = diagnose(&self.pool, &error).await;
                            tracing::warn!(
                                error = found.why,
                                bytes = backlog,
                                "call records wait in the journal for the database; none is lost: {}",
                                found.cure
                            );
                        }
                        ShipError::Journal(error) if journal.must_tell() => tracing::error!(
                            %error,
                            bytes = backlog,
                            "the journal can't be read, so its call records do not reach the database: check the disk, and who owns the files in node.data"
                        ),
                        ShipError::Database(_) | ShipError::Journal(_) => {}
                    }
                    if *stop.borrow() {
                        return;
                    }
                    pause = pause.saturating_mul(2).min(Duration::from_secs(2));
                }
            }
            // A stop that comes meanwhile ends the pause; a second look at it must not spin.
            if *stop.borrow_and_update() {
                tokio::time::sleep(PAUSE).await;
            } else {
                let _ = tokio::time::timeout(pause, stop.changed()).await;
            }
        }
    }

    /// One batch: how many events, and the position behind them.
    async fn step(&self, from: Position) -> Result<(usize, Position), ShipError> {
        let (events, next) = self.read(from).await?;
        if !events.is_empty() {
            // One event that the database will never take must not hold up the others.
            let refused = sift(&events, self).await.or_again()?;
            if !refused.is_empty() {
                self.counters.failed.fetch_add(1, Ordering::Relaxed);
            }
            for (place, error) in refused {
                let Some(event) = events.get(place) else { continue };
                self.counters.rejected.fetch_add(1, Ordering::Relaxed);
                tracing::error!(%error, call = %uuid::Uuid::from_u128(event.call), "the database refuses an event of a call; it is kept in rejected.jsonl beside the journal: please report it");
                self.keep_aside(event);
            }
        }
        if next != from {
            let journal = self.journal.clone();
            blocking(move || journal.mark_shipped(next)).await?;
        }
        Ok((events.len(), next))
    }

    async fn read(&self, from: Position) -> std::io::Result<(Vec<CallEvent>, Position)> {
        let journal = self.journal.clone();
        blocking(move || journal.read(from, BATCH)).await
    }

    /// A disk that takes nothing does not stop those that follow: the log has told of it.
    fn keep_aside(&self, event: &CallEvent) {
        let path = self.journal.directory().join("rejected.jsonl");
        let append = || {
            let mut line = serde_json::to_vec(event)?;
            line.push(b'\n');
            let mut file = std::fs::OpenOptions::new().create(true).append(true).mode(0o600).open(&path)?;
            file.write_all(&line)
        };
        if let Err(error) = append() {
            tracing::error!(%error, ?event, "{} can't be written: this line alone keeps the event", path.display());
        }
    }
}

impl WriteRows<CallEvent> for Shipper {
    async fn write(&self, events: &[CallEvent]) -> Result<(), sqlx::Error> {
        vitals::round();
        bounded(record::write(&self.pool, self.node, events)).await
    }
}
