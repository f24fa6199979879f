//! What the faults are.

use std::path::PathBuf;
use std::sync::atomic::{AtomicU8, Ordering};

use std::sync::OnceLock;

use crate::part::{Vitals, locked};

/// Names the file of faults: a line each, `panic NAME`, `return NAME` or `loop NAME` with a part's whole name.
const FILE: &str = "SBC_FAULTS";

const NONE: u8 = 0;
const PANIC: u8 = 1;
const RETURN: u8 = 2;
const LOOP: u8 = 3;
const SLEEP: u8 = 4;

/// What a part has been told to suffer at its next turn.
#[derive(Debug, Default)]
pub(crate) struct Fault(AtomicU8);

impl Fault {
    /// True: the part is to return without a word.
    pub(crate) fn strikes(&self) -> bool {
        match self.0.load(Ordering::Relaxed) {
            NONE => false,
            PANIC => injected(),
            RETURN => true,
            LOOP => loop {
                std::hint::spin_loop();
            },
            _ => loop {
                std::thread::sleep(std::time::Duration::from_secs(1));
            },
        }
    }
}

#[expect(clippy::panic, reason = "that is the fault")]
fn injected() -> bool {
    panic!("a fault that a test asked for")
}

/// Where the faults stand, if a test wants some.
pub(crate) fn file() -> Option<PathBuf> {
    std::env::var_os(FILE).map(PathBuf::from)
}

/// Reads them, and wakes who shall suffer one.
pub(crate) fn look(file: &std::path::Path, vitals: &Vitals) {
    let Ok(text) = std::fs::read_to_string(file) else { return };
    for (kind, name) in text.lines().filter_map(|line| line.split_once(' ')) {
        let kind = match kind {
            "panic" => PANIC,
            "return" => RETURN,
            "loop" => LOOP,
            "sleep" => SLEEP,
            _ => continue,
        };
        for body in vitals.parts().iter().filter(|body| &*body.name == name) {
            body.fault.0.store(kind, Ordering::Relaxed);
            if let Some(waker) = &*locked(&body.waker) {
                waker.wake_by_ref();
            }
        }
    }
}

/// Panics if the words stand in what is read, and a test wants faults at all.
pub(super) fn stumble(what: &str, read: &[u8]) {
    static IS_WANTED: OnceLock<bool> = OnceLock::new();
    if *IS_WANTED.get_or_init(|| file().is_some()) {
        let words = format!("fault-in-a-{what}");
        if read.windows(words.len()).any(|found| found == words.as_bytes()) {
            injected();
        }
    }
}
