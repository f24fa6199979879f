//! Drives the talker (`src/bin/talker.rs`): G.711 for every call of a load, counted packet by packet.

use std::path::PathBuf;
use std::time::Duration;

use serde_json::{Value, json};

use crate::process::eventually;
use crate::{Failure, Lab, Process, Result};

/// What one side has counted. A call of its own has one stream each way.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Report {
    /// Calls that began to talk.
    pub calls: u64,
    /// Calls that still talk or listen.
    pub active: u64,
    /// Packets that the kernel took.
    pub sent: u64,
    /// Packets that it did not take.
    pub unsent: u64,
    /// Packets received, each once, whole, in its own call.
    pub received: u64,
    /// Copies of packets received before.
    pub twice: u64,
    /// Packets received after a later one; they are in `received` too.
    pub late: u64,
    /// Packets of other calls, or not RTP, or damaged.
    pub foreign: u64,
}

impl Report {
    /// As the talker writes it.
    pub fn text(&self) -> String {
        let Report { calls, active, sent, unsent, received, twice, late, foreign } = self;
        json!({"calls": calls, "active": active, "sent": sent, "unsent": unsent, "received": received, "twice": twice,
            "late": late, "foreign": foreign})
        .to_string()
    }

    fn read(text: &str) -> Option<Self> {
        let values: Value = serde_json::from_str(text).ok()?;
        let value = |name: &str| values.get(name)?.as_u64();
        Some(Self {
            calls: value("calls")?,
            active: value("active")?,
            sent: value("sent")?,
            unsent: value("unsent")?,
            received: value("received")?,
            twice: value("twice")?,
            late: value("late")?,
            foreign: value("foreign")?,
        })
    }
}

/// A running talker.
#[derive(Debug)]
pub struct Talker {
    program: Process,
    report: PathBuf,
}

impl Talker {
    /// Starts `talker` (the program's path) on a host, beside a SIPp that logs to `log` and was given `first_port` as
    /// its media port.
    pub fn start(
        lab: &Lab,
        host: &str,
        talker: &str,
        log: &str,
        address: &str,
        first_port: u16,
        packets: u32,
    ) -> Result<Self> {
        let report = lab.folder().join(format!("talker-{host}.json"));
        let (port, packets, path) =
            (first_port.to_string(), packets.to_string(), report.display().to_string());
        // It holds a socket for each of SIPp's 2,500 media ports.
        let raised = "ulimit -n 4096; exec \"$@\"";
        let argv = ["bash", "-c", raised, "talker", talker, log, address, &port, &packets, &path];
        let program = lab.start(host, &format!("talker-{host}"), &argv)?;
        program.says("talking", Duration::from_secs(5))?;
        Ok(Self { program, report })
    }

    /// Waits until no call talks any more, and reads what was counted.
    pub fn finish(self, within: Duration) -> Result<Report> {
        let mut report = None;
        eventually(within, || {
            report = std::fs::read_to_string(&self.report).ok().and_then(|text| Report::read(&text));
            report.is_some_and(|report| report.calls > 0 && report.active == 0)
        });
        report
            .filter(|report| report.active == 0)
            .ok_or_else(|| Failure(format!("the talker still talks: {report:?} {}", self.program.output())))
    }
}
