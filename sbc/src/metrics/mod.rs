//! What `/metrics` shows. Events of calls and registrations are counted here; what planes, journal and store count for
//! themselves is read when somebody asks ([`sources`]).

pub mod activity;
pub mod notices;

use prometheus::core::Collector;
use prometheus::{
    Counter, Encoder, Histogram, HistogramOpts, IntCounter, IntCounterVec, IntGaugeVec, Opts, Registry,
    TextEncoder,
};
use seam::path::PathRecord;
use sip_engine::event::{CallEnded, CallEvent, CallEventKind};
use sip_engine::io::Notice;
use sip_engine::registrar::BindingChange;

use notices::Notices;

use crate::host::Ear;

/// All numbers of the program.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    started: IntCounter,
    answered: IntCounter,
    ended: IntCounterVec,
    path: IntCounterVec,
    direct: Counter,
    relayed: Counter,
    setup: Histogram,
    duration: Histogram,
    mos: Histogram,
    jitter: Histogram,
    loss: Histogram,
    round_trip: Histogram,
    registered: IntCounter,
    unregistered: IntCounter,
    notices: IntCounterVec,
    lines: Notices,
}

impl Metrics {
    /// All at zero. An error is a mistake in this file.
    pub fn new() -> Result<Self, prometheus::Error> {
        let registry = Registry::new();
        let counter = |name: &str, help: &str| keep(&registry, IntCounter::new(name, help)?);
        let vector = |name: &str, help: &str, label: &str| {
            keep(&registry, IntCounterVec::new(Opts::new(name, help), &[label])?)
        };
        let histogram = |name: &str, help: &str, buckets: &[f64]| {
            keep(&registry, Histogram::with_opts(HistogramOpts::new(name, help).buckets(buckets.to_vec()))?)
        };
        let build = IntGaugeVec::new(
            Opts::new("sbc_build_info", "Always 1; the label says which version runs"),
            &["version"],
        )?;
        keep(&registry, build)?.with_label_values(&[env!("CARGO_PKG_VERSION")]).set(1);
        Ok(Self {
            started: counter("sbc_calls_started_total", "INVITEs admitted")?,
            answered: counter("sbc_calls_answered_total", "Calls answered")?,
            ended: vector("sbc_calls_ended_total", "Calls ended, by the cause in their record", "cause")?,
            path: keep(
                &registry,
                IntCounterVec::new(
                    Opts::new(
                        "sbc_media_path_total",
                        "What happened to the paths of media, as call_path tells it: ways tried, proofs, states and why",
                    ),
                    &["what", "why"],
                )?,
            )?,
            direct: keep(
                &registry,
                Counter::new(
                    "sbc_media_direct_seconds_total",
                    "Answered time without RTP on the relay, of ended calls",
                )?,
            )?,
            relayed: keep(
                &registry,
                Counter::new(
                    "sbc_media_relayed_seconds_total",
                    "Answered time with RTP on the relay, of ended calls",
                )?,
            )?,
            setup: histogram(
                "sbc_call_setup_seconds",
                "From INVITE to answer",
                &[0.1, 0.5, 1.0, 2.0, 5.0, 10.0, 20.0, 60.0],
            )?,
            duration: histogram(
                "sbc_call_duration_seconds",
                "From answer to end, of answered calls",
                &[1.0, 10.0, 30.0, 60.0, 180.0, 600.0, 1800.0, 3600.0],
            )?,
            mos: histogram(
                "sbc_stream_mos",
                "Mean opinion score (E-model) of received streams",
                &[2.0, 3.0, 3.5, 3.8, 4.0, 4.2, 4.3, 4.4],
            )?,
            jitter: histogram(
                "sbc_stream_jitter_seconds",
                "Interarrival jitter (RFC 3550) of received streams",
                &[0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1],
            )?,
            loss: histogram(
                "sbc_stream_loss_ratio",
                "Share of a stream's packets that never came to its receiver, on the relay and off it",
                &[0.0, 0.001, 0.005, 0.01, 0.02, 0.05, 0.1],
            )?,
            round_trip: histogram(
                "sbc_stream_round_trip_seconds",
                "Round trip to the sender of a stream, where its RTCP tells",
                &[0.01, 0.02, 0.05, 0.1, 0.2, 0.3, 0.5, 1.0],
            )?,
            registered: counter("sbc_registrations_total", "Contacts registered or refreshed")?,
            unregistered: counter("sbc_deregistrations_total", "Contacts removed or expired")?,
            notices: vector(
                "sbc_notices_total",
                "Things worth noticing, by kind: refused messages, wrong passwords, unknown sources ...",
                "kind",
            )?,
            lines: Notices::default(),
            registry,
        })
    }

    /// Shows what others count too.
    pub fn add(&self, source: impl Collector + 'static) -> Result<(), prometheus::Error> {
        self.registry.register(Box::new(source))
    }

    /// Something happened in a call.
    pub fn call(&self, event: &CallEvent) {
        match &event.what {
            CallEventKind::Started(_) => self.started.inc(),
            CallEventKind::Answered { .. } => self.answered.inc(),
            CallEventKind::Ended(ended) => self.ended(ended),
            CallEventKind::Path(PathRecord::Entry(told)) => {
                let (what, why) = told.entry.words();
                self.path.with_label_values(&[what, why]).inc();
            }
            CallEventKind::Changed(_)
            | CallEventKind::Path(PathRecord::Words(_))
            | CallEventKind::Metered { .. } => {}
        }
    }

    fn ended(&self, ended: &CallEnded) {
        self.ended.with_label_values(&[ended.cause.word()]).inc();
        if let Some(setup) = ended.answered_after {
            self.setup.observe(setup.as_secs_f64());
            self.duration.observe(ended.talked.as_secs_f64());
            self.direct.inc_by(ended.direct.as_secs_f64());
            self.relayed.inc_by(ended.talked.saturating_sub(ended.direct).as_secs_f64());
        }
        for stream in ended.media.iter().filter(|stream| stream.packets > 0) {
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

    /// A registration changed.
    pub fn binding(&self, change: &BindingChange) {
        match change {
            BindingChange::Put(_) => self.registered.inc(),
            BindingChange::Delete { .. } => self.unregistered.inc(),
        }
    }

    /// Counts a notice, and logs it unless too many of its kind were logged already.
    pub fn notice(&self, notice: &Notice) {
        self.notices.with_label_values(&[notice.kind]).inc();
        self.lines.write(notice);
    }

    /// Logs how many notices were only counted; to be called now and then.
    pub fn summarise(&self) {
        self.lines.summarise();
    }

    /// In the text format of Prometheus.
    pub fn text(&self) -> Result<Vec<u8>, prometheus::Error> {
        let mut out = Vec::new();
        TextEncoder::new().encode(&self.registry.gather(), &mut out)?;
        Ok(out)
    }
}

fn keep<C: Collector + Clone + 'static>(registry: &Registry, collector: C) -> Result<C, prometheus::Error> {
    registry.register(Box::new(collector.clone()))?;
    Ok(collector)
}

impl Ear for Metrics {
    fn call(&self, event: &CallEvent) {
        Self::call(self, event);
    }

    fn binding(&self, change: &BindingChange) {
        Self::binding(self, change);
    }

    fn notice(&self, notice: &Notice) {
        Self::notice(self, notice);
    }
}
