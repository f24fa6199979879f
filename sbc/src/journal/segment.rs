//! The journal on disk: segments of lines, and positions in them.

use std::fs::{self, File, OpenOptions};
use std::io::{self, BufRead, BufReader, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use sip_engine::event::CallEvent;

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

/// Reads a segment from an offset on.
pub(super) struct Reader {
    file: BufReader<File>,
    bytes: Vec<u8>,
    /// Behind the last line read.
    pub(super) offset: u64,
}

impl Reader {
    pub(super) fn open(directory: &Path, segment: u64, offset: u64) -> io::Result<Self> {
        let mut file = BufReader::new(File::open(path(directory, segment))?);
        file.seek(SeekFrom::Start(offset))?;
        Ok(Self { file, bytes: Vec::new(), offset })
    }

    /// The next line. Of the segment that is `being_written` an unfinished last line is on its way: it is left.
    pub(super) fn next(&mut self, being_written: bool) -> io::Result<Option<Found>> {
        self.bytes.clear();
        let length = self.file.read_until(b'\n', &mut self.bytes)?;
        let is_whole = self.bytes.last() == Some(&b'\n');
        if length == 0 || (being_written && !is_whole) {
            return Ok(None);
        }
        self.offset += length as u64;
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
    let file = OpenOptions::new().create(true).append(true).open(path(directory, segment))?;
    File::open(directory)?.sync_all()?;
    Ok(file)
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
