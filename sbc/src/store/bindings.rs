//! Bindings: rows that outlive the process.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::Value;
use sip_engine::io::RealmId;
use sip_engine::registrar::{BindingChange, BindingRecord};
use sqlx::postgres::PgPool;
use sqlx::types::Json;
use tokio::sync::mpsc::UnboundedReceiver;

use super::{bounded, cure};

/// How often an error that lasts is told again.
const COMPLAIN: Duration = Duration::from_secs(60);

/// Without a change it says so often that it lives.
const IDLE: Duration = Duration::from_secs(20);

/// Changes that wait to be written, the latest for each binding (AOR and contact); `None` deletes it.
type Waiting = HashMap<(Arc<str>, String), Option<Box<BindingRecord>>>;

/// Bindings of this node that have not expired.
pub async fn read(pool: &PgPool, node: u8) -> Result<Vec<BindingRecord>, sqlx::Error> {
    let rows = sqlx::query_scalar!(
        r#"SELECT record AS "record: Json<BindingRecord>" FROM binding WHERE node = $1 AND expires_at > now()"#,
        i16::from(node)
    )
    .fetch_all(pool)
    .await?;
    Ok(rows.into_iter().map(|record| record.0).collect())
}

/// Reads them as soon as the database lets it; a database that is away at the start costs no phone its registration.
pub async fn restore(pool: &PgPool, node: u8) -> Vec<BindingRecord> {
    let mut complained: Option<Instant> = None;
    loop {
        vitals::round();
        match bounded(read(pool, node)).await {
            Ok(records) => return records,
            Err(error) => {
                if complained.is_none_or(|at| at.elapsed() > COMPLAIN) {
                    complained = Some(Instant::now());
                    tracing::error!(%error, "bindings can't be restored yet: {}", cure(&error));
                }
            }
        }
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
}

/// Writes changes as they come, until all senders are gone; what a stopped database missed is written when it is back,
/// latest state only.
pub async fn write(pool: PgPool, node: u8, mut changes: UnboundedReceiver<BindingChange>) {
    let mut waiting = Waiting::new();
    let mut received = Vec::new();
    let mut complained: Option<Instant> = None;
    loop {
        vitals::round();
        if waiting.is_empty() {
            match tokio::time::timeout(IDLE, changes.recv_many(&mut received, 256)).await {
                Ok(0) => return,
                Ok(_) => {}
                Err(_) => continue,
            }
        }
        while let Ok(change) = changes.try_recv() {
            received.push(change);
        }
        for change in received.drain(..) {
            match change {
                BindingChange::Put(record) => {
                    waiting.insert((record.aor.clone(), record.uri.clone()), Some(record))
                }
                BindingChange::Delete { aor, uri } => waiting.insert((aor, uri), None),
            };
        }
        match bounded(write_batch(&pool, node, &waiting)).await {
            Ok(()) => {
                waiting.clear();
                if complained.take().is_some() {
                    tracing::info!("bindings are written again");
                }
            }
            Err(error) => {
                if complained.is_none_or(|at| at.elapsed() > COMPLAIN) {
                    complained = Some(Instant::now());
                    tracing::warn!(%error, waiting = waiting.len(), "bindings wait for the database; a restart now would lose them: {}", cure(&error));
                }
                if changes.is_closed() {
                    return;
                }
                tokio::time::sleep(Duration::from_secs(1)).await;
            }
        }
    }
}

/// One transaction of two statements, however many changes there are.
async fn write_batch(pool: &PgPool, node: u8, changes: &Waiting) -> Result<(), sqlx::Error> {
    let node = i16::from(node);
    let gone = changes.iter().filter(|change| change.1.is_none());
    let (gone_aors, gone_uris): (Vec<String>, Vec<String>) =
        gone.map(|((aor, uri), _)| (aor.to_string(), printable(uri))).unzip();
    let put: Vec<&BindingRecord> = changes.values().filter_map(|record| record.as_deref()).collect();
    let text = |pick: fn(&BindingRecord) -> String| -> Vec<String> {
        put.iter().map(|record| printable(&pick(record))).collect()
    };
    let realms: Vec<i16> = put.iter().map(|record| realm_number(record.realm)).collect();
    let expiries: Vec<f64> = put.iter().map(|record| record.expires.as_secs_f64()).collect();
    let records: Vec<Value> = put
        .iter()
        .map(|record| serde_json::to_value(record).map(clean))
        .collect::<Result<_, _>>()
        .map_err(|error| sqlx::Error::Encode(error.into()))?;
    let mut transaction = pool.begin().await?;
    if !gone_aors.is_empty() {
        sqlx::query!(
            "DELETE FROM binding USING unnest($2::text[], $3::text[]) AS gone (aor, uri)
             WHERE node = $1 AND binding.aor = gone.aor AND binding.uri = gone.uri",
            node,
            &gone_aors,
            &gone_uris
        )
        .execute(&mut *transaction)
        .await?;
    }
    if !put.is_empty() {
        sqlx::query!(
            "INSERT INTO binding (node, aor, uri, realm, expires_at, user_agent, source, record)
             SELECT $1, aor, uri, realm, to_timestamp(expires), user_agent, source, record
             FROM unnest($2::text[], $3::text[], $4::smallint[], $5::float8[], $6::text[], $7::text[], $8::jsonb[])
                AS put (aor, uri, realm, expires, user_agent, source, record)
             ON CONFLICT (node, aor, uri) DO UPDATE SET realm = EXCLUDED.realm, expires_at = EXCLUDED.expires_at,
                user_agent = EXCLUDED.user_agent, source = EXCLUDED.source, record = EXCLUDED.record",
            node,
            &text(|record| record.aor.to_string()),
            &text(|record| record.uri.clone()),
            &realms,
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

fn realm_number(realm: RealmId) -> i16 {
    i16::try_from(realm.0).unwrap_or(i16::MAX)
}
