//! Subscribers, trunks and routes: read whole at start, and then by key what has changed.
//!
//! The database keeps a log of keys (`policy_change`). What was committed between two looks is told exactly by the snapshots of the
//! two looks, in whatever order transactions began and ended; the rows of those keys are read again as they are now. A notification
//! only makes the next look come sooner, so that a lost one delays a change by a second and loses nothing.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::TryStreamExt;
use sip_engine::config::{Realm, RegistrarMode};
use sip_engine::io::{RealmId, Transport};
use sip_engine::question::{TrunkCredentials, TrunkTarget};
use sqlx::postgres::{PgListener, PgPool};
use sqlx::{PgTransaction, types::ipnet::IpNet};

use super::routes::RouteList;
use super::subscribers::SubscriberList;
use super::{Digests, Route, Routes, Snapshot, Subscribers, Trunk, Trunks};
use crate::config::Settings;
use crate::store::follow::{Table, Waited};
use crate::store::{self, bounded};

/// Without a notification the log is looked at so often.
const LOOK: Duration = Duration::from_secs(1);
/// Changes come in bursts; one look covers them.
const GATHER: Duration = Duration::from_millis(30);
/// More keys of one kind than this are read with all others of the kind.
const KEYS: usize = 100_000;
/// How long the log keeps what it told, how often it is tidied, and after how long without a look it is no longer to be trusted.
const KEEP_MINUTES: i32 = 120;
const TIDY: Duration = Duration::from_secs(600);
const TRUST: Duration = Duration::from_secs(3_600);

/// A snapshot, and where in the database's history it was taken.
#[derive(Debug, Clone)]
struct Taken {
    snapshot: Arc<Snapshot>,
    /// `pg_current_snapshot()`.
    seen: String,
    /// When the server started, milliseconds: another one, or one that was restored, has another history.
    server: i64,
}

/// What has changed.
#[derive(Debug, Default)]
struct Changed {
    subscribers: HashSet<(String, String)>,
    prefixes: HashSet<String>,
    all_subscribers: bool,
    all_routes: bool,
    trunks: bool,
}

/// Reads the whole snapshot.
pub async fn load(pool: &PgPool, settings: &Settings) -> Result<Snapshot, sqlx::Error> {
    Ok(Arc::unwrap_or_clone(load_all(pool, settings).await?.snapshot))
}

async fn begin(pool: &PgPool) -> Result<(PgTransaction<'static>, String, i64), sqlx::Error> {
    let mut transaction = pool.begin().await?;
    sqlx::query!("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ READ ONLY")
        .execute(&mut *transaction)
        .await?;
    let row = sqlx::query!(
        r#"SELECT pg_current_snapshot()::text AS "seen!", (extract(epoch FROM pg_postmaster_start_time()) * 1000)::bigint AS "server!""#
    )
    .fetch_one(&mut *transaction)
    .await?;
    Ok((transaction, row.seen, row.server))
}

async fn load_all(pool: &PgPool, settings: &Settings) -> Result<Taken, sqlx::Error> {
    let realms = &settings.plane.engine.realms;
    let (mut transaction, seen, server) = begin(pool).await?;
    let mut snapshot = Snapshot::new(
        load_subscribers(&mut transaction, realms).await?,
        load_trunks(&mut transaction, realms).await?,
        load_routes(&mut transaction, realms).await?,
    );
    for realm in realms {
        if let RegistrarMode::Forward { registrar, .. } = &realm.registrar {
            snapshot.forwarding.push((realm.id, registrar.clone()));
        }
    }
    Ok(Taken { snapshot: Arc::new(snapshot), seen, server })
}

/// The domains that local registrars serve, in the order of the file.
fn served(realms: &[Realm]) -> Vec<Arc<str>> {
    let local = realms.iter().filter(|realm| matches!(realm.registrar, RegistrarMode::Local(_)));
    local.flat_map(|realm| realm.domains.iter().cloned()).collect()
}

async fn load_subscribers(
    transaction: &mut PgTransaction<'_>,
    realms: &[Realm],
) -> Result<Subscribers, sqlx::Error> {
    let mut list = SubscriberList::new(&served(realms));
    // Row by row: a million of them beside the table would be felt.
    let mut rows = sqlx::query!("SELECT domain, username, ha1_md5, ha1_sha256 FROM subscriber WHERE enabled")
        .fetch(&mut **transaction);
    let mut count = 0_u32;
    while let Some(row) = rows.try_next().await? {
        list.push(
            &row.domain,
            &row.username,
            Digests::new(row.ha1_md5.as_deref(), row.ha1_sha256.as_deref()),
        );
        breathe(&mut count).await;
    }
    drop(rows);
    Ok(list.finish())
}

/// A long reading says that it goes on.
async fn breathe(count: &mut u32) {
    *count = count.wrapping_add(1);
    if count.is_multiple_of(4_096) {
        vitals::round();
        tokio::task::yield_now().await;
    }
}

async fn load_trunks(transaction: &mut PgTransaction<'_>, realms: &[Realm]) -> Result<Trunks, sqlx::Error> {
    let rows = sqlx::query!(
        "SELECT name, realm, host, port, transport, username, password, timeout_ms, certificate_name, ping_seconds FROM trunk WHERE enabled"
    )
    .fetch_all(&mut **transaction)
    .await?;
    let mut trunks: HashMap<String, Trunk> = HashMap::with_capacity(rows.len());
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
        let trunk = Trunk {
            target: Arc::new(target),
            networks: Vec::new(),
            certificate: row.certificate_name.map(|name| name.to_ascii_lowercase().into()),
        };
        trunks.insert(row.name, trunk);
    }
    let rows = sqlx::query!(r#"SELECT trunk, address AS "address: IpNet" FROM trunk_address"#)
        .fetch_all(&mut **transaction)
        .await?;
    for row in rows {
        if let Some(trunk) = trunks.get_mut(&row.trunk) {
            trunk.networks.push(row.address);
        }
    }
    Ok(Trunks::new(trunks.into_values().collect()))
}

/// A row of `route`, as every query of it gives it.
struct RouteRow {
    id: i64,
    from_realm: Option<String>,
    prefix: String,
    trunk: String,
    priority: i32,
    weight: i32,
    strip: i32,
    prepend: String,
}

/// Routes as the table holds them. Of those that can't be used the first of each realm is told.
struct Reading<'a> {
    realms: &'a [Realm],
    told: HashSet<String>,
}

impl Reading<'_> {
    fn route(&mut self, row: RouteRow) -> Option<Route> {
        let from = match row.from_realm.map(|name| realm_id(self.realms, &name).ok_or(name)) {
            Some(Err(realm)) => {
                if !self.told.contains(&realm) {
                    tracing::warn!(
                        prefix = row.prefix,
                        trunk = row.trunk,
                        realm,
                        "the route's from_realm is not configured, so it and others like it are not used: add the realm to the file or change the route"
                    );
                    self.told.insert(realm);
                }
                return None;
            }
            Some(Ok(found)) => Some(found),
            None => None,
        };
        Some(Route {
            id: row.id,
            from,
            prefix: row.prefix,
            trunk: row.trunk.into(),
            priority: row.priority,
            weight: u32::try_from(row.weight).unwrap_or(1),
            strip: usize::try_from(row.strip).unwrap_or(0),
            prepend: row.prepend,
        })
    }
}

async fn load_routes(transaction: &mut PgTransaction<'_>, realms: &[Realm]) -> Result<Routes, sqlx::Error> {
    let mut list = RouteList::default();
    let mut reading = Reading { realms, told: HashSet::new() };
    let mut rows = sqlx::query_as!(
        RouteRow,
        "SELECT id, from_realm, prefix, trunk, priority, weight, strip, prepend FROM route"
    )
    .fetch(&mut **transaction);
    let mut count = 0_u32;
    while let Some(row) = rows.try_next().await? {
        if let Some(route) = reading.route(row) {
            list.push(route);
        }
        breathe(&mut count).await;
    }
    drop(rows);
    Ok(list.finish())
}

/// What was committed since a snapshot was taken, applied to a copy of it, which shares what stayed; the same one if nothing was.
async fn look(pool: &PgPool, settings: &Settings, before: &Taken) -> Result<Taken, sqlx::Error> {
    let realms = &settings.plane.engine.realms;
    let (mut transaction, seen, server) = begin(pool).await?;
    if server != before.server {
        drop(transaction);
        return load_all(pool, settings).await;
    }
    let changed = changes(&mut transaction, &before.seen).await?;
    if !changed.any() {
        return Ok(Taken { seen, ..before.clone() });
    }
    let mut snapshot = Snapshot::clone(&before.snapshot);
    if changed.all_subscribers {
        snapshot.subscribers = load_subscribers(&mut transaction, realms).await?;
    } else if !changed.subscribers.is_empty() {
        read_subscribers(&mut transaction, &mut snapshot.subscribers, &changed.subscribers).await?;
    }
    if changed.trunks {
        snapshot.trunks = Arc::new(load_trunks(&mut transaction, realms).await?);
    }
    if changed.all_routes {
        snapshot.routes = load_routes(&mut transaction, realms).await?;
    } else if !changed.prefixes.is_empty() {
        read_routes(&mut transaction, &mut snapshot.routes, changed.prefixes, realms).await?;
    }
    Ok(Taken { snapshot: Arc::new(snapshot), seen, server })
}

impl Changed {
    fn any(&self) -> bool {
        self.trunks
            || self.all_subscribers
            || self.all_routes
            || !self.subscribers.is_empty()
            || !self.prefixes.is_empty()
    }
}

/// The keys of rows that were committed since: visible now, and not then.
async fn changes(transaction: &mut PgTransaction<'_>, seen: &str) -> Result<Changed, sqlx::Error> {
    let mut changed = Changed::default();
    let mut rows = sqlx::query!(
        "SELECT kind, key, username FROM policy_change
         WHERE transaction >= pg_snapshot_xmin($1::text::pg_snapshot)
           AND NOT pg_visible_in_snapshot(transaction, $1::text::pg_snapshot)",
        seen
    )
    .fetch(&mut **transaction);
    while let Some(row) = rows.try_next().await? {
        match (row.kind.as_str(), row.key, row.username) {
            ("trunk", ..) => changed.trunks = true,
            ("subscriber", Some(domain), Some(username)) if !changed.all_subscribers => {
                changed.subscribers.insert((domain, username));
                changed.all_subscribers = changed.subscribers.len() > KEYS;
            }
            ("subscriber", None, _) => changed.all_subscribers = true,
            ("route", Some(prefix), _) if !changed.all_routes => {
                changed.prefixes.insert(prefix);
                changed.all_routes = changed.prefixes.len() > KEYS;
            }
            ("route", None, _) => changed.all_routes = true,
            _ => {}
        }
    }
    Ok(changed)
}

async fn read_subscribers(
    transaction: &mut PgTransaction<'_>,
    subscribers: &mut Subscribers,
    keys: &HashSet<(String, String)>,
) -> Result<(), sqlx::Error> {
    let (domains, usernames): (Vec<String>, Vec<String>) = keys.iter().cloned().unzip();
    let rows = sqlx::query!(
        r#"SELECT changed.domain AS "domain!", changed.username AS "username!", ha1_md5 AS "ha1_md5?", ha1_sha256 AS "ha1_sha256?",
            coalesce(enabled, false) AS "enabled!"
         FROM unnest($1::text[], $2::text[]) AS changed (domain, username) LEFT JOIN subscriber USING (domain, username)"#,
        &domains,
        &usernames
    )
    .fetch_all(&mut **transaction)
    .await?;
    for row in rows {
        let digests = row.enabled.then(|| Digests::new(row.ha1_md5.as_deref(), row.ha1_sha256.as_deref()));
        subscribers.put(&row.domain, &row.username, digests);
    }
    Ok(())
}

async fn read_routes(
    transaction: &mut PgTransaction<'_>,
    routes: &mut Routes,
    prefixes: HashSet<String>,
    realms: &[Realm],
) -> Result<(), sqlx::Error> {
    let keys: Vec<String> = prefixes.into_iter().collect();
    let rows = sqlx::query_as!(
        RouteRow,
        "SELECT id, from_realm, prefix, trunk, priority, weight, strip, prepend FROM route WHERE prefix = ANY($1)",
        &keys
    )
    .fetch_all(&mut **transaction)
    .await?;
    let mut reading = Reading { realms, told: HashSet::new() };
    let mut by_prefix: HashMap<String, Vec<Route>> = keys.into_iter().map(|key| (key, Vec::new())).collect();
    for route in rows.into_iter().filter_map(|row| reading.route(row)) {
        by_prefix.entry(route.prefix.clone()).or_default().push(route);
    }
    for (prefix, of_prefix) in by_prefix {
        routes.replace(&prefix, of_prefix);
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

/// What is known, between losses of the connection.
struct Known<S> {
    settings: Arc<Settings>,
    /// Gets every new snapshot.
    swap: S,
    taken: Option<Taken>,
    looked: Option<Instant>,
    tidied: Option<Instant>,
    /// Snapshots that were replaced and that signalling may still hold: who lets go last frees them, and that shall be us.
    replaced: Vec<Arc<Snapshot>>,
}

/// Keeps the snapshot fresh for ever. `swap` gets every new one; as long as none can be read, the one before it stays in force.
pub async fn follow(pool: PgPool, settings: Arc<Settings>, swap: impl FnMut(Arc<Snapshot>) + Send) {
    let known = Known { settings, swap, taken: None, looked: None, tidied: None, replaced: Vec::new() };
    store::follow::follow(pool, known).await;
}

impl<S: FnMut(Arc<Snapshot>) + Send> Table for Known<S> {
    const CHANNEL: &'static str = "sbc_changed";
    const WHAT: &'static str = "subscribers, trunks and routes";
    const OVER: &'static str = "subscribers, trunks and routes are read again";

    fn harm(&self) -> &'static str {
        if self.taken.is_some() {
            "those read before stay in force"
        } else {
            "calls and registrations get 503 until they are"
        }
    }

    async fn look(&mut self, pool: &PgPool) -> Result<(), sqlx::Error> {
        let is_known = self.looked.is_some_and(|at| at.elapsed() < TRUST);
        let found = match self.taken.as_ref().filter(|_| is_known) {
            Some(taken) => bounded(look(pool, &self.settings, taken)).await?,
            None => bounded(load_all(pool, &self.settings)).await?,
        };
        self.looked = Some(Instant::now());
        self.publish(found);
        self.replaced.retain(|snapshot| Arc::strong_count(snapshot) > 1);
        if self.tidied.is_none_or(|at| at.elapsed() > TIDY) {
            self.tidied = Some(Instant::now());
            tidy(pool).await?;
        }
        Ok(())
    }

    /// Where nothing was told, it is looked all the same. An empty payload asks for everything to be read.
    async fn wait(&mut self, listener: &mut PgListener) -> Result<Waited, sqlx::Error> {
        let Ok(received) = tokio::time::timeout(LOOK, listener.try_recv()).await else {
            return Ok(Waited::Notified);
        };
        // The connection was lost; the log was not.
        let Some(notification) = received? else { return Ok(Waited::Lost) };
        let mut wants_all = notification.payload().is_empty();
        tokio::time::sleep(GATHER).await;
        while let Some(more) = listener.next_buffered() {
            wants_all |= more.payload().is_empty();
        }
        if wants_all {
            self.looked = None;
        }
        Ok(Waited::Notified)
    }
}

impl<S: FnMut(Arc<Snapshot>)> Known<S> {
    fn publish(&mut self, taken: Taken) {
        let before = self.taken.replace(taken.clone()).map(|taken| taken.snapshot);
        if before.as_ref().is_none_or(|before| !Arc::ptr_eq(before, &taken.snapshot)) {
            self.replaced.extend(before);
            (self.swap)(taken.snapshot);
        }
    }
}

/// Forgets what every node has long seen.
async fn tidy(pool: &PgPool) -> Result<(), sqlx::Error> {
    sqlx::query!("DELETE FROM policy_change WHERE at < now() - make_interval(mins => $1)", KEEP_MINUTES)
        .execute(pool)
        .await?;
    Ok(())
}
