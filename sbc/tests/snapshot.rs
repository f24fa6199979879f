//! Subscribers, trunks and routes in a real PostgreSQL.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::print_stderr,
    missing_docs,
    reason = "a test that fails ends"
)]

mod cluster;

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use cluster::Cluster;
use sbc::config::Settings;
use sbc::policy::Snapshot;
use sbc::store::snapshot;
use sip_engine::io::RealmId;
use sip_engine::question::Policy;
use sqlx::PgPool;
use tokio::sync::mpsc;

fn settings(url: &str) -> Arc<Settings> {
    let text = format!(
        "[database]\nurl = \"{url}\"\n[[realm]]\nname = \"access\"\ndomains = [\"example.net\"]\nregistrar = \"local\"\n\
         authentication = \"digest\"\nlisten = [\"udp:127.0.0.1:5060\"]\nmedia = [\"127.0.0.1\"]\n"
    );
    Arc::new(Settings::parse(&text, Path::new("sbc.toml")).unwrap())
}

/// The snapshots that `follow` hands over.
fn following(pool: &PgPool, url: &str) -> mpsc::UnboundedReceiver<Snapshot> {
    let (sender, receiver) = mpsc::unbounded_channel();
    tokio::spawn(snapshot::follow(pool.clone(), settings(url), move |snapshot| {
        let _ = sender.send(snapshot);
    }));
    receiver
}

async fn next(receiver: &mut mpsc::UnboundedReceiver<Snapshot>, within: Duration) -> Snapshot {
    tokio::time::timeout(within, receiver.recv()).await.unwrap().unwrap()
}

async fn run(pool: &PgPool, text: &'static str) {
    sqlx::raw_sql(text).execute(pool).await.unwrap();
}

#[tokio::test]
async fn a_change_by_sql_is_in_force_within_a_second() {
    let Some(cluster) = Cluster::start() else { return };
    let pool = cluster.pool().await;
    let mut snapshots = following(&pool, &cluster.url);
    let first = next(&mut snapshots, Duration::from_secs(5)).await;
    assert!(first.credentials("example.net", "alice").is_empty());
    run(&pool, "SELECT sbc_set_password('example.net', 'alice', 'secret')").await;
    let second = next(&mut snapshots, Duration::from_secs(1)).await;
    assert_eq!(second.credentials("example.net", "alice").len(), 2, "MD5 and SHA-256");
    run(&pool, "UPDATE subscriber SET enabled = false").await;
    let third = next(&mut snapshots, Duration::from_secs(1)).await;
    assert!(third.credentials("example.net", "alice").is_empty());
}

#[tokio::test]
async fn a_snapshot_that_cannot_be_read_leaves_the_old_one_and_a_later_one_comes_by_itself() {
    let Some(cluster) = Cluster::start() else { return };
    let pool = cluster.pool().await;
    let mut snapshots = following(&pool, &cluster.url);
    next(&mut snapshots, Duration::from_secs(5)).await;
    run(&pool, "ALTER TABLE subscriber RENAME TO mislaid; SELECT pg_notify('sbc_changed', '')").await;
    let nothing = tokio::time::timeout(Duration::from_secs(2), snapshots.recv()).await;
    assert!(nothing.is_err(), "no snapshot replaces the old one");
    run(&pool, "ALTER TABLE mislaid RENAME TO subscriber").await;
    next(&mut snapshots, Duration::from_secs(3)).await;
}

#[tokio::test]
async fn what_changed_while_the_database_was_away_is_seen_when_it_is_back() {
    let Some(cluster) = Cluster::start() else { return };
    let pool = cluster.pool().await;
    let mut snapshots = following(&pool, &cluster.url);
    next(&mut snapshots, Duration::from_secs(5)).await;
    cluster.stop();
    tokio::time::sleep(Duration::from_millis(700)).await;
    cluster.start_again();
    let psql = sbc::store::pool(&cluster.url, 2).unwrap();
    run(&psql, "SELECT sbc_set_password('example.net', 'bob', 'secret')").await;
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
    let Some(cluster) = Cluster::start() else { return };
    let pool = cluster.pool().await;
    run(
        &pool,
        "INSERT INTO trunk (name, realm, host) VALUES ('good', 'access', 'sip.example'), ('lost', 'nowhere', 'sip.example');
         INSERT INTO trunk_address VALUES ('good', '198.51.100.0/24'), ('lost', '203.0.113.1');
         INSERT INTO route (from_realm, prefix, trunk) VALUES (NULL, '+', 'good'), ('nowhere', '', 'good'), (NULL, '', 'lost')",
    )
    .await;
    let snapshot = snapshot::load(&pool, &settings(&cluster.url)).await.unwrap();
    assert_eq!(snapshot.trunks.keys().collect::<Vec<_>>(), ["good"]);
    assert_eq!(snapshot.routes.iter().map(|route| route.prefix.as_str()).collect::<Vec<_>>(), ["+"]);
    assert_eq!(snapshot.source(RealmId(0), "198.51.100.7".parse().unwrap()).as_deref(), Some("good"));
}
