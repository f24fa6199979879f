//! The files of the journal, as its writing thread and those who read and delete them see them.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::fs::File;
use std::io::{self, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use sip_engine::event::CallEventKind;

use super::open::Open;
use super::queue::Entry;
use super::registrations::Registrations;
use super::segment::{self, Line, Position};
use super::{COMPLAIN, JournalCounters, SEGMENT, WAITING};

/// Octets of lines that go to the disk by one call.
const CHUNK: usize = 256 << 10;
/// How often files are looked for that somebody has deleted or cut.
const LOOK: Duration = Duration::from_millis(50);
/// Segments that are held open, so that one which is deleted by hand can still be read. Older ones are opened when they are read.
const HELD: usize = 1_024;

/// A call that is open, and the segment that closes it after a crash: where it began, or where it was told of again.
#[derive(Debug)]
pub(super) struct Pinned {
    pub(super) segment: u64,
    pub(super) state: Open,
}

#[derive(Debug)]
pub(super) struct Waiting {
    pub(super) bytes: Vec<u8>,
    pub(super) line: Line,
}

#[derive(Debug)]
pub(super) struct Disk {
    directory: PathBuf,
    pub(super) number: u64,
    /// `None` while it can't be made.
    pub(super) file: Option<Arc<File>>,
    pub(super) size: u64,
    /// A write failed half-way: what is behind `size` is not a line.
    is_torn: bool,
    is_dirty: bool,
    /// Files with bytes that are not synchronised yet, the present one apart.
    unsynced: Vec<Arc<File>>,
    /// Segments that are not shipped, the present one among them; `None` is opened when it is read.
    segments: BTreeMap<u64, Option<Arc<File>>>,
    pub(super) open: HashMap<u128, Pinned>,
    pub(super) waiting: VecDeque<Waiting>,
    pub(super) registrations: Option<Registrations>,
    complained: Option<Instant>,
    looked: Instant,
}

impl Disk {
    pub(super) fn open(directory: &Path, segments: &[u64], number: u64) -> io::Result<Self> {
        let mut held: BTreeMap<u64, Option<Arc<File>>> = BTreeMap::new();
        for (age, segment) in segments.iter().rev().enumerate() {
            let file =
                (age < HELD).then(|| File::open(segment::path(directory, *segment)).ok().map(Arc::new));
            held.insert(*segment, file.flatten());
        }
        let mut disk = Self {
            directory: directory.to_owned(),
            number,
            file: None,
            size: 0,
            is_torn: false,
            is_dirty: false,
            unsynced: Vec::new(),
            segments: held,
            open: HashMap::new(),
            waiting: VecDeque::new(),
            registrations: None,
            complained: None,
            looked: Instant::now(),
        };
        match disk.begin(number) {
            // A disk that is full at the start stops no call either.
            Err(error) if is_full(&error) => Ok(disk),
            result => result.map(|()| disk),
        }
    }

    /// Begins a segment.
    fn begin(&mut self, number: u64) -> io::Result<()> {
        let next = Arc::new(segment::create(&self.directory, number)?);
        self.unsynced.extend(self.file.replace(next.clone()));
        self.segments.insert(number, Some(next));
        (self.number, self.size, self.is_torn) = (number, 0, false);
        Ok(())
    }

    /// Writes entries behind what waits, in order, as far as the disk takes them.
    pub(super) fn write(&mut self, entries: Vec<Entry>, counters: &JournalCounters) {
        for entry in entries {
            match entry {
                Entry::Line(line) => self.queue(line, counters),
                Entry::Binding(change) => {
                    let Some(registrations) = &mut self.registrations else { continue };
                    if let Err(error) = registrations.keep(change) {
                        self.complain(&error, counters);
                    }
                }
            }
        }
        self.flush(counters);
    }

    fn queue(&mut self, line: Line, counters: &JournalCounters) {
        match line.encode() {
            Ok(_) if self.waiting.len() >= WAITING => {
                counters.lost.fetch_add(1, Ordering::Relaxed);
            }
            Ok(bytes) => self.waiting.push_back(Waiting { bytes, line }),
            Err(error) => self.complain(&error, counters),
        }
    }

    fn flush(&mut self, counters: &JournalCounters) {
        while !self.waiting.is_empty() {
            let mut chunk = Vec::new();
            let mut lines = 0_usize;
            for waiting in &self.waiting {
                if lines > 0 && chunk.len().saturating_add(waiting.bytes.len()) > CHUNK {
                    break;
                }
                chunk.extend_from_slice(&waiting.bytes);
                lines = lines.saturating_add(1);
            }
            if let Err(error) = self.try_write(&chunk, counters) {
                self.complain(&error, counters);
                break;
            }
            for _ in 0..lines {
                if let Some(written) = self.waiting.pop_front() {
                    self.follow(written.line);
                }
            }
        }
        counters.waiting.store(self.waiting.len() as u64, Ordering::Relaxed);
        if self.waiting.is_empty() && self.complained.take().is_some() {
            tracing::info!("the journal can be written again; what waited is on disk");
        }
    }

    /// What the lines on disk say of open calls: as recovery would read it.
    fn follow(&mut self, line: Line) {
        match line {
            Line::Event(event) => match &event.what {
                CallEventKind::Started(_) => {
                    let pinned = Pinned { segment: self.number, state: Open::new(&event) };
                    self.open.insert(event.call, pinned);
                }
                CallEventKind::Ended(_) => {
                    self.open.remove(&event.call);
                }
                _ => {
                    if let Some(pinned) = self.open.get_mut(&event.call) {
                        pinned.state.follow(&event);
                    }
                }
            },
            Line::Open { call, .. } => {
                if let Some(pinned) = self.open.get_mut(&call) {
                    pinned.segment = self.number;
                }
            }
            Line::Heartbeat { .. } | Line::Opened => {}
        }
    }

    fn try_write(&mut self, bytes: &[u8], counters: &JournalCounters) -> io::Result<()> {
        if self.size >= SEGMENT || self.file.is_none() {
            let next = if self.file.is_none() { self.number } else { self.number.saturating_add(1) };
            self.begin(next)?;
        }
        let Some(mut file) = self.file.as_deref() else { return Ok(()) };
        if self.is_torn && file.set_len(self.size).is_err() {
            // What can't be taken back is closed off: readers pass over a line that is none.
            file.write_all(b"\n")?;
            self.size = file.metadata()?.len();
        }
        self.is_torn = true;
        file.write_all(bytes)?;
        self.is_torn = false;
        self.size = self.size.saturating_add(bytes.len() as u64);
        self.is_dirty = true;
        counters.written.fetch_add(bytes.len() as u64, Ordering::Relaxed);
        Ok(())
    }

    pub(super) fn complain(&mut self, error: &io::Error, counters: &JournalCounters) {
        counters.failed.fetch_add(1, Ordering::Relaxed);
        if self.complained.is_some_and(|at| at.elapsed() < COMPLAIN) {
            return;
        }
        self.complained = Some(Instant::now());
        tracing::error!(
            %error,
            waiting = self.waiting.len(),
            lost = counters.lost.load(Ordering::Relaxed),
            "call records can't be written to {}: they wait in memory, where a crash would lose them; free disk space or mend the disk",
            self.directory.display()
        );
    }

    pub(super) fn files_to_sync(&mut self) -> Vec<Arc<File>> {
        let mut files = std::mem::take(&mut self.unsynced);
        if std::mem::take(&mut self.is_dirty) {
            files.extend(self.file.clone());
        }
        if let Some(registrations) = &mut self.registrations {
            files.extend(registrations.file_to_sync());
        }
        files
    }

    /// Whether lines wait because the disk takes none.
    pub(super) fn is_starved(&self) -> bool {
        self.complained.is_some() && !self.waiting.is_empty()
    }

    /// The segments from one on that can be read, in order.
    pub(super) fn readable(&self, from: u64) -> io::Result<Vec<(u64, Arc<File>)>> {
        let mut found = Vec::new();
        for (segment, file) in self.segments.range(from..) {
            match file {
                Some(file) => found.push((*segment, file.clone())),
                None => match File::open(segment::path(&self.directory, *segment)) {
                    Ok(file) => found.push((*segment, Arc::new(file))),
                    Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                    Err(error) => return Err(error),
                },
            }
        }
        Ok(found)
    }

    /// Deletes segments before a position, but those that a crash of an open call would need. Of these calls it returns what the
    /// journal must tell again, so that they need them no more; a disk that is starved gets the room at once.
    pub(super) fn forget_before(
        &mut self,
        position: Position,
        is_starved: bool,
    ) -> io::Result<Vec<(u128, Open)>> {
        let mut carried = Vec::new();
        let needed = |pinned: &Pinned| pinned.segment < position.segment;
        if is_starved {
            // They go before what waits: the moment in which only memory knows of them is as short as it can be.
            for (call, pinned) in self.open.iter_mut().filter(|(_, pinned)| needed(pinned)) {
                let line = Line::Open { call: *call, state: pinned.state.clone() };
                self.waiting.push_front(Waiting { bytes: line.encode()?, line });
                pinned.segment = u64::MAX;
            }
        } else {
            let old = self.open.iter().filter(|(_, pinned)| needed(pinned));
            carried.extend(old.map(|(call, pinned)| (*call, pinned.state.clone())));
        }
        if is_starved && position.segment == self.number && position.offset >= self.size && self.size > 0 {
            // The present segment is all that fills the disk, and is shipped: with the next one it can go.
            self.size = SEGMENT;
        }
        let oldest = self.open.values().map(|pinned| pinned.segment).min().unwrap_or(u64::MAX);
        let oldest = oldest.min(position.segment).min(self.number);
        let gone: Vec<u64> = self.segments.range(..oldest).map(|(segment, _)| *segment).collect();
        for segment in gone {
            match std::fs::remove_file(segment::path(&self.directory, segment)) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => self.segments.remove(&segment),
            };
        }
        Ok(carried)
    }

    /// What somebody has deleted while the program holds it is put back; what he has cut is gone on with in a new segment.
    pub(super) fn look_after_files(&mut self, counters: &JournalCounters) {
        if self.looked.elapsed() < LOOK {
            return;
        }
        self.looked = Instant::now();
        let is_gone = |file: &File| file.metadata().is_ok_and(|data| data.is_file() && data.nlink() == 0);
        let gone: Vec<(u64, Arc<File>)> = self
            .segments
            .iter()
            .filter_map(|(segment, file)| Some((*segment, file.clone()?)))
            .filter(|(_, file)| is_gone(file))
            .collect();
        if !gone.is_empty() {
            tracing::error!(
                segments = gone.len(),
                "somebody has deleted segments of the journal in {} while the program runs; their records are put back: leave them to the program, which deletes what the database has",
                self.directory.display()
            );
        }
        for (segment, file) in gone {
            match segment::put_back(&self.directory, segment, &file) {
                Ok(fresh) => {
                    let fresh = Arc::new(fresh);
                    if segment == self.number {
                        self.file = Some(fresh.clone());
                        self.is_dirty = true;
                    } else {
                        self.unsynced.push(fresh.clone());
                    }
                    self.segments.insert(segment, Some(fresh));
                }
                // They can still be read, as long as the process lives.
                Err(error) => self.complain(&error, counters),
            }
        }
        let length = self.file.as_ref().and_then(|file| file.metadata().ok()).filter(|data| data.is_file());
        if let Some(length) = length.map(|data| data.len())
            && length < self.size
            && !self.is_torn
        {
            tracing::error!(
                octets = self.size.saturating_sub(length),
                "somebody has cut a segment of the journal in {} while the program runs: records that the database did not have yet are lost; the journal goes on in a new segment",
                self.directory.display()
            );
            self.size = SEGMENT;
        }
        if let Some(registrations) = &mut self.registrations {
            registrations.look_after_file();
        }
    }
}

fn is_full(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}
