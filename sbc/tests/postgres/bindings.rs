//! Bindings in a real PostgreSQL: what phones register outlives the process, whatever others register.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use crate::cluster::Cluster;
use play::settings::signalling::binding;
use sbc::config::Settings;
use sbc::records::bindings::Bindings;
use sbc::records::journal::{Kept, Replay};
use sbc::store::names::Names;
use sbc::store::refusal::{Aside, StoreCounters};
use sip_engine::io::{Flow, ListenerId, RealmId, Transport};
use sip_engine::registrar::{BindingChange, BindingRecord};
use sqlx::PgPool;
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;

const ACCESS: &str = "[[realm]]\nname = \"access\"\ndomains = [\"example.net\"]\nregistrar = \"local\"\n\
    authentication = \"digest\"\nlisten = [\"udp:127.0.0.1:5060\", \"tcp:127.0.0.1:5060\"]\nmedia = [\"127.0.0.1\"]\n";
const CORE: &str = "[[realm]]\nname = \"core\"\nauthentication = \"address\"\nlisten = [\"udp:127.0.0.2:5060\"]\nmedia = [\"127.0.0.2\"]\n";

fn names(realms: &[&str]) -> Names {
    let text = format!("[database]\nurl = \"postgres:///x\"\n{}", realms.concat());
    Names::new(&Settings::parse(&text, Path::new("sbc.toml")).unwrap().plane.engine)
}

/// A node's bindings, their changes, and what becomes of refused rows.
struct Node {
    changes: mpsc::UnboundedSender<Kept>,
    restored: oneshot::Receiver<Vec<BindingRecord>>,
    running: JoinHandle<()>,
    counters: Arc<StoreCounters>,
    directory: tempfile::TempDir,
}

fn store(pool: &PgPool, names: Names, file: &Path) -> Bindings {
    Bindings {
        pool: pool.clone(),
        node: 1,
        names,
        counters: Arc::default(),
        aside: Aside::new(file.to_owned()),
        journal: None,
    }
}

impl Node {
    fn start(pool: &PgPool) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let store = store(pool, names(&[ACCESS, CORE]), &directory.path().join("refused"));
        let counters = store.counters.clone();
        let (changes, receiver) = mpsc::unbounded_channel();
        let (sender, restored) = oneshot::channel();
        let running = tokio::spawn(store.run(receiver, Replay::default(), sender));
        Self { changes, restored, running, counters, directory }
    }

    fn put(&self, record: BindingRecord) {
        self.changes.send(Kept::Change(BindingChange::Put(Box::new(record)))).unwrap();
    }

    fn delete(&self, user: &str) {
        let record = record(user, 0);
        let change = BindingChange::Delete { aor: record.aor, uri: record.uri };
        self.changes.send(Kept::Change(change)).unwrap();
    }

    async fn stop(self) -> tempfile::TempDir {
        drop(self.changes);
        self.running.await.unwrap();
        self.directory
    }
}

fn record(user: &str, seconds: u64) -> BindingRecord {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
    let (expires, place) = (now + Duration::from_secs(seconds), "192.0.2.1:5060".parse().unwrap());
    BindingRecord { expires, user_agent: "a\0phone".into(), ..binding(user, place, place) }
}

async fn read(pool: &PgPool, names: Names) -> Vec<BindingRecord> {
    store(pool, names, Path::new("/nowhere")).read().await.unwrap().records
}

fn aors(records: &[BindingRecord]) -> Vec<&str> {
    let mut aors: Vec<&str> = records.iter().map(|record| &*record.aor).collect();
    aors.sort_unstable();
    aors
}

async fn rows(pool: &PgPool, expected: i64) {
    for _ in 0..200 {
        let count: i64 = sqlx::query_scalar("SELECT count(*) FROM binding").fetch_one(pool).await.unwrap();
        if count == expected {
            return;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    panic!("not {expected} rows");
}

#[tokio::test]
async fn bindings_are_written_in_their_latest_state_and_read_until_they_expire() {
    let Some((cluster, pool)) = Cluster::migrated().await else { return };
    // Away at first: the changes wait, and only the latest of each binding is written.
    cluster.stop();
    let node = Node::start(&pool);
    node.put(record("alice", 60));
    node.put(record("alice", 600));
    node.put(record("bob", 600));
    node.put(record("carol", 0));
    tokio::time::sleep(Duration::from_millis(300)).await;
    cluster.start_again();
    node.delete("bob");
    tokio::time::sleep(Duration::from_secs(6)).await;
    node.stop().await;
    let records = read(&pool, names(&[ACCESS, CORE])).await;
    assert_eq!(aors(&records), ["alice@example.net"]);
    assert!(records[0].expires > record("alice", 500).expires);
    let mut other = store(&pool, names(&[ACCESS, CORE]), Path::new("/nowhere"));
    other.node = 2;
    assert!(other.read().await.unwrap().records.is_empty(), "another node's are its own");
}

#[tokio::test]
async fn a_contact_of_any_length_and_a_row_that_breaks_an_operators_rule_cost_only_themselves() {
    let Some((cluster, pool)) = Cluster::migrated().await else { return };
    for rule in [
        "ALTER TABLE binding ADD CHECK (aor <> 'mallory@example.net')",
        "CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
            IF NEW.aor LIKE 'raised@%' THEN RAISE EXCEPTION 'no'; END IF;
            IF NEW.aor LIKE 'undefined@%' THEN EXECUTE 'SELECT * FROM of_nobody'; END IF;
            RETURN NEW; END $$",
        "CREATE TRIGGER refuse BEFORE INSERT OR UPDATE ON binding FOR EACH ROW EXECUTE FUNCTION refuse()",
    ] {
        cluster.psql_as("sbc_owner", rule);
    }
    let node = Node::start(&pool);
    let long: String =
        (0_u32..3_000).map(|n| char::from(b'a' + (n.wrapping_mul(2_654_435_761) >> 24) as u8 % 26)).collect();
    node.put(BindingRecord { uri: format!("sip:{long}@192.0.2.9"), ..record("long", 600) });
    for user in ["mallory", "raised", "undefined"] {
        node.put(record(user, 600));
        node.put(record(user, 601));
    }
    for number in 0..1_200 {
        node.put(record(&format!("user{number}"), 600));
    }
    rows(&pool, 1_201).await;
    let counters = node.counters.clone();
    let directory = node.stop().await;
    assert_eq!(counters.refused.load(Ordering::Relaxed), 3);
    assert!(counters.failures.load(Ordering::Relaxed) >= 1);
    let aside = std::fs::read_to_string(directory.path().join("refused")).unwrap();
    assert_eq!(aside.lines().count(), 3, "{aside}");
    let node = Node::start(&pool);
    assert_eq!(node.restored.await.unwrap().len(), 1_201);
}

#[tokio::test]
async fn a_schema_that_is_missing_sets_no_binding_aside() {
    let Some((cluster, pool)) = Cluster::migrated().await else { return };
    let node = Node::start(&pool);
    node.put(record("alice", 600));
    rows(&pool, 1).await;
    cluster.psql_as("sbc_owner", "ALTER TABLE binding RENAME COLUMN source TO origin");
    node.put(record("bob", 600));
    tokio::time::sleep(Duration::from_millis(800)).await;
    assert!(node.counters.failures.load(Ordering::Relaxed) >= 1);
    cluster.psql_as("sbc_owner", "ALTER TABLE binding RENAME COLUMN origin TO source");
    rows(&pool, 2).await;
    assert_eq!(node.counters.refused.load(Ordering::Relaxed), 0);
}

#[tokio::test]
async fn realms_in_another_order_are_found_by_name_and_what_is_gone_is_dropped() {
    let Some((_cluster, pool)) = Cluster::migrated().await else { return };
    let node = Node::start(&pool);
    node.put(record("alice", 600));
    let tcp = Flow { listener: ListenerId(1), transport: Transport::Tcp, ..record("tcp", 600).flow };
    node.put(BindingRecord { flow: tcp, ..record("tcp", 600) });
    let core = Flow { listener: ListenerId(2), transport: Transport::Udp, ..tcp };
    node.put(BindingRecord { realm: RealmId(1), flow: core, ..record("core", 600) });
    rows(&pool, 3).await;
    node.stop().await;

    let other_order = read(&pool, names(&[CORE, ACCESS])).await;
    let place = |user: &str| {
        let found = other_order.iter().find(|record| record.aor.starts_with(user)).unwrap();
        (found.realm.0, found.flow.listener.0)
    };
    assert_eq!((place("alice"), place("tcp"), place("core")), ((1, 1), (1, 2), (0, 0)));

    // Its listener is gone, its realm is gone, its address is another realm's now.
    let elsewhere = ACCESS.replace("udp:127.0.0.1:5060", "udp:127.0.0.1:5070");
    assert_eq!(aors(&read(&pool, names(&[&elsewhere, CORE])).await), ["core@example.net", "tcp@example.net"]);
    assert_eq!(aors(&read(&pool, names(&[ACCESS])).await), ["alice@example.net", "tcp@example.net"]);
    let swapped = [ACCESS.replace("127.0.0.1", "127.0.0.9"), CORE.replace("127.0.0.2", "127.0.0.1")];
    assert_eq!(aors(&read(&pool, names(&[&swapped[0], &swapped[1]])).await), [""; 0]);
}

#[tokio::test]
async fn a_phone_that_changes_its_contact_all_the_time_leaves_one_row() {
    let Some((cluster, pool)) = Cluster::migrated().await else { return };
    let node = Node::start(&pool);
    node.put(record("first", 600));
    rows(&pool, 1).await;
    cluster.stop();
    node.delete("first");
    for number in 0..5_000 {
        node.put(record(&format!("phone{number}"), 600));
        node.delete(&format!("phone{number}"));
    }
    node.put(record("last", 600));
    cluster.start_again();
    tokio::time::sleep(Duration::from_secs(4)).await;
    rows(&pool, 1).await;
    node.stop().await;
    assert_eq!(aors(&read(&pool, names(&[ACCESS, CORE])).await), ["last@example.net"]);
}
