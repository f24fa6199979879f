//! Subscribers, trunks and routes: read whole, in one transaction, at start and after every notification.

use std::sync::Arc;
use std::time::{Duration, Instant};

use sip_engine::config::{Realm, RegistrarMode};
use sip_engine::io::{RealmId, Transport};
use sip_engine::question::{TrunkCredentials, TrunkTarget};
use sqlx::postgres::{PgListener, PgPool};
use sqlx::{PgTransaction, types::ipnet::IpNet};

use super::{bounded, cure, explain};
use crate::config::Settings;
use crate::policy::{Route, Snapshot, secrets};

/// The channel that triggers notify.
const CHANNEL: &str = "sbc_changed";
/// After so long without a word the connection that listens is tried: a server that vanished says nothing.
const SILENCE: Duration = Duration::from_secs(20);
/// How often an error that lasts is told again.
const COMPLAIN: Duration = Duration::from_secs(60);

/// Reads the whole snapshot.
pub async fn load(pool: &PgPool, settings: &Settings) -> Result<Snapshot, sqlx::Error> {
    let realms = &settings.plane.engine.realms;
    let mut transaction = pool.begin().await?;
    sqlx::query!("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ READ ONLY")
        .execute(&mut *transaction)
        .await?;
    let mut snapshot = Snapshot::default();
    load_subscribers(&mut transaction, &mut snapshot).await?;
    load_trunks(&mut transaction, &mut snapshot, realms).await?;
    load_routes(&mut transaction, &mut snapshot, realms).await?;
    snapshot.sort();
    for realm in realms {
        match &realm.registrar {
            RegistrarMode::Local(_) => snapshot.domains.extend(realm.domains.iter().cloned()),
            RegistrarMode::Forward { registrar, .. } => {
                snapshot.forwarding.push((realm.id, registrar.clone()))
            }
            RegistrarMode::None => {}
        }
    }
    Ok(snapshot)
}

async fn load_subscribers(
    transaction: &mut PgTransaction<'_>,
    snapshot: &mut Snapshot,
) -> Result<(), sqlx::Error> {
    let rows = sqlx::query!("SELECT domain, username, ha1_md5, ha1_sha256 FROM subscriber WHERE enabled")
        .fetch_all(&mut **transaction)
        .await?;
    for row in rows {
        let users = snapshot.subscribers.entry(row.domain).or_default();
        users.insert(row.username, secrets(row.ha1_md5, row.ha1_sha256));
    }
    Ok(())
}

async fn load_trunks(
    transaction: &mut PgTransaction<'_>,
    snapshot: &mut Snapshot,
    realms: &[Realm],
) -> Result<(), sqlx::Error> {
    let rows = sqlx::query!(
        "SELECT name, realm, host, port, transport, username, password, timeout_ms, certificate_name, ping_seconds FROM trunk WHERE enabled"
    )
    .fetch_all(&mut **transaction)
    .await?;
    for row in rows {
        let Some(realm) = realm_id(realms, &row.realm) else {
            tracing::warn!(
                trunk = row.name,
                realm = row.realm,
                "the trunk's realm is not configured, so the trunk is not used: add the realm to the file or change the trunk"
            );
            continue;
        };
        let credentials = row.username.map(|username| TrunkCredentials {
            username: username.into(),
            password: row.password.unwrap_or_default().into(),
        });
        let target = TrunkTarget {
            name: row.name.as_str().into(),
            realm,
            host: row.host.into(),
            port: row.port.and_then(|port| u16::try_from(port).ok()),
            transport: row.transport.as_deref().and_then(transport_of),
            credentials,
            timeout: row
                .timeout_ms
                .and_then(|timeout| u64::try_from(timeout).ok())
                .map(Duration::from_millis),
            ping: row.ping_seconds.and_then(|ping| u64::try_from(ping).ok()).map(Duration::from_secs),
        };
        if let Some(name) = row.certificate_name {
            snapshot.certificates.push((realm, name.to_ascii_lowercase().into(), target.name.clone()));
        }
        snapshot.trunks.insert(row.name, Arc::new(target));
    }
    let rows = sqlx::query!(r#"SELECT trunk, address AS "address: IpNet" FROM trunk_address"#)
        .fetch_all(&mut **transaction)
        .await?;
    for row in rows {
        if let Some(target) = snapshot.trunks.get(&row.trunk) {
            snapshot.sources.push((target.realm, row.address, target.name.clone()));
        }
    }
    Ok(())
}

async fn load_routes(
    transaction: &mut PgTransaction<'_>,
    snapshot: &mut Snapshot,
    realms: &[Realm],
) -> Result<(), sqlx::Error> {
    let rows = sqlx::query!(
        "SELECT from_realm, prefix, trunk, priority, weight, strip, prepend FROM route ORDER BY id"
    )
    .fetch_all(&mut **transaction)
    .await?;
    for row in rows {
        let Some(trunk) = snapshot.trunks.get(&row.trunk).cloned() else { continue };
        let from = match row.from_realm.as_deref().map(|name| realm_id(realms, name)) {
            Some(None) => {
                tracing::warn!(
                    prefix = row.prefix,
                    trunk = row.trunk,
                    realm = row.from_realm,
                    "the route's from_realm is not configured, so the route is not used: add the realm to the file or change the route"
                );
                continue;
            }
            Some(found) => found,
            None => None,
        };
        snapshot.routes.push(Route {
            from,
            prefix: row.prefix,
            trunk,
            priority: row.priority,
            weight: u32::try_from(row.weight).unwrap_or(1),
            strip: usize::try_from(row.strip).unwrap_or(0),
            prepend: row.prepend,
        });
    }
    Ok(())
}

fn realm_id(realms: &[Realm], name: &str) -> Option<RealmId> {
    realms.iter().find(|realm| &*realm.name == name).map(|realm| realm.id)
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
/// `swap` gets every new one; as long as none can be read, the one before it stays in force.
pub async fn follow(pool: PgPool, settings: Arc<Settings>, mut swap: impl FnMut(Snapshot)) {
    let mut complained: Option<Instant> = None;
    loop {
        vitals::round();
        if let Err(error) = follow_once(&pool, &settings, &mut swap, &mut complained).await
            && complained.is_none_or(|at| at.elapsed() > COMPLAIN)
        {
            complained = Some(Instant::now());
            let why = explain(&pool, &error).await;
            tracing::error!(
                error = why,
                "subscribers, trunks and routes can't be read; those read before stay in force: {}",
                cure(&error)
            );
        }
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
}

async fn follow_once(
    pool: &PgPool,
    settings: &Settings,
    swap: &mut impl FnMut(Snapshot),
    complained: &mut Option<Instant>,
) -> Result<(), sqlx::Error> {
    // Listening comes before reading, so that no change falls between.
    let mut listener = bounded(PgListener::connect_with(pool)).await?;
    bounded(listener.listen(CHANNEL)).await?;
    loop {
        swap(bounded(load(pool, settings)).await?);
        if complained.take().is_some() {
            tracing::info!("subscribers, trunks and routes are read again");
        }
        // `false`: the connection was lost, and with it perhaps a notification.
        if !changed(&mut listener).await? {
            return Ok(());
        }
        // Changes come in bursts; one reading covers them.
        tokio::time::sleep(Duration::from_millis(50)).await;
        while listener.next_buffered().is_some() {}
    }
}

/// Waits for a notification.
pub(super) async fn changed(listener: &mut PgListener) -> Result<bool, sqlx::Error> {
    loop {
        vitals::round();
        if let Ok(received) = tokio::time::timeout(SILENCE, listener.try_recv()).await {
            return Ok(received?.is_some());
        }
        let alive = sqlx::query!("SELECT 1 AS one").fetch_one(&mut *listener);
        match tokio::time::timeout(Duration::from_secs(5), alive).await {
            Ok(answer) => {
                answer?;
            }
            Err(_) => return Ok(false),
        }
    }
}
