//! Outcomes of moves off the relay in a real PostgreSQL: workers, nodes, operators and the next process know them.

use std::sync::Arc;
use std::time::Duration;

use crate::cluster::Cluster;
use media_core::path::memory::{Known, Memory, Outcome, Pair, Record};
use sbc::store::outcomes::{self, Resting};
use sbc::store::refusal::Aside;
use sqlx::PgPool;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;

const HOUR: Duration = Duration::from_secs(3_600);

fn store(pool: &PgPool) -> outcomes::Outcomes {
    let aside = Aside::new(std::env::temp_dir().join("refused-outcomes.jsonl"));
    outcomes::Outcomes { pool: pool.clone(), rest: HOUR, counters: Arc::default(), aside }
}

/// One SBC, as far as it matters.
struct Node {
    memory: Memory,
    outcomes: mpsc::UnboundedSender<Outcome>,
    told: mpsc::UnboundedReceiver<Vec<Resting>>,
    stop: watch::Sender<bool>,
    task: JoinHandle<()>,
}

impl Node {
    fn start(pool: &PgPool) -> Self {
        let (outcomes, receiver) = mpsc::unbounded_channel();
        let (tell, told) = mpsc::unbounded_channel();
        let (stop, stopped) = watch::channel(false);
        let recall = move |pairs| drop(tell.send(pairs));
        let task = tokio::spawn(outcomes::follow(store(pool), receiver, recall, stopped));
        Self { memory: Memory::default(), outcomes, told, stop, task }
    }

    /// Calls between them end so, one after the other.
    fn calls(&mut self, pair: &Pair, outcomes: &[bool]) {
        for has_worked in outcomes {
            if *has_worked {
                self.memory.worked(pair);
            } else {
                self.memory.failed(pair, HOUR, Duration::ZERO);
            }
        }
        while let Some(outcome) = self.memory.poll_outcome() {
            self.outcomes.send(outcome).unwrap();
        }
    }

    /// What the store tells next.
    async fn hear(&mut self) {
        let told = tokio::time::timeout(Duration::from_secs(15), self.told.recv()).await;
        let records = told.unwrap().unwrap().into_iter();
        let mut known = Known::new();
        known.extend(records.map(|(pair, failures, rest)| (pair, Record { failures, until: rest })));
        self.memory.recall(Arc::new(known));
    }

    fn shuns(&self, pair: &Pair) -> bool {
        self.memory.shuns(pair, Duration::ZERO)
    }

    async fn stop(self) {
        self.stop.send(true).unwrap();
        self.task.await.unwrap();
    }
}

fn pair(model: &str) -> Pair {
    let (home, far) = ("203.0.113.8".parse().unwrap(), "2001:db8::7".parse().unwrap());
    Pair::new([(model, home, true), ("baresip v1.0.0", far, false)])
}

#[tokio::test]
async fn what_failed_twice_is_known_after_a_restart_for_as_long_as_it_rests() {
    let Some((_cluster, pool)) = Cluster::migrated().await else { return };
    let (bad, once, mended) = (pair("Acme 1"), pair("Acme 2"), pair("Acme 3"));
    let mut node = Node::start(&pool);
    node.calls(&bad, &[false, false]);
    node.calls(&once, &[false]);
    node.calls(&mended, &[false, false, true]);
    node.stop().await;

    let mut node = Node::start(&pool);
    node.hear().await;
    assert!(node.shuns(&bad) && !node.shuns(&once) && !node.shuns(&mended));
    assert!(node.memory.shuns(&bad, HOUR - Duration::from_secs(60)) && !node.memory.shuns(&bad, HOUR));
    // The one failure that the process before had seen counts.
    node.calls(&once, &[false]);
    assert!(node.shuns(&once));
    node.hear().await;
    assert!(node.shuns(&bad) && node.shuns(&once));
    node.stop().await;
}

#[tokio::test]
async fn operators_see_the_scores_and_every_node_forgets_what_they_delete() {
    let Some((cluster, pool)) = Cluster::migrated().await else { return };
    let (mut one, mut other) = (Node::start(&pool), Node::start(&pool));
    one.calls(&pair("Acme 1"), &[true, false, true, false, false]);
    one.calls(&pair("Acme 2"), &[true, true, false]);
    other.hear().await;
    assert!(other.shuns(&pair("Acme 1")) && !other.shuns(&pair("Acme 2")), "another node's calls");
    let scores = cluster.psql(
        "SELECT one_model, one_network, one_nat, other_model, other_network, other_nat, tried, worked, failed, worked_percent,
            coalesce(resting_until BETWEEN now() + '59 minutes' AND now() + '60 minutes', false)
         FROM release_score",
    );
    let far = "baresip v1.0.0|2001:db8::/56|f";
    assert_eq!(
        scores,
        format!("acme 1|203.0.113.0/24|t|{far}|5|2|3|40|t\nacme 2|203.0.113.0/24|t|{far}|3|2|1|67|f")
    );
    one.hear().await;
    cluster.psql("DELETE FROM release_outcome WHERE 'acme 1' IN (one_model, other_model)");
    one.hear().await;
    other.hear().await;
    assert!(!one.shuns(&pair("Acme 1")) && !other.shuns(&pair("Acme 1")));
    one.stop().await;
    other.stop().await;
}

#[tokio::test]
async fn pairs_that_nobody_has_tried_for_three_months_are_forgotten() {
    let Some((cluster, pool)) = Cluster::migrated().await else { return };
    let mut node = Node::start(&pool);
    node.calls(&pair("Acme 1"), &[false, false]);
    node.calls(&pair("Acme 2"), &[true]);
    node.stop().await;
    cluster.psql_as(
        "sbc_runtime",
        "UPDATE release_outcome SET worked_at = worked_at - interval '91 days' WHERE one_model = 'acme 2';
         UPDATE release_outcome SET failed_at = failed_at - interval '89 days' WHERE one_model = 'acme 1'",
    );
    let mut node = Node::start(&pool);
    node.hear().await;
    assert_eq!(cluster.psql("SELECT one_model FROM release_outcome"), "acme 1");
    node.stop().await;
}

#[tokio::test]
async fn outcomes_wait_for_a_stopped_database() {
    let Some((cluster, pool)) = Cluster::migrated().await else { return };
    let bad = pair("Acme 1");
    let mut node = Node::start(&pool);
    node.calls(&bad, &[false]);
    node.hear().await;
    cluster.stop();
    node.calls(&bad, &[false]);
    assert!(node.shuns(&bad), "the worker needs no database for it");
    tokio::time::sleep(Duration::from_secs(3)).await;
    cluster.start_again();
    node.hear().await;
    assert!(node.shuns(&bad));
    assert_eq!(cluster.psql("SELECT failed, failed_in_row FROM release_outcome"), "2|2");
    node.stop().await;
}
