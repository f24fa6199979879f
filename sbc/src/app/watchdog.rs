//! What the death of a part means here: the process ends, and the next one has its calls closed and its phones known.

use std::io;
use std::sync::Arc;
use std::sync::mpsc::channel;
use std::time::Duration;

use vitals::{Death, Vitals, Watch};

use super::manager::Manager;
use crate::records::journal::Journal;

/// How long the disk may take with what was written last: a dead node is to be up again within a second.
const LAST_WORDS: Duration = Duration::from_millis(200);

/// Watches over the parts. A dead one ends the process with status 70, one that hangs with 71.
pub fn begin(
    vitals: &Vitals,
    silence: Duration,
    journal: Arc<Journal>,
    mut manager: Manager,
) -> io::Result<()> {
    let tick = Box::new(move || manager.alive());
    vitals.watch(Watch { silence, tick, end: Box::new(move |death| end(death, journal)) })
}

fn end(death: &Death, journal: Arc<Journal>) {
    let status = death.status();
    tracing::error!(
        status,
        "{death}: the process ends, so that it starts anew; calls are closed from the journal and bindings are read again"
    );
    // All of it is written; to the disk it is brought if that takes what is left of the second. The dead part may hold
    // the journal's lock.
    let (synchronised, done) = channel();
    let syncing = std::thread::Builder::new().name("last-words".to_owned()).spawn(move || {
        journal.sync();
        let _ = synchronised.send(());
    });
    if syncing.is_ok() {
        let _ = done.recv_timeout(LAST_WORDS);
    }
    std::process::exit(status);
}
