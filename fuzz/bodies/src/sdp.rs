//! SDP: read, rewritten for another party, read again.

use bytes::Bytes;
use media_wire::sdp::{Description, Edition, Place};

/// Reads `bytes` as a description and rewrites it, each stream at a place of its own; the seventh is refused.
pub fn sdp(bytes: &[u8]) {
    let Ok(description) = Description::parse(Bytes::copy_from_slice(bytes)) else { return };
    for host in ["192.0.2.77", "[2001:db8:7::77]"] {
        let places: Vec<Option<Place>> = description
            .media
            .iter()
            .enumerate()
            .map(|(index, media)| {
                let rtp = format!("{host}:{}", 20_000 + 2 * index).parse().unwrap();
                (index != 6).then_some(Place { rtcp_mux: media.rtcp_mux && media.is_rtp(), ..Place::at(rtp) })
            })
            .collect();
        let written = description.rewrite(&Edition::new("- 1 1 IN IP4 192.0.2.77", &places, "anchor"));
        let again = Description::parse(written.clone()).unwrap_or_else(|fault| {
            panic!("{fault}: {}", String::from_utf8_lossy(&written));
        });
        assert_eq!(again.media.len(), description.media.len());
        for ((old, new), place) in description.media.iter().zip(&again.media).zip(&places) {
            assert_eq!((&old.kind, &old.profile, old.direction), (&new.kind, &new.profile, new.direction));
            assert_eq!(old.codecs.len(), new.codecs.len());
            assert_eq!(new.port, place.map_or(0, |place| place.rtp.port()));
            assert_eq!(new.rtp, place.map(|place| place.rtp), "{}", String::from_utf8_lossy(&written));
        }
        // Its author may have known our address, and named it.
        if memchr::memmem::find(bytes, b"192.0.2.77").is_some()
            || memchr::memmem::find(bytes, b"2001:db8:7:").is_some()
        {
            continue;
        }
        let twice = again.rewrite(&Edition::new("- 1 1 IN IP4 192.0.2.77", &places, "anchor"));
        assert_eq!(twice, written, "{}", String::from_utf8_lossy(&written));
    }
}
