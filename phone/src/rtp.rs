//! RTP as a stream sends it (RFC 3550 §5.1).

use rtp_rs::RtpPacketBuilder;

/// One stream's numbers.
#[derive(Debug, Clone)]
pub(crate) struct Sender {
    pub(crate) ssrc: u32,
    sequence: u16,
    /// Of the next packet.
    pub(crate) timestamp: u32,
    pub(crate) packets: u32,
    pub(crate) octets: u32,
}

impl Sender {
    /// `random`: 80 unpredictable bits (RFC 3550 §5.1, §8).
    pub(crate) fn new(random: [u8; 10]) -> Self {
        let [a, b, c, d, e, f, g, h, i, j] = random;
        Self {
            ssrc: u32::from_be_bytes([a, b, c, d]),
            // Under 2^15, so that who misses the first packets of SRTP counts rounds as we do (RFC 3711 §3.3.1).
            sequence: u16::from_be_bytes([e, f]) >> 1,
            timestamp: u32::from_be_bytes([g, h, i, j]),
            packets: 0,
            octets: 0,
        }
    }

    /// The next packet; its samples last `ticks` of the stream's clock.
    pub(crate) fn packet(&mut self, payload_type: u8, marker: bool, ticks: u32, payload: &[u8]) -> Vec<u8> {
        // Nothing but a payload type of more than 7 bits can be wrong.
        let packet = RtpPacketBuilder::new()
            .payload_type(payload_type & 0x7f)
            .marked(marker)
            .sequence(self.sequence.into())
            .timestamp(self.timestamp)
            .ssrc(self.ssrc)
            .payload(payload)
            .build()
            .unwrap_or_default();
        self.sequence = self.sequence.wrapping_add(1);
        self.timestamp = self.timestamp.wrapping_add(ticks);
        self.packets = self.packets.wrapping_add(1);
        self.octets = self.octets.wrapping_add(payload.len() as u32);
        packet
    }

    /// Time passes in silence.
    pub(crate) fn skip(&mut self, ticks: u32) {
        self.timestamp = self.timestamp.wrapping_add(ticks);
    }
}
