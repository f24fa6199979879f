//! Changes of bindings on local disk, from before the phone is answered until the store has them.
//!
//! Files `bindings-N.jsonl`, lines in order. When a file has grown the next one begins and the store is told ([`Kept::Turned`]);
//! when it has written all that came before, the older files go. While the database is away they are replaced by the latest state
//! of each binding, so that they grow with the number of phones and not with time.

use std::collections::HashMap;
use std::fs::{self, File};
use std::io::{self, BufRead, BufReader, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use serde_json::Value;
use sip_engine::registrar::BindingChange;
use tokio::sync::mpsc::UnboundedSender;

use super::private;
use crate::store::names::Names;

/// The next file begins at this size.
const TURN: u64 = 4 << 20;

/// What is on disk, for the store, in order.
#[derive(Debug)]
pub enum Kept {
    /// A change.
    Change(BindingChange),
    /// All changes before are in files up to this number, none of those that follow is.
    Turned(u64),
}

/// What the process before had kept: the latest change of each binding.
#[derive(Debug, Default)]
pub struct Replay {
    /// In the numbers of this configuration.
    pub changes: Vec<BindingChange>,
    /// How many name a realm or listener that is gone.
    pub dropped: usize,
    /// The files that they came from: up to this number.
    pub turn: u64,
}

/// A line. Bindings name their realm and listener: the next process may have another configuration.
#[derive(Debug, Serialize, Deserialize)]
enum Line {
    Put(Value),
    Delete { aor: Arc<str>, uri: String },
}

#[derive(Debug)]
pub(super) struct Registrations {
    directory: PathBuf,
    names: Names,
    kept: UnboundedSender<Kept>,
    number: u64,
    file: Option<Arc<File>>,
    size: u64,
    is_torn: bool,
    is_dirty: bool,
}

/// A change as a line.
pub(crate) fn line(names: &Names, change: &BindingChange) -> io::Result<Vec<u8>> {
    let line = match change {
        BindingChange::Put(record) => Line::Put(names.to_kept(record)?),
        BindingChange::Delete { aor, uri } => Line::Delete { aor: aor.clone(), uri: uri.clone() },
    };
    let mut bytes = serde_json::to_vec(&line)?;
    bytes.push(b'\n');
    Ok(bytes)
}

impl Registrations {
    pub(super) fn open(directory: &Path, names: Names, kept: UnboundedSender<Kept>) -> (Self, Replay) {
        let replay = replay(directory, &names);
        let number = replay.turn.saturating_add(1);
        let this = Self {
            directory: directory.to_owned(),
            names,
            kept,
            number,
            file: None,
            size: 0,
            is_torn: false,
            is_dirty: false,
        };
        (this, replay)
    }

    /// Writes a change, and hands it on to the store whether it could be written or not.
    pub(super) fn keep(&mut self, change: BindingChange) -> io::Result<()> {
        let written = line(&self.names, &change).and_then(|line| self.append(&line));
        let _ = self.kept.send(Kept::Change(change));
        if self.size >= TURN {
            self.turn();
        }
        written
    }

    fn append(&mut self, line: &[u8]) -> io::Result<()> {
        let file = match &self.file {
            Some(file) => file.clone(),
            None => {
                let file = private().create(true).append(true).open(path(&self.directory, self.number))?;
                File::open(&self.directory)?.sync_all()?;
                self.file.insert(Arc::new(file)).clone()
            }
        };
        let mut file = &*file;
        if self.is_torn {
            file.write_all(b"\n")?;
        }
        self.is_torn = true;
        file.write_all(line)?;
        self.is_torn = false;
        self.is_dirty = true;
        self.size = self.size.saturating_add(line.len() as u64);
        Ok(())
    }

    fn turn(&mut self) {
        let _ = self.kept.send(Kept::Turned(self.number));
        self.number = self.number.saturating_add(1);
        (self.file, self.size, self.is_torn) = (None, 0, false);
    }

    pub(super) fn file_to_sync(&mut self) -> Option<Arc<File>> {
        std::mem::take(&mut self.is_dirty).then(|| self.file.clone()).flatten()
    }

    /// What somebody has deleted is gone on with in a new file: the store has most of it, and gets the rest from memory.
    pub(super) fn look_after_file(&mut self) {
        let is_gone = |file: &Arc<File>| file.metadata().is_ok_and(|data| data.nlink() == 0);
        if self.file.as_ref().is_some_and(is_gone) {
            self.turn();
        }
    }
}

/// The latest change of each binding, of all files.
fn replay(directory: &Path, names: &Names) -> Replay {
    let mut replay = Replay::default();
    let mut latest: HashMap<(Arc<str>, String), BindingChange> = HashMap::new();
    for number in list(directory) {
        replay.turn = number;
        let Ok(file) = File::open(path(directory, number)) else { continue };
        for line in BufReader::new(file).split(b'\n') {
            // A torn end, or damage: what can be read counts.
            let Ok(line) = line else { break };
            let Ok(line) = serde_json::from_slice::<Line>(&line) else { continue };
            let change = match line {
                Line::Delete { aor, uri } => BindingChange::Delete { aor, uri },
                Line::Put(kept) => match names.resolve(kept) {
                    Ok(record) => BindingChange::Put(Box::new(record)),
                    Err(_) => {
                        replay.dropped = replay.dropped.saturating_add(1);
                        continue;
                    }
                },
            };
            let key = match &change {
                BindingChange::Put(record) => (record.aor.clone(), record.uri.clone()),
                BindingChange::Delete { aor, uri } => (aor.clone(), uri.clone()),
            };
            latest.insert(key, change);
        }
    }
    replay.changes = latest.into_values().collect();
    replay
}

/// Deletes the files up to a turn.
pub(super) fn forget(directory: &Path, turn: u64) -> io::Result<()> {
    for number in list(directory).into_iter().filter(|number| *number <= turn) {
        fs::remove_file(path(directory, number))?;
    }
    Ok(())
}

/// Replaces the files up to a turn by one with these lines.
pub(super) fn compact(directory: &Path, turn: u64, lines: &[Vec<u8>]) -> io::Result<()> {
    let fresh = directory.join("bindings.new");
    let mut file = private().write(true).create(true).truncate(true).open(&fresh)?;
    file.write_all(&lines.concat())?;
    file.sync_data()?;
    fs::rename(fresh, path(directory, turn))?;
    forget(directory, turn.saturating_sub(1))
}

fn path(directory: &Path, number: u64) -> PathBuf {
    directory.join(format!("bindings-{number:010}.jsonl"))
}

/// The numbers of the files that exist, ascending.
fn list(directory: &Path) -> Vec<u64> {
    let mut found: Vec<u64> = fs::read_dir(directory)
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| {
            entry.file_name().to_str()?.strip_prefix("bindings-")?.strip_suffix(".jsonl")?.parse().ok()
        })
        .collect();
    found.sort_unstable();
    found
}
