//! `a=crush:1 …`, the line between an endpoint and its SBC (docs/crush.md §2).

use std::fmt;
use std::net::SocketAddr;

use serde::{Deserialize, Serialize};

/// What may leave the relay.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub enum Policy {
    /// Everything.
    #[default]
    Direct,
    /// Video; audio stays on the relay.
    VideoOnly,
    /// Nothing.
    Relay,
}

/// How fast new flows may be made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub enum Temper {
    /// 200 a second, for half a minute: only where somebody has said that the network bears it.
    Fast,
    /// 25 a second, for a minute: stays below what flood limiters punish.
    #[default]
    Normal,
    /// 20 a second, for three minutes.
    Stealth,
}

impl fmt::Display for Temper {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Fast => "fast",
            Self::Normal => "normal",
            Self::Stealth => "stealth",
        })
    }
}

/// One `a=crush` line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Support {
    /// Sender's fragment for authenticated Binding requests on this leg.
    pub ufrag: String,
    /// Sender's password for them.
    pub pwd: String,
    /// What may leave the relay (from the SBC).
    pub policy: Policy,
    /// Discovery services (from the SBC).
    pub servers: Vec<SocketAddr>,
    /// What the network is known to bear (from the SBC).
    pub temper: Option<Temper>,
}

pub(super) fn is_ice_text(text: &str, least: usize) -> bool {
    (least..=256).contains(&text.len())
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'+' || byte == b'/')
}

impl Support {
    /// The last usable line of a description or of a part of one. `None`: no support.
    pub fn find(description: &str) -> Option<Self> {
        description.lines().filter_map(|line| Self::read(line.trim_end())).next_back()
    }

    /// `None` if this line of a description is none.
    pub(crate) fn of_line(line: &[u8]) -> Option<Self> {
        line.starts_with(b"a=crush:").then(|| std::str::from_utf8(line).ok().and_then(Self::read))?
    }

    fn read(line: &str) -> Option<Self> {
        let mut words = line.strip_prefix("a=crush:")?.split(' ').filter(|word| !word.is_empty());
        if words.next()? != "1" {
            return None;
        }
        let mut support = Self {
            ufrag: String::new(),
            pwd: String::new(),
            policy: Policy::Direct,
            servers: Vec::new(),
            temper: None,
        };
        for word in words {
            match word.split_once('=') {
                Some(("ufrag", value)) => value.clone_into(&mut support.ufrag),
                Some(("pwd", value)) => value.clone_into(&mut support.pwd),
                // An unknown policy is not ours to guess: the strictest.
                Some(("policy", value)) => {
                    support.policy = match value {
                        "direct" => Policy::Direct,
                        "video" => Policy::VideoOnly,
                        _ => Policy::Relay,
                    }
                }
                Some(("stun", value)) => support.servers.extend(value.parse::<SocketAddr>()),
                Some(("temper", value)) => {
                    support.temper = match value {
                        "fast" => Some(Temper::Fast),
                        "normal" => Some(Temper::Normal),
                        "stealth" => Some(Temper::Stealth),
                        _ => None,
                    }
                }
                _ => {}
            }
        }
        (is_ice_text(&support.ufrag, 4) && is_ice_text(&support.pwd, 22)).then_some(support)
    }
}

impl fmt::Display for Support {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "a=crush:1 ufrag={} pwd={}", self.ufrag, self.pwd)?;
        match self.policy {
            Policy::Direct => {}
            Policy::VideoOnly => f.write_str(" policy=video")?,
            Policy::Relay => f.write_str(" policy=relay")?,
        }
        for server in &self.servers {
            write!(f, " stun={server}")?;
        }
        match self.temper {
            Some(temper) => write!(f, " temper={temper}"),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_line_reads_as_it_was_written() {
        let support = Support {
            ufrag: "F7gI".into(),
            pwd: "x9cml/YzichV2+XlhiMu8g".into(),
            policy: Policy::VideoOnly,
            servers: vec!["203.0.113.5:3478".parse().unwrap(), "[2001:db8::5]:3478".parse().unwrap()],
            temper: Some(Temper::Stealth),
        };
        let sdp = format!("v=0\r\ns=-\r\n{support}\r\nm=audio 5004 RTP/AVP 0\r\n");
        assert_eq!(Support::find(&sdp), Some(support));
    }

    #[test]
    fn other_versions_missing_credentials_and_nothing_are_no_support() {
        for line in [
            "a=crush:2 ufrag=F7gI pwd=x9cml/YzichV2+XlhiMu8g",
            "a=crush:1 ufrag=F7gI",
            "a=crush:1 ufrag=F7 pwd=x9cml/YzichV2+XlhiMu8g",
            "a=crush:1 ufrag=F7gI pwd=x9cml/YzichV2\"XlhiMu8g",
            "a=crush",
            "",
        ] {
            assert_eq!(Support::find(line), None, "{line}");
        }
    }

    #[test]
    fn unknown_parameters_are_ignored_and_an_unknown_policy_is_the_strictest() {
        let line = "a=crush:1 new ufrag=F7gI x=y pwd=x9cml/YzichV2+XlhiMu8g policy=perhaps";
        assert_eq!(Support::find(line).unwrap().policy, Policy::Relay);
    }
}
