//! How collectors are made: each is known to the registry from its beginning.

use prometheus::core::Collector;
use prometheus::{Counter, Histogram, HistogramOpts, IntCounter, IntCounterVec, Opts, Registry};

/// Makes collectors for a registry. An error is a mistake in this folder: a name twice, or a wrong one.
pub(super) struct Register<'a>(pub(super) &'a Registry);

impl Register<'_> {
    /// Makes it known.
    pub(super) fn keep<C: Collector + Clone + 'static>(&self, collector: C) -> Result<C, prometheus::Error> {
        self.0.register(Box::new(collector.clone()))?;
        Ok(collector)
    }

    /// Of things.
    pub(super) fn counter(&self, name: &str, help: &str) -> Result<IntCounter, prometheus::Error> {
        self.keep(IntCounter::new(name, help)?)
    }

    /// Of things, by labels.
    pub(super) fn vector(
        &self,
        name: &str,
        help: &str,
        labels: &[&str],
    ) -> Result<IntCounterVec, prometheus::Error> {
        self.keep(IntCounterVec::new(Opts::new(name, help), labels)?)
    }

    /// Of seconds.
    pub(super) fn seconds(&self, name: &str, help: &str) -> Result<Counter, prometheus::Error> {
        self.keep(Counter::new(name, help)?)
    }

    /// With buckets up to these.
    pub(super) fn histogram(
        &self,
        name: &str,
        help: &str,
        buckets: &[f64],
    ) -> Result<Histogram, prometheus::Error> {
        self.keep(Histogram::with_opts(HistogramOpts::new(name, help).buckets(buckets.to_vec()))?)
    }
}
