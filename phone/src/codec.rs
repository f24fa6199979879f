//! G.711 (ITU-T): the two codecs that every telephone has, at 8,000 Hz and a byte a sample.

/// One of the two, by its static payload type (RFC 3551 §6).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Codec {
    /// µ-law, payload type 0.
    Pcmu,
    /// A-law, payload type 8.
    Pcma,
}

impl Codec {
    /// All, in order of preference.
    pub(crate) const ALL: [Self; 2] = [Self::Pcmu, Self::Pcma];

    pub(crate) fn payload_type(self) -> u8 {
        match self {
            Self::Pcmu => 0,
            Self::Pcma => 8,
        }
    }

    pub(crate) fn of(payload_type: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|codec| codec.payload_type() == payload_type)
    }

    pub(crate) fn encode(self, sample: i16) -> u8 {
        match self {
            Self::Pcmu => encode_mu(sample),
            Self::Pcma => encode_a(sample),
        }
    }

    pub(crate) fn decode(self, byte: u8) -> i16 {
        match self {
            Self::Pcmu => decode_mu(byte),
            Self::Pcma => decode_a(byte),
        }
    }
}

fn encode_mu(sample: i16) -> u8 {
    let sign = if sample < 0 { 0x80 } else { 0 };
    let magnitude = (i32::from(sample).abs() + 132).min(32_635);
    let exponent = (magnitude >> 7).ilog2().min(7) as u8;
    let mantissa = ((magnitude >> (exponent + 3)) & 0x0f) as u8;
    !(sign | exponent << 4 | mantissa)
}

fn decode_mu(byte: u8) -> i16 {
    let byte = !byte;
    let (exponent, mantissa) = ((byte >> 4) & 7, i32::from(byte & 0x0f));
    let magnitude = (((mantissa << 3) + 132) << exponent) - 132;
    (if byte & 0x80 == 0 { magnitude } else { -magnitude }) as i16
}

fn encode_a(sample: i16) -> u8 {
    let (sign, magnitude) = if sample < 0 { (0, !sample) } else { (0x80, sample) };
    // 13 bits: a sign and twelve of magnitude.
    let magnitude = (magnitude as u16) >> 3;
    let exponent = (magnitude >> 5).checked_ilog2().map_or(0, |log| log + 1) as u8;
    let shift = exponent.max(1);
    let mantissa = ((magnitude >> shift) & 0x0f) as u8;
    (sign | exponent << 4 | mantissa) ^ 0x55
}

fn decode_a(byte: u8) -> i16 {
    let byte = byte ^ 0x55;
    let (exponent, mantissa) = ((byte >> 4) & 7, i32::from(byte & 0x0f));
    let magnitude = match exponent {
        0 => (mantissa << 4) + 8,
        _ => ((mantissa << 4) + 0x108) << (exponent - 1),
    };
    (if byte & 0x80 == 0 { -magnitude } else { magnitude }) as i16
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_byte_survives_decoding_and_encoding() {
        for codec in Codec::ALL {
            for byte in 0..=255 {
                let again = codec.encode(codec.decode(byte));
                // µ-law has two zeros.
                assert!(
                    again == byte || (codec.decode(byte), codec.decode(again)) == (0, 0),
                    "{codec:?} {byte}"
                );
            }
        }
    }

    #[test]
    fn known_values_are_those_of_the_recommendation() {
        assert_eq!((encode_mu(0), encode_mu(i16::MAX), encode_mu(i16::MIN)), (0xff, 0x80, 0x00));
        assert_eq!((encode_a(0), encode_a(i16::MAX), encode_a(i16::MIN)), (0xd5, 0xaa, 0x2a));
        assert_eq!((decode_mu(0x80), decode_a(0xaa)), (32_124, 32_256));
    }
}
