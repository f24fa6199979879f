//! What operators say of single calls, in a real PostgreSQL, and that it is done.

use std::sync::{Arc, Mutex, OnceLock};
use std::time::{Duration, Instant};

use crate::cluster::Cluster;
use sbc::calls::Calls;
use sbc::host::Ear;
use seam::path::Constraint;
use sip_engine::door::{CallAnswer, CallAnswered, CallOrder};
use sip_engine::io::Command;

const CALL: u128 = 0x0198_0000_0000_7000_8000_0000_0000_0001;
/// The node that it names.
const NODE: u8 = 0x01;

/// A node with one call, that does what it is told.
#[derive(Default)]
struct Node {
    said: Mutex<Option<Constraint>>,
    door: OnceLock<Arc<Calls>>,
}

impl Node {
    fn start() -> Arc<Self> {
        let node = Arc::new(Self::default());
        let home = node.clone();
        let tell = move |_, command| {
            let Command::Call { id, number, order } = command else { panic!("{command:?}") };
            assert_eq!(id.0, CALL);
            *home.said.lock().unwrap() = match order {
                CallOrder::Constrain(constraint) => Some(constraint),
                CallOrder::Release => None,
                other => panic!("{other:?}"),
            };
            home.door.get().unwrap().answered(&CallAnswered { number, result: Ok(CallAnswer::Done) });
        };
        let _ = node.door.set(Arc::new(Calls::new(NODE, Box::new(tell))));
        node
    }

    fn said(&self) -> Option<Constraint> {
        *self.said.lock().unwrap()
    }
}

async fn comes(node: &Node, wanted: Option<Constraint>) {
    let start = Instant::now();
    while node.said() != wanted {
        assert!(start.elapsed() < Duration::from_secs(10), "{:?}, not {wanted:?}", node.said());
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

#[tokio::test]
async fn all_that_a_realm_may_say_is_said_of_a_running_call_and_taken_back() {
    let Some((cluster, pool)) = Cluster::migrated().await else { return };
    let node = Node::start();
    let calls = node.door.get().unwrap().clone();
    let task = tokio::spawn(sbc::calls::policy::follow(pool.clone(), calls));
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
        comes(&node, wanted).await;
    }
    let known = cluster.psql("SELECT release FROM call_policy");
    assert_eq!(known, "anchor");
    // What was said directly in the table counts as well, and its absence.
    cluster.psql("UPDATE call_policy SET release = 'video'");
    comes(&node, Some(Constraint::VideoOnly)).await;
    cluster.psql("DELETE FROM call_policy");
    comes(&node, None).await;
    // A word that means nothing changes nothing, and says what does.
    let error =
        sqlx::query("SELECT sbc_call_release($1, 'audio')").bind(id).execute(&pool).await.unwrap_err();
    let error = error.into_database_error().unwrap();
    let error = error.downcast_ref::<sqlx::postgres::PgDatabaseError>();
    assert!(error.hint().unwrap().contains("anchor, video, allow or prefer"), "{error:?}");
    assert_eq!(cluster.psql("SELECT count(*) FROM call_policy"), "0");
    task.abort();
}
