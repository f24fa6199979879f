//! SRTP: keys in SDP, and packets that strangers send.

use srtp::sdes::{self, Crypto};
use srtp::{Inbound, MOST_OVERHEAD, Master, Outbound, Suite};

/// Reads `bytes` as a line of SDP, as a protected packet and report, and protects them.
pub fn srtp(bytes: &[u8]) {
    if let Ok(text) = std::str::from_utf8(bytes) {
        assert_eq!(text.matches("inline:").count(), sdes::without_keys(text).matches("inline:").count());
        if let Ok(crypto) = Crypto::read(text) {
            assert_eq!(
                Crypto::read(&crypto.line()),
                Ok(crypto),
                "a line that is read otherwise than written"
            );
        }
    }
    for suite in [Suite::Sha1Tag80, Suite::Sha1Tag32] {
        let master = Master::new([7; Master::LENGTH]);
        let mut inbound = Inbound::<2>::new(suite, &master);
        let mut packet = bytes.to_vec();
        // Nobody guesses a tag of 32 bits; who does has found that it is not checked.
        assert!(inbound.unprotect_rtp(&mut packet, 1).is_err());
        assert!(inbound.unprotect_rtcp(&mut packet).is_err());
        assert_eq!(packet, bytes, "a packet that is refused has changed");
        let mut outbound = Outbound::new(suite, &master);
        packet.resize(bytes.len() + MOST_OVERHEAD, 0);
        if let Ok(length) = outbound.protect_rtp(&mut packet, bytes.len()) {
            let plain = inbound.unprotect_rtp(&mut packet[..length], 0);
            assert_eq!(plain, Ok(bytes.len()));
            assert_eq!(packet[..bytes.len()], *bytes);
        }
        if let Ok(length) = outbound.protect_rtcp(&mut packet, bytes.len()) {
            assert_eq!(inbound.unprotect_rtcp(&mut packet[..length]), Ok(bytes.len()));
            assert_eq!(packet[..bytes.len()], *bytes);
        }
    }
}
