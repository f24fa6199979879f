//! The journal on disk: segments of lines, and positions in them.

use std::fs::{self, File};
use std::io::{self, BufRead, BufReader, Read};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use sip_engine::event::CallEvent;

use super::open::Open;
use super::{make_private, private};

/// One line: JSON, so that an operator can read what is kept.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) enum Line {
    /// Something happened in a call.
    Event(CallEvent),
    /// The process lived at this moment.
    Heartbeat {
        /// Wall time since the Unix epoch.
        wall: Duration,
        /// Comparable with the events since the last `Opened`.
        monotonic: Duration,
    },
    /// What was told of an open call in segments that are gone, so that a crash still closes it.
    Open {
        /// Its id in records.
        call: u128,
        /// What its end will say.
        state: Open,
    },
    /// A process began: calls that are open here died with the one before, and monotonic times start anew.
    Opened,
}

/// What a line of a segment turned out to be.
#[derive(Debug)]
pub(super) enum Found {
    Line(Line),
    /// The end of a segment that a power failure or a full disk cut off.
    Torn,
    /// Bytes that are no line, with more behind them: the disk or somebody has damaged the file.
    Damaged(serde_json::Error),
}

/// Where a reader stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default, Serialize, Deserialize)]
pub struct Position {
    /// The segment.
    pub segment: u64,
    /// The offset in it.
    pub offset: u64,
}

impl Line {
    pub(super) fn encode(&self) -> io::Result<Vec<u8>> {
        let mut bytes = serde_json::to_vec(self)?;
        bytes.push(b'\n');
        Ok(bytes)
    }
}

/// Reads a file at its own pace, whoever else reads or writes it, and even if it has no name any more.
struct At {
    file: Arc<File>,
    offset: u64,
}

impl Read for At {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let length = self.file.read_at(buffer, self.offset)?;
        self.offset = self.offset.saturating_add(length as u64);
        Ok(length)
    }
}

/// Reads a segment from an offset on.
pub(super) struct Reader {
    file: BufReader<At>,
    bytes: Vec<u8>,
    /// Behind the last line read.
    pub(super) offset: u64,
}

impl Reader {
    pub(super) fn new(file: Arc<File>, offset: u64) -> Self {
        Self { file: BufReader::new(At { file, offset }), bytes: Vec::new(), offset }
    }

    /// The next line. Of the segment that is `being_written` an unfinished last line is on its way: it is left.
    pub(super) fn next(&mut self, being_written: bool) -> io::Result<Option<Found>> {
        self.bytes.clear();
        let length = self.file.read_until(b'\n', &mut self.bytes)?;
        let is_whole = self.bytes.last() == Some(&b'\n');
        if length == 0 || (being_written && !is_whole) {
            return Ok(None);
        }
        self.offset = self.offset.saturating_add(length as u64);
        Ok(Some(match serde_json::from_slice(&self.bytes) {
            Ok(line) => Found::Line(line),
            Err(_) if !is_whole => Found::Torn,
            Err(error) => Found::Damaged(error),
        }))
    }
}

pub(super) fn path(directory: &Path, segment: u64) -> PathBuf {
    directory.join(format!("journal-{segment:010}.jsonl"))
}

/// Makes a segment whose name survives a power failure.
pub(super) fn create(directory: &Path, segment: u64) -> io::Result<File> {
    // To be read as well: by this handle it can be when somebody has deleted it.
    let file = private().create(true).read(true).append(true).open(path(directory, segment))?;
    File::open(directory)?.sync_all()?;
    Ok(file)
}

/// Makes a segment again that somebody has deleted, from the handle on what it was: the same bytes at the same offsets.
pub(super) fn put_back(directory: &Path, segment: u64, deleted: &Arc<File>) -> io::Result<File> {
    make_private(directory)?;
    let mut fresh = create(directory, segment)?;
    fresh.set_len(0)?;
    let copied = io::copy(&mut At { file: deleted.clone(), offset: 0 }, &mut fresh);
    if copied.is_err() {
        // Half of it would be read for all of it.
        fs::remove_file(path(directory, segment))?;
    }
    copied.map(|_| fresh)
}

/// The numbers of the segments that exist, ascending.
pub(super) fn list(directory: &Path) -> io::Result<Vec<u64>> {
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
