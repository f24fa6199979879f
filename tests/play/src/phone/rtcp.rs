//! What endpoints report (RFC 3550 §6.4.1).

use std::time::Duration;

/// What a receiver says of who sends to it.
#[derive(Debug, Clone, Copy)]
pub struct Heard {
    /// Its source.
    pub source: u32,
    /// Packets that have not come.
    pub lost: u32,
    /// The highest number, with its wraps.
    pub highest: u32,
}

/// A report of a source that has sent so many packets, of so many octets in all, and of whom it hears.
pub fn sender_report(ssrc: u32, now: Duration, [packets, octets]: [u32; 2], heard: Option<Heard>) -> Vec<u8> {
    let blocks = u8::from(heard.is_some());
    let mut report = vec![0x80 | blocks, 200, 0, 6 + 6 * blocks];
    let own = [ssrc, now.as_secs() as u32, 0, 0, packets, octets];
    let block = heard.map(|Heard { source, lost, highest }| [source, lost, highest, 8, 0, 0]);
    for word in own.into_iter().chain(block.into_iter().flatten()) {
        report.extend(word.to_be_bytes());
    }
    report
}
