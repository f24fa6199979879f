//! Programs that run in a namespace, with their output in a file, and that end with their owner.

use std::fs::{self, File};
use std::io::{Read, Seek, SeekFrom, Write};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, ExitStatus, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use crate::{Failure, Result};

/// Runs a short command to its end; its output is the error's text when it fails.
pub fn run(argv: &[&str]) -> Result<String> {
    let [program, arguments @ ..] = argv else { return Err(Failure("no command".into())) };
    let output = Command::new(program)
        .args(arguments)
        .stdin(Stdio::null())
        .output()
        .map_err(|error| Failure(format!("{program}: {error}")))?;
    if output.status.success() {
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    } else {
        let said = String::from_utf8_lossy(&output.stderr);
        Err(Failure(format!("`{}`: {} {}", argv.join(" "), output.status, said.trim())))
    }
}

/// Polls `condition` every 20 ms for at most `within`; true as soon as it holds.
pub fn eventually(within: Duration, mut condition: impl FnMut() -> bool) -> bool {
    let end = Instant::now() + within;
    loop {
        if condition() {
            return true;
        }
        if Instant::now() >= end {
            return false;
        }
        sleep(Duration::from_millis(20));
    }
}

/// A running program. Dropping it ends it and its children: SIGTERM, after a second SIGKILL.
#[derive(Debug)]
pub struct Process {
    name: String,
    child: Child,
    stdin: Option<ChildStdin>,
    log: PathBuf,
}

impl Process {
    /// Starts `argv` in the namespace; standard output and error go to `log`, standard input is a pipe.
    pub fn start(namespace: &str, argv: &[&str], environment: &[(&str, &str)], log: &Path) -> Result<Self> {
        let name = argv.first().copied().unwrap_or("nothing").to_owned();
        let output = File::create(log)?;
        let mut child = Command::new("ip")
            .args(["netns", "exec", namespace])
            .args(argv)
            .envs(environment.iter().copied())
            .stdin(Stdio::piped())
            .stdout(output.try_clone()?)
            .stderr(output)
            .process_group(0)
            .spawn()
            .map_err(|error| Failure(format!("{name}: {error}")))?;
        let stdin = child.stdin.take();
        Ok(Process { name, child, stdin, log: log.to_owned() })
    }

    /// The process id: `ip netns exec` becomes the program, so it is the program's own.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// All the program has said so far.
    pub fn output(&self) -> String {
        fs::read(&self.log).map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).unwrap_or_default()
    }

    /// What the program has said after the first `from` bytes.
    fn output_from(&self, from: usize) -> Vec<u8> {
        let mut bytes = Vec::new();
        let read = File::open(&self.log).and_then(|mut file| {
            file.seek(SeekFrom::Start(from as u64))?;
            file.read_to_end(&mut bytes)
        });
        read.map(|_| bytes).unwrap_or_default()
    }

    /// Waits until the program says something after the `cursor`, which then stands behind it. `find` is given what
    /// was said and returns the end of what it looks for.
    pub fn says_next(
        &self,
        what: &str,
        cursor: &mut usize,
        within: Duration,
        find: impl Fn(&[u8]) -> Option<usize>,
    ) -> Result<()> {
        let mut found = None;
        eventually(within, || {
            found = find(&self.output_from(*cursor));
            found.is_some()
        });
        *cursor += found.ok_or_else(|| self.did_not_say(what, within))?;
        Ok(())
    }

    /// Waits until the program has said `text`.
    pub fn says(&self, text: &str, within: Duration) -> Result<()> {
        self.says_times(text, 1, within)
    }

    /// Waits until the program has said `text` so many times.
    pub fn says_times(&self, text: &str, times: usize, within: Duration) -> Result<()> {
        if eventually(within, || self.output().matches(text).count() >= times) {
            return Ok(());
        }
        Err(self.did_not_say(text, within))
    }

    fn did_not_say(&self, text: &str, within: Duration) -> Failure {
        let said = self.output();
        let tail: Vec<&str> = said.lines().rev().take(30).collect();
        let tail = tail.into_iter().rev().collect::<Vec<_>>().join("\n");
        let (name, log) = (&self.name, self.log.display());
        Failure(format!("{name} did not say \"{text}\" within {within:?} ({log}); it said:\n{tail}"))
    }

    /// Writes bytes to the program's standard input.
    pub fn write(&mut self, bytes: &[u8]) -> Result<()> {
        let stdin = self.stdin.as_mut().ok_or_else(|| Failure(format!("{}: input closed", self.name)))?;
        stdin.write_all(bytes)?;
        Ok(stdin.flush()?)
    }

    /// Sends a signal by name ("TERM", "KILL", "STOP") to the program alone.
    pub fn signal(&self, signal: &str) -> Result<()> {
        run(&["kill", "-s", signal, &self.id().to_string()]).map(drop)
    }

    /// Waits for the program's own end.
    pub fn ended(&mut self, within: Duration) -> Result<ExitStatus> {
        let mut status = None;
        eventually(within, || {
            status = self.child.try_wait().ok().flatten();
            status.is_some()
        });
        status.ok_or_else(|| Failure(format!("{} still runs after {within:?}", self.name)))
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.stdin = None;
        let group = format!("-{}", self.id());
        if matches!(self.child.try_wait(), Ok(None)) {
            let _ = run(&["kill", "-s", "TERM", "--", &group]);
            if self.ended(Duration::from_secs(1)).is_err() {
                let _ = run(&["kill", "-s", "KILL", "--", &group]);
            }
        }
        let _ = self.child.wait();
    }
}
