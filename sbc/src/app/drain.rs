//! The end of the program: no new calls, then none at all, then what is written reaches the database.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use media_relay::Relay;
use sip_engine::io::Command;
use sip_proxy::SipPlane;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::Instant;
use vitals::Vitals;

use super::manager::Manager;
use super::signals::{Signal, Signals};
use crate::config::Settings;
use crate::records::journal::Journal;

/// BYEs leave and their records are written within this.
const LAST_CALLS: Duration = Duration::from_secs(3);
/// What is written reaches the database within this, or after the next start.
const LAST_ROWS: Duration = Duration::from_secs(5);

/// What runs until it is told to stop.
pub(super) struct Running {
    pub(super) settings: Arc<Settings>,
    pub(super) signals: Signals,
    pub(super) manager: Manager,
    pub(super) plane: SipPlane,
    pub(super) relay: Arc<Relay>,
    pub(super) journal: Arc<Journal>,
    pub(super) vitals: Vitals,
    pub(super) is_draining: Arc<AtomicBool>,
    /// Tells every shard.
    pub(super) tell: Box<dyn Fn(Command) + Send + Sync>,
    /// Tells the writers.
    pub(super) stop: watch::Sender<bool>,
    pub(super) writers: Vec<JoinHandle<()>>,
}

impl Running {
    /// Waits for a signal, drains, and stops.
    pub(super) async fn until_the_end(mut self) -> Result<(), Box<dyn std::error::Error>> {
        while self.signals.next().await == Signal::Reload {
            reload_certificates(&self.settings);
        }
        self.drain().await;
        (self.tell)(Command::HangUpAll);
        let began = Instant::now();
        tokio::time::sleep(Duration::from_millis(300)).await;
        while self.calls() > 0 && began.elapsed() < LAST_CALLS {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        // Parts may end from here on.
        self.vitals.retire();
        self.plane.stop();
        drop(self.plane);
        self.relay.stop();
        self.journal.close();
        let _ = self.stop.send(true);
        let writers = self.writers;
        let written = async {
            for writer in writers {
                let _ = writer.await;
            }
        };
        let _ = tokio::time::timeout(LAST_ROWS, written).await;
        if let Some(death) = self.vitals.death() {
            return Err(format!("{death} while the process stopped").into());
        }
        tracing::info!("stopped");
        Ok(())
    }

    fn calls(&self) -> u64 {
        self.plane.counters().iter().map(|counters| counters.held.calls.get()).sum()
    }

    /// No new calls; running ones may end by themselves, for as long as the operator has said or until a second signal.
    async fn drain(&mut self) {
        self.is_draining.store(true, Ordering::Relaxed);
        self.manager.stopping();
        (self.tell)(Command::Drain);
        let seconds = self.settings.file.node.drain_seconds;
        tracing::info!(
            calls = self.calls(),
            seconds,
            "draining: no new calls; a second signal ends the running ones"
        );
        let (began, longest) = (Instant::now(), Duration::from_secs(seconds));
        while self.calls() > 0 && began.elapsed() < longest {
            let next = tokio::time::timeout(Duration::from_millis(100), self.signals.next()).await;
            if next == Ok(Signal::End) {
                return;
            }
        }
    }
}

fn reload_certificates(settings: &Settings) {
    for listener in &settings.plane.listeners {
        if let Some(identity) = &listener.tls {
            match identity.reload_if_changed() {
                Ok(true) => tracing::info!("certificates reloaded"),
                Ok(false) => {}
                Err(error) => tracing::error!(%error, "the old certificates stay in force"),
            }
        }
    }
}
