//! Subscribers, trunks and routes in a real PostgreSQL.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use crate::cluster::Cluster;
use sbc::config::Settings;
use sbc::policy::Snapshot;
use sbc::policy::rows;
use sip_engine::io::RealmId;
use sip_engine::question::{Caller, Policy, RouteQuestion, RouteStep};
use sqlx::PgPool;
use tokio::sync::mpsc;

fn settings(cluster: &Cluster) -> Arc<Settings> {
    let url = cluster.url("sbc_runtime");
    let text = format!(
        "[database]\nurl = \"{url}\"\n[[realm]]\nname = \"access\"\ndomains = [\"example.net\"]\nregistrar = \"local\"\n\
         authentication = \"digest\"\nlisten = [\"udp:127.0.0.1:5060\"]\nmedia = [\"127.0.0.1\"]\n"
    );
    Arc::new(Settings::parse(&text, Path::new("sbc.toml")).unwrap())
}

/// The snapshots that `follow` hands over.
fn following(pool: &PgPool, cluster: &Cluster) -> mpsc::UnboundedReceiver<Arc<Snapshot>> {
    let (sender, receiver) = mpsc::unbounded_channel();
    tokio::spawn(rows::follow(pool.clone(), settings(cluster), move |snapshot| {
        let _ = sender.send(snapshot);
    }));
    receiver
}

async fn next(receiver: &mut mpsc::UnboundedReceiver<Arc<Snapshot>>, within: Duration) -> Arc<Snapshot> {
    tokio::time::timeout(within, receiver.recv()).await.unwrap().unwrap()
}

#[tokio::test]
async fn a_change_by_sql_is_in_force_within_a_second() {
    let Some((cluster, pool)) = Cluster::migrated().await else { return };
    let mut snapshots = following(&pool, &cluster);
    let first = next(&mut snapshots, Duration::from_secs(5)).await;
    assert!(first.credentials("example.net", "alice").is_empty());
    cluster.psql("SELECT sbc_set_password('example.net', 'alice', 'secret')");
    let second = next(&mut snapshots, Duration::from_secs(1)).await;
    assert_eq!(second.credentials("example.net", "alice").len(), 2, "MD5 and SHA-256");
    cluster.psql("UPDATE subscriber SET enabled = false");
    let third = next(&mut snapshots, Duration::from_secs(1)).await;
    assert!(third.credentials("example.net", "alice").is_empty());
}

#[tokio::test]
async fn a_snapshot_that_cannot_be_read_leaves_the_old_one_and_a_later_one_comes_by_itself() {
    let Some((cluster, pool)) = Cluster::migrated().await else { return };
    let mut snapshots = following(&pool, &cluster);
    next(&mut snapshots, Duration::from_secs(5)).await;
    cluster.psql_as(
        "sbc_owner",
        "ALTER TABLE subscriber RENAME TO mislaid; SELECT pg_notify('sbc_changed', '')",
    );
    let nothing = tokio::time::timeout(Duration::from_secs(2), snapshots.recv()).await;
    assert!(nothing.is_err(), "no snapshot replaces the old one");
    cluster.psql_as("sbc_owner", "ALTER TABLE mislaid RENAME TO subscriber");
    next(&mut snapshots, Duration::from_secs(3)).await;
}

#[tokio::test]
async fn what_changed_while_the_database_was_away_is_seen_when_it_is_back() {
    let Some((cluster, pool)) = Cluster::migrated().await else { return };
    let mut snapshots = following(&pool, &cluster);
    next(&mut snapshots, Duration::from_secs(5)).await;
    cluster.stop();
    tokio::time::sleep(Duration::from_millis(700)).await;
    cluster.start_again();
    cluster.psql("SELECT sbc_set_password('example.net', 'bob', 'secret')");
    let found = async {
        loop {
            if !snapshots.recv().await.unwrap().credentials("example.net", "bob").is_empty() {
                break;
            }
        }
    };
    tokio::time::timeout(Duration::from_secs(10), found).await.unwrap();
}

#[tokio::test]
async fn a_trunk_or_route_of_an_unknown_realm_is_left_out_and_the_rest_holds() {
    let Some((cluster, pool)) = Cluster::migrated().await else { return };
    cluster.psql(
        "INSERT INTO trunk (name, realm, host) VALUES ('good', 'access', 'sip.example'), ('lost', 'nowhere', 'sip.example');
         INSERT INTO trunk_address VALUES ('good', '198.51.100.0/24'), ('lost', '203.0.113.1');
         INSERT INTO route (from_realm, prefix, trunk) VALUES (NULL, '+', 'good'), ('nowhere', '', 'good'), (NULL, '', 'lost')",
    );
    let snapshot = rows::load(&pool, &settings(&cluster)).await.unwrap();
    assert_eq!(snapshot.trunks.list().iter().map(|trunk| &*trunk.name).collect::<Vec<_>>(), ["good"]);
    assert_eq!((routed(&snapshot, "+1").len(), routed(&snapshot, "1").len()), (1, 0));
    assert_eq!(snapshot.source(RealmId(0), "198.51.100.7".parse().unwrap()).as_deref(), Some("good"));
}

/// The names of the trunks that a number goes to.
fn routed(snapshot: &Snapshot, user: &str) -> Vec<String> {
    let question =
        RouteQuestion { realm: RealmId(0), caller: &Caller::Anonymous, user, host: "elsewhere.example" };
    let steps = snapshot.route(&question).unwrap_or_default();
    steps
        .into_iter()
        .map(|step| match step {
            RouteStep::Trunk { target, .. } => target.name.to_string(),
            RouteStep::Aor { aor } => aor.to_string(),
        })
        .collect()
}

/// The first snapshot of which something is true, within a second and a half: one, and what a busy machine adds.
async fn until(
    receiver: &mut mpsc::UnboundedReceiver<Arc<Snapshot>>,
    is_true: impl Fn(&Snapshot) -> bool,
) -> Arc<Snapshot> {
    let found = async {
        loop {
            let snapshot = receiver.recv().await.unwrap();
            if is_true(&snapshot) {
                return snapshot;
            }
        }
    };
    tokio::time::timeout(Duration::from_millis(1_500), found).await.unwrap()
}

const TWO_TRUNKS: &str = "INSERT INTO trunk (name, realm, host) VALUES ('one', 'access', 'one.example'), ('two', 'access', 'two.example')";

#[tokio::test]
async fn changes_are_read_by_key_in_whatever_order_transactions_are_committed() {
    let Some((cluster, pool)) = Cluster::migrated().await else { return };
    cluster.psql(TWO_TRUNKS);
    let mut snapshots = following(&pool, &cluster);
    next(&mut snapshots, Duration::from_secs(5)).await;
    // Begun first, committed last: a look that counted rows would have passed it by.
    let mut early = cluster.pool("sbc_operator").begin().await.unwrap();
    sqlx::query("INSERT INTO route (prefix, trunk) VALUES ('1', 'one')").execute(&mut *early).await.unwrap();
    cluster.psql("INSERT INTO route (prefix, trunk) VALUES ('2', 'two')");
    let snapshot = until(&mut snapshots, |snapshot| !routed(snapshot, "2").is_empty()).await;
    assert!(routed(&snapshot, "1").is_empty());
    early.commit().await.unwrap();
    until(&mut snapshots, |snapshot| routed(snapshot, "1") == ["one"]).await;

    // A key that changes leaves its old place.
    cluster.psql("UPDATE route SET prefix = '3' WHERE prefix = '1'");
    until(&mut snapshots, |snapshot| routed(snapshot, "1").is_empty() && routed(snapshot, "3") == ["one"])
        .await;
    cluster.psql("UPDATE trunk SET enabled = false WHERE name = 'one'");
    until(&mut snapshots, |snapshot| routed(snapshot, "3").is_empty()).await;
    cluster.psql("UPDATE trunk SET enabled = true WHERE name = 'one'");
    until(&mut snapshots, |snapshot| routed(snapshot, "3") == ["one"]).await;
    cluster.psql("TRUNCATE route");
    until(&mut snapshots, |snapshot| snapshot.routes.is_empty()).await;
}

#[tokio::test]
async fn a_lost_notification_delays_a_change_and_loses_none() {
    let Some((cluster, pool)) = Cluster::migrated().await else { return };
    cluster.psql(TWO_TRUNKS);
    let mut snapshots = following(&pool, &cluster);
    next(&mut snapshots, Duration::from_secs(5)).await;
    // The connection that listens is gone, and what is told now nobody hears.
    cluster.psql_as(
        "sbc",
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE query LIKE 'LISTEN%';
         INSERT INTO route (prefix, trunk) VALUES ('1', 'one')",
    );
    until(&mut snapshots, |snapshot| routed(snapshot, "1") == ["one"]).await;
    // A trigger that tells nobody.
    cluster.psql_as(
        "sbc",
        "CREATE FUNCTION pg_temp.nothing() RETURNS void LANGUAGE sql AS ''; INSERT INTO policy_change (kind, key) VALUES ('route', '9')",
    );
    cluster.psql_as(
        "sbc",
        "BEGIN; SET LOCAL session_replication_role = replica; INSERT INTO route (prefix, trunk) VALUES ('2', 'two');
         INSERT INTO policy_change (kind, key) VALUES ('route', '2'); COMMIT",
    );
    until(&mut snapshots, |snapshot| routed(snapshot, "2") == ["two"]).await;
}

#[tokio::test]
async fn ten_thousand_changes_in_one_statement_and_in_as_many_transactions_are_in_force_at_once() {
    let Some((cluster, pool)) = Cluster::migrated().await else { return };
    cluster.psql(TWO_TRUNKS);
    cluster.psql(
        "INSERT INTO route (prefix, trunk) SELECT (1000000 + n)::text, 'one' FROM generate_series(1, 20000) n;
         INSERT INTO subscriber (domain, username, ha1_md5) SELECT 'example.net', 'user' || n, md5(n::text) FROM generate_series(1, 20000) n",
    );
    let mut snapshots = following(&pool, &cluster);
    let first = next(&mut snapshots, Duration::from_secs(10)).await;
    assert_eq!((first.routes.len(), first.subscribers.len()), (20_000, 20_000));
    assert_eq!(routed(&first, "10000077"), ["one"]);

    cluster.psql(
        "UPDATE route SET trunk = 'two' WHERE id <= 10000; DELETE FROM subscriber WHERE username = 'user7'",
    );
    let after = until(&mut snapshots, |snapshot| {
        routed(snapshot, "10000077") == ["two"] && snapshot.credentials("example.net", "user7").is_empty()
    })
    .await;
    assert_eq!((routed(&after, "10199997"), after.routes.len()), (vec!["one".to_owned()], 20_000));

    cluster.psql(
        "DO $$ BEGIN FOR n IN 1..2000 LOOP
            INSERT INTO subscriber (domain, username, ha1_md5) VALUES ('example.net', 'new' || n, md5('')); COMMIT;
         END LOOP; END $$",
    );
    until(&mut snapshots, |snapshot| !snapshot.credentials("example.net", "new2000").is_empty()).await;

    cluster.psql(
        "BEGIN; TRUNCATE route; INSERT INTO route (prefix, trunk) SELECT (1000000 + n)::text, 'two' FROM generate_series(1, 20000) n; COMMIT",
    );
    until(&mut snapshots, |snapshot| routed(snapshot, "10199997") == ["two"]).await;
}
