//! RTCP (RFC 3550 §6): what it tells about a stream, and a copy without the names that it carries.

use std::net::SocketAddr;

/// A report block (RFC 3550 §6.4.1), or a sender report's own part.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Report {
    /// A sender report: the middle 32 bits of its NTP time.
    Sender {
        /// Whose.
        ssrc: u32,
        /// To be repeated in the other side's LSR.
        middle: u32,
        /// RTP packets that it has sent in all.
        packets: u32,
    },
    /// A receiver report's own part: whoever writes one has sent nothing since its last report but one (RFC 3550 §6.4).
    Receiver {
        /// Whose.
        ssrc: u32,
    },
    /// A source leaves (BYE, RFC 3550 §6.6), or says so: PJSIP does with each re-INVITE, and goes on.
    Goodbye {
        /// Which.
        ssrc: u32,
    },
    /// A block without a highest sequence number: nothing was heard of the source since its author has begun to count anew.
    Unheard {
        /// About which source.
        ssrc: u32,
    },
    /// A reception report.
    Reception {
        /// About which source.
        ssrc: u32,
        /// Cumulative number of packets lost; below zero where duplicates came.
        lost: i32,
        /// Extended highest sequence number.
        highest: u32,
        /// Interarrival jitter in clock units.
        jitter: u32,
        /// LSR.
        last_sender_report: u32,
        /// DLSR, in 65536ths of a second.
        delay: u32,
    },
}

/// The port after that of RTP: RTCP's, where nothing else was said (RFC 3550 §11).
pub fn next_port(rtp: SocketAddr) -> SocketAddr {
    SocketAddr::new(rtp.ip(), rtp.port().saturating_add(1))
}

/// The sender of a packet, which SRTCP leaves in the clear; `None` if it is too short or of another version.
pub fn sender(packet: &[u8]) -> Option<u32> {
    match *packet {
        [first, _, _, _, a, b, c, d, ..] if first >> 6 == 2 => Some(u32::from_be_bytes([a, b, c, d])),
        _ => None,
    }
}

/// Since when the author of reports has heard nobody.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Silence {
    /// Its last report: it has no block about anybody (RFC 3550 §6.4).
    LastReport,
    /// It has thrown away what it had counted, perhaps just now.
    CountedAnew,
}

/// Of reports that tell of nothing that was heard.
pub fn silence(reports: &[Report]) -> Option<Silence> {
    let mut silence = (!reports.is_empty()).then_some(Silence::LastReport)?;
    for report in reports {
        match report {
            Report::Reception { .. } => return None,
            Report::Unheard { .. } => silence = Silence::CountedAnew,
            _ => {}
        }
    }
    Some(silence)
}

fn word(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_be_bytes(*bytes.get(at..)?.first_chunk()?))
}

/// The packets of a compound one; stops at the first that is broken.
fn packets(compound: &[u8]) -> impl Iterator<Item = &[u8]> {
    let mut rest = compound;
    std::iter::from_fn(move || {
        let [first, _, high, low] = *rest.first_chunk()?;
        let length = usize::from(u16::from_be_bytes([high, low])).saturating_add(1).saturating_mul(4);
        if first >> 6 != 2 {
            return None;
        }
        let (packet, after) = rest.split_at_checked(length)?;
        rest = after;
        Some(packet)
    })
}

/// Whether this is RTCP in clear: its packets fill it exactly. Those of SRTCP do not: what follows their headers is
/// ciphertext, and a trailer of no whole words stands at the end (RFC 3711 §3.4).
pub fn is_clear(compound: &[u8]) -> bool {
    packets(compound).fold(0_usize, |sum, packet| sum.saturating_add(packet.len())) == compound.len()
}

/// What a compound packet reports.
pub fn reports(compound: &[u8], mut each: impl FnMut(Report)) {
    for packet in packets(compound) {
        let [first, kind, ..] = packet else { continue };
        let count = usize::from(first & 0x1f);
        let first_block: usize = match kind {
            200 => {
                if let (Some(ssrc), Some(high), Some(low), Some(packets)) =
                    (word(packet, 4), word(packet, 8), word(packet, 12), word(packet, 20))
                {
                    each(Report::Sender { ssrc, middle: high << 16 | low >> 16, packets });
                }
                28
            }
            201 => {
                if let Some(ssrc) = word(packet, 4) {
                    each(Report::Receiver { ssrc });
                }
                8
            }
            203 => {
                let sources = packet.get(4..).unwrap_or_default().chunks_exact(4).take(count);
                sources.filter_map(|source| word(source, 0)).for_each(|ssrc| each(Report::Goodbye { ssrc }));
                continue;
            }
            _ => continue,
        };
        for index in 0..count {
            let at = first_block.saturating_add(index.saturating_mul(24));
            let Some(block) = packet.get(at..).and_then(|rest| rest.get(..24)) else { break };
            let (Some(ssrc), Some(lost), Some(highest), Some(jitter), Some(last_sender_report), Some(delay)) = (
                word(block, 0),
                word(block, 4),
                word(block, 8),
                word(block, 12),
                word(block, 16),
                word(block, 20),
            ) else {
                break;
            };
            // PJSIP's first report in a call or after a re-INVITE names nobody so, linphone (oRTP) a source whose first packet has come after
            // five seconds of silence: with it oRTP throws away what it had heard before.
            if highest == 0 {
                if ssrc != 0 {
                    each(Report::Unheard { ssrc });
                }
                continue;
            }
            each(Report::Reception {
                ssrc,
                lost: (lost << 8) as i32 >> 8,
                highest,
                jitter,
                last_sender_report,
                delay,
            });
        }
    }
}

/// A copy in which every SDES item is our CNAME (RFC 3550 §6.5): names and addresses of one side end here. `None` if
/// there is nothing to change, or if the packet cannot be read (SRTCP): then it passes as it is. Empty if nothing may
/// pass; with reduced size (RFC 5506) a BYE or an application's packet comes without SDES. `keeps_goodbyes`: whether BYE passes.
pub fn without_names(compound: &[u8], cname: &[u8], keeps_goodbyes: bool) -> Option<Vec<u8>> {
    if !packets(compound).any(|packet| matches!(packet, [_, 202..=204, ..])) {
        return None;
    }
    let cname = cname.get(..64).unwrap_or(cname);
    let mut out = Vec::with_capacity(compound.len().saturating_add(32));
    for packet in packets(compound) {
        let [first, kind, ..] = packet else { continue };
        match kind {
            202 => write_names(packet, cname, &mut out),
            203 if !keeps_goodbyes => {}
            // BYE may bear a reason in words.
            203 => {
                let sources = usize::from(first & 0x1f).saturating_mul(4);
                let Some(sources) = packet.get(4..).and_then(|rest| rest.get(..sources)) else { continue };
                out.extend_from_slice(&[*first, 203]);
                out.extend_from_slice(&((sources.len() / 4) as u16).to_be_bytes());
                out.extend_from_slice(sources);
            }
            // Application-defined packets may hold anything.
            204 => {}
            _ => out.extend_from_slice(packet),
        }
    }
    Some(out)
}

fn write_names(packet: &[u8], cname: &[u8], out: &mut Vec<u8>) {
    let start = out.len();
    out.extend_from_slice(&[0x80, 202, 0, 0]);
    let mut chunks = 0u8;
    let mut at = 4_usize;
    while chunks < packet.first().copied().unwrap_or(0) & 0x1f {
        let Some(ssrc) = packet.get(at..).and_then(|rest| rest.get(..4)) else { break };
        out.extend_from_slice(ssrc);
        out.extend_from_slice(&[1, cname.len() as u8]);
        out.extend_from_slice(cname);
        out.push(0);
        while !out.len().saturating_sub(start).is_multiple_of(4) {
            out.push(0);
        }
        chunks = chunks.saturating_add(1);
        at = at.saturating_add(4);
        // To the end of the chunk: a zero item, then up to the next word.
        while let Some(kind) = packet.get(at) {
            if *kind == 0 {
                at = (at / 4).saturating_add(1).saturating_mul(4);
                break;
            }
            let length = packet.get(at.saturating_add(1)).copied().unwrap_or(0);
            at = at.saturating_add(2).saturating_add(length.into());
        }
    }
    let words = (out.len().saturating_sub(start) / 4).saturating_sub(1) as u16;
    let [high, low] = words.to_be_bytes();
    if let Some(head) = out.get_mut(start..).and_then(|rest| rest.first_chunk_mut()) {
        *head = [0x80 | chunks, 202, high, low];
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reports_in_clear_are_told_from_encrypted_ones() {
        let report = [0x80, 201, 0, 1, 0, 0, 0, 7];
        let names = [0x81, 202, 0, 3, 0, 0, 0, 7, 1, 2, b'a', b'b', 0, 0, 0, 0];
        let trailer = [0x80, 0, 0, 1, 9, 9, 9, 9, 9, 9, 9, 9, 9, 9];
        assert!(is_clear(&report) && is_clear(&[&report[..], &names].concat()));
        assert!(!is_clear(&[&report[..], &trailer].concat()));
        assert!(!is_clear(&[&report[..], &[0x3a; 16], &trailer].concat()));
    }

    fn compound(name: &[u8]) -> Vec<u8> {
        let mut packet = vec![0x81, 200, 0, 12];
        packet.extend((0..48u8).map(|byte| byte + 1));
        let mut sdes = vec![0x81, 202, 0, 0, 0, 0, 0, 9, 1, name.len() as u8];
        sdes.extend_from_slice(name);
        sdes.push(0);
        while sdes.len() % 4 != 0 {
            sdes.push(0);
        }
        sdes[3] = (sdes.len() / 4 - 1) as u8;
        packet.extend(sdes);
        packet
    }

    #[test]
    fn names_are_replaced_and_reports_stay() {
        let original = compound(b"alice@10.1.1.9");
        let clean = without_names(&original, b"anchor", true).unwrap();
        assert!(memchr::memmem::find(&clean, b"alice").is_none());
        assert_eq!(clean[..52], original[..52]);
        assert_eq!(clean.len() % 4, 0);
        let mut seen = Vec::new();
        reports(&clean, |report| seen.push(report));
        assert_eq!(seen.len(), 2);
        assert_eq!(packets(&clean).count(), 2);
    }

    #[test]
    fn a_reason_in_words_and_an_applications_packet_end_here_even_without_names_beside_them() {
        let bye = [&[0x81, 203, 0, 4, 0, 0, 0, 9, 8][..], b"10.1.1.9", &[0; 3]].concat();
        assert_eq!(without_names(&bye, b"anchor", true).unwrap(), [0x81, 203, 0, 1, 0, 0, 0, 9]);
        assert_eq!(without_names(&bye, b"anchor", false).unwrap(), []);
        let more = [&[0x80, 201, 0, 1, 0, 0, 0, 9][..], &bye].concat();
        assert_eq!(without_names(&more, b"anchor", false).unwrap(), more[..8]);
        let mut seen = Vec::new();
        reports(&bye, |report| seen.push(report));
        assert_eq!(seen, [Report::Goodbye { ssrc: 9 }]);
        let application = [&[0x80, 204, 0, 4, 0, 0, 0, 9][..], b"NAME", b"10.1.1.9"].concat();
        assert_eq!(without_names(&application, b"anchor", true).unwrap(), []);
        let report = [0x80, 201, 0, 1, 0, 0, 0, 9];
        assert_eq!(without_names(&report, b"anchor", true), None);
    }

    #[test]
    fn a_block_about_source_0_of_which_nothing_was_heard_is_about_nobody() {
        let block = [&[0; 4][..], &[0; 20]].concat();
        let report = [&[0x81, 201, 0, 7, 0, 0, 0, 9][..], &block].concat();
        let mut seen = Vec::new();
        reports(&report, |report| seen.push(report));
        assert_eq!(seen, [Report::Receiver { ssrc: 9 }]);
        assert_eq!((silence(&seen), silence(&[])), (Some(Silence::LastReport), None));
    }

    #[test]
    fn a_block_without_a_highest_number_is_of_one_who_counts_anew() {
        let mut block = [0; 24];
        block[..8].copy_from_slice(&[0, 0, 0, 7, 0, 0, 0, 14]);
        let report = [&[0x81, 201, 0, 7, 0, 0, 0, 9][..], &block].concat();
        let mut seen = Vec::new();
        reports(&report, |report| seen.push(report));
        assert_eq!(silence(&seen), Some(Silence::CountedAnew), "{seen:?}");
        block[11] = 1;
        let report = [&[0x81, 201, 0, 7, 0, 0, 0, 9][..], &block].concat();
        reports(&report, |report| seen.push(report));
        assert_eq!(silence(&seen), None, "{seen:?}");
    }

    #[test]
    fn truncated_packets_are_read_as_far_as_they_go() {
        let original = compound(b"alice");
        for length in 0..original.len() {
            reports(&original[..length], |_| {});
            let _ = without_names(&original[..length], b"x", true);
        }
    }
}
