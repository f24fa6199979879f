//! Brings bindings and policy from the store to signalling.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use sip_engine::io::Command;
use sip_engine::registrar::BindingRecord;
use tokio::sync::oneshot::Receiver;

use crate::config::Settings;
use crate::{policy, store};

/// So long it waits for something before it says that it goes round.
const QUARTER: Duration = Duration::from_secs(30);

/// Bindings of one command at the start, and how long shards have for them: their inboxes are bounded.
const BINDINGS_AT_ONCE: usize = 500;
const BETWEEN_BINDINGS: Duration = Duration::from_millis(3);

/// What brings bindings and policy from the store to signalling.
pub(super) struct Follower {
    pub(super) url: String,
    pub(super) settings: Arc<Settings>,
    pub(super) ready: Arc<AtomicBool>,
    pub(super) tell: Box<dyn Fn(Command) + Send + Sync>,
}

impl Follower {
    /// On a thread of its own, that makes room for others: sorting a million rows must delay no call.
    pub(super) fn begin(
        self,
        part: vitals::Part,
        restoring: Receiver<Vec<BindingRecord>>,
    ) -> std::io::Result<()> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let work = move || {
            if let Err(error) = rustix::process::nice(10) {
                tracing::warn!(%error, "the thread that reads policy can't be made to wait for others");
            }
            runtime.block_on(part.task(self.follow(restoring)));
        };
        std::thread::Builder::new().name("policy".to_owned()).spawn(work).map(drop)
    }

    async fn follow(self, mut restoring: Receiver<Vec<BindingRecord>>) {
        let Ok(pool) = store::pool(&self.url, 2) else { return };
        // Bindings come before the calls to them.
        let records = loop {
            vitals::round();
            if let Ok(records) = tokio::time::timeout(QUARTER, &mut restoring).await {
                break records.unwrap_or_default();
            }
        };
        // Connections end with their process: over them nobody can be called until he is back.
        let connected = records.iter().filter(|record| record.flow.connection.is_some()).count();
        let bindings = records.len().saturating_sub(connected);
        tracing::info!(bindings, over_connections = connected, "bindings restored");
        // In parts: between them each shard serves whoever is there already, and shows that it lives.
        let mut records = records.into_iter();
        while let part = records.by_ref().take(BINDINGS_AT_ONCE).collect::<Vec<_>>()
            && !part.is_empty()
        {
            (self.tell)(Command::Load(part));
            vitals::round();
            tokio::time::sleep(BETWEEN_BINDINGS).await;
        }
        let Self { settings, ready, tell, .. } = self;
        policy::rows::follow(pool, settings, |snapshot| {
            tell(Command::Policy(snapshot));
            ready.store(true, Ordering::Relaxed);
        })
        .await;
    }
}
