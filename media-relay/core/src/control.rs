//! What RTCP reports, where it can be read.

use std::time::Duration;

use media_wire::rtcp::{self, Report};
use seam::Endpoint;
use smallvec::SmallVec;

use crate::legs::{Leg, Session};
use crate::path::phone::Temperament;
use crate::ports::StreamId;
use crate::reported::Block;
use crate::stream::Streams;

/// What was read of a compound packet.
#[derive(Debug, Default)]
pub(crate) struct Read {
    /// The middle of the time of its sender report.
    pub(crate) sender_report: Option<u32>,
    pub(crate) round_trip: Option<Duration>,
    /// Its sender counts anew.
    pub(crate) is_anew: bool,
    /// The source heard last says goodbye.
    pub(crate) is_leaving: bool,
    /// All reports, where somebody moves the media.
    pub(crate) told: SmallVec<[Report; 4]>,
}

impl Streams {
    /// Notes what a compound packet from a stream reports.
    pub(crate) fn read_reports(
        &mut self,
        id: StreamId,
        packet: &[u8],
        is_moving: bool,
        now: Duration,
    ) -> Read {
        let mut read = Read::default();
        let Some(stream) = self.get(id) else { return read };
        let (forwarded, astray, peers) =
            (stream.said.forwarded, stream.said.astray, stream.consumers.peer_list());
        let source = stream.reception.last().map(|(ssrc, _)| ssrc);
        rtcp::reports(packet, |report| {
            if is_moving {
                read.told.push(report);
            }
            match report {
                Report::Sender { ssrc, middle, packets } => {
                    read.sender_report = Some(middle);
                    if let Some(stream) = self.get_mut(id) {
                        let (here, came) = (stream.reception.here(), stream.reception.packets);
                        read.is_anew |= stream.said.sent.count((ssrc, packets), here, came, now);
                    }
                    // It may have heard nobody yet, and says what it counts by another report.
                    for consumer in peers.iter().filter(|_| read.is_anew) {
                        if let Some(heard) = self.get_mut(*consumer) {
                            heard.said.reported.begins_anew();
                        }
                    }
                }
                Report::Receiver { .. } | Report::Unheard { .. } => {}
                Report::Goodbye { ssrc } => read.is_leaving |= source == Some(ssrc),
                Report::Reception { ssrc, lost, highest, jitter, last_sender_report, delay, .. } => {
                    // RFC 3550 §6.4.1: from our forwarding of a sender report to its echo, less the time it rested there.
                    if let Some((middle, sent)) = forwarded
                        && middle == last_sender_report
                        && last_sender_report != 0
                    {
                        let rested = Duration::from_secs_f64(f64::from(delay) / 65_536.0);
                        read.round_trip = Some(now.saturating_sub(sent).saturating_sub(rested));
                    }
                    // What it hears is what its consumers' endpoints say: streams feed each other.
                    for consumer in &peers {
                        if let Some(heard) = self.get_mut(*consumer) {
                            heard.reported_by_its_receiver(
                                Block { ssrc, highest, lost, jitter },
                                read.is_anew,
                                astray,
                                now,
                            );
                        }
                    }
                }
            }
        });
        read
    }
}

/// The source of a stream says that it leaves, as PJSIP does with each re-INVITE before it goes on: whether who hears it would count it
/// anew then.
#[cold]
pub(crate) fn forgets_leaving(session: &Session, id: StreamId) -> bool {
    let hears = |leg: &&(Endpoint, Leg)| !leg.1.streams.iter().flatten().any(|stream| *stream == id);
    let forgets = |leg: &(Endpoint, Leg)| Temperament::of(&leg.1.party.product).forgets_who_leaves;
    session.legs.iter().filter(hears).any(forgets)
}
