//! What is typed, or written by a script.

/// One line of standard input.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Command {
    Dial(String),
    Answer,
    Refuse,
    HangUp,
    Hold,
    Resume,
    Transfer(String),
    /// Joins the other ends of the first and the newest call (RFC 5589 §7).
    Join,
    /// Everything back to the relay, whatever the SBC allows.
    Relay,
    /// As the SBC says.
    Direct,
    Quit,
}

impl Command {
    /// `None` for what is none.
    pub(crate) fn read(line: &str) -> Option<Self> {
        let mut words = line.split_ascii_whitespace();
        let command = match (words.next()?, words.next()) {
            ("dial", Some(uri)) => Self::Dial(uri.to_owned()),
            ("transfer", Some(uri)) => Self::Transfer(uri.to_owned()),
            ("answer", None) => Self::Answer,
            ("refuse", None) => Self::Refuse,
            ("hangup", None) => Self::HangUp,
            ("hold", None) => Self::Hold,
            ("resume", None) => Self::Resume,
            ("relay", None) => Self::Relay,
            ("direct", None) => Self::Direct,
            ("join", None) => Self::Join,
            ("quit", None) => Self::Quit,
            _ => return None,
        };
        words.next().is_none().then_some(command)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_are_whole_lines() {
        assert_eq!(
            Command::read(" dial  sip:bob@example.net "),
            Some(Command::Dial("sip:bob@example.net".into()))
        );
        assert_eq!(Command::read("hangup"), Some(Command::HangUp));
        for wrong in ["", "dial", "hangup now", "dial a b", "hang"] {
            assert_eq!(Command::read(wrong), None, "{wrong}");
        }
    }
}
