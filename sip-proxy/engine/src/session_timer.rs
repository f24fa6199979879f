//! What two ends agree on about refreshing their session (RFC 4028), read from and written into messages.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use sip_wire::{Message, Name, parameter};

use crate::config::SessionTimer;
use crate::times::{LONGEST_MIN_SE, SESSION, within};

/// How long a session lives without a refresh, and whose work that is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Agreement {
    pub(crate) interval: Duration,
    pub(crate) we_refresh: bool,
}

impl Agreement {
    /// What our 2xx to an INVITE or UPDATE says; `None`: no timer.
    pub(crate) fn answering(request: &Message, ours: Option<SessionTimer>) -> Option<Self> {
        let value = request.value(Name::SessionExpires)?;
        let asked = within(interval_of(value)?, SESSION);
        // Not below what the peer can bear (RFC 4028 §9), nor what we can.
        let least = request.number(Name::MinSe).and_then(Result::ok).map_or(Duration::ZERO, |least| {
            Duration::from_secs(u64::from(least)).min(LONGEST_MIN_SE).min(asked)
        });
        let interval = ours.map_or(asked, |ours| asked.min(ours.interval).max(least).max(ours.minimum));
        let asks_uas = parameter(value, b"refresher").is_some_and(|who| who.eq_ignore_ascii_case(b"uas"));
        // RFC 4028 §9, table 2: a peer without the extension cannot refresh.
        let peer_can = request.has_token(Name::Supported, "timer");
        Some(Self { interval, we_refresh: asks_uas || !peer_can })
    }

    /// What the 2xx to our own request agreed; `None`: no timer.
    pub(crate) fn of_answer(response: &Message) -> Option<Self> {
        let value = response.value(Name::SessionExpires)?;
        let is_uas = parameter(value, b"refresher").is_some_and(|who| who.eq_ignore_ascii_case(b"uas"));
        Some(Self { interval: within(interval_of(value)?, SESSION), we_refresh: !is_uas })
    }

    /// Session-Expires in our 2xx.
    pub(crate) fn as_answer(&self) -> String {
        let refresher = if self.we_refresh { "uas" } else { "uac" };
        format!("{};refresher={refresher}", self.interval.as_secs())
    }

    /// When something is due: half the interval if we refresh, else the end, a third of the interval but at most 32 s
    /// before it is over (RFC 4028 §10).
    pub(crate) fn due_after(&self) -> Duration {
        if self.we_refresh {
            self.interval.checked_div(2).unwrap_or_default()
        } else {
            let margin = self.interval.checked_div(3).unwrap_or_default().min(Duration::from_secs(32));
            self.interval.saturating_sub(margin)
        }
    }
}

/// The least interval that `ours` accepts, if a request of a peer that knows the extension asks for less (422).
pub(crate) fn too_small(request: &Message, ours: Option<SessionTimer>) -> Option<u64> {
    let interval = interval_of(request.value(Name::SessionExpires)?)?;
    let minimum = ours.map_or(SESSION.0, |timer| timer.minimum.max(SESSION.0).min(LONGEST_MIN_SE));
    (interval < minimum && request.has_token(Name::Supported, "timer")).then_some(minimum.as_secs())
}

fn interval_of(value: &[u8]) -> Option<Duration> {
    let end = value.iter().position(|byte| !byte.is_ascii_digit()).unwrap_or(value.len());
    let digits = value.get(..end).filter(|digits| !digits.is_empty())?;
    // What no number holds is long enough.
    let seconds = std::str::from_utf8(digits).ok()?.parse().unwrap_or(SESSION.1.as_secs());
    Some(Duration::from_secs(seconds))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(headers: &str) -> Message {
        Message::parse(format!("INVITE sip:a@b SIP/2.0\r\n{headers}\r\n").into()).unwrap()
    }

    #[test]
    fn a_peer_without_the_extension_is_refreshed_by_us() {
        let agreed = Agreement::answering(&message("Session-Expires: 1800\r\n"), None).unwrap();
        assert!(agreed.we_refresh);
        assert_eq!(agreed.due_after(), Duration::from_secs(900));
        let theirs = message("Session-Expires: 1800\r\nSupported: timer\r\n");
        let agreed = Agreement::answering(&theirs, None).unwrap();
        assert_eq!(agreed.as_answer(), "1800;refresher=uac");
        assert_eq!(agreed.due_after(), Duration::from_secs(1768));
    }

    #[test]
    fn an_interval_is_never_so_short_that_refreshes_become_a_flood_nor_without_end() {
        for (asked, agreed) in [("0", 90), ("1", 90), ("89", 90), ("1800", 1800), ("99999999999", 86_400)] {
            let headers = format!("Session-Expires: {asked}\r\n");
            assert_eq!(Agreement::answering(&message(&headers), None).unwrap().interval.as_secs(), agreed);
            assert_eq!(Agreement::of_answer(&message(&headers)).unwrap().interval.as_secs(), agreed);
        }
        assert_eq!(Agreement::answering(&message("Session-Expires: soon\r\n"), None), None);
        let ours = SessionTimer { interval: Duration::from_secs(600), minimum: Duration::from_secs(90) };
        let theirs = message("Session-Expires: 7200\r\nMin-SE: 5000\r\nSupported: timer\r\n");
        let agreed = Agreement::answering(&theirs, Some(ours)).unwrap();
        assert_eq!(agreed.interval, LONGEST_MIN_SE);
    }

    #[test]
    fn an_interval_below_the_minimum_is_named_only_to_who_understands() {
        let ours = SessionTimer { interval: Duration::from_secs(1800), minimum: Duration::from_secs(120) };
        assert_eq!(
            too_small(&message("Session-Expires: 100\r\nSupported: timer\r\n"), Some(ours)),
            Some(120)
        );
        assert_eq!(too_small(&message("Session-Expires: 100\r\n"), Some(ours)), None);
    }
}
