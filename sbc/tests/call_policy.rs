//! What operators say of single calls, in a real PostgreSQL, and that it is done.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::print_stderr,
    missing_docs,
    reason = "a test that fails ends"
)]

mod cluster;

use std::sync::Arc;
use std::time::{Duration, Instant};

use cluster::Cluster;
use media_relay::{Relay, RelaySettings};
use sbc::calls::Calls;
use seam::SessionId;
use seam::path::Constraint;
use sip_engine::event::{CallEvent, CallEventKind, CallStarted};

const CALL: u128 = 0x0198_0000_0000_7000_8000_0000_0000_0001;

/// The open calls of a node: one.
fn calls() -> Arc<Calls> {
    let settings = RelaySettings {
        workers: 1,
        realms: Vec::new(),
        sessions: media_core::worker::Settings::default(),
        cname: "anchor".to_owned(),
        steering: false,
        vitals: Default::default(),
    };
    let calls = Calls::new(Arc::new(Relay::start(&settings, |_| {}).unwrap()));
    let started = CallStarted {
        session: SessionId(1),
        realm: "access".into(),
        source: "192.0.2.1:5060".parse().unwrap(),
        transport: "UDP".into(),
        caller: "alice@example.net".into(),
        from: "alice@example.net".into(),
        request_uri: "sip:bob@example.net".into(),
        call_id: "one".into(),
        user_agent: "".into(),
        minted_call_id: "".into(),
    };
    let (wall, monotonic) = (Duration::from_secs(1_700_000_000), Duration::from_secs(1));
    let what = CallEventKind::Started(Box::new(started));
    calls.follow(&CallEvent { call: CALL, sequence: 0, wall, monotonic, what });
    Arc::new(calls)
}

async fn comes(calls: &Calls, wanted: Option<Constraint>) {
    let start = Instant::now();
    while calls.said(CALL) != wanted {
        assert!(start.elapsed() < Duration::from_secs(10), "{:?}, not {wanted:?}", calls.said(CALL));
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

#[tokio::test]
async fn all_that_a_realm_may_say_is_said_of_a_running_call_and_taken_back() {
    let Some(cluster) = Cluster::start() else { return };
    let pool = cluster.pool().await;
    let calls = calls();
    let task = tokio::spawn(sbc::calls::policy::follow(pool.clone(), calls.clone()));
    let id = uuid::Uuid::from_u128(CALL);
    let say = |word: &str| cluster.psql(&format!("SELECT sbc_call_release('{id}', {word})"));
    let words = [
        ("'anchor'", Some(Constraint::MustAnchor)),
        ("'video'", Some(Constraint::VideoOnly)),
        ("'allow'", Some(Constraint::MayRelease)),
        ("'prefer'", Some(Constraint::PreferRelease)),
        ("'realm'", None),
        ("'video'", Some(Constraint::VideoOnly)),
        ("NULL", None),
        ("'anchor'", Some(Constraint::MustAnchor)),
    ];
    for (word, wanted) in words {
        say(word);
        comes(&calls, wanted).await;
    }
    let known = cluster.psql("SELECT release FROM call_policy");
    assert_eq!(known, "anchor");
    // What was said directly in the table counts as well, and its absence.
    cluster.psql("UPDATE call_policy SET release = 'video'");
    comes(&calls, Some(Constraint::VideoOnly)).await;
    cluster.psql("DELETE FROM call_policy");
    comes(&calls, None).await;
    // A word that means nothing changes nothing, and says what does.
    let error =
        sqlx::query("SELECT sbc_call_release($1, 'audio')").bind(id).execute(&pool).await.unwrap_err();
    let error = error.into_database_error().unwrap();
    let error = error.downcast_ref::<sqlx::postgres::PgDatabaseError>();
    assert!(error.hint().unwrap().contains("anchor, video, allow or prefer"), "{error:?}");
    assert_eq!(cluster.psql("SELECT count(*) FROM call_policy"), "0");
    task.abort();
}
