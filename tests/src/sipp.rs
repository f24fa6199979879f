//! Drives SIPp: scenarios of ours, and the counts it leaves.

use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::process::eventually;
use crate::{Failure, Lab, Process, Result};

/// What a run of SIPp is to do.
#[derive(Debug, Clone, Default)]
pub struct Load {
    /// File name under tests/lab/sipp.
    pub scenario: &'static str,
    /// Own address and port.
    pub local: (String, u16),
    /// Where calls go, `address:port`; none for an answering side.
    pub remote: Option<String>,
    /// Calls in all; zero answers until it is ended.
    pub calls: u32,
    /// Calls a second.
    pub rate: u32,
    /// More arguments.
    pub more: Vec<String>,
}

/// A running SIPp.
#[derive(Debug)]
pub struct Sipp {
    program: Process,
    statistics: PathBuf,
}

/// How a run ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Outcome {
    /// Calls that went as the scenario says.
    pub successful: u64,
    /// All others.
    pub failed: u64,
}

impl Sipp {
    /// Starts SIPp on a host.
    pub fn start(lab: &Lab, host: &str, label: &str, load: &Load) -> Result<Self> {
        let scenario = Path::new(env!("CARGO_MANIFEST_DIR")).join("lab/sipp").join(load.scenario);
        let statistics = lab.folder().join(format!("{label}.csv"));
        let errors = lab.folder().join(format!("{label}-errors.log"));
        let mut argv: Vec<String> =
            ["sipp", "-nostdin", "-trace_stat", "-fd", "1", "-trace_err", "-buff_size", "8000000"]
                .map(str::to_owned)
                .to_vec();
        let (address, port) = &load.local;
        argv.extend(["-stf".into(), statistics.display().to_string()]);
        argv.extend(["-error_file".into(), errors.display().to_string()]);
        argv.extend(["-sf".into(), scenario.display().to_string()]);
        argv.extend([
            "-i".into(),
            address.clone(),
            "-p".into(),
            port.to_string(),
            "-mi".into(),
            address.clone(),
        ]);
        if load.calls > 0 {
            argv.extend(["-m".into(), load.calls.to_string()]);
        }
        if load.rate > 0 {
            argv.extend(["-r".into(), load.rate.to_string(), "-l".into(), (load.rate * 60).to_string()]);
        }
        argv.extend(load.more.iter().cloned());
        argv.extend(load.remote.clone());
        let argv: Vec<&str> = argv.iter().map(String::as_str).collect();
        Ok(Sipp { program: lab.start(host, label, &argv)?, statistics })
    }

    /// Waits for SIPp's own end, and reads its counts.
    pub fn finish(mut self, within: Duration) -> Result<Outcome> {
        self.ended(within)?;
        self.counts()
    }

    /// Waits for SIPp's own end.
    pub fn ended(&mut self, within: Duration) -> Result<()> {
        self.program.ended(within).map(drop)
    }

    /// Ends an answering side and reads its counts.
    pub fn stop(mut self) -> Result<Outcome> {
        // The first signal lets it end its calls and write its statistics.
        self.program.signal("USR1")?;
        self.program.ended(Duration::from_secs(15))?;
        self.counts()
    }

    /// The counts so far: SIPp writes them each second.
    pub fn counts(&self) -> Result<Outcome> {
        self.statistics(counts_of)
    }

    /// Messages so far that the scenario did not expect, or that belonged to no call or a finished one.
    pub fn unexpected(&self) -> Result<u64> {
        self.statistics(unexpected_of)
    }

    fn statistics<T>(&self, read: fn(&str) -> Option<T>) -> Result<T> {
        let mut found = None;
        eventually(Duration::from_secs(2), || {
            found = std::fs::read_to_string(&self.statistics).ok().and_then(|text| read(&text));
            found.is_some()
        });
        found.ok_or_else(|| Failure(format!("SIPp left no counts; it said: {}", self.program.output())))
    }
}

fn counts_of(text: &str) -> Option<Outcome> {
    Some(Outcome { successful: count(text, "SuccessfulCall(C)")?, failed: count(text, "FailedCall(C)")? })
}

fn unexpected_of(text: &str) -> Option<u64> {
    ["FailedUnexpectedMessage(C)", "OutOfCallMsgs(C)", "DeadCallMsgs(C)"]
        .into_iter()
        .map(|name| count(text, name))
        .sum()
}

fn count(text: &str, name: &str) -> Option<u64> {
    let mut lines = text.lines();
    let column = lines.next()?.split(';').position(|column| column == name)?;
    lines.next_back()?.split(';').nth(column)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_line_of_the_statistics_counts() {
        let text = "StartTime;SuccessfulCall(P);SuccessfulCall(C);FailedCall(C);\nx;1;1;0;\nx;4;5;2;\n";
        assert_eq!(counts_of(text), Some(Outcome { successful: 5, failed: 2 }));
    }

    #[test]
    fn messages_without_a_call_are_unexpected_too() {
        let text = "FailedUnexpectedMessage(C);OutOfCallMsgs(C);DeadCallMsgs(C);\n0;0;0;\n1;2;3;\n";
        assert_eq!(unexpected_of(text), Some(6));
    }
}
