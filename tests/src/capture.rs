//! Captures that run, and what they have seen so far.

use std::fs::File;
use std::io::Read;
use std::time::Duration;

use crate::packet::{Packet, Reader};
use crate::process::{Process, eventually};
use crate::{Failure, Lab, Result};

/// A running capture. Packets reach it as they pass; nothing is held back in a buffer.
#[derive(Debug)]
pub struct Capture {
    tcpdump: Process,
    file: File,
    reader: Reader,
    packets: Vec<Packet>,
    /// How long it may keep a packet before it writes it.
    keeps: Duration,
}

/// The kernel hands a block of packets over after so long at the latest (pcap's time out in tcpdump, a second); with some room.
const GATHERED: Duration = Duration::from_millis(1500);

impl Capture {
    /// Starts a capture on a device of a host and waits until it runs.
    pub fn start(lab: &Lab, host: &str, device: &str) -> Result<Self> {
        Self::with(lab, host, device, &["--immediate-mode", "-U"], "")
    }

    /// One that is read only when it has [ended](Self::finish), of what passes a filter of pcap ("" for all): it gathers packets before
    /// it writes them, and so costs the machine little beside long calls.
    pub fn of_all(lab: &Lab, host: &str, device: &str, filter: &str) -> Result<Self> {
        Ok(Self { keeps: GATHERED, ..Self::with(lab, host, device, &[], filter)? })
    }

    fn with(lab: &Lab, host: &str, device: &str, options: &[&str], filter: &str) -> Result<Self> {
        let label = format!("capture-{host}-{device}");
        let path = lab.folder().join(format!("{label}.pcap"));
        let text = path.to_string_lossy();
        let fixed = ["-n", "-s", "0", "-B", "8192", "-Z", "root", "-i", device, "-w", &text];
        let argv = [&["tcpdump"], options, &fixed, &[filter]].concat();
        let tcpdump = lab.start(host, &label, &argv)?;
        tcpdump.says("listening on", Duration::from_secs(15))?;
        let file = File::open(&path)?;
        Ok(Capture { tcpdump, file, reader: Reader::default(), packets: Vec::new(), keeps: Duration::ZERO })
    }

    /// All packets so far.
    pub fn packets(&mut self) -> Result<&[Packet]> {
        let mut bytes = Vec::new();
        self.file.read_to_end(&mut bytes)?;
        let more = self.reader.take(&bytes).ok_or_else(|| Failure("no little-endian pcap file".into()))?;
        self.packets.extend(more);
        Ok(&self.packets)
    }

    /// How many packets there are so far: a mark for [`since`](Self::since).
    pub fn mark(&mut self) -> Result<usize> {
        Ok(self.packets()?.len())
    }

    /// The packets after a mark.
    pub fn since(&mut self, mark: usize) -> Result<&[Packet]> {
        Ok(self.packets()?.get(mark..).unwrap_or_default())
    }

    /// Waits until a packet after the mark is as `wanted`.
    pub fn sees(
        &mut self,
        what: &str,
        mark: usize,
        within: Duration,
        mut wanted: impl FnMut(&Packet) -> bool,
    ) -> Result<()> {
        let mut failure = None;
        let found = eventually(within, || match self.since(mark) {
            Ok(packets) => packets.iter().any(&mut wanted),
            Err(error) => {
                failure = Some(error);
                true
            }
        });
        match failure {
            Some(failure) => Err(failure),
            None if found => Ok(()),
            None => Err(Failure(format!("no {what} was captured within {within:?}"))),
        }
    }

    /// Ends the capture and returns its packets.
    pub fn finish(mut self) -> Result<Vec<Packet>> {
        // What it keeps when it is told to end is lost.
        std::thread::sleep(self.keeps);
        self.tcpdump.signal("INT")?;
        self.tcpdump.ended(Duration::from_secs(15))?;
        let output = self.tcpdump.output();
        // A leak in a packet that was not captured would not be found.
        if !output.contains("0 packets dropped by kernel") {
            return Err(Failure(format!("the capture has lost packets: {output}")));
        }
        self.packets()?;
        Ok(self.packets)
    }
}
