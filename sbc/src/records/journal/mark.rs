//! How far the database has the records: a small file that is overwritten in place, so that it can be written on a disk without room.

use std::fs::File;
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};

use super::private;
use super::segment::Position;

/// Octets of the file: a position, and blanks.
const LENGTH: usize = 128;

#[derive(Debug)]
pub(super) struct Mark {
    path: PathBuf,
    file: Option<File>,
    /// What it says, or would if it could be written.
    pub(super) position: Position,
}

impl Mark {
    /// Without a readable mark everything is shipped again, which changes nothing: keys make it idempotent.
    pub(super) fn open(directory: &Path) -> Self {
        let path = directory.join("shipped.json");
        let position = std::fs::read(&path).ok().and_then(|bytes| serde_json::from_slice(&bytes).ok());
        let mut mark = Self { path, file: None, position: position.unwrap_or_default() };
        // Now, because later there may be no room for it. If there is none now, there may be later.
        let _ = mark.write();
        mark
    }

    /// Remembers a position, in memory in any case.
    pub(super) fn set(&mut self, position: Position) -> io::Result<()> {
        self.position = position;
        self.write()
    }

    fn write(&mut self) -> io::Result<()> {
        let is_gone = |file: &File| file.metadata().map_or(true, |data| data.nlink() == 0);
        let file = match self.file.take().filter(|file| !is_gone(file)) {
            Some(file) => file,
            None => private().write(true).create(true).truncate(false).open(&self.path)?,
        };
        let mut text = serde_json::to_vec(&self.position)?;
        text.resize(LENGTH, b' ');
        let written = file.write_all_at(&text, 0);
        self.file = Some(file);
        written
    }
}
