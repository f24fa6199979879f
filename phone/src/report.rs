//! The timeline: for people a line each, for scripts an object a line.

use std::io::Write as _;
use std::time::Duration;

use crush::agent::{Direction, Effort, Event, Part};
use media_wire::handoff::Reason;
use serde_json::{Map, Value, json};
use sip_engine::ua::CallNumber;
use srtp::Suite;

use crate::options::Way;

/// Where the timeline goes.
#[derive(Debug)]
pub(crate) struct Report {
    json: bool,
    /// How signalling gets to the registrar.
    signalling: Way,
}

impl Report {
    pub(crate) fn new(json: bool, signalling: Way) -> Self {
        Self { json, signalling }
    }

    /// Something happened at a time since the phone's start. `details` is an object.
    pub(crate) fn tell(&self, at: Duration, call: Option<CallNumber>, event: &str, details: Value) {
        let seconds = (at.as_secs_f64() * 1000.0).round() / 1000.0;
        let details = match details {
            Value::Object(details) => details,
            _ => Map::new(),
        };
        let line = if self.json {
            let mut object = Map::new();
            object.insert("time".into(), json!(seconds));
            object.insert("event".into(), json!(event));
            object.extend(call.map(|call| ("call".into(), json!(call.0))));
            object.extend(details);
            Value::Object(object).to_string()
        } else {
            let mut line = format!("{seconds:9.3} s  {event:14}");
            for (name, value) in details {
                let value = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
                line.push_str(&format!(" {}={value}", name.replace('_', "-")));
            }
            line.trim_end().to_owned()
        };
        // A closed pipe is the reader's business.
        let _ = writeln!(std::io::stdout().lock(), "{line}");
    }

    /// How a call is encrypted from now on. Keys are as secret as signalling: `tls` says so of the way to the registrar alone.
    pub(crate) fn encryption(&self, at: Duration, call: CallNumber, suite: Option<Suite>) {
        let name = if suite.is_some() { "encrypted" } else { "not-encrypted" };
        self.tell(at, Some(call), name, self.keys(suite));
    }

    fn keys(&self, suite: Option<Suite>) -> Value {
        let signalling = match self.signalling {
            Way::Udp => "udp",
            Way::Tcp => "tcp",
            Way::Tls => "tls",
        };
        json!({ "suite": suite.map(Suite::name), "signalling": signalling })
    }

    /// What became of a call's path. `suite`: how its stream is encrypted.
    pub(crate) fn path(&self, at: Duration, call: CallNumber, event: &Event, suite: Option<Suite>) {
        let (name, mut details) = words(event);
        if matches!(event, Event::Secured { .. })
            && let (Value::Object(details), Value::Object(keys)) = (&mut details, self.keys(suite))
        {
            details.extend(keys);
        }
        self.tell(at, Some(call), name, details);
    }
}

fn milliseconds(duration: Duration) -> f64 {
    (duration.as_secs_f64() * 10_000.0).round() / 10.0
}

fn words(event: &Event) -> (&'static str, Value) {
    match event {
        Event::Connecting => ("connecting", json!({})),
        Event::Relayed { after, round_trip } => {
            let round_trip = round_trip.map(milliseconds);
            ("relayed", json!({ "after_ms": milliseconds(*after), "round_trip_ms": round_trip }))
        }
        Event::Probing { temper, part, effort } => {
            let details = json!({ "temper": temper.to_string(), "method": method(*part) });
            ("probing", with_effort(details, effort))
        }
        Event::Found { remote, round_trip, .. } => {
            ("found", json!({ "remote": remote.to_string(), "round_trip_ms": milliseconds(*round_trip) }))
        }
        Event::Synchronised(figures) => {
            let tenth = |ms: f64| (ms * 10.0).round() / 10.0 + 0.0;
            let details = json!({
                "difference_ms": tenth(figures.differential_ms),
                "relay_jitter_ms": tenth(figures.relay_jitter_ms),
                "direct_jitter_ms": tenth(figures.direct_jitter_ms),
                "relay_loss": figures.relay_loss,
                "direct_loss": figures.direct_loss,
            });
            ("synchronised", details)
        }
        Event::HandedOff { stream, direction, at } => {
            let direction = if *direction == Direction::Sending { "sending" } else { "receiving" };
            ("handed-off", json!({ "stream": stream.0, "direction": direction, "sequence": at }))
        }
        Event::Direct { after, round_trip, effort } => {
            let details =
                json!({ "after_ms": milliseconds(*after), "round_trip_ms": milliseconds(*round_trip) });
            ("direct", with_effort(details, effort))
        }
        Event::Secured { stream } => ("secured", json!({ "stream": stream.0 })),
        Event::Returned { reason, lasted, gap } => {
            let gap = gap.map(milliseconds);
            let lasted = milliseconds(*lasted);
            ("returned", json!({ "reason": cause(*reason), "lasted_ms": lasted, "gap_ms": gap }))
        }
        Event::GaveUp { part, effort } => {
            ("gave-up", with_effort(json!({ "method": method(*part) }), effort))
        }
        Event::SlowedDown(temper) => ("slowed-down", json!({ "temper": temper.to_string() })),
    }
}

/// What a search has cost, beside what else is to be said.
fn with_effort(mut details: Value, effort: &Effort) -> Value {
    details["probes"] = json!(effort.probes);
    details["new_flows"] = json!(effort.flows);
    details["sockets"] = json!(effort.sockets);
    details
}

fn method(part: Part) -> &'static str {
    match part {
        Part::Checks => "checks",
        Part::Reopen => "reopen",
        Part::Hold => "hold",
        Part::Sweep => "sweep",
        Part::Fan => "fan",
        Part::Scan => "scan",
        Part::Sockets => "sockets",
        Part::Shots => "shots",
        Part::GiveUp => "none",
    }
}

fn cause(reason: Reason) -> &'static str {
    match reason {
        Reason::Synchronised => "synchronised",
        Reason::Missing => "packets missing",
        Reason::Quality => "quality",
        Reason::Policy => "policy",
        Reason::Network => "network switch",
        Reason::Consent => "consent lost",
        Reason::Comparison => "comparison",
        Reason::Application => "application",
    }
}
