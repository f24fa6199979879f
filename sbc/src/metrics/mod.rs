//! What `/metrics` shows. Events of calls and registrations are counted here; what planes, journal and store count for
//! themselves is read when somebody asks ([`sources`]).

pub mod activity;
mod calls;
pub mod notices;
mod register;

use prometheus::core::Collector;
use prometheus::{Encoder, IntCounter, IntCounterVec, IntGaugeVec, Opts, Registry, TextEncoder};
use seam::path::PathRecord;
use sip_engine::event::{CallEvent, CallEventKind};
use sip_engine::io::Notice;
use sip_engine::registrar::BindingChange;

use calls::{Calls, Streams};
use notices::Notices;
use register::Register;

use crate::host::Ear;

/// All numbers of the program.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    calls: Calls,
    streams: Streams,
    registered: IntCounter,
    unregistered: IntCounter,
    notices: IntCounterVec,
    lines: Notices,
}

impl Metrics {
    /// All at zero. An error is a mistake in this folder.
    pub fn new() -> Result<Self, prometheus::Error> {
        let registry = Registry::new();
        let new = Register(&registry);
        let build = IntGaugeVec::new(
            Opts::new("sbc_build_info", "Always 1; the label says which version runs"),
            &["version"],
        )?;
        new.keep(build)?.with_label_values(&[env!("CARGO_PKG_VERSION")]).set(1);
        Ok(Self {
            calls: Calls::new(&new)?,
            streams: Streams::new(&new)?,
            registered: new.counter("sbc_registrations_total", "Contacts registered or refreshed")?,
            unregistered: new.counter("sbc_deregistrations_total", "Contacts removed or expired")?,
            notices: new.vector(
                "sbc_notices_total",
                "Things worth noticing, by kind: refused messages, wrong passwords, unknown sources ...",
                &["kind"],
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
            CallEventKind::Started(_) => self.calls.started.inc(),
            CallEventKind::Answered { .. } => self.calls.answered.inc(),
            CallEventKind::Ended(ended) => {
                self.calls.ended(ended);
                ended.media.iter().for_each(|stream| self.streams.ended(stream));
            }
            CallEventKind::Path(PathRecord::Entry(told)) => {
                let (what, why) = told.entry.words();
                self.calls.path.with_label_values(&[what, why]).inc();
            }
            CallEventKind::Changed(_)
            | CallEventKind::Path(PathRecord::Words(_))
            | CallEventKind::Metered { .. } => {}
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
