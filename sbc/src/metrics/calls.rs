//! Numbers of calls, and of their media.

use prometheus::{Counter, Histogram, IntCounter, IntCounterVec};
use seam::StreamStatistics;
use sip_engine::event::CallEnded;

use super::register::Register;

/// Of calls.
#[derive(Debug)]
pub(super) struct Calls {
    pub(super) started: IntCounter,
    pub(super) answered: IntCounter,
    ended: IntCounterVec,
    pub(super) path: IntCounterVec,
    direct: Counter,
    relayed: Counter,
    setup: Histogram,
    duration: Histogram,
}

impl Calls {
    pub(super) fn new(new: &Register<'_>) -> Result<Self, prometheus::Error> {
        Ok(Self {
            started: new.counter("sbc_calls_started_total", "INVITEs admitted")?,
            answered: new.counter("sbc_calls_answered_total", "Calls answered")?,
            ended: new.vector(
                "sbc_calls_ended_total",
                "Calls ended, by the cause in their record",
                &["cause"],
            )?,
            path: new.vector(
                "sbc_media_path_total",
                "What happened to the paths of media, as call_path tells it: ways tried, proofs, states and why",
                &["what", "why"],
            )?,
            direct: new.seconds(
                "sbc_media_direct_seconds_total",
                "Answered time without RTP on the relay, of ended calls",
            )?,
            relayed: new.seconds(
                "sbc_media_relayed_seconds_total",
                "Answered time with RTP on the relay, of ended calls",
            )?,
            setup: new.histogram(
                "sbc_call_setup_seconds",
                "From INVITE to answer",
                &[0.1, 0.5, 1.0, 2.0, 5.0, 10.0, 20.0, 60.0],
            )?,
            duration: new.histogram(
                "sbc_call_duration_seconds",
                "From answer to end, of answered calls",
                &[1.0, 10.0, 30.0, 60.0, 180.0, 600.0, 1800.0, 3600.0],
            )?,
        })
    }

    pub(super) fn ended(&self, ended: &CallEnded) {
        self.ended.with_label_values(&[ended.cause.word()]).inc();
        if let Some(setup) = ended.answered_after {
            self.setup.observe(setup.as_secs_f64());
            self.duration.observe(ended.talked.as_secs_f64());
            self.direct.inc_by(ended.direct.as_secs_f64());
            self.relayed.inc_by(ended.talked.saturating_sub(ended.direct).as_secs_f64());
        }
    }
}

/// Of what was received in calls.
#[derive(Debug)]
pub(super) struct Streams {
    mos: Histogram,
    jitter: Histogram,
    loss: Histogram,
    round_trip: Histogram,
}

impl Streams {
    pub(super) fn new(new: &Register<'_>) -> Result<Self, prometheus::Error> {
        Ok(Self {
            mos: new.histogram(
                "sbc_stream_mos",
                "Mean opinion score (E-model) of received streams",
                &[2.0, 3.0, 3.5, 3.8, 4.0, 4.2, 4.3, 4.4],
            )?,
            jitter: new.histogram(
                "sbc_stream_jitter_seconds",
                "Interarrival jitter (RFC 3550) of received streams",
                &[0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1],
            )?,
            loss: new.histogram(
                "sbc_stream_loss_ratio",
                "Share of a stream's packets that never came to its receiver, on the relay and off it",
                &[0.0, 0.001, 0.005, 0.01, 0.02, 0.05, 0.1],
            )?,
            round_trip: new.histogram(
                "sbc_stream_round_trip_seconds",
                "Round trip to the sender of a stream, where its RTCP tells",
                &[0.01, 0.02, 0.05, 0.1, 0.2, 0.3, 0.5, 1.0],
            )?,
        })
    }

    pub(super) fn ended(&self, stream: &StreamStatistics) {
        if stream.packets == 0 {
            return;
        }
        self.jitter.observe(f64::from(stream.jitter_ms) / 1000.0);
        // Of what nobody knows nothing is shown.
        if let Some(whole) = stream.whole.filter(|whole| whole.packets > 0) {
            self.loss.observe(whole.lost as f64 / whole.packets as f64);
        }
        if let Some(mos) = stream.mos {
            self.mos.observe(f64::from(mos));
        }
        if let Some(round_trip) = stream.rtt_ms {
            self.round_trip.observe(f64::from(round_trip) / 1000.0);
        }
    }
}
