//! The pages live on a thread of their own: nothing that they do keeps the store waiting, and their death costs no call.

use std::io;
use std::net::TcpListener;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::Duration;

use axum::Router;
use vitals::{Pulse, Vitals};

/// How often the one that looks after the pages does.
const LOOK: Duration = Duration::from_millis(200);
/// Between the end of one and the begin of the next.
const PAUSE: Duration = Duration::from_millis(500);
/// A thread that hangs can't be ended: it is left behind, with the core that it computes on. More than these are too many.
const LEFT: u64 = 3;

/// Serves the pages; what serves them is replaced when it has ended, panicked or hangs.
#[derive(Debug)]
pub struct Life {
    /// Where; each one that serves has a copy.
    pub listener: TcpListener,
    /// What.
    pub router: Router,
    /// Where it says that it lives.
    pub vitals: Vitals,
    /// How often it was replaced, for metrics.
    pub restarts: Arc<AtomicU64>,
}

impl Life {
    /// Starts it. An error is a lack of threads or files.
    pub fn begin(self) -> io::Result<()> {
        self.listener.set_nonblocking(true)?;
        let part = self.vitals.part("http keeper");
        std::thread::Builder::new()
            .name("http-keeper".to_owned())
            .spawn(move || part.run(|pulse| self.keep(pulse)))
            .map(drop)
    }

    fn keep(&self, pulse: &Pulse) {
        let mut left = 0;
        for number in 1_u64.. {
            let name = format!("http {number}");
            let ended = match self.serve(&name) {
                Ok(ended) => ended,
                Err(error) => {
                    tracing::error!(%error, "the pages can't be served: raise the limits on threads and open files");
                    let (_, never_began) = channel();
                    never_began
                }
            };
            loop {
                if !pulse.beat() {
                    return;
                }
                if let Err(RecvTimeoutError::Disconnected) = ended.recv_timeout(LOOK) {
                    tracing::error!("what serves the pages has ended; it begins anew");
                    break;
                }
                if self.vitals.silent().iter().any(|(silent, _)| **silent == *name) {
                    left = u64::saturating_add(left, 1);
                    if left > LEFT {
                        return;
                    }
                    tracing::error!(
                        "what serves the pages hangs; another takes its place. It may keep a core busy: restart when calls permit, and report it"
                    );
                    break;
                }
            }
            self.vitals.forget(&name);
            self.restarts.fetch_add(1, Ordering::Relaxed);
            std::thread::sleep(PAUSE);
        }
    }

    /// What comes back is disconnected when the thread has ended.
    fn serve(&self, name: &str) -> io::Result<Receiver<()>> {
        let (alive, ended) = channel::<()>();
        let (listener, router) = (self.listener.try_clone()?, self.router.clone());
        let part = self.vitals.part(name).replaced();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        std::thread::Builder::new().name("http".to_owned()).spawn(move || {
            let _alive = alive;
            runtime.block_on(part.task(async {
                match tokio::net::TcpListener::from_std(listener) {
                    Ok(listener) => super::door::serve(listener, router).await,
                    Err(error) => tracing::error!(%error, "the pages"),
                }
            }));
        })?;
        Ok(ended)
    }
}
