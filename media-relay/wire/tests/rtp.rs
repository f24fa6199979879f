//! RTP as properties, with rtp-rs as the oracle. It reads padding, whose length SRTP encrypts, so that it must not see a stranger's packet on a
//! media port; of plain packets both say the same.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use media_wire::rtp::{Header, header_length, is_sound};
use proptest::prelude::*;
use rtp_rs::{RtpPacketBuilder, RtpReader, Seq};

fn of(reader: &RtpReader<'_>) -> Header {
    Header {
        payload_type: reader.payload_type(),
        sequence: reader.sequence_number().into(),
        timestamp: reader.timestamp(),
        ssrc: reader.ssrc(),
    }
}

proptest! {
    #[test]
    fn what_another_implementation_writes_is_read(
        payload_type in 0..128_u8,
        marker in any::<bool>(),
        numbers in any::<(u16, u32, u32)>(),
        sources in proptest::collection::vec(any::<u32>(), 0..5),
        extension in proptest::option::of((any::<u16>(), proptest::collection::vec(any::<u32>(), 0..4))),
        payload in proptest::collection::vec(any::<u8>(), 0..40),
    ) {
        let (sequence, timestamp, ssrc) = numbers;
        let words: Option<(u16, Vec<u8>)> = extension
            .map(|(id, words)| (id, words.iter().flat_map(|word| word.to_be_bytes()).collect()));
        let mut builder = RtpPacketBuilder::new()
            .payload_type(payload_type)
            .marked(marker)
            .sequence(Seq::from(sequence))
            .timestamp(timestamp)
            .ssrc(ssrc)
            .payload(&payload);
        for source in &sources {
            builder = builder.add_csrc(*source);
        }
        if let Some((id, words)) = &words {
            builder = builder.extension(*id, words);
        }
        let packet = builder.build().unwrap();
        let header = Header { payload_type, sequence, timestamp, ssrc };
        prop_assert_eq!(Header::read(&packet), Some(header));
        prop_assert_eq!(header_length(&packet), packet.len().checked_sub(payload.len()));
    }

    #[test]
    fn whatever_another_implementation_takes_is_read_the_same(
        first in any::<u8>(),
        rest in proptest::collection::vec(any::<u8>(), 0..64),
    ) {
        let packet = [&[first & 0xbf | 0x80][..], &rest].concat();
        if let Ok(reader) = RtpReader::new(&packet) {
            prop_assert_eq!(Header::read(&packet), Some(of(&reader)));
            prop_assert!(is_sound(&packet));
            prop_assert_eq!(header_length(&packet), Some(reader.payload_offset()));
        }
    }
}
