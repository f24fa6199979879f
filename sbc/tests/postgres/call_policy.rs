//! What operators say of single calls, in a real PostgreSQL, and that it is done.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::{Duration, Instant};

use crate::cluster::Cluster;
use sbc::calls::Calls;
use sbc::host::Ear;
use seam::path::Constraint;
use sip_engine::door::{CallAnswer, CallAnswered, CallOrder};
use sip_engine::io::Command;

const CALL: u128 = 0x0198_0000_0000_8000_8040_0000_0000_0001;
/// The node that it names.
const NODE: u8 = 0x01;

/// What a node does with an order.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
enum Mood {
    #[default]
    Well,
    /// Does it and says nothing.
    Mute,
    /// Never gets it.
    Deaf,
}

/// A node with one call, that does what it is told.
#[derive(Default)]
struct Node {
    said: Mutex<Option<Constraint>>,
    mood: Mutex<Mood>,
    /// How often it was told something.
    told: AtomicU64,
    door: OnceLock<Arc<Calls>>,
}

impl Node {
    fn start() -> Arc<Self> {
        let node = Arc::new(Self::default());
        let home = node.clone();
        let tell = move |_, command| {
            let Command::Call { id, number, order } = command else { panic!("{command:?}") };
            assert_eq!(id.0, CALL);
            home.told.fetch_add(1, Ordering::Relaxed);
            let mood = *home.mood.lock().unwrap();
            if mood == Mood::Deaf {
                return;
            }
            *home.said.lock().unwrap() = match order {
                CallOrder::Constrain(constraint) => Some(constraint),
                CallOrder::Release => None,
                other => panic!("{other:?}"),
            };
            if mood == Mood::Mute {
                return;
            }
            home.door.get().unwrap().answered(&CallAnswered { number, result: Ok(CallAnswer::Done) });
        };
        let _ = node.door.set(Arc::new(Calls::new(NODE, Box::new(tell))));
        node
    }

    fn is_now(&self, mood: Mood) {
        *self.mood.lock().unwrap() = mood;
    }

    fn told(&self) -> u64 {
        self.told.load(Ordering::Relaxed)
    }

    fn said(&self) -> Option<Constraint> {
        *self.said.lock().unwrap()
    }
}

/// Waits until it has been told something more often than so.
async fn is_told_after(node: &Node, told: u64) {
    while node.told() <= told {
        tokio::time::sleep(Duration::from_millis(10)).await;
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
    let operator = cluster.pool("sbc_operator");
    // A word that means nothing changes nothing, and says what does.
    let error =
        sqlx::query("SELECT sbc_call_release($1, 'audio')").bind(id).execute(&operator).await.unwrap_err();
    let error = error.into_database_error().unwrap();
    let error = error.downcast_ref::<sqlx::postgres::PgDatabaseError>();
    assert!(error.hint().unwrap().contains("anchor, video, allow or prefer"), "{error:?}");
    assert_eq!(cluster.psql("SELECT count(*) FROM call_policy"), "0");
    task.abort();
}

#[tokio::test]
async fn a_word_that_was_lost_is_said_again_without_another_change() {
    let Some((cluster, pool)) = Cluster::migrated().await else { return };
    let node = Node::start();
    let task = tokio::spawn(sbc::calls::policy::follow(pool.clone(), node.door.get().unwrap().clone()));
    let id = uuid::Uuid::from_u128(CALL);
    node.is_now(Mood::Deaf);
    cluster.psql(&format!("SELECT sbc_call_release('{id}', 'anchor')"));
    is_told_after(&node, 0).await;
    node.is_now(Mood::Well);
    comes(&node, Some(Constraint::MustAnchor)).await;
    let told = node.told();
    tokio::time::sleep(Duration::from_secs(3)).await;
    assert_eq!(node.told(), told, "and once it is answered, no more");
    task.abort();
}

#[tokio::test]
async fn what_may_have_been_heard_is_taken_back_with_its_row() {
    let Some((cluster, pool)) = Cluster::migrated().await else { return };
    let node = Node::start();
    let task = tokio::spawn(sbc::calls::policy::follow(pool.clone(), node.door.get().unwrap().clone()));
    let id = uuid::Uuid::from_u128(CALL);
    let say = |word: &str| cluster.psql(&format!("SELECT sbc_call_release('{id}', {word})"));
    node.is_now(Mood::Mute);
    say("'anchor'");
    comes(&node, Some(Constraint::MustAnchor)).await;
    say("NULL");
    comes(&node, None).await;
    // Nobody has confirmed that either; the word from before is not taken for what still holds.
    say("'anchor'");
    comes(&node, Some(Constraint::MustAnchor)).await;
    node.is_now(Mood::Well);
    say("NULL");
    comes(&node, None).await;
    task.abort();
}
