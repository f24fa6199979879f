//! Call records on their way from the journal to a real PostgreSQL: each arrives exactly once, whatever happens.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use crate::cluster::Cluster;
use play::records::{answered, started};
use sbc::records::journal::{Journal, Position};
use sbc::records::ship::{ShipCounters, Shipper};
use seam::path::{Entry, PathEntry, PathRecord, PathState, Reason};
use seam::{DirectStatistics, Endpoint, Loss, StreamStatistics};
use sip_engine::event::{CallEnded, CallEvent, CallEventKind, EndCause, EndedBy};
use sqlx::PgPool;
use tokio::sync::watch;

pub(crate) fn event(call: u128, sequence: u32, what: CallEventKind) -> CallEvent {
    let second = u64::from(sequence);
    let (wall, monotonic) = (Duration::from_secs(1_700_000_000 + second), Duration::from_secs(second));
    CallEvent { call, sequence, wall, monotonic, what }
}

/// An empty one, and where it lies.
pub(crate) fn journal() -> (tempfile::TempDir, Arc<Journal>) {
    let directory = tempfile::tempdir().unwrap();
    let journal = Journal::open(directory.path()).unwrap();
    (directory, journal)
}

pub(crate) fn ended(cause: EndCause, codec: &str) -> CallEventKind {
    CallEventKind::Ended(Box::new(CallEnded {
        cause,
        side: EndedBy::Caller,
        status: 200,
        answered_after: Some(Duration::from_millis(1500)),
        total: Duration::from_millis(4600),
        talked: Duration::from_millis(3100),
        direct: Duration::from_millis(1200),
        media: vec![StreamStatistics {
            endpoint: Endpoint { party: 0, branch: 0 },
            stream: 0,
            kind: "audio".into(),
            codec: codec.into(),
            packets: 150,
            octets: 25_800,
            lost: 1,
            strangers: 0,
            jitter_ms: 0.5,
            rtt_ms: None,
            mos: Some(4.4),
            dtmf: 0,
            whole: Some(Loss { packets: 210, lost: 2, unknown: 0, is_reported: true }),
            direct: Some(DirectStatistics { packets: Some(60), lost: Some(2), jitter_ms: Some(1.5) }),
        }],
        legs: Vec::new(),
    }))
}

fn whole_call(journal: &Journal, call: u128) {
    journal.append(&event(call, 0, started("sip:alice@example.net")));
    journal.append(&event(call, 1, answered()));
    journal.append(&event(call, 2, direct()));
    journal.append(&event(call, 3, ended(EndCause::Bye, "PCMU")));
}

/// Its media has left the relay.
fn direct() -> CallEventKind {
    CallEventKind::Path(PathRecord::Entry(PathEntry {
        after: Duration::from_millis(1900),
        entry: Entry::State { to: PathState::Direct, why: Reason::Proven },
        parties: [0, 1].map(|party| Endpoint { party, branch: 0 }),
    }))
}

fn shipper(pool: &PgPool, journal: &Arc<Journal>) -> (Shipper, Arc<ShipCounters>) {
    let counters = Arc::new(ShipCounters::default());
    let (pool, journal, shared) = (pool.clone(), journal.clone(), counters.clone());
    (Shipper { pool, journal, node: 1, counters: shared }, counters)
}

/// Ships what there is and returns.
pub(crate) async fn ship(pool: &PgPool, journal: &Arc<Journal>) -> Arc<ShipCounters> {
    let (shipper, counters) = shipper(pool, journal);
    shipper.run(watch::channel(true).1).await;
    counters
}

async fn number(pool: &PgPool, query: &'static str) -> i64 {
    sqlx::query_scalar(query).fetch_one(pool).await.unwrap()
}

#[tokio::test]
async fn a_call_leaves_one_row_with_its_times_and_its_media() {
    let Some((cluster, pool)) = Cluster::migrated().await else { return };
    let (_directory, journal) = journal();
    whole_call(&journal, 7);
    ship(&pool, &journal).await;
    let exact = "SELECT count(*) FROM call WHERE id = '00000000-0000-0000-0000-000000000007' AND node = 1 AND realm = 'access'
        AND caller = 'alice@example.net' AND started_at = to_timestamp(1700000000) AND answered_at = to_timestamp(1700000001)
        AND ended_at = to_timestamp(1700000004.6) AND cause = 'bye' AND ended_by = 'caller' AND status = 200
        AND setup_ms = 1500 AND duration_ms = 3100 AND trunk IS NULL AND media->0->>'packets' = '150'
        AND direct_ms = 1200 AND relayed_ms = 1900 AND relayed_octets = 25800 AND media->0->'direct'->>'lost' = '2'
        AND media->0->'whole'->>'packets' = '210' AND media->0->'whole'->>'by' = 'reports'
        AND media->0->'direct'->>'dtmf' = 'not seen'";
    assert_eq!(number(&pool, exact).await, 1);
    assert_eq!(number(&pool, "SELECT count(*) FROM call_event").await, 4);
    let path = "SELECT count(*) FROM call_path WHERE sequence = 2 AND after_ms = 1900 AND what = 'direct' AND why = 'proven'";
    assert_eq!(cluster.psql(path), "1");
}

#[tokio::test]
async fn shipping_everything_again_changes_nothing() {
    let Some((_cluster, pool)) = Cluster::migrated().await else { return };
    let (_directory, journal) = journal();
    // More than a batch, so that the journal is read in several steps.
    for call in 0..400 {
        whole_call(&journal, call);
    }
    ship(&pool, &journal).await;
    let checksum = "SELECT sum(hashtext(call::text)) FROM call";
    let before = number(&pool, checksum).await;
    // The process died after the commit and before it had noted how far it had come.
    journal.mark_shipped(Position::default()).unwrap();
    ship(&pool, &journal).await;
    assert_eq!(number(&pool, checksum).await, before);
    assert_eq!(number(&pool, "SELECT count(*) FROM call").await, 400);
    assert_eq!(number(&pool, "SELECT count(*) FROM call_event").await, 1600);
}

#[tokio::test]
async fn an_end_that_was_shipped_is_not_overwritten_by_the_crash_of_a_journal_that_lost_its_tail() {
    let Some((_cluster, pool)) = Cluster::migrated().await else { return };
    let (directory, journal) = journal();
    whole_call(&journal, 1);
    ship(&pool, &journal).await;
    drop(journal);
    // A power failure: the last line had reached the database and not the disk.
    let file = directory.path().join("journal-0000000001.jsonl");
    let text = std::fs::read_to_string(&file).unwrap();
    let kept: Vec<&str> = text.lines().filter(|line| !line.contains("Ended")).collect();
    std::fs::write(&file, kept.join("\n") + "\n").unwrap();
    let journal = Journal::open(directory.path()).unwrap();
    ship(&pool, &journal).await;
    assert_eq!(number(&pool, "SELECT count(*) FROM call WHERE cause = 'bye'").await, 1);
}

#[tokio::test]
async fn calls_of_a_dead_process_are_closed_in_the_database_too() {
    let Some((_cluster, pool)) = Cluster::migrated().await else { return };
    let (directory, journal) = journal();
    journal.append(&event(1, 0, started("sip:alice@example.net")));
    journal.append(&event(1, 1, answered()));
    journal.append(&event(1, 2, direct()));
    journal.append(&event(1, 2, CallEventKind::Metered { direct: Duration::ZERO, is_direct: true }));
    ship(&pool, &journal).await;
    assert_eq!(number(&pool, "SELECT count(*) FROM call WHERE ended_at IS NULL").await, 1);
    journal.heartbeat(Duration::from_secs(1_700_000_009), Duration::from_secs(9));
    drop(journal);
    ship(&pool, &Journal::open(directory.path()).unwrap()).await;
    let closed = "SELECT count(*) FROM call WHERE cause = 'crash' AND duration_ms = 8000 AND direct_ms = 7000 AND ended_at = to_timestamp(1700000009)";
    assert_eq!(number(&pool, closed).await, 1);
}

#[tokio::test]
async fn records_wait_for_a_stopped_database_and_arrive_when_it_is_back() {
    let Some((cluster, pool)) = Cluster::migrated().await else { return };
    let (_directory, journal) = journal();
    let (shipper, counters) = shipper(&pool, &journal);
    let (stop, stopped) = watch::channel(false);
    let shipping = tokio::spawn(shipper.run(stopped));
    whole_call(&journal, 1);
    cluster.stop();
    whole_call(&journal, 2);
    while counters.failed.load(Ordering::Relaxed) == 0 {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert!(counters.backlog.load(Ordering::Relaxed) > 0);
    cluster.start_again();
    whole_call(&journal, 3);
    let all = async {
        while counters.shipped.load(Ordering::Relaxed) < 12 {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(15), all).await.unwrap();
    stop.send(true).unwrap();
    shipping.await.unwrap();
    assert_eq!(number(&pool, "SELECT count(*) FROM call WHERE cause = 'bye'").await, 3);
}

#[tokio::test]
async fn text_that_postgresql_cannot_hold_stops_no_record() {
    let Some((_cluster, pool)) = Cluster::migrated().await else { return };
    let (_directory, journal) = journal();
    journal.append(&event(1, 0, started("sip:a\0b@example.net")));
    journal.append(&event(1, 1, ended(EndCause::Bye, "PC\0MU")));
    let counters = ship(&pool, &journal).await;
    assert_eq!(counters.rejected.load(Ordering::Relaxed), 0);
    assert_eq!(number(&pool, "SELECT count(*) FROM call WHERE cause = 'bye'").await, 1);
}

#[tokio::test]
async fn an_event_that_the_database_refuses_is_kept_aside_and_holds_up_no_other() {
    let Some((cluster, pool)) = Cluster::migrated().await else { return };
    // An operator's own rule on the table is the kind of thing that nobody here can foresee.
    cluster.psql_as("sbc_owner", "ALTER TABLE call ADD CHECK (from_uri <> 'sip:refused@example.net')");
    let (directory, journal) = journal();
    whole_call(&journal, 1);
    journal.append(&event(2, 0, started("sip:refused@example.net")));
    whole_call(&journal, 3);
    let counters = ship(&pool, &journal).await;
    assert_eq!(counters.rejected.load(Ordering::Relaxed), 1);
    assert_eq!(number(&pool, "SELECT count(*) FROM call WHERE cause = 'bye'").await, 2);
    let aside = std::fs::read_to_string(directory.path().join("rejected.jsonl")).unwrap();
    assert_eq!(aside.matches("sip:refused@example.net").count(), 1);
}

#[tokio::test]
async fn a_schema_that_is_missing_loses_no_record() {
    let Some(cluster) = Cluster::start() else { return };
    let pool = cluster.pool("sbc_runtime");
    let (_directory, journal) = journal();
    whole_call(&journal, 1);
    let all = sbc::store::MIGRATIONS.iter().count();
    assert_eq!(sbc::store::missing_migrations(&pool).await.unwrap(), all);
    let counters = ship(&pool, &journal).await;
    assert_eq!((counters.failed.load(Ordering::Relaxed), counters.rejected.load(Ordering::Relaxed)), (1, 0));
    cluster.migrate().await;
    assert_eq!(sbc::store::missing_migrations(&pool).await.unwrap(), 0);
    ship(&pool, &journal).await;
    assert_eq!(number(&pool, "SELECT count(*) FROM call").await, 1);
}
