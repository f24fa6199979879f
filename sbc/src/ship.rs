//! From the journal to PostgreSQL: in batches, in order, idempotent by key, so that every record arrives exactly once.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use serde_json::json;
use sip_engine::event::{CallEnded, CallEvent, CallEventKind, EndCause, Side};
use sip_engine::media::StreamStatistics;
use sqlx::PgPool;
use sqlx::types::{Json, Uuid};

use crate::journal::{Journal, Position};

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
    /// Bytes of the journal that are not shipped.
    pub backlog: AtomicU64,
}

/// Ships for ever.
pub async fn run(
    pool: PgPool,
    journal: Arc<Journal>,
    directory: PathBuf,
    node: u8,
    counters: Arc<ShipCounters>,
) {
    let mark = directory.join("shipped.json");
    let mut position = read_mark(&mark);
    let mut pause = PAUSE;
    loop {
        match step(&pool, &journal, &mark, node, position).await {
            Ok((0, _)) => {
                counters.backlog.store(0, Ordering::Relaxed);
                tokio::time::sleep(PAUSE).await;
            }
            Ok((count, next)) => {
                position = next;
                pause = PAUSE;
                counters.shipped.fetch_add(count as u64, Ordering::Relaxed);
            }
            Err(error) => {
                counters.failed.fetch_add(1, Ordering::Relaxed);
                counters.backlog.store(journal.backlog(position), Ordering::Relaxed);
                if pause == PAUSE {
                    tracing::warn!(error, "call records wait in the journal for the database");
                }
                tokio::time::sleep(pause).await;
                pause = (pause * 2).min(Duration::from_secs(2));
            }
        }
    }
}

fn read_mark(mark: &Path) -> Position {
    std::fs::read(mark).ok().and_then(|bytes| serde_json::from_slice(&bytes).ok()).unwrap_or_default()
}

/// Without the mark everything would be shipped again, which changes nothing: keys make it idempotent.
fn write_mark(mark: &Path, position: Position) -> std::io::Result<()> {
    let fresh = mark.with_extension("new");
    std::fs::write(&fresh, serde_json::to_vec(&position)?)?;
    std::fs::rename(fresh, mark)
}

async fn step(
    pool: &PgPool,
    journal: &Arc<Journal>,
    mark: &Path,
    node: u8,
    from: Position,
) -> Result<(usize, Position), String> {
    let reader = journal.clone();
    let (events, next) = tokio::task::spawn_blocking(move || reader.read(from, BATCH))
        .await
        .map_err(|error| error.to_string())?
        .map_err(|error| error.to_string())?;
    if events.is_empty() {
        return Ok((0, next));
    }
    let mut transaction = pool.begin().await.map_err(|error| error.to_string())?;
    for event in &events {
        insert(&mut transaction, node, event).await.map_err(|error| error.to_string())?;
    }
    transaction.commit().await.map_err(|error| error.to_string())?;
    write_mark(mark, next).and_then(|()| journal.trim(next)).map_err(|error| format!("journal: {error}"))?;
    Ok((events.len(), next))
}

async fn insert(
    transaction: &mut sqlx::PgTransaction<'_>,
    node: u8,
    event: &CallEvent,
) -> Result<(), sqlx::Error> {
    let call = Uuid::from_u128(event.call);
    let at = event.wall.as_secs_f64();
    let (kind, detail) = describe(&event.what);
    sqlx::query("INSERT INTO call_event (call, sequence, at, kind, detail) VALUES ($1, $2, to_timestamp($3), $4, $5) ON CONFLICT DO NOTHING")
        .bind(call)
        .bind(i32::try_from(event.sequence).unwrap_or(i32::MAX))
        .bind(at)
        .bind(kind)
        .bind(Json(detail))
        .execute(&mut **transaction)
        .await?;
    let query = match &event.what {
        CallEventKind::Started(started) => sqlx::query(
            "INSERT INTO call (id, started_at, node, realm, source, transport, caller, from_uri, request_uri, call_id, user_agent)
             VALUES ($1, to_timestamp($2), $3, $4, $5, $6, $7, $8, $9, $10, $11) ON CONFLICT DO NOTHING",
        )
        .bind(call)
        .bind(at)
        .bind(i16::from(node))
        .bind(&*started.realm)
        .bind(started.source.to_string())
        .bind(&*started.transport)
        .bind(printable(&started.caller))
        .bind(printable(&started.from))
        .bind(printable(&started.request_uri))
        .bind(printable(&started.call_id))
        .bind(printable(&started.user_agent)),
        CallEventKind::Answered { realm, trunk, destination } => {
            sqlx::query("UPDATE call SET answered_at = to_timestamp($2), answered_realm = $3, trunk = $4, destination = $5 WHERE id = $1")
                .bind(call)
                .bind(at)
                .bind(&**realm)
                .bind(trunk.as_deref())
                .bind(destination.to_string())
        }
        CallEventKind::Changed(_) => return Ok(()),
        CallEventKind::Ended(ended) => sqlx::query(
            "UPDATE call SET ended_at = started_at + $2 * interval '1 millisecond', cause = $3, ended_by = $4, status = $5,
                setup_ms = $6, duration_ms = $7, media = $8 WHERE id = $1",
        )
        .bind(call)
        .bind(milliseconds(ended.total) as f64)
        .bind(cause(ended.cause))
        .bind(side(ended.side))
        .bind(i16::try_from(ended.status).unwrap_or(0))
        .bind(ended.answered_after.map(milliseconds))
        .bind(milliseconds(ended.talked))
        .bind(Json(media(&ended.media))),
    };
    query.execute(&mut **transaction).await?;
    Ok(())
}

/// PostgreSQL's text holds no NUL.
fn printable(text: &str) -> String {
    text.replace('\0', "\u{fffd}")
}

fn milliseconds(time: Duration) -> i64 {
    i64::try_from(time.as_millis()).unwrap_or(i64::MAX)
}

fn describe(what: &CallEventKind) -> (&'static str, serde_json::Value) {
    match what {
        CallEventKind::Started(_) => ("started", json!({})),
        CallEventKind::Answered { realm, trunk, destination } => {
            ("answered", json!({"realm": realm, "trunk": trunk, "destination": destination}))
        }
        CallEventKind::Changed(change) => ("changed", json!(change)),
        CallEventKind::Ended(ended) => ("ended", end(ended)),
    }
}

fn end(ended: &CallEnded) -> serde_json::Value {
    json!({"cause": cause(ended.cause), "by": side(ended.side), "status": ended.status})
}

fn media(streams: &[StreamStatistics]) -> serde_json::Value {
    streams
        .iter()
        .map(|stream| {
            json!({
                "party": stream.endpoint.party, "stream": stream.stream, "kind": stream.kind, "codec": stream.codec,
                "packets": stream.packets, "octets": stream.octets, "lost": stream.lost, "strangers": stream.strangers,
                "jitter_ms": stream.jitter_ms, "rtt_ms": stream.rtt_ms, "mos": stream.mos, "dtmf": stream.dtmf,
            })
        })
        .collect()
}

/// As records and metrics name it.
pub fn cause(cause: EndCause) -> &'static str {
    match cause {
        EndCause::Bye => "bye",
        EndCause::Cancelled => "cancelled",
        EndCause::Busy => "busy",
        EndCause::Declined => "declined",
        EndCause::NotFound => "not_found",
        EndCause::NoAnswer => "no_answer",
        EndCause::MediaRefused => "media_refused",
        EndCause::Failed => "failed",
        EndCause::Refused => "refused",
        EndCause::Unreachable => "unreachable",
        EndCause::NoAck => "no_ack",
        EndCause::SessionExpired => "session_expired",
        EndCause::MediaTimeout => "media_timeout",
        EndCause::Replaced => "replaced",
        EndCause::Operator => "operator",
        EndCause::Shutdown => "shutdown",
        EndCause::Crash => "crash",
        EndCause::Internal => "internal",
    }
}

fn side(side: Side) -> &'static str {
    match side {
        Side::Caller => "caller",
        Side::Callee => "callee",
        Side::Sbc => "sbc",
    }
}
