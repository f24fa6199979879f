//! The journal: what happened in calls, on local disk before anybody is told.
//!
//! One JSON line an event, appended to segments of bounded size. `write()` completes before the outputs behind it are
//! carried out, so the death of the process loses nothing; a thread calls fsync every 50 ms, so a power failure loses
//! at most that. A heartbeat every second tells how long open calls lived if the process dies: at the next start they
//! are closed at that moment with cause `crash`.
//!
//! A disk that is full or broken stops no call: events wait in memory until they can be written, and an error says so.

mod recovery;
mod segment;
#[cfg(test)]
mod tests;

use std::collections::{HashMap, VecDeque};
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use sip_engine::event::{CallEvent, CallEventKind};
use vitals::{Pulse, Vitals};

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
    state: Mutex<State>,
    stop: AtomicBool,
    /// For metrics.
    pub counters: JournalCounters,
    /// Held as long as the process lives, so that no second one writes here.
    _lock: File,
}

#[derive(Debug)]
struct State {
    number: u64,
    file: Arc<File>,
    size: u64,
    /// Files with bytes that are not synchronised yet, the present one apart.
    unsynced: Vec<Arc<File>>,
    is_dirty: bool,
    /// A write failed half-way: what is behind `size` is not a line.
    is_torn: bool,
    /// The segment that each open call began in.
    open: HashMap<u128, u64>,
    waiting: VecDeque<Vec<u8>>,
    complained: Option<Instant>,
}

impl Journal {
    /// Opens the journal in a directory and closes the calls that a crash left open.
    pub fn open(directory: &Path) -> Result<Arc<Self>, JournalError> {
        Self::open_in(directory, &Vitals::default())
    }

    /// The same; its thread says that it lives.
    pub fn open_in(directory: &Path, vitals: &Vitals) -> Result<Arc<Self>, JournalError> {
        let fault = |source| JournalError::Disk { path: directory.to_owned(), source };
        fs::create_dir_all(directory).map_err(fault)?;
        let lock = File::create(directory.join("lock")).map_err(fault)?;
        let patience = Instant::now() + HANDOVER;
        while let Err(error) = lock.try_lock() {
            match error {
                fs::TryLockError::Error(source) => return Err(fault(source)),
                fs::TryLockError::WouldBlock if Instant::now() > patience => {
                    return Err(JournalError::InUse(directory.to_owned()));
                }
                fs::TryLockError::WouldBlock => std::thread::sleep(Duration::from_millis(10)),
            }
        }
        let segments = segment::list(directory).map_err(fault)?;
        let ends = recovery::ends_of_open_calls(directory, &segments).map_err(fault)?;
        // Never a number that the mark has passed, even if somebody removed the segments by hand.
        let number =
            segments.last().copied().max(Some(shipped(directory).segment)).map_or(1, |last| last + 1);
        let file = Arc::new(segment::create(directory, number).map_err(fault)?);
        let journal = Arc::new(Self {
            directory: directory.to_owned(),
            state: Mutex::new(State {
                number,
                file,
                size: 0,
                unsynced: Vec::new(),
                is_dirty: false,
                is_torn: false,
                open: HashMap::new(),
                waiting: VecDeque::new(),
                complained: None,
            }),
            stop: AtomicBool::new(false),
            counters: JournalCounters::default(),
            _lock: lock,
        });
        journal.write(&mut journal.state(), &Line::Opened);
        if !ends.is_empty() {
            tracing::warn!(
                calls = ends.len(),
                "calls were open when the last process died; they are closed with cause crash"
            );
        }
        ends.iter().for_each(|event| journal.append(event));
        journal.keep_synchronised(vitals).map_err(fault)?;
        Ok(journal)
    }

    fn keep_synchronised(self: &Arc<Self>, vitals: &Vitals) -> io::Result<()> {
        let journal = Arc::downgrade(self);
        let part = vitals.part("journal").waits();
        let work = move |pulse: &Pulse| {
            while pulse.beat()
                && let Some(journal) = journal.upgrade()
            {
                if journal.stop.load(Ordering::Relaxed) {
                    return;
                }
                journal.sync();
                drop(journal);
                std::thread::sleep(SYNC);
            }
        };
        std::thread::Builder::new().name("journal".to_owned()).spawn(|| part.run(work)).map(drop)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Appends an event; when this returns, the death of the process does not lose it, unless the disk takes nothing:
    /// then it waits in memory, and an error says so.
    pub fn append(&self, event: &CallEvent) {
        let mut state = self.state();
        self.write(&mut state, &Line::Event(event.clone()));
        match event.what {
            CallEventKind::Started(_) => {
                let segment = state.number;
                state.open.insert(event.call, segment);
            }
            CallEventKind::Ended(_) => {
                state.open.remove(&event.call);
            }
            _ => {}
        }
    }

    /// Tells that the process lives.
    pub fn heartbeat(&self, wall: Duration, monotonic: Duration) {
        let mut state = self.state();
        if !state.open.is_empty() && state.waiting.is_empty() {
            self.write(&mut state, &Line::Heartbeat { wall, monotonic });
        }
    }

    fn write(&self, state: &mut State, line: &Line) {
        let bytes = match line.encode() {
            Ok(bytes) => bytes,
            Err(error) => return self.complain(state, &error),
        };
        if state.waiting.len() >= WAITING {
            self.counters.lost.fetch_add(1, Ordering::Relaxed);
        } else {
            state.waiting.push_back(bytes);
        }
        self.flush(state);
    }

    /// Writes what waits, in order, as far as the disk takes it.
    fn flush(&self, state: &mut State) {
        while let Some(bytes) = state.waiting.pop_front() {
            if let Err(error) = self.try_write(state, &bytes) {
                state.waiting.push_front(bytes);
                self.complain(state, &error);
                break;
            }
        }
        self.counters.waiting.store(state.waiting.len() as u64, Ordering::Relaxed);
        if state.waiting.is_empty() && state.complained.take().is_some() {
            tracing::info!("the journal can be written again; what waited is on disk");
        }
    }

    fn try_write(&self, state: &mut State, bytes: &[u8]) -> io::Result<()> {
        if state.size >= SEGMENT {
            let next = Arc::new(segment::create(&self.directory, state.number + 1)?);
            let full = std::mem::replace(&mut state.file, next);
            state.unsynced.push(full);
            state.number += 1;
            state.size = 0;
            state.is_torn = false;
        }
        let mut file = &*state.file;
        if state.is_torn && file.set_len(state.size).is_err() {
            // What can't be taken back is closed off: readers pass over a line that is none.
            file.write_all(b"\n")?;
            state.size = file.metadata()?.len();
        }
        state.is_torn = true;
        file.write_all(bytes)?;
        state.is_torn = false;
        state.size += bytes.len() as u64;
        state.is_dirty = true;
        self.counters.written.fetch_add(bytes.len() as u64, Ordering::Relaxed);
        Ok(())
    }

    fn complain(&self, state: &mut State, error: &io::Error) {
        self.counters.failed.fetch_add(1, Ordering::Relaxed);
        if state.complained.is_some_and(|at| at.elapsed() < COMPLAIN) {
            return;
        }
        state.complained = Some(Instant::now());
        tracing::error!(
            %error,
            waiting = state.waiting.len(),
            lost = self.counters.lost.load(Ordering::Relaxed),
            "call records can't be written to {}: they wait in memory, where a crash would lose them; free disk space or mend the disk",
            self.directory.display()
        );
    }

    /// Brings what is written to the disk.
    pub fn sync(&self) {
        let files = {
            let mut state = self.state();
            if !state.waiting.is_empty() {
                self.flush(&mut state);
            }
            let mut files = std::mem::take(&mut state.unsynced);
            if std::mem::take(&mut state.is_dirty) {
                files.push(state.file.clone());
            }
            files
        };
        for file in files {
            if let Err(error) = file.sync_data() {
                self.complain(&mut self.state(), &error);
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
        let present = self.state().number;
        for segment in segment::list(&self.directory)?.into_iter().filter(|segment| *segment >= from.segment)
        {
            if segment > position.segment {
                position = Position { segment, offset: 0 };
            }
            let mut reader = Reader::open(&self.directory, segment, position.offset)?;
            while events.len() < limit
                && let Some(found) = reader.next(segment == present)?
            {
                match found {
                    Found::Line(Line::Event(event)) => events.push(event),
                    Found::Line(Line::Heartbeat { .. } | Line::Opened) => {}
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
        shipped(&self.directory)
    }

    /// Remembers how far the records are in the database, and deletes the segments that nobody needs any more: all
    /// before that position but those that hold the start of an open call.
    pub fn mark_shipped(&self, position: Position) -> io::Result<()> {
        let fresh = self.directory.join("shipped.new");
        fs::write(&fresh, serde_json::to_vec(&position)?)?;
        fs::rename(fresh, mark(&self.directory))?;
        let state = self.state();
        let oldest =
            state.open.values().copied().min().unwrap_or(u64::MAX).min(position.segment).min(state.number);
        drop(state);
        for segment in segment::list(&self.directory)?.into_iter().filter(|segment| *segment < oldest) {
            fs::remove_file(segment::path(&self.directory, segment))?;
        }
        Ok(())
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

    /// Ends the thread that synchronises, after a last time.
    pub fn close(&self) {
        self.stop.store(true, Ordering::Relaxed);
        self.sync();
    }
}

fn mark(directory: &Path) -> PathBuf {
    directory.join("shipped.json")
}

/// Without a readable mark everything is shipped again, which changes nothing: keys make it idempotent.
fn shipped(directory: &Path) -> Position {
    fs::read(mark(directory)).ok().and_then(|bytes| serde_json::from_slice(&bytes).ok()).unwrap_or_default()
}
