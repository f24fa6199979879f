//! `application/trickle-ice-sdpfrag` (RFC 8840 §9).

use std::fmt::Write as _;

use super::support::is_ice_text;
use super::{Candidate, NatBehaviour};

/// At most as many candidates are taken from a peer in a generation, however many fragments they come in (docs/crush.md §12).
pub const CANDIDATES: usize = 32;

/// All that one side has said of its current generation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fragment {
    /// `a=ice-ufrag`.
    pub ufrag: String,
    /// `a=ice-pwd`.
    pub pwd: String,
    /// `a=crush-nat`, one per address family.
    pub nats: Vec<NatBehaviour>,
    /// `a=candidate`, whatever m-line they stand under.
    pub candidates: Vec<Candidate>,
    /// `a=end-of-candidates`.
    pub ended: bool,
}

impl Fragment {
    /// `None` without usable credentials. Unknown lines are ignored (RFC 8840 §9.2).
    pub fn read(text: &str) -> Option<Self> {
        let mut fragment = Self {
            ufrag: String::new(),
            pwd: String::new(),
            nats: Vec::new(),
            candidates: Vec::new(),
            ended: false,
        };
        for line in text.lines().map(str::trim_end) {
            if let Some(ufrag) = line.strip_prefix("a=ice-ufrag:") {
                ufrag.clone_into(&mut fragment.ufrag);
            } else if let Some(pwd) = line.strip_prefix("a=ice-pwd:") {
                pwd.clone_into(&mut fragment.pwd);
            } else if line == "a=end-of-candidates" {
                fragment.ended = true;
            } else if let Some(nat) = NatBehaviour::read(line) {
                fragment.nats.retain(|known| known.ipv6 != nat.ipv6);
                fragment.nats.push(nat);
            } else if let Some(candidate) = Candidate::read(line)
                && fragment.candidates.len() < CANDIDATES
            {
                fragment.candidates.push(candidate);
            }
        }
        (is_ice_text(&fragment.ufrag, 4) && is_ice_text(&fragment.pwd, 22)).then_some(fragment)
    }

    /// The body of an INFO; `media` is the kind of the first m-line.
    pub fn write(&self, media: &str) -> String {
        let mut text = format!("a=ice-ufrag:{}\r\na=ice-pwd:{}\r\n", self.ufrag, self.pwd);
        // Writing to a String cannot fail.
        for nat in &self.nats {
            let _ = write!(text, "{nat}\r\n");
        }
        let _ = write!(text, "m={media} 9 RTP/AVP 0\r\na=mid:0\r\n");
        for candidate in &self.candidates {
            let _ = write!(text, "{candidate}\r\n");
        }
        if self.ended {
            text.push_str("a=end-of-candidates\r\n");
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BODY: &str = "a=ice-ufrag:8hhY\r\na=ice-pwd:asd88fgpdd777uzjYhagZg\r\n\
        a=crush-nat:1 family=4 mapping=apd filtering=apd ports=sequential step=1 last=40327\r\n\
        m=audio 9 RTP/AVP 0\r\na=mid:0\r\n\
        a=candidate:1 1 UDP 2130706431 192.168.1.10 5004 typ host\r\n\
        a=candidate:2 1 UDP 1694498815 198.51.100.7 40322 typ srflx raddr 192.168.1.10 rport 5004\r\n\
        a=end-of-candidates\r\n";

    #[test]
    fn the_documented_fragment_reads_and_writes() {
        let fragment = Fragment::read(BODY).unwrap();
        assert_eq!((fragment.candidates.len(), fragment.nats.len(), fragment.ended), (2, 1, true));
        assert_eq!(fragment.write("audio"), BODY);
    }

    #[test]
    fn a_flood_of_candidates_is_cut_and_no_credentials_is_nothing() {
        let line = "a=candidate:1 1 UDP 2130706431 192.168.1.10 5004 typ host\r\n";
        let fragment = Fragment::read(&(BODY.to_owned() + &line.repeat(1000))).unwrap();
        assert_eq!(fragment.candidates.len(), CANDIDATES);
        assert_eq!(Fragment::read(line), None);
    }
}
