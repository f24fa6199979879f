//! Writing one message.

use std::net::{IpAddr, SocketAddr};

use super::integrity::{FINGERPRINT_LENGTH, Key, Signature, fingerprint};
use super::read::masked;
use super::{
    COOKIE, Class, ERROR_CODE, FINGERPRINT, HEADER, Method, UNKNOWN_ATTRIBUTE, UNKNOWN_ATTRIBUTES, USERNAME,
    XOR_MAPPED_ADDRESS,
};

/// A message as it is written.
#[derive(Debug)]
pub struct Outgoing {
    bytes: Vec<u8>,
    method: Method,
    transaction: u128,
}

impl Outgoing {
    /// Header only so far. Of the transaction 96 bits count.
    pub fn new(method: Method, class: Class, transaction: u128) -> Self {
        let transaction = transaction & (u128::MAX >> 32);
        let mut bytes = Vec::with_capacity(160);
        bytes.extend((method.bits() | class.bits()).to_be_bytes());
        bytes.extend([0, 0]);
        bytes.extend(((u128::from(COOKIE) << 96) | transaction).to_be_bytes());
        Self { bytes, method, transaction }
    }

    /// Appends an attribute.
    #[must_use]
    pub fn with(mut self, kind: u16, value: &[u8]) -> Self {
        self.begin(kind, value.len());
        self.bytes.extend_from_slice(value);
        self.bytes.resize(self.bytes.len().next_multiple_of(4), 0);
        self
    }

    /// USERNAME `receiver:sender` (RFC 8445 §7.2.2).
    #[must_use]
    pub fn username(self, receiver: &str, sender: &str) -> Self {
        self.with(USERNAME, format!("{receiver}:{sender}").as_bytes())
    }

    /// XOR-MAPPED-ADDRESS.
    #[must_use]
    pub fn mapped_address(self, address: SocketAddr) -> Self {
        let hidden = masked(address, self.transaction);
        self.address(XOR_MAPPED_ADDRESS, hidden)
    }

    /// An address in the form of MAPPED-ADDRESS (RFC 8489 §14.1).
    #[must_use]
    pub fn address(mut self, kind: u16, address: SocketAddr) -> Self {
        let (family, length) = if address.is_ipv4() { (1, 8) } else { (2, 20) };
        self.begin(kind, length);
        self.bytes.extend([0, family]);
        self.bytes.extend(address.port().to_be_bytes());
        match address.ip() {
            IpAddr::V4(ip) => self.bytes.extend(ip.octets()),
            IpAddr::V6(ip) => self.bytes.extend(ip.octets()),
        }
        self
    }

    /// ERROR-CODE with an empty reason (RFC 8489 §14.8).
    #[must_use]
    pub fn error_code(self, code: u16) -> Self {
        self.with(ERROR_CODE, &[0, 0, (code / 100) as u8, (code % 100) as u8])
    }

    /// The error that an authentic request gets for attributes that are not understood (RFC 8489 §6.3.1).
    #[must_use]
    pub fn not_understood(self, unknown: &[u16]) -> Self {
        let types: Vec<u8> = unknown.iter().flat_map(|kind| kind.to_be_bytes()).collect();
        self.error_code(UNKNOWN_ATTRIBUTE).with(UNKNOWN_ATTRIBUTES, &types)
    }

    /// The message without integrity and fingerprint: what a server answers that nobody multiplexes with anything (RFC 8489 §7).
    pub fn bare(mut self) -> Vec<u8> {
        self.set_length();
        self.bytes
    }

    /// The message without integrity: requests to a discovery service (RFC 5780), and what is said on a media port to a stranger.
    pub fn plain(mut self) -> Vec<u8> {
        let value = fingerprint(&self.bytes).unwrap_or_default();
        self.begin(FINGERPRINT, FINGERPRINT_LENGTH);
        self.bytes.extend(value);
        self.bare()
    }

    /// The message with integrity and fingerprint.
    pub fn sealed(self, key: &Key) -> Vec<u8> {
        let signature = Signature::of(self.method);
        self.sealed_with(signature, key)
    }

    pub(super) fn sealed_with(self, signature: Signature, key: &Key) -> Vec<u8> {
        let value = signature.sign(key, &self.bytes);
        self.with(signature.attribute(), &value).plain()
    }

    fn begin(&mut self, kind: u16, length: usize) {
        self.bytes.extend(kind.to_be_bytes());
        self.bytes.extend((length as u16).to_be_bytes());
    }

    fn set_length(&mut self) {
        let length = (self.bytes.len().saturating_sub(HEADER) as u16).to_be_bytes();
        if let Some(place) = self.bytes.get_mut(2..4) {
            place.copy_from_slice(&length);
        }
    }
}
