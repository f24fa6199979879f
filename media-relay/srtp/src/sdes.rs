//! Keys in SDP: `a=crypto:1 AES_CM_128_HMAC_SHA1_80 inline:…` (RFC 4568). Whoever reads the signalling has them.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use zeroize::Zeroizing;

use crate::{Master, Suite};

/// What begins the line.
pub const ATTRIBUTE: &str = "a=crypto:";

/// One `a=crypto` line: the key that its writer sends with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Crypto {
    /// Answers name the offered line by it.
    pub tag: u32,
    /// How.
    pub suite: Suite,
    /// With what.
    pub master: Master,
}

/// Why a line cannot be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// It is no `a=crypto` line.
    #[error("a=crypto is not written as RFC 4568 says")]
    Malformed,
    /// Neither of those in [`Suite`].
    #[error("a=crypto names a suite that is not supported")]
    Suite,
    /// Not 240 bits of base64 after `inline:`.
    #[error("a=crypto has no key of 240 bits")]
    Key,
    /// More than one key, or keys with names, which each packet would carry.
    #[error("a=crypto has several keys or a key identifier (MKI), which are not supported")]
    KeyIdentifier,
    /// Something that must not be ignored (§6.3): another key derivation rate, no encryption, no authentication.
    #[error("a=crypto has a session parameter that is not supported")]
    Parameter,
}

impl Crypto {
    /// Reads a line, without its end.
    pub fn read(line: &str) -> Result<Self, Refused> {
        let mut words = line.strip_prefix(ATTRIBUTE).ok_or(Refused::Malformed)?.split_ascii_whitespace();
        let tag =
            words.next().filter(|tag| tag.len() <= 9 && tag.bytes().all(|digit| digit.is_ascii_digit()));
        let tag = tag.and_then(|tag| tag.parse().ok()).ok_or(Refused::Malformed)?;
        let name = words.next().ok_or(Refused::Malformed)?;
        let suite = [Suite::Sha1Tag80, Suite::Sha1Tag32].into_iter().find(|suite| suite.name() == name);
        let suite = suite.ok_or(Refused::Suite)?;
        let keys = words.next().ok_or(Refused::Malformed)?;
        let key = keys.strip_prefix("inline:").ok_or(Refused::Key)?;
        // Of the hint for a window's size ours has what it needs; `-` begins what may be ignored.
        if !words.all(|parameter| parameter.starts_with("WSH=") || parameter.starts_with('-')) {
            return Err(Refused::Parameter);
        }
        let (key, mut rest) = (key.split('|').next().unwrap_or(key), key.split('|').skip(1));
        // A lifetime binds who sends with the key: the writer of the line.
        let lifetime = rest.next();
        if keys.contains(';') || lifetime.is_some_and(|it| it.contains(':')) || rest.next().is_some() {
            return Err(Refused::KeyIdentifier);
        }
        if !lifetime.is_none_or(is_lifetime) {
            return Err(Refused::Malformed);
        }
        let mut octets = Zeroizing::new([0; Master::LENGTH]);
        match STANDARD.decode_slice(key, &mut *octets) {
            Ok(Master::LENGTH) => Ok(Self { tag, suite, master: Master(octets) }),
            _ => Err(Refused::Key),
        }
    }

    /// The line, without its end. It holds the key: not for logs.
    pub fn line(&self) -> String {
        format!("{ATTRIBUTE}{} {} inline:{}", self.tag, self.suite.name(), STANDARD.encode(*self.master.0))
    }
}

/// `2^20`, or a number.
fn is_lifetime(text: &str) -> bool {
    let number = text.strip_prefix("2^").unwrap_or(text);
    number.parse::<u64>().is_ok_and(|number| number > 0 && (number <= 48 || !text.starts_with("2^")))
}

/// A text with its keys left out, for logs.
pub fn without_keys(text: &str) -> String {
    let mut parts = text.split("inline:");
    let mut masked = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        masked.push_str("inline:...");
        masked.push_str(part.trim_start_matches(|c: char| !c.is_ascii_whitespace()));
    }
    masked
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: &str = "4fl6DT4Bi+DWT6MsBt5BOQ7Gda1Jiv7rtpYLOqvm";

    #[test]
    fn lines_of_real_phones_are_read_and_written_back() {
        for (name, suite) in
            [("AES_CM_128_HMAC_SHA1_80", Suite::Sha1Tag80), ("AES_CM_128_HMAC_SHA1_32", Suite::Sha1Tag32)]
        {
            let line = format!("a=crypto:7 {name} inline:{KEY}");
            let crypto = Crypto::read(&line).unwrap();
            assert_eq!((crypto.tag, crypto.suite), (7, suite));
            assert_eq!(crypto.master.0[..3], [0xE1, 0xF9, 0x7A]);
            assert_eq!(crypto.line(), line);
            for more in ["|2^20", "|1048576", " WSH=64", "|2^48 -NEW=1"] {
                assert_eq!(Crypto::read(&format!("{line}{more}")).as_ref(), Ok(&crypto), "{more}");
            }
        }
    }

    #[test]
    fn what_is_not_supported_is_refused_with_its_reason() {
        let suite = "AES_CM_128_HMAC_SHA1_80";
        for (line, reason) in [
            ("a=crypto:".to_owned(), Refused::Malformed),
            (format!("a=crypto:x {suite} inline:{KEY}"), Refused::Malformed),
            (format!("a=crypto:+1 {suite} inline:{KEY}"), Refused::Malformed),
            (format!("a=crypto:1234567890 {suite} inline:{KEY}"), Refused::Malformed),
            (format!("a=crypto:1 {suite}"), Refused::Malformed),
            (format!("a=crypto:1 {suite} inline:{KEY}|2^49"), Refused::Malformed),
            (format!("a=crypto:1 AEAD_AES_128_GCM inline:{KEY}"), Refused::Suite),
            (format!("a=crypto:1 {suite} outline:{KEY}"), Refused::Key),
            (format!("a=crypto:1 {suite} inline:{}", &KEY[4..]), Refused::Key),
            (format!("a=crypto:1 {suite} inline:{KEY}AAAA"), Refused::Key),
            (format!("a=crypto:1 {suite} inline:*{}", &KEY[1..]), Refused::Key),
            (format!("a=crypto:1 {suite} inline:{KEY}|2^20|1:4"), Refused::KeyIdentifier),
            (format!("a=crypto:1 {suite} inline:{KEY}|1:4"), Refused::KeyIdentifier),
            (format!("a=crypto:1 {suite} inline:{KEY};inline:{KEY}"), Refused::KeyIdentifier),
            (format!("a=crypto:1 {suite} inline:{KEY} KDR=1"), Refused::Parameter),
            (format!("a=crypto:1 {suite} inline:{KEY} UNENCRYPTED_SRTP"), Refused::Parameter),
        ] {
            assert_eq!(Crypto::read(&line), Err(reason), "{line}");
        }
    }

    #[test]
    fn logs_have_no_keys() {
        let text = format!("a=x\r\na=crypto:1 S inline:{KEY}|2^20 WSH=64\r\na=crypto:2 S inline:{KEY}\r\n");
        let masked = "a=x\r\na=crypto:1 S inline:... WSH=64\r\na=crypto:2 S inline:...\r\n";
        assert_eq!(without_keys(&text), masked);
        assert_eq!(without_keys("no keys"), "no keys");
    }
}
