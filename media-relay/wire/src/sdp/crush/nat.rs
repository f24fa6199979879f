//! `a=crush-nat`: what an endpoint found out about the NAT in front of it (docs/crush.md §4).

use std::fmt;

/// RFC 4787 §4.1 and §5.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum NatKind {
    /// Whatever the destination or source.
    EndpointIndependent,
    /// By address.
    AddressDependent,
    /// By address and port.
    AddressAndPortDependent,
}

/// How the ports of new mappings follow each other.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum PortPattern {
    /// The local one, or always the same.
    Preserving,
    /// So much more (or less) each time.
    Sequential(i16),
    /// No rule was seen.
    Random,
}

/// One NAT, as its mapping and filtering show from inside.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NatBehaviour {
    /// Address family: IPv6 rather than IPv4.
    pub ipv6: bool,
    /// When a mapping is used again.
    pub mapping: NatKind,
    /// From whom packets may enter.
    pub filtering: NatKind,
    /// Which port a new mapping gets.
    pub ports: PortPattern,
    /// Mapped port of the newest flow.
    pub last: u16,
    /// Round of fan or scan that it was measured for.
    pub round: u16,
}

impl NatKind {
    fn name(self) -> &'static str {
        match self {
            Self::EndpointIndependent => "ei",
            Self::AddressDependent => "ad",
            Self::AddressAndPortDependent => "apd",
        }
    }

    fn named(name: &str) -> Option<Self> {
        [Self::EndpointIndependent, Self::AddressDependent, Self::AddressAndPortDependent]
            .into_iter()
            .find(|kind| kind.name() == name)
    }
}

impl NatBehaviour {
    /// `None` for lines that are not it, or lack a part.
    pub fn read(line: &str) -> Option<Self> {
        let rest = line.strip_prefix("a=crush-nat:1 ")?;
        let value = |name: &str| {
            rest.split(' ').filter_map(|word| word.split_once('=')).find(|(n, _)| *n == name).map(|(_, v)| v)
        };
        Some(Self {
            ipv6: match value("family")? {
                "4" => false,
                "6" => true,
                _ => return None,
            },
            mapping: NatKind::named(value("mapping")?)?,
            filtering: NatKind::named(value("filtering")?)?,
            ports: match value("ports")? {
                "preserving" => PortPattern::Preserving,
                "sequential" => {
                    let step = number(value("step")?)?.clamp(i16::MIN.into(), i16::MAX.into());
                    if step == 0 {
                        return None;
                    }
                    PortPattern::Sequential(step as i16)
                }
                "random" => PortPattern::Random,
                _ => return None,
            },
            last: port(value("last")?)?,
            round: value("round").map_or(Some(0), port)?,
        })
    }

    /// How far the ports of new mappings lie apart, where they are in sequence; else the next one is as good as any.
    pub fn step(&self) -> i16 {
        match self.ports {
            PortPattern::Sequential(step) => step,
            PortPattern::Preserving | PortPattern::Random => 1,
        }
    }

    /// Another destination gets another port.
    pub fn is_dependent(&self) -> bool {
        self.mapping != NatKind::EndpointIndependent
    }
}

/// A whole number; one that is too great is the greatest there is.
fn number(text: &str) -> Option<i64> {
    let digits = text.strip_prefix('-').unwrap_or(text);
    if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let greatest = if digits.len() == text.len() { i64::MAX } else { i64::MIN };
    Some(text.parse().unwrap_or(greatest))
}

/// Of 16 bits without sign.
fn port(text: &str) -> Option<u16> {
    Some(number(text)?.clamp(0, u16::MAX.into()) as u16)
}

impl fmt::Display for NatBehaviour {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let family = if self.ipv6 { 6 } else { 4 };
        let (mapping, filtering) = (self.mapping.name(), self.filtering.name());
        write!(f, "a=crush-nat:1 family={family} mapping={mapping} filtering={filtering} ports=")?;
        match self.ports {
            PortPattern::Preserving => f.write_str("preserving")?,
            PortPattern::Sequential(step) => write!(f, "sequential step={step}")?,
            PortPattern::Random => f.write_str("random")?,
        }
        write!(f, " last={}", self.last)?;
        if self.round > 0 { write!(f, " round={}", self.round) } else { Ok(()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_line_reads_as_it_was_written() {
        let kinds =
            [NatKind::EndpointIndependent, NatKind::AddressDependent, NatKind::AddressAndPortDependent];
        let patterns = [PortPattern::Preserving, PortPattern::Sequential(-2), PortPattern::Random];
        for (round, (mapping, ports)) in (0..).zip(kinds.into_iter().zip(patterns)) {
            let ipv6 = mapping == kinds[0];
            let nat = NatBehaviour { ipv6, mapping, filtering: kinds[2], ports, last: 40_327, round };
            assert_eq!(NatBehaviour::read(&nat.to_string()), Some(nat));
        }
    }

    #[test]
    fn absurd_numbers_are_the_greatest_there_are() {
        let line = |step: &str, last: &str, round: &str| {
            let head = "a=crush-nat:1 family=4 mapping=apd filtering=apd ports=sequential";
            NatBehaviour::read(&format!("{head} step={step} last={last} round={round}"))
        };
        let nat = line("99999999999999999999999", "70000", "4294967296").unwrap();
        assert_eq!((nat.ports, nat.last, nat.round), (PortPattern::Sequential(i16::MAX), u16::MAX, u16::MAX));
        let nat = line("-99999999999999999999999", "-1", "-0").unwrap();
        assert_eq!((nat.ports, nat.last, nat.round), (PortPattern::Sequential(i16::MIN), 0, 0));
        for wrong in ["", "-", "+1", "1e9", "0x10", "NaN"] {
            assert_eq!(line(wrong, "1", "0"), None, "{wrong}");
        }
    }

    #[test]
    fn a_sequence_that_stands_still_is_no_sequence() {
        let line = "a=crush-nat:1 family=4 mapping=apd filtering=apd ports=sequential step=0 last=1";
        assert_eq!(NatBehaviour::read(line), None);
    }
}
