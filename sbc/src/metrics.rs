//! What `/metrics` shows, and the log lines that go with it.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use prometheus::{
    Encoder, Histogram, HistogramOpts, IntCounter, IntCounterVec, IntGauge, Opts, Registry, TextEncoder,
};
use sip_engine::event::CallEnded;
use sip_engine::io::Notice;

use crate::ship::cause;

/// All numbers of the program.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    /// INVITEs admitted.
    pub calls_started: IntCounter,
    /// Calls answered.
    pub calls_answered: IntCounter,
    ended: IntCounterVec,
    notices: IntCounterVec,
    mos: Histogram,
    setup: Histogram,
    gauges: HashMap<&'static str, IntGauge>,
    lines: Mutex<HashMap<&'static str, (Instant, u64)>>,
}

/// One log line per kind in this time; the rest is only counted.
const QUIET: Duration = Duration::from_secs(5);

/// Name and meaning of what is copied from the planes at each reading.
const GAUGES: [(&str, &str); 22] = [
    ("sbc_calls", "Calls now"),
    ("sbc_transactions", "SIP transactions now"),
    ("sbc_bindings", "Registered contacts now"),
    ("sbc_sip_received", "SIP messages received"),
    ("sbc_sip_sent", "SIP messages sent"),
    ("sbc_sip_refused", "SIP messages that could not be read"),
    ("sbc_sip_send_failed", "SIP messages that could not be sent"),
    ("sbc_sip_denied", "SIP messages dropped by address list"),
    ("sbc_sip_limited", "SIP messages dropped by the rate of their source"),
    ("sbc_sip_connections", "Open connections"),
    ("sbc_media_received", "Media packets received"),
    ("sbc_media_sent", "Media packets sent"),
    ("sbc_media_dropped", "Media packets of strangers"),
    ("sbc_media_send_failed", "Media packets the kernel refused"),
    ("sbc_media_sessions", "Media sessions now"),
    ("sbc_media_port_pairs", "Pairs of media ports in use"),
    ("sbc_journal_bytes", "Bytes written to the journal"),
    ("sbc_journal_failed", "Writes to the journal that failed"),
    ("sbc_journal_backlog_bytes", "Bytes of the journal that wait for the database"),
    ("sbc_store_shipped_events", "Call events in the database"),
    ("sbc_store_failures", "Batches the database refused"),
    ("sbc_store_ready", "Whether the snapshot of policy was read"),
];

impl Metrics {
    /// All at zero. An error is a mistake in this file.
    pub fn new() -> Result<Self, prometheus::Error> {
        let registry = Registry::new();
        let counter = |name: &str, help: &str| {
            let counter = IntCounter::new(name, help)?;
            registry.register(Box::new(counter.clone()))?;
            Ok::<_, prometheus::Error>(counter)
        };
        let vector = |name: &str, help: &str, label: &str| {
            let vector = IntCounterVec::new(Opts::new(name, help), &[label])?;
            registry.register(Box::new(vector.clone()))?;
            Ok::<_, prometheus::Error>(vector)
        };
        let histogram = |name: &str, help: &str, buckets: Vec<f64>| {
            let histogram = Histogram::with_opts(HistogramOpts::new(name, help).buckets(buckets))?;
            registry.register(Box::new(histogram.clone()))?;
            Ok::<_, prometheus::Error>(histogram)
        };
        let mut gauges = HashMap::new();
        for (name, help) in GAUGES {
            let gauge = IntGauge::new(name, help)?;
            registry.register(Box::new(gauge.clone()))?;
            gauges.insert(name, gauge);
        }
        Ok(Self {
            calls_started: counter("sbc_calls_started_total", "INVITEs admitted")?,
            calls_answered: counter("sbc_calls_answered_total", "Calls answered")?,
            ended: vector("sbc_calls_ended_total", "Calls ended, by cause", "cause")?,
            notices: vector("sbc_notices_total", "Things worth noticing, by kind", "kind")?,
            mos: histogram(
                "sbc_call_mos",
                "Mean opinion score of received streams",
                vec![2.0, 3.0, 3.5, 3.8, 4.0, 4.2, 4.3, 4.4],
            )?,
            setup: histogram(
                "sbc_call_setup_seconds",
                "From INVITE to answer",
                vec![0.1, 0.5, 1.0, 2.0, 5.0, 10.0, 20.0, 60.0],
            )?,
            gauges,
            lines: Mutex::new(HashMap::new()),
            registry,
        })
    }

    /// A call ended.
    pub fn ended(&self, ended: &CallEnded) {
        self.ended.with_label_values(&[cause(ended.cause)]).inc();
        if let Some(setup) = ended.answered_after {
            self.setup.observe(setup.as_secs_f64());
        }
        for mos in ended.media.iter().filter_map(|stream| stream.mos) {
            self.mos.observe(f64::from(mos));
        }
    }

    /// Counts a notice; logs it unless one of its kind was logged a moment ago.
    pub fn notice(&self, notice: &Notice) {
        self.notices.with_label_values(&[notice.kind]).inc();
        let mut lines = self.lines.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Instant::now();
        let entry = lines.entry(notice.kind).or_insert((now - QUIET, 0));
        if now - entry.0 < QUIET {
            entry.1 += 1;
            return;
        }
        let suppressed = entry.1;
        *entry = (now, 0);
        let remote = notice.remote.map(|remote| remote.to_string()).unwrap_or_default();
        tracing::warn!(kind = notice.kind, remote, suppressed, "{}", notice.detail);
    }

    /// Copies a plane's number.
    pub fn set(&self, name: &str, value: u64) {
        if let Some(gauge) = self.gauges.get(name) {
            gauge.set(i64::try_from(value).unwrap_or(i64::MAX));
        }
    }

    /// In the text format of Prometheus.
    pub fn text(&self) -> Result<Vec<u8>, prometheus::Error> {
        let mut out = Vec::new();
        TextEncoder::new().encode(&self.registry.gather(), &mut out)?;
        Ok(out)
    }
}
