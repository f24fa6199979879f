//! What a sender tells the relay of its packets' path: CRUSH-PATH in an authenticated Binding request (docs/crush.md §3.1).

use serde::{Deserialize, Serialize};

use super::Reason;

/// Where the packets of one m-line are sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
pub enum Sending {
    /// To the relay alone.
    #[default]
    Relay,
    /// To the peer alone, but for comparisons.
    Direct,
    /// Both ways: to synchronise, or while a soft move overlaps.
    Both,
}

/// The value of the attribute.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Report {
    /// Where to.
    pub sending: Sending,
    /// Why it changed.
    pub reason: Reason,
}

impl Report {
    /// As it stands in the request.
    pub fn write(self) -> [u8; 4] {
        let path = match self.sending {
            Sending::Relay => 0,
            Sending::Direct => 1,
            Sending::Both => 2,
        };
        [path, self.reason.number(), 0, 0]
    }

    /// `None` if it is malformed.
    pub fn read(value: &[u8]) -> Option<Self> {
        let value: &[u8; 4] = value.try_into().ok()?;
        let sending = match value[0] {
            0 => Sending::Relay,
            1 => Sending::Direct,
            2 => Sending::Both,
            _ => return None,
        };
        Some(Self { sending, reason: Reason::numbered(value[1])? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_report_reads_as_it_was_written_and_nothing_else_is_one() {
        for sending in [Sending::Relay, Sending::Direct, Sending::Both] {
            for reason in [Reason::Synchronised, Reason::Network, Reason::Application] {
                let report = Report { sending, reason };
                assert_eq!(Report::read(&report.write()), Some(report));
            }
        }
        for wrong in [&[3, 1, 0, 0][..], &[0, 0, 0, 0], &[0, 9, 0, 0], &[0, 1, 0]] {
            assert_eq!(Report::read(wrong), None);
        }
    }
}
