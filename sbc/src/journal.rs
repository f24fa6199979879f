//! The journal: what happened in calls, on local disk before anybody is told.
//!
//! One JSON line an event, appended to segments of bounded size. `write()` completes before the outputs behind it are
//! carried out, so the death of the process loses nothing; a thread calls fsync every 50 ms, so a power failure loses
//! at most that. A heartbeat every second tells how long open calls lived if the process dies: at the next start they
//! are closed at that moment with cause `crash`.

use std::collections::{BTreeMap, HashMap};
use std::fs::{self, File, OpenOptions};
use std::io::{self, BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use sip_engine::event::{CallEnded, CallEvent, CallEventKind, EndCause, Side};

/// A new segment begins at this size.
const SEGMENT: u64 = 16 << 20;
const SYNC: Duration = Duration::from_millis(50);

/// One line.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum Line {
    /// Something happened in a call.
    Event(CallEvent),
    /// The process lived at this moment.
    Heartbeat {
        /// Wall time since the Unix epoch.
        wall: Duration,
        /// Comparable with the events of the same segment.
        monotonic: Duration,
    },
}

/// Why the journal can't be used.
#[derive(Debug, thiserror::Error)]
#[error("journal {path}: {source}; it needs a writable directory with free space (node.data)")]
pub struct JournalError {
    path: PathBuf,
    source: io::Error,
}

/// The open journal.
#[derive(Debug)]
pub struct Journal {
    directory: PathBuf,
    state: Mutex<State>,
    stop: AtomicBool,
    /// Bytes written, for metrics.
    pub written: AtomicU64,
    /// Writes that failed: records at risk.
    pub failed: AtomicU64,
}

#[derive(Debug)]
struct State {
    number: u64,
    file: Arc<File>,
    size: u64,
    is_dirty: bool,
    /// The segment that each open call began in.
    open: HashMap<u128, u64>,
}

/// Where a reader stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default, Serialize, Deserialize)]
pub struct Position {
    /// The segment.
    pub segment: u64,
    /// The offset in it.
    pub offset: u64,
}

impl Journal {
    /// Opens the journal in a directory and closes the calls that a crash left open.
    pub fn open(directory: &Path) -> Result<Arc<Self>, JournalError> {
        let fault = |source| JournalError { path: directory.to_owned(), source };
        fs::create_dir_all(directory).map_err(fault)?;
        let segments = segments(directory).map_err(fault)?;
        let orphans = orphans(directory, &segments).map_err(fault)?;
        let number = segments.last().map_or(1, |last| last + 1);
        let file = create(directory, number).map_err(fault)?;
        let state = State { number, file: Arc::new(file), size: 0, is_dirty: false, open: HashMap::new() };
        let journal = Arc::new(Self {
            directory: directory.to_owned(),
            state: Mutex::new(state),
            stop: AtomicBool::new(false),
            written: AtomicU64::new(0),
            failed: AtomicU64::new(0),
        });
        if !orphans.is_empty() {
            tracing::warn!(
                calls = orphans.len(),
                "calls were open when the last process died; they are closed with cause crash"
            );
        }
        for event in &orphans {
            journal.append(event).map_err(fault)?;
        }
        let syncing = Arc::downgrade(&journal);
        std::thread::Builder::new()
            .name("journal".to_owned())
            .spawn(move || {
                while let Some(journal) = syncing.upgrade() {
                    if journal.stop.load(Ordering::Relaxed) {
                        return;
                    }
                    journal.sync();
                    drop(journal);
                    std::thread::sleep(SYNC);
                }
            })
            .map_err(fault)?;
        Ok(journal)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Appends an event; when this returns, the death of the process does not lose it.
    pub fn append(&self, event: &CallEvent) -> io::Result<()> {
        let mut state = self.state();
        let segment = state.number;
        match event.what {
            CallEventKind::Started(_) => {
                state.open.insert(event.call, segment);
            }
            CallEventKind::Ended(_) => {
                state.open.remove(&event.call);
            }
            _ => {}
        }
        self.write(&mut state, &Line::Event(event.clone()))
    }

    /// Tells that the process lives.
    pub fn heartbeat(&self, wall: Duration, monotonic: Duration) -> io::Result<()> {
        let mut state = self.state();
        if state.open.is_empty() {
            return Ok(());
        }
        self.write(&mut state, &Line::Heartbeat { wall, monotonic })
    }

    fn write(&self, state: &mut State, line: &Line) -> io::Result<()> {
        let result = self.try_write(state, line);
        if result.is_err() {
            self.failed.fetch_add(1, Ordering::Relaxed);
        }
        result
    }

    fn try_write(&self, state: &mut State, line: &Line) -> io::Result<()> {
        let mut bytes = serde_json::to_vec(line)?;
        bytes.push(b'\n');
        if state.size >= SEGMENT {
            state.file.sync_data()?;
            state.number += 1;
            state.file = Arc::new(create(&self.directory, state.number)?);
            state.size = 0;
        }
        // One write of a whole line: what a crash can leave is a torn last line, which readers pass over.
        (&*state.file).write_all(&bytes)?;
        state.size += bytes.len() as u64;
        state.is_dirty = true;
        self.written.fetch_add(bytes.len() as u64, Ordering::Relaxed);
        Ok(())
    }

    fn sync(&self) {
        let file = {
            let mut state = self.state();
            if !std::mem::take(&mut state.is_dirty) {
                return;
            }
            state.file.clone()
        };
        if let Err(error) = file.sync_data() {
            self.failed.fetch_add(1, Ordering::Relaxed);
            tracing::error!(%error, "the journal can't be synchronised; a power failure would lose records: check the disk");
        }
    }

    /// Up to `limit` events from a position on, and the position behind them.
    pub fn read(&self, from: Position, limit: usize) -> io::Result<(Vec<CallEvent>, Position)> {
        let mut events = Vec::new();
        let mut position = from;
        let last = self.state().number;
        for segment in segments(&self.directory)?.into_iter().filter(|segment| *segment >= from.segment) {
            if segment > position.segment {
                position = Position { segment, offset: 0 };
            }
            let mut reader = BufReader::new(File::open(path(&self.directory, segment))?);
            io::Seek::seek(&mut reader, io::SeekFrom::Start(position.offset))?;
            let mut line = Vec::new();
            while events.len() < limit {
                line.clear();
                let length = reader.read_until(b'\n', &mut line)?;
                // The last line of the present segment may be on its way; of an older one it was torn by a crash.
                if length == 0 || (line.last() != Some(&b'\n') && segment == last) {
                    break;
                }
                position.offset += length as u64;
                match serde_json::from_slice(&line) {
                    Ok(Line::Event(event)) => events.push(event),
                    Ok(Line::Heartbeat { .. }) => {}
                    Err(error) => {
                        tracing::warn!(%error, segment, "a line of the journal can't be read and is passed over")
                    }
                }
            }
            if events.len() >= limit {
                break;
            }
        }
        Ok((events, position))
    }

    /// Deletes segments that are shipped and hold the start of no open call.
    pub fn trim(&self, shipped: Position) -> io::Result<()> {
        let state = self.state();
        let oldest =
            state.open.values().copied().min().unwrap_or(u64::MAX).min(shipped.segment).min(state.number);
        drop(state);
        for segment in segments(&self.directory)?.into_iter().filter(|segment| *segment < oldest) {
            fs::remove_file(path(&self.directory, segment))?;
        }
        Ok(())
    }

    /// Bytes between a position and the end: what is not shipped yet.
    pub fn backlog(&self, from: Position) -> u64 {
        let sizes = segments(&self.directory)
            .unwrap_or_default()
            .into_iter()
            .filter(|segment| *segment >= from.segment);
        let total: u64 = sizes
            .filter_map(|segment| fs::metadata(path(&self.directory, segment)).ok())
            .map(|data| data.len())
            .sum();
        total.saturating_sub(from.offset)
    }

    /// Ends the thread that synchronises, after a last time.
    pub fn close(&self) {
        self.stop.store(true, Ordering::Relaxed);
        self.sync();
    }
}

fn path(directory: &Path, segment: u64) -> PathBuf {
    directory.join(format!("journal-{segment:010}.jsonl"))
}

fn create(directory: &Path, segment: u64) -> io::Result<File> {
    let file = OpenOptions::new().create(true).append(true).open(path(directory, segment))?;
    File::open(directory)?.sync_all()?;
    Ok(file)
}

fn segments(directory: &Path) -> io::Result<Vec<u64>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(directory)? {
        let name = entry?.file_name();
        let number: Option<u64> = name
            .to_str()
            .and_then(|name| name.strip_prefix("journal-")?.strip_suffix(".jsonl")?.parse().ok());
        found.extend(number);
    }
    found.sort_unstable();
    Ok(found)
}

/// The ends of the calls that have none.
fn orphans(directory: &Path, segments: &[u64]) -> io::Result<Vec<CallEvent>> {
    struct Open {
        started: Duration,
        answered: Option<Duration>,
        alive: (Duration, Duration),
        sequence: u32,
    }
    let mut open: BTreeMap<u128, Open> = BTreeMap::new();
    for segment in segments {
        for line in BufReader::new(File::open(path(directory, *segment))?).split(b'\n') {
            match serde_json::from_slice(&line?) {
                Ok(Line::Heartbeat { wall, monotonic }) => {
                    open.values_mut().for_each(|call| call.alive = (wall, monotonic))
                }
                Ok(Line::Event(event)) => {
                    let alive = (event.wall, event.monotonic);
                    match &event.what {
                        CallEventKind::Started(_) => {
                            open.insert(
                                event.call,
                                Open {
                                    started: event.monotonic,
                                    answered: None,
                                    alive,
                                    sequence: event.sequence,
                                },
                            );
                        }
                        CallEventKind::Ended(_) => {
                            open.remove(&event.call);
                        }
                        what => {
                            if let Some(call) = open.get_mut(&event.call) {
                                call.sequence = event.sequence;
                                call.alive = alive;
                                if matches!(what, CallEventKind::Answered { .. }) {
                                    call.answered = Some(event.monotonic);
                                }
                            }
                        }
                    }
                }
                Err(_) => {}
            }
        }
    }
    Ok(open
        .into_iter()
        .map(|(call, state)| {
            let (wall, monotonic) = state.alive;
            let ended = CallEnded {
                cause: EndCause::Crash,
                side: Side::Sbc,
                status: if state.answered.is_some() { 200 } else { 500 },
                alerting_after: None,
                answered_after: state.answered.map(|answered| answered.saturating_sub(state.started)),
                total: monotonic.saturating_sub(state.started),
                talked: state.answered.map(|answered| monotonic.saturating_sub(answered)).unwrap_or_default(),
                media: Vec::new(),
            };
            CallEvent {
                call,
                sequence: state.sequence + 1,
                wall,
                monotonic,
                what: CallEventKind::Ended(Box::new(ended)),
            }
        })
        .collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use sip_engine::event::CallStarted;
    use sip_engine::media::SessionId;

    fn event(call: u128, sequence: u32, second: u64, what: CallEventKind) -> CallEvent {
        CallEvent {
            call,
            sequence,
            wall: Duration::from_secs(1_000_000 + second),
            monotonic: Duration::from_secs(second),
            what,
        }
    }

    fn started() -> CallEventKind {
        CallEventKind::Started(Box::new(CallStarted {
            session: SessionId(1),
            realm: "access".into(),
            source: "192.0.2.1:5060".parse().unwrap(),
            transport: "UDP".into(),
            caller: "".into(),
            from: "".into(),
            request_uri: "".into(),
            call_id: "".into(),
            user_agent: "".into(),
            minted_call_id: "".into(),
        }))
    }

    fn answered() -> CallEventKind {
        CallEventKind::Answered {
            realm: "core".into(),
            trunk: None,
            destination: "192.0.2.2:5060".parse().unwrap(),
        }
    }

    #[test]
    fn a_crash_closes_open_calls_at_the_last_heartbeat_even_after_a_torn_line() {
        let directory = tempfile::tempdir().unwrap();
        let journal = Journal::open(directory.path()).unwrap();
        journal.append(&event(7, 0, 10, started())).unwrap();
        journal.append(&event(7, 1, 12, answered())).unwrap();
        journal.heartbeat(Duration::from_secs(5), Duration::from_secs(20)).unwrap();
        journal.close();
        drop(journal);
        let torn = fs::read_dir(directory.path()).unwrap().next().unwrap().unwrap().path();
        OpenOptions::new().append(true).open(torn).unwrap().write_all(b"{\"Event\":{\"ca").unwrap();
        let journal = Journal::open(directory.path()).unwrap();
        let (events, position) = journal.read(Position::default(), 100).unwrap();
        let CallEventKind::Ended(ended) = &events[2].what else { panic!("{events:?}") };
        assert_eq!(
            (ended.cause, ended.talked, events[2].sequence),
            (EndCause::Crash, Duration::from_secs(8), 2)
        );
        assert_eq!(events[2].wall, Duration::from_secs(5));
        assert_eq!(journal.read(position, 100).unwrap().0, []);
        drop(journal);
        let again = Journal::open(directory.path()).unwrap();
        assert_eq!(again.read(Position::default(), 100).unwrap().0.len(), 3, "closed once");
    }

    #[test]
    fn a_reader_gets_every_event_once_however_small_its_steps_and_shipped_segments_go() {
        let directory = tempfile::tempdir().unwrap();
        let journal = Journal::open(directory.path()).unwrap();
        for call in 0..50 {
            journal.append(&event(call, 0, 1, started())).unwrap();
        }
        journal.state().size = SEGMENT;
        for call in 50..100 {
            journal.append(&event(call, 0, 1, started())).unwrap();
        }
        let (mut seen, mut position) = (Vec::new(), Position::default());
        loop {
            let (events, next) = journal.read(position, 7).unwrap();
            if events.is_empty() {
                break;
            }
            position = next;
            seen.extend(events.iter().map(|event| event.call));
        }
        assert_eq!(seen, (0..100).collect::<Vec<_>>());
        journal.trim(position).unwrap();
        assert_eq!(segments(directory.path()).unwrap().len(), 2, "open calls keep their segment");
    }
}
