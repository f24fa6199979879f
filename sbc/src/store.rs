//! PostgreSQL: the snapshot with its notifications, and bindings.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use sip_engine::io::{RealmId, Transport};
use sip_engine::question::{TrunkCredentials, TrunkTarget};
use sip_engine::registrar::{BindingChange, BindingRecord};
use sqlx::migrate::Migrator;
use sqlx::postgres::{PgListener, PgPool, PgPoolOptions};
use sqlx::types::Json;
use tokio::sync::mpsc::UnboundedReceiver;

use crate::config::{RegistrarKind, Settings};
use crate::policy::{Route, Snapshot, secrets};

/// The schema, compiled in.
pub static MIGRATIONS: Migrator = sqlx::migrate!("../migrations");

/// A pool that connects when it is needed: the SBC starts without its database.
pub fn pool(url: &str, connections: u32) -> Result<PgPool, String> {
    let options =
        PgPoolOptions::new().max_connections(connections.max(2)).acquire_timeout(Duration::from_secs(3));
    options.connect_lazy(url).map_err(|error| format!("database.url: {error}"))
}

/// Reads the whole snapshot in one transaction.
pub async fn load(pool: &PgPool, settings: &Settings) -> Result<Snapshot, sqlx::Error> {
    let realms = &settings.plane.engine.realms;
    let realm_id = |name: &str| realms.iter().find(|realm| &*realm.name == name).map(|realm| realm.id);
    let mut transaction = pool.begin().await?;
    sqlx::query("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ READ ONLY")
        .execute(&mut *transaction)
        .await?;
    let mut snapshot = Snapshot::default();
    let rows: Vec<(String, String, Option<String>, Option<String>)> =
        sqlx::query_as("SELECT domain, username, ha1_md5, ha1_sha256 FROM subscriber WHERE enabled")
            .fetch_all(&mut *transaction)
            .await?;
    for (domain, username, md5, sha256) in rows {
        snapshot.subscribers.entry(domain).or_default().insert(username, secrets(md5, sha256));
    }
    type TrunkRow =
        (String, String, String, Option<i32>, Option<String>, Option<String>, Option<String>, Option<i32>);
    let rows: Vec<TrunkRow> = sqlx::query_as(
        "SELECT name, realm, host, port, transport, username, password, timeout_ms FROM trunk WHERE enabled",
    )
    .fetch_all(&mut *transaction)
    .await?;
    for (name, realm, host, port, transport, username, password, timeout) in rows {
        let Some(realm) = realm_id(&realm) else {
            tracing::warn!(
                trunk = name,
                realm,
                "the trunk's realm is not configured: add it to the file or change the trunk"
            );
            continue;
        };
        let credentials = username.map(|username| TrunkCredentials {
            username: username.into(),
            password: password.unwrap_or_default().into(),
        });
        let target = TrunkTarget {
            name: name.as_str().into(),
            realm,
            host: host.into(),
            port: port.and_then(|port| u16::try_from(port).ok()),
            transport: transport.as_deref().and_then(transport_of),
            credentials,
            timeout: timeout.and_then(|timeout| u64::try_from(timeout).ok()).map(Duration::from_millis),
        };
        snapshot.trunks.insert(name, Arc::new(target));
    }
    let rows: Vec<(String, sqlx::types::ipnet::IpNet)> =
        sqlx::query_as("SELECT trunk, address FROM trunk_address").fetch_all(&mut *transaction).await?;
    for (trunk, network) in rows {
        if let Some(target) = snapshot.trunks.get(&trunk) {
            snapshot.sources.push((target.realm, network, target.name.clone()));
        }
    }
    type RouteRow = (Option<String>, String, String, i32, i32, i32, String);
    let rows: Vec<RouteRow> = sqlx::query_as(
        "SELECT from_realm, prefix, trunk, priority, weight, strip, prepend FROM route ORDER BY id",
    )
    .fetch_all(&mut *transaction)
    .await?;
    for (from, prefix, trunk, priority, weight, strip, prepend) in rows {
        let Some(target) = snapshot.trunks.get(&trunk) else { continue };
        let from = match from.as_deref().map(realm_id) {
            Some(None) => continue,
            Some(found) => found,
            None => None,
        };
        let (weight, strip) = (u32::try_from(weight).unwrap_or(1), usize::try_from(strip).unwrap_or(0));
        snapshot.routes.push(Route { from, prefix, trunk: target.clone(), priority, weight, strip, prepend });
    }
    snapshot.sort();
    for (realm, file) in realms.iter().zip(&settings.file.realm) {
        match file.get_ref().registrar {
            RegistrarKind::Local => snapshot.domains.extend(realm.domains.iter().cloned()),
            RegistrarKind::Forward => {
                if let sip_engine::config::RegistrarMode::Forward { registrar, .. } = &realm.registrar {
                    snapshot.forwarding.push((realm.id, registrar.clone()));
                }
            }
            RegistrarKind::None => {}
        }
    }
    Ok(snapshot)
}

fn transport_of(text: &str) -> Option<Transport> {
    match text {
        "udp" => Some(Transport::Udp),
        "tcp" => Some(Transport::Tcp),
        "tls" => Some(Transport::Tls),
        _ => None,
    }
}

/// Keeps the snapshot fresh for ever: whole at start, whole after each notification and after each lost connection.
/// `swap` gets every new one.
pub async fn follow(pool: PgPool, settings: Arc<Settings>, mut swap: impl FnMut(Snapshot)) {
    let mut complained = false;
    loop {
        match follow_once(&pool, &settings, &mut swap, &mut complained).await {
            Ok(()) => {}
            Err(error) => {
                if !std::mem::replace(&mut complained, true) {
                    tracing::error!(%error, "the database can't be reached; calls go on with what is known: check database.url and the server");
                }
            }
        }
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
}

async fn follow_once(
    pool: &PgPool,
    settings: &Settings,
    swap: &mut impl FnMut(Snapshot),
    complained: &mut bool,
) -> Result<(), sqlx::Error> {
    // Listening comes before reading, so that no change falls between.
    let mut listener = PgListener::connect_with(pool).await?;
    listener.listen("sbc_changed").await?;
    loop {
        swap(load(pool, settings).await?);
        if std::mem::take(complained) {
            tracing::info!("the database is back");
        }
        // `None`: the connection was lost, and with it perhaps a notification.
        if listener.try_recv().await?.is_none() {
            return Ok(());
        }
        // Changes come in bursts; one reading covers them.
        tokio::time::sleep(Duration::from_millis(50)).await;
        while listener.next_buffered().is_some() {}
    }
}

/// Bindings that have not expired.
pub async fn bindings(pool: &PgPool, node: u8) -> Result<Vec<BindingRecord>, sqlx::Error> {
    let rows: Vec<(Json<BindingRecord>,)> =
        sqlx::query_as("SELECT record FROM binding WHERE node = $1 AND expires_at > now()")
            .bind(i16::from(node))
            .fetch_all(pool)
            .await?;
    Ok(rows.into_iter().map(|row| row.0.0).collect())
}

/// Writes changes of bindings as they come; what a stopped database missed is written when it is back, latest state
/// only.
pub async fn write_bindings(pool: PgPool, node: u8, mut changes: UnboundedReceiver<BindingChange>) {
    let mut waiting: HashMap<(Arc<str>, String), Option<Box<BindingRecord>>> = HashMap::new();
    let mut received = Vec::new();
    loop {
        if waiting.is_empty() && changes.recv_many(&mut received, 256).await == 0 {
            return;
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
        match write(&pool, node, &waiting).await {
            Ok(()) => waiting.clear(),
            Err(error) => {
                tracing::debug!(%error, waiting = waiting.len(), "bindings wait for the database");
                tokio::time::sleep(Duration::from_secs(1)).await;
            }
        }
    }
}

async fn write(
    pool: &PgPool,
    node: u8,
    changes: &HashMap<(Arc<str>, String), Option<Box<BindingRecord>>>,
) -> Result<(), sqlx::Error> {
    let mut transaction = pool.begin().await?;
    for ((aor, uri), record) in changes {
        match record {
            Some(record) => {
                sqlx::query(
                    "INSERT INTO binding (node, aor, uri, realm, expires_at, user_agent, source, record)
                     VALUES ($1, $2, $3, $4, to_timestamp($5), $6, $7, $8)
                     ON CONFLICT (node, aor, uri) DO UPDATE SET realm = EXCLUDED.realm, expires_at = EXCLUDED.expires_at,
                        user_agent = EXCLUDED.user_agent, source = EXCLUDED.source, record = EXCLUDED.record",
                )
                .bind(i16::from(node))
                .bind(&**aor)
                .bind(uri)
                .bind(realm_number(record.realm))
                .bind(record.expires.as_secs_f64())
                .bind(&record.user_agent)
                .bind(record.flow.remote.to_string())
                .bind(Json(record))
                .execute(&mut *transaction)
                .await?;
            }
            None => {
                sqlx::query("DELETE FROM binding WHERE node = $1 AND aor = $2 AND uri = $3")
                    .bind(i16::from(node))
                    .bind(&**aor)
                    .bind(uri)
                    .execute(&mut *transaction)
                    .await?;
            }
        }
    }
    transaction.commit().await
}

fn realm_number(realm: RealmId) -> i16 {
    i16::try_from(realm.0).unwrap_or(i16::MAX)
}
