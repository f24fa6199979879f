//! Requests by method and responses by code, each way.

use sip_wire::{Message, Method};

use crate::count::Count;

/// Methods with a count of their own; all others share one, so that strangers can't make counts.
const METHODS: [&str; 14] = [
    "INVITE",
    "ACK",
    "BYE",
    "CANCEL",
    "REGISTER",
    "OPTIONS",
    "PRACK",
    "UPDATE",
    "INFO",
    "REFER",
    "SUBSCRIBE",
    "NOTIFY",
    "MESSAGE",
    "PUBLISH",
];
const LOWEST: u16 = 100;
const CODES: usize = 600;

/// What went one way.
#[derive(Debug)]
pub struct Traffic {
    requests: [Count; METHODS.len() + 1],
    responses: Box<[Count]>,
}

impl Default for Traffic {
    fn default() -> Self {
        Self { requests: Default::default(), responses: (0..CODES).map(|_| Count::default()).collect() }
    }
}

impl Traffic {
    pub(crate) fn parsed(&self, message: &Message) {
        match message.status() {
            Some(status) => self.response(status),
            None => self.request(message.method().map_or(b"", Method::as_bytes)),
        }
    }

    /// A message of ours, whose start line is as we write it.
    pub(crate) fn written(&self, message: &[u8]) {
        if let Some(rest) = message.strip_prefix(b"SIP/2.0 ") {
            let digits = rest.get(..3).and_then(|digits| std::str::from_utf8(digits).ok());
            self.response(digits.and_then(|digits| digits.parse().ok()).unwrap_or_default());
        } else if let Some(end) = message.iter().position(|byte| *byte == b' ') {
            self.request(message.get(..end).unwrap_or_default());
        }
    }

    fn request(&self, method: &[u8]) {
        let known = METHODS.iter().position(|known| known.as_bytes() == method);
        if let Some(count) = self.requests.get(known.unwrap_or(METHODS.len())) {
            count.up();
        }
    }

    fn response(&self, status: u16) {
        if let Some(count) = status.checked_sub(LOWEST).and_then(|code| self.responses.get(usize::from(code)))
        {
            count.up();
        }
    }

    /// Methods and their counts; the last, "other", is for all the rest.
    pub fn requests(&self) -> impl Iterator<Item = (&'static str, u64)> {
        METHODS.into_iter().chain(["other"]).zip(self.requests.iter().map(Count::get))
    }

    /// Codes that occurred, and their counts.
    pub fn responses(&self) -> impl Iterator<Item = (u16, u64)> {
        (LOWEST..).zip(self.responses.iter().map(Count::get)).filter(|(_, count)| *count > 0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_count_by_method_and_responses_by_code() {
        let traffic = Traffic::default();
        for message in [
            "INVITE sip:a SIP/2.0\r\n",
            "FOO sip:a SIP/2.0\r\n",
            "SIP/2.0 486 Busy Here\r\n",
            "SIP/2.0 999 x",
            "\r\n",
        ] {
            traffic.written(message.as_bytes());
        }
        let requests: Vec<_> = traffic.requests().filter(|(_, count)| *count > 0).collect();
        assert_eq!(requests, [("INVITE", 1), ("other", 1)]);
        assert_eq!(traffic.responses().collect::<Vec<_>>(), [(486, 1)]);
    }
}
