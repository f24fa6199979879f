//! Drives a crowd (`src/bin/crowd`): many simulated phones on one host.

use std::time::Duration;

use memchr::memmem;
use serde_json::Value;

use crate::{Failure, Lab, Process, Result};

/// A running crowd.
#[derive(Debug)]
pub struct Crowd {
    program: Process,
    cursor: usize,
}

/// How its calls are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Report {
    /// Calls that are up, or begin.
    pub calls: u64,
    /// Those to which media came in the last half second.
    pub hearing: u64,
    /// Those that send to the other crowd's phones.
    pub away: u64,
    /// Calls that have ended.
    pub ended: u64,
    /// Re-INVITEs that were refused.
    pub refused: u64,
    /// Re-INVITEs that got no answer, each as often as it came.
    pub ignored: u64,
    /// The longest time between two packets of a call since the last report.
    pub longest: Duration,
}

impl Crowd {
    /// Starts `crowd` (the program's path) on a host with this address, which registers `user` at `sbc`.
    pub fn start(
        lab: &Lab,
        crowd: &str,
        [host, address]: [&str; 2],
        user: &str,
        sbc: &str,
        moves: &str,
    ) -> Result<Self> {
        let argv = [crowd, address, user, sbc, "50", moves];
        let program = lab.start(host, &format!("crowd-{host}"), &argv)?;
        program.says("\"event\":\"registered\"", Duration::from_secs(10))?;
        Ok(Self { program, cursor: 0 })
    }

    /// Gives a command: `dial USER COUNT` or `hangup`.
    pub fn command(&mut self, command: &str) -> Result<()> {
        self.program.write(format!("{command}\n").as_bytes())
    }

    /// How its calls are now.
    pub fn report(&mut self) -> Result<Report> {
        self.command("report")?;
        let find = |said: &[u8]| Some(memmem::find(said, b"\"longest_ms\":")? + 1);
        self.program.says_next("report", &mut self.cursor, Duration::from_secs(10), find)?;
        let output = self.program.output();
        let line = output.lines().rfind(|line| line.contains("\"report\"") && line.ends_with('}'));
        let values: Value = line.and_then(|line| serde_json::from_str(line).ok()).unwrap_or_default();
        let value = |name: &str| {
            values.get(name).and_then(Value::as_u64).ok_or_else(|| Failure(format!("no {name} in {line:?}")))
        };
        Ok(Report {
            calls: value("calls")?,
            hearing: value("hearing")?,
            away: value("away")?,
            ended: value("ended")?,
            refused: value("refused")?,
            ignored: value("ignored")?,
            longest: Duration::from_millis(value("longest_ms")?),
        })
    }

    /// The process id.
    pub fn id(&self) -> u32 {
        self.program.id()
    }
}
