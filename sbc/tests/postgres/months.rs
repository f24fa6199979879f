//! Records by month: where they lie, that there is a place for them ahead of time, and what became of those of before.

use std::time::{Duration, Instant};

use crate::cluster::Cluster;
use crate::node::SOON;
use crate::records::{ended, event, journal, ship};
use play::records::{answered, started};
use sbc::records::{months, read};
use sbc::store::MIGRATIONS;
use sip_engine::door::CallId;
use sip_engine::event::{CallEvent, EndCause};
use sqlx::migrate::Migrator;
use sqlx::types::Uuid;

/// A call of node 1, slot 0x234, that began then, in seconds since the Unix epoch.
fn id_of(began: u128) -> u128 {
    (began * 1000) << 80 | 0x8234 << 64 | 2 << 62 | 1 << 54 | 7
}

#[tokio::test]
async fn a_call_that_spans_months_lies_whole_in_the_one_in_which_it_began() {
    let Some((cluster, pool)) = Cluster::migrated().await else { return };
    cluster.psql_as("sbc_owner", "SELECT sbc_make_month('2031-12-01'), sbc_make_month('2032-01-01')");
    // A second before the year's end.
    let began = 1_956_527_999;
    let (_directory, journal) = journal();
    let events = [started("sip:alice@example.net"), answered(), ended(EndCause::Bye, "PCMU")];
    for (sequence, what) in (0..).zip(events) {
        let wall = Duration::from_secs(began + 3600 * u64::from(sequence));
        journal.append(&CallEvent { wall, ..event(id_of(began.into()), sequence, what) });
    }
    ship(&pool, &journal).await;
    let rows = "SELECT tableoid::regclass, count(*), count(*) FILTER (WHERE cause = 'bye' AND trunk IS NULL) FROM call GROUP BY 1";
    assert_eq!(cluster.psql(rows), "call_2031_12|1|1");
    let events = "SELECT tableoid::regclass, count(*) FROM call_event GROUP BY 1";
    assert_eq!(cluster.psql(events), "call_event_2031_12|3");
    let of = |from: &str, to: &str| {
        cluster.psql(&format!(
            "SELECT count(*) FROM call WHERE id >= sbc_call_id_from('{from}') AND id < sbc_call_id_from('{to}')"
        ))
    };
    assert_eq!(of("2031-12-31 23:59:59+00", "2032-01-01+00"), "1");
    assert_eq!(of("2031-12-01+00", "2031-12-31 23:59:59+00"), "0");
}

#[tokio::test]
async fn months_are_made_ahead_for_who_may_make_no_table_and_take_what_came_before_them() {
    let Some((cluster, pool)) = Cluster::migrated().await else { return };
    let runtime = |text: &str| cluster.psql_as("sbc_runtime", text);
    assert_eq!(runtime("SELECT sbc_make_months(3)"), "0", "the migration has made them");
    assert_eq!(runtime("SELECT sbc_make_months(5)"), "6");
    let refused = cluster.asked("sbc_runtime", "SELECT sbc_make_months(1000)").unwrap_err();
    assert!(refused.contains("0 to 24 months"), "{refused}");
    let latest = "date_trunc('month', now() AT TIME ZONE 'UTC') + interval '3 months'";
    let name = cluster.psql(&format!("SELECT to_char({latest}, 'YYYY_MM')"));
    cluster.psql_as("sbc_owner", &format!("DROP TABLE call_{name}, call_event_{name}, call_leg_{name}"));
    runtime(&format!(
        "INSERT INTO call (id, node, started_at, realm, source, transport, caller, from_uri, request_uri, call_id, user_agent)
         SELECT sbc_call_id_from({latest} + interval '1 day'), 1, now(), '', '', '', '', '', '', '', ''"
    ));
    assert_eq!(cluster.psql("SELECT tableoid::regclass FROM call"), "call_other");
    let keeping = tokio::spawn(months::keep(pool));
    let end = Instant::now() + SOON;
    while cluster.psql("SELECT tableoid::regclass FROM call") != format!("call_{name}") {
        assert!(Instant::now() < end, "it lies where it lay");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    keeping.abort();
}

#[tokio::test]
async fn calls_of_before_have_ids_that_begin_with_their_time_and_are_found_by_the_old_ones() {
    let Some(cluster) = Cluster::start() else { return };
    let before = MIGRATIONS.iter().filter(|migration| migration.version < 13).cloned().collect();
    Migrator::with_migrations(before).run(&cluster.pool("sbc_owner")).await.unwrap();
    // Of node 7 and slot 0x234, with a media session's last 52 bits.
    let former = 0x0723_4567_89ab_8def_8009_abcd_ef01_2345_u128;
    let id = Uuid::from_u128(former);
    cluster.psql_as(
        "sbc_owner",
        &format!(
            "INSERT INTO call (id, node, started_at, realm, source, transport, caller, from_uri, request_uri, call_id, user_agent)
             VALUES ('{id}', 7, '2026-11-30 23:59:59.5+00', 'access', '', '', '', 'sip:alice@example.net', '', '', '');
             INSERT INTO call_event VALUES ('{id}', 0, now(), 'started', '{{}}'), ('{id}', 1, now(), 'changed', '{{}}');
             INSERT INTO call_policy (call, release) VALUES ('{id}', 'anchor')"
        ),
    );
    cluster.migrate().await;
    let pool = cluster.pool("sbc_runtime");
    let row =
        "SELECT call.tableoid::regclass, former_id FROM call JOIN call_policy ON call.id = call_policy.call";
    assert_eq!(cluster.psql(row), format!("call_2026_11|{id}"));
    let new: Uuid = cluster.psql("SELECT id FROM call").parse().unwrap();
    let new = CallId(new.as_u128());
    assert_eq!(new.began(), Duration::from_millis(1_796_083_199_500));
    assert_eq!((new.node(), new.slot().number()), (7, 0x234));
    let shared = (1 << 52) - 1;
    assert_eq!(new.0 & shared, former & shared, "its media session");

    // What was in the journal when the old version ended.
    let (_directory, journal) = journal();
    let rest = CallEvent {
        wall: Duration::from_secs(1_796_083_300),
        ..event(former, 2, ended(EndCause::Bye, "PCMU"))
    };
    journal.append(&rest);
    ship(&pool, &journal).await;
    assert_eq!(cluster.psql("SELECT cause FROM call"), "bye");
    assert_eq!(cluster.psql("SELECT count(*) FROM call_event JOIN call ON call.id = call"), "3");
    let read = read::one(&pool, id).await.unwrap().unwrap();
    assert!(read.contains("alice") && read.contains("changed"), "{read}");
}
