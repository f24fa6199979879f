//! From a master key to what encrypts and authenticates (RFC 3711 §4).

use std::fmt;

use aes::Aes128;
use aes::cipher::{InnerIvInit, KeyInit, StreamCipher, StreamCipherCoreWrapper};
use ctr::{CtrCore, flavors};
use hmac::{Hmac, Mac};
use sha1::Sha1;
use subtle::ConstantTimeEq;
use zeroize::Zeroizing;

/// Octets of a master key and of its salt.
const KEY: usize = 16;
const SALT: usize = 14;
/// Octets of an HMAC-SHA1 key (RFC 3711 §5.2).
const AUTHENTICATION_KEY: usize = 20;
/// The longest tag.
pub(crate) const LONGEST_TAG: usize = 10;

/// How packets are encrypted and authenticated. Reports have tags of 80 bits with either (RFC 4568 §6.2).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Suite {
    /// AES_CM_128_HMAC_SHA1_80.
    Sha1Tag80,
    /// AES_CM_128_HMAC_SHA1_32: six octets a packet less, and one forgery of 2^32 passes.
    Sha1Tag32,
}

impl Suite {
    /// As SDP has it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Sha1Tag80 => "AES_CM_128_HMAC_SHA1_80",
            Self::Sha1Tag32 => "AES_CM_128_HMAC_SHA1_32",
        }
    }

    /// Of an RTP packet, octets.
    pub(crate) fn tag(self) -> usize {
        match self {
            Self::Sha1Tag80 => LONGEST_TAG,
            Self::Sha1Tag32 => 4,
        }
    }
}

/// A master key and its salt, of one stream in one direction. It is never shown, and wiped when it is dropped.
#[derive(Clone)]
pub struct Master(pub(crate) Zeroizing<[u8; Master::LENGTH]>);

impl Master {
    /// Octets.
    pub const LENGTH: usize = KEY + SALT;

    /// Of 240 unpredictable bits.
    pub fn new(octets: [u8; Self::LENGTH]) -> Self {
        Self(Zeroizing::new(octets))
    }
}

impl PartialEq for Master {
    fn eq(&self, other: &Self) -> bool {
        self.0.ct_eq(&*other.0).into()
    }
}

impl Eq for Master {}

impl fmt::Debug for Master {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Master(..)")
    }
}

/// Keys that packets of one kind, RTP or RTCP, are protected with. All but the state of HMAC is wiped: that its crate cannot do.
#[derive(Clone)]
pub(crate) struct Session {
    cipher: Aes128,
    salt: Zeroizing<[u8; SALT]>,
    authentication: Hmac<Sha1>,
}

/// The first of a kind's three labels (RFC 3711 §4.3.1, §4.3.2).
pub(crate) const RTP: u8 = 0;
pub(crate) const RTCP: u8 = 3;

impl Session {
    /// Derives them, once for the whole call: the key derivation rate is 0 (§4.3.1).
    pub(crate) fn derive(master: &Master, first_label: u8) -> Self {
        let (key, salt) = master.0.split_at(KEY);
        let master = Aes128::new_from_slice(key).unwrap_or_else(|_| unreachable!("16 octets are a key"));
        let derive = |label: u8, octets: &mut [u8]| {
            let mut block = [0; 16];
            mix(&mut block, salt);
            // §4.3.1: the label stands before the 48 bits of an index that is 0.
            block[7] ^= label;
            apply_keystream(&master, block, octets);
        };
        let mut key = Zeroizing::new([0; KEY]);
        derive(first_label, &mut *key);
        let mut authentication = Zeroizing::new([0; AUTHENTICATION_KEY]);
        derive(first_label.saturating_add(1), &mut *authentication);
        let mut salt = Zeroizing::new([0; SALT]);
        derive(first_label.saturating_add(2), &mut *salt);
        Self {
            cipher: Aes128::new(&(*key).into()),
            salt,
            authentication: <Hmac<Sha1> as Mac>::new_from_slice(&*authentication)
                .unwrap_or_else(|_| unreachable!("HMAC takes keys of any length")),
        }
    }

    /// Encrypts or decrypts (RFC 3711 §4.1.1).
    pub(crate) fn cipher(&self, ssrc: u32, index: u64, octets: &mut [u8]) {
        let mut block = [0; 16];
        mix(&mut block, &*self.salt);
        // Behind four octets, the SSRC and the lowest 48 bits of the index.
        let index = index.to_be_bytes();
        mix(block.iter_mut().skip(4), &ssrc.to_be_bytes());
        mix(block.iter_mut().skip(8), index.iter().skip(2));
        apply_keystream(&self.cipher, block, octets);
    }

    /// The tag of what is authenticated: `packet`, and for RTP the roll-over counter behind it (RFC 3711 §4.2).
    pub(crate) fn tag(&self, packet: &[u8], counter: Option<u32>) -> [u8; LONGEST_TAG] {
        let mut mac = self.authentication.clone();
        mac.update(packet);
        if let Some(counter) = counter {
            mac.update(&counter.to_be_bytes());
        }
        let whole = mac.finalize().into_bytes();
        whole.first_chunk().copied().unwrap_or_default()
    }

    /// Whether `tag` is what [`Session::tag`] says, in a time that does not tell where they differ.
    pub(crate) fn is_authentic(&self, packet: &[u8], counter: Option<u32>, tag: &[u8]) -> bool {
        self.tag(packet, counter).get(..tag.len()).is_some_and(|whole| whole.ct_eq(tag).into())
    }
}

fn mix<'a>(octets: impl IntoIterator<Item = &'a mut u8>, with: impl IntoIterator<Item = &'a u8>) {
    octets.into_iter().zip(with).for_each(|(octet, with)| *octet ^= with);
}

fn apply_keystream(cipher: &Aes128, first_block: [u8; 16], octets: &mut [u8]) {
    let core = CtrCore::<&Aes128, flavors::Ctr128BE>::inner_iv_init(cipher, &first_block.into());
    StreamCipherCoreWrapper::from_core(core).apply_keystream(octets);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn octets<const N: usize>(hex: &str) -> [u8; N] {
        std::array::from_fn(|n| u8::from_str_radix(&hex[2 * n..2 * n + 2], 16).unwrap())
    }

    #[test]
    fn keystream_is_that_of_rfc_3711_b_2() {
        let session = Session {
            cipher: Aes128::new(&octets::<16>("2B7E151628AED2A6ABF7158809CF4F3C").into()),
            salt: Zeroizing::new(octets("F0F1F2F3F4F5F6F7F8F9FAFBFCFD")),
            authentication: <Hmac<Sha1> as Mac>::new_from_slice(&[]).unwrap(),
        };
        let mut stream = vec![0; 16 * 0xFF02];
        session.cipher(0, 0, &mut stream);
        for (block, expected) in [
            (0, "E03EAD0935C95E80E166B16DD92B4EB4"),
            (1, "D23513162B02D0F72A43A2FE4A5F97AB"),
            (2, "41E95B3BB0A2E8DD477901E4FCA894C0"),
            (0xFEFF, "EC8CDF7398607CB0F2D21675EA9EA1E4"),
            (0xFF00, "362B7C3C6773516318A077D7FC5073AE"),
            (0xFF01, "6A2CC3787889374FBEB4C81B17BA6C44"),
        ] {
            assert_eq!(stream[16 * block..][..16], octets::<16>(expected), "block {block:x}");
        }
    }

    #[test]
    fn keys_are_derived_as_in_rfc_3711_b_3() {
        let master = Master::new(octets("E1F97A0D3E018BE0D64FA32C06DE41390EC675AD498AFEEBB6960B3AABE6"));
        let session = Session::derive(&master, RTP);
        assert_eq!(*session.salt, octets("30CBBC08863D8C85D49DB34A9AE1"));
        let cipher = Aes128::new(&octets::<16>("C61E7A93744F39EE10734AFE3FF7A087").into());
        let (mut ours, mut theirs) = ([0; 16], [0; 16]);
        session.cipher(7, 9, &mut ours);
        Session { cipher, ..session.clone() }.cipher(7, 9, &mut theirs);
        assert_eq!(ours, theirs);
        let key: [u8; 20] = octets("CEBE321F6FF7716B6FD4AB49AF256A156D38BAA4");
        let authentication = <Hmac<Sha1> as Mac>::new_from_slice(&key).unwrap();
        assert_eq!(session.tag(b"x", None), Session { authentication, ..session.clone() }.tag(b"x", None));
    }

    #[test]
    fn a_key_is_not_shown() {
        assert_eq!(format!("{:?}", Master::new([0x41; 30])), "Master(..)");
    }
}
