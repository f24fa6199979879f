//! The journal: what happened in calls, and who is registered where, on local disk before anybody is told.
//!
//! One JSON line an event, appended to segments of bounded size. Signalling only hands lines over ([`Journal::submit`]) and never
//! touches the disk: a thread of the journal's own writes them, so that a disk that stalls delays what must wait for it (the 200 to
//! a BYE and to a REGISTER, see [`Journal::settled`]) and nothing else. `write()` has completed before those leave, so the death of
//! the process loses nothing that anybody was told of; another thread calls fsync every 50 ms, so a power failure loses at most
//! that. A heartbeat every second tells how long open calls lived if the process dies: at the next start they are closed at that
//! moment with cause `crash`.
//!
//! A disk that is full or broken stops no call: lines wait in memory until they can be written, and an error says so. **Nothing
//! that makes room may need room**: how far the database has the records is overwritten in place, and segments that are shipped go
//! even if that can't be written down.

mod disk;
mod mark;
mod open;
mod queue;
mod recovery;
mod registrations;
mod segment;
#[cfg(test)]
mod tests;

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use sip_engine::event::{CallEvent, CallEventKind};
use sip_engine::registrar::BindingChange;
use vitals::{Pulse, Vitals};

use disk::Disk;
use mark::Mark;
use queue::{Entry, Inbox};
pub(crate) use registrations::line;
pub use registrations::{Kept, Replay};
pub use segment::Position;
use segment::{Found, Line, Reader};

/// A new segment begins at this size.
const SEGMENT: u64 = 16 << 20;
const SYNC: Duration = Duration::from_millis(50);
/// How long the one before may take to let go: a restart follows an end closely.
const HANDOVER: Duration = Duration::from_secs(1);
/// Lines that wait in memory for a disk that takes none, about a kilobyte each; what comes then is lost.
const WAITING: usize = 100_000;
/// How often an error that lasts is told again.
const COMPLAIN: Duration = Duration::from_secs(10);
/// After this a write is no longer one that everybody waits for.
const HITCH: Duration = Duration::from_millis(20);
/// A write that has not come back after this is told of.
const STALL: Duration = Duration::from_secs(1);
/// What waits for a write waits no longer: the line is in memory, as with a disk that is full.
const PATIENCE: Duration = Duration::from_secs(10);

/// Why the journal can't be opened.
#[derive(Debug, thiserror::Error)]
pub enum JournalError {
    /// A second process would close the calls of the first.
    #[error(
        "journal {0}: another sbc runs with this directory; stop it, or give this one a node.data of its own"
    )]
    InUse(PathBuf),
    /// The directory or a segment can't be read or made.
    #[error(
        "journal {path}: {source}; it needs a directory that this user may write, with free space (node.data)"
    )]
    Disk {
        /// Its directory.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
}

/// What the journal tells metrics.
#[derive(Debug, Default)]
pub struct JournalCounters {
    /// Bytes written.
    pub written: AtomicU64,
    /// Writes and synchronisations that failed.
    pub failed: AtomicU64,
    /// Lines that wait in memory because the disk takes none (gauge).
    pub waiting: AtomicU64,
    /// Events lost because too many waited.
    pub lost: AtomicU64,
    /// Lines that could not be read back.
    pub damaged: AtomicU64,
}

/// The open journal.
#[derive(Debug)]
pub struct Journal {
    directory: PathBuf,
    inbox: Arc<Inbox>,
    disk: Mutex<Disk>,
    mark: Mutex<Mark>,
    /// The segment that is written, for those who must not wait for the disk.
    present: AtomicU64,
    open_calls: AtomicU64,
    stop: AtomicBool,
    /// For metrics.
    pub counters: JournalCounters,
    /// Held as long as the process lives, so that no second one writes here.
    _lock: File,
}

impl Journal {
    /// Opens the journal in a directory and closes the calls that a crash left open.
    pub fn open(directory: &Path) -> Result<Arc<Self>, JournalError> {
        Self::open_in(directory, &Vitals::default())
    }

    /// The same; its threads say that they live.
    pub fn open_in(directory: &Path, vitals: &Vitals) -> Result<Arc<Self>, JournalError> {
        let fault = |source| JournalError::Disk { path: directory.to_owned(), source };
        make_private(directory).map_err(fault)?;
        let lock = private().write(true).create(true).open(directory.join("lock")).map_err(fault)?;
        let began = Instant::now();
        while let Err(error) = lock.try_lock() {
            match error {
                fs::TryLockError::Error(source) => return Err(fault(source)),
                fs::TryLockError::WouldBlock if began.elapsed() > HANDOVER => {
                    return Err(JournalError::InUse(directory.to_owned()));
                }
                fs::TryLockError::WouldBlock => std::thread::sleep(Duration::from_millis(10)),
            }
        }
        let segments = segment::list(directory).map_err(fault)?;
        let ends = recovery::ends_of_open_calls(directory, &segments).map_err(fault)?;
        let mark = Mark::open(directory);
        // Never a number that the mark has passed, even if somebody removed the segments by hand.
        let last = segments.last().copied().max(Some(mark.position.segment)).unwrap_or(0);
        let number = if segments.is_empty() && mark.position == Position::default() {
            1
        } else {
            last.saturating_add(1)
        };
        let disk = Disk::open(directory, &segments, number).map_err(fault)?;
        let journal = Arc::new(Self {
            directory: directory.to_owned(),
            inbox: Arc::default(),
            present: AtomicU64::new(disk.number),
            disk: Mutex::new(disk),
            mark: Mutex::new(mark),
            open_calls: AtomicU64::new(0),
            stop: AtomicBool::new(false),
            counters: JournalCounters::default(),
            _lock: lock,
        });
        journal.keep_writing(vitals).map_err(fault)?;
        journal.keep_synchronised(vitals).map_err(fault)?;
        journal.inbox.wait_for(journal.inbox.push(Entry::Line(Line::Opened)));
        if !ends.is_empty() {
            tracing::warn!(
                calls = ends.len(),
                "calls were open when the last process died; they are closed with cause crash"
            );
        }
        ends.iter().for_each(|event| journal.append(event));
        Ok(journal)
    }

    /// The thread that writes. It holds the journal only while it works, so that it ends with it.
    fn keep_writing(self: &Arc<Self>, vitals: &Vitals) -> io::Result<()> {
        let (journal, inbox) = (Arc::downgrade(self), self.inbox.clone());
        let part = vitals.part("journal").waits();
        let work = move |pulse: &Pulse| {
            while pulse.beat() && inbox.wait_for_work(SYNC) {
                let Some(journal) = journal.upgrade() else { return };
                journal.work();
            }
        };
        std::thread::Builder::new().name("journal".to_owned()).spawn(|| part.run(work)).map(drop)
    }

    /// Two threads more: fsync may take as long as a write, and somebody must see that.
    fn keep_synchronised(self: &Arc<Self>, vitals: &Vitals) -> io::Result<()> {
        let repeat = |part: vitals::Part, name: &str, mut step: Box<dyn FnMut(&Self) + Send>| {
            let journal = Arc::downgrade(self);
            let work = move |pulse: &Pulse| {
                while pulse.beat()
                    && let Some(journal) = journal.upgrade()
                {
                    if journal.stop.load(Ordering::Relaxed) {
                        return;
                    }
                    step(&journal);
                    drop(journal);
                    std::thread::sleep(SYNC);
                }
            };
            std::thread::Builder::new().name(name.to_owned()).spawn(|| part.run(work)).map(drop)
        };
        repeat(vitals.part("journal sync").waits(), "journal-sync", Box::new(Self::sync))?;
        let mut told: Option<Instant> = None;
        let watch = Box::new(move |journal: &Self| journal.watch(&mut told));
        repeat(vitals.part("journal watch"), "journal-watch", watch)
    }

    /// A disk that stalls is told of, and after a while nobody waits for it any more.
    fn watch(&self, told: &mut Option<Instant>) {
        self.counters.lost.fetch_add(self.inbox.take_lost(), Ordering::Relaxed);
        let Some(stalled) = self.inbox.stalled() else { return };
        if stalled > STALL && told.is_none_or(|at| at.elapsed() > COMPLAIN) {
            *told = Some(Instant::now());
            tracing::error!(
                seconds = stalled.as_secs(),
                "the disk of {} does not come back from a write: ends of calls and registrations wait for it, nothing else; look after the disk",
                self.directory.display()
            );
        }
        if stalled > PATIENCE {
            self.inbox.give_up();
        } else if stalled > HITCH {
            self.inbox.wake();
        }
    }

    /// Whether the disk has been at one write for so long that only what must wait for it shall.
    pub fn is_stalled(&self) -> bool {
        self.inbox.stalled().is_some_and(|stalled| stalled > HITCH)
    }

    fn disk(&self) -> MutexGuard<'_, Disk> {
        self.disk.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Writes what was handed over, and what waited.
    fn work(&self) {
        let (entries, last) = self.inbox.take();
        let mut disk = self.disk();
        disk.write(entries, &self.counters);
        disk.look_after_files(&self.counters);
        self.present.store(disk.number, Ordering::Relaxed);
        self.open_calls.store(disk.open.len() as u64, Ordering::Relaxed);
        drop(disk);
        self.inbox.settle(last);
    }

    /// Hands an event over and returns at once: its ticket is settled when the line is on disk, or known to wait in memory because
    /// the disk takes nothing.
    pub fn submit(&self, event: CallEvent) -> u64 {
        self.inbox.push(Entry::Line(Line::Event(event)))
    }

    /// The same for a change of a binding, which goes on to the store when it is on disk (see [`Journal::keep_registrations`]).
    pub fn submit_binding(&self, change: BindingChange) -> u64 {
        self.inbox.push(Entry::Binding(change))
    }

    /// Up to which ticket all is settled: what must not be told before it is on disk may leave now.
    pub fn settled(&self) -> u64 {
        self.inbox.settled()
    }

    /// Calls this whenever [`Journal::settled`] has grown past a ticket of [`Journal::await_ticket`].
    pub fn when_settled(&self, wake: Box<dyn Fn() + Send + Sync>) {
        self.inbox.when_settled(wake);
    }

    /// Somebody waits for this ticket.
    pub fn await_ticket(&self, ticket: u64) {
        self.inbox.await_ticket(ticket);
    }

    /// Appends an event; when this returns, the death of the process does not lose it, unless the disk takes nothing: then it waits
    /// in memory, and an error says so.
    pub fn append(&self, event: &CallEvent) {
        self.inbox.wait_for(self.submit(event.clone()));
    }

    /// Tells that the process lives.
    pub fn heartbeat(&self, wall: Duration, monotonic: Duration) {
        let is_waiting = self.counters.waiting.load(Ordering::Relaxed) > 0 || self.is_stalled();
        if self.open_calls.load(Ordering::Relaxed) > 0 && !is_waiting {
            let ticket = self.inbox.push(Entry::Line(Line::Heartbeat { wall, monotonic }));
            self.inbox.wait_for(ticket);
        }
    }

    /// From now on changes of bindings are kept here before they go to the store by `kept`. Returns what the process before had
    /// kept that may not be in the store.
    pub fn keep_registrations(
        &self,
        names: crate::store::names::Names,
        kept: tokio::sync::mpsc::UnboundedSender<Kept>,
    ) -> Replay {
        let mut disk = self.disk();
        let (registrations, replay) = registrations::Registrations::open(&self.directory, names, kept);
        disk.registrations = Some(registrations);
        replay
    }

    /// Brings what is written to the disk.
    pub fn sync(&self) {
        // A stalled write holds it.
        let Ok(mut disk) = self.disk.try_lock() else { return };
        let files = disk.files_to_sync();
        drop(disk);
        for file in files {
            if let Err(error) = file.sync_data() {
                self.disk().complain(&error, &self.counters);
            }
        }
    }

    /// Where it lives.
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// Up to `limit` events from a position on, and the position behind them.
    pub fn read(&self, from: Position, limit: usize) -> io::Result<(Vec<CallEvent>, Position)> {
        let mut events = Vec::new();
        let mut position = from;
        // The number comes first: a segment that is finished meanwhile is read as unfinished, not the other way round.
        let present = self.present.load(Ordering::Relaxed);
        let segments = self.disk().readable(from.segment)?;
        for (segment, file) in segments {
            if segment > position.segment {
                position = Position { segment, offset: 0 };
            }
            let mut reader = Reader::new(file, position.offset);
            while events.len() < limit
                && let Some(found) = reader.next(segment >= present)?
            {
                match found {
                    Found::Line(Line::Event(event)) => {
                        // Bookkeeping of the journal's own: no news for anybody.
                        if !matches!(event.what, CallEventKind::Metered { .. }) {
                            events.push(event);
                        }
                    }
                    Found::Line(Line::Heartbeat { .. } | Line::Opened | Line::Open { .. }) => {}
                    Found::Torn => tracing::warn!(
                        segment,
                        "the end of a segment of the journal was cut off, by a power failure or a full disk"
                    ),
                    Found::Damaged(error) => {
                        self.counters.damaged.fetch_add(1, Ordering::Relaxed);
                        tracing::error!(%error, segment, offset = position.offset, "a line of the journal is damaged and passed over: a call record may be incomplete; check the disk");
                    }
                }
                position.offset = reader.offset;
            }
            if events.len() >= limit {
                break;
            }
        }
        Ok((events, position))
    }

    /// How far the records are in the database.
    pub fn shipped(&self) -> Position {
        self.mark.lock().unwrap_or_else(PoisonError::into_inner).position
    }

    /// Remembers how far the records are in the database, and deletes the segments that nobody needs any more: all
    /// before that position but those that hold the start of an open call.
    ///
    /// Segments go although the mark can't be written: what it would save is that they are shipped again, and they are not there any
    /// more. Without that a disk filled by its own backlog would never have room again.
    pub fn mark_shipped(&self, position: Position) -> io::Result<()> {
        let marked = self.mark.lock().unwrap_or_else(PoisonError::into_inner).set(position);
        let mut disk = self.disk();
        let is_starved = disk.is_starved();
        let carried = disk.forget_before(position, is_starved)?;
        self.present.store(disk.number, Ordering::Relaxed);
        drop(disk);
        for (call, state) in carried {
            self.inbox.push(Entry::Line(Line::Open { call, state }));
        }
        if let Err(error) = marked {
            // Who asks may go on all the same: it costs that some is shipped again after a crash.
            self.disk().complain(&error, &self.counters);
        }
        Ok(())
    }

    /// Forgets what was kept of bindings up to a turn ([`Kept::Turned`]): the store has it.
    pub fn forget_registrations(&self, turn: u64) -> io::Result<()> {
        registrations::forget(&self.directory, turn)
    }

    /// Replaces all that was kept of bindings up to a turn by these, the latest of each that the store does not have.
    pub fn compact_registrations(&self, turn: u64, lines: &[Vec<u8>]) -> io::Result<()> {
        registrations::compact(&self.directory, turn, lines)
    }

    /// Bytes between a position and the end: what is not shipped yet.
    pub fn backlog(&self, from: Position) -> u64 {
        let segments = segment::list(&self.directory).unwrap_or_default();
        let sizes = segments
            .into_iter()
            .filter(|segment| *segment >= from.segment)
            .filter_map(|segment| fs::metadata(segment::path(&self.directory, segment)).ok());
        sizes.map(|data| data.len()).sum::<u64>().saturating_sub(from.offset)
    }

    /// Ends the threads, after all that was handed over is written, or the disk has had its time.
    pub fn close(&self) {
        let began = Instant::now();
        while self.inbox.stalled().is_some() && began.elapsed().saturating_mul(2) < PATIENCE {
            std::thread::sleep(Duration::from_millis(1));
        }
        self.stop.store(true, Ordering::Relaxed);
        self.inbox.close();
        if self.inbox.stalled().is_none() {
            // Their store hears no more from here.
            self.disk().registrations = None;
            self.sync();
        }
    }
}

/// Records and registrations are nobody's but their owner's.
fn private() -> fs::OpenOptions {
    let mut options = fs::OpenOptions::new();
    options.mode(0o600);
    options
}

/// The directory and what an earlier version has left in it, readable by nobody else.
fn make_private(directory: &Path) -> io::Result<()> {
    fs::DirBuilder::new().recursive(true).mode(0o700).create(directory)?;
    let close = |path: &Path, mode| match fs::set_permissions(path, fs::Permissions::from_mode(mode)) {
        // Somebody else's directory that we may write in: his to decide.
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
            tracing::warn!(%error, "{} may be readable by others: chmod it", path.display());
        }
        Err(error) => tracing::warn!(%error, "{}", path.display()),
        Ok(()) => {}
    };
    close(directory, 0o700);
    for entry in fs::read_dir(directory)?.flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_file()) {
            close(&entry.path(), 0o600);
        }
    }
    Ok(())
}
