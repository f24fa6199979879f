//! One Via value (RFC 3261 §20.42, RFC 3581).

use memchr::memchr;

use crate::refused::Malformed;
use crate::text::{Parameters, around, is_space, is_token, trim};
use crate::uri::{Host, split_host};

/// A Via value.
#[derive(Debug, Clone, Copy)]
pub struct Via<'a> {
    /// `UDP`, `TCP`, `TLS`, ... in any case.
    pub transport: &'a [u8],
    /// The sent-by host.
    pub host: Host<'a>,
    /// The sent-by port.
    pub port: Option<u16>,
    parameters: &'a [u8],
}

impl<'a> Via<'a> {
    /// `SIP / 2.0 / UDP host:port ;branch=...`, white space where the grammar allows it. Protocol and version may be any
    /// token, so that a request of another version still gets its 505.
    pub fn parse(value: &'a [u8]) -> Result<Self, Malformed> {
        let end = memchr(b';', value).unwrap_or(value.len());
        let (head, parameters) = value.split_at_checked(end).unwrap_or((value, b""));
        let mut parts = head.splitn(3, |byte| *byte == b'/');
        let protocol = trim(parts.next().unwrap_or_default());
        let version = trim(parts.next().unwrap_or_default());
        let rest = trim(parts.next().ok_or(Malformed::Via)?);
        if !is_token(protocol) || !is_token(version) {
            return Err(Malformed::Via);
        }
        let gap = rest.iter().position(|byte| is_space(*byte)).ok_or(Malformed::Via)?;
        let (transport, sent_by) = around(rest, gap);
        let sent_by = trim(sent_by);
        if !is_token(transport) {
            return Err(Malformed::Via);
        }
        // White space may stand round the colon; no host holds any, so only that place needs care.
        let (host, port) = match split_host(sent_by) {
            Ok(split) => split,
            Err(_) => {
                let colon = sent_by.iter().rposition(|byte| *byte == b':').ok_or(Malformed::Via)?;
                let (host, port) = around(sent_by, colon);
                let (host, none) = split_host(trim(host)).map_err(|_| Malformed::Via)?;
                let port = crate::text::number(trim(port)).and_then(|port| u16::try_from(port).ok());
                if none.is_some() || port.is_none() {
                    return Err(Malformed::Via);
                }
                (host, port)
            }
        };
        Ok(Self { transport, host, port, parameters })
    }

    /// All parameters.
    pub fn parameters(&self) -> Parameters<'a> {
        Parameters::new(self.parameters)
    }

    /// `branch`.
    pub fn branch(&self) -> Option<&'a [u8]> {
        self.parameters().get(b"branch").flatten()
    }

    /// Whether `rport` is there, with or without a value.
    pub fn has_rport(&self) -> bool {
        self.parameters().get(b"rport").is_some()
    }

    /// `received`.
    pub fn received(&self) -> Option<&'a [u8]> {
        self.parameters().get(b"received").flatten()
    }
}
