//! Numbers that planes, journal and store keep for themselves, read when `/metrics` is asked for.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use super::memory::Memory;
use media_relay::{Relay, Snapshot};
use prometheus::core::{Collector, Desc};
use prometheus::proto::{Counter, Gauge, LabelPair, Metric, MetricFamily, MetricType};
use sip_proxy::counters::{Count, ShardCounters};
use vitals::Vitals;

use crate::records::journal::Journal;
use crate::records::ship::ShipCounters;
use crate::store::refusal::StoreCounters;

/// Everything that is read.
pub struct Sources {
    /// Of the signalling plane.
    pub shards: Vec<Arc<ShardCounters>>,
    /// The media plane.
    pub relay: Arc<Relay>,
    /// The journal.
    pub journal: Arc<Journal>,
    /// What goes from it to the database.
    pub ship: Arc<ShipCounters>,
    /// Of what else is written to the database.
    pub store: Arc<StoreCounters>,
    /// Whether policy was read.
    pub is_ready: Arc<AtomicBool>,
    /// The parts of the process.
    pub vitals: Vitals,
    /// How often what serves the pages was replaced.
    pub http_restarts: Arc<AtomicU64>,
    /// The memory in use.
    pub memory: Arc<Memory>,
}

type ShardNumber = (&'static str, &'static str, MetricType, fn(&ShardCounters) -> &Count);
type MediaNumber = (&'static str, &'static str, MetricType, fn(&Snapshot) -> u64);

use MetricType::{COUNTER, GAUGE};

const SIGNALLING: [ShardNumber; 21] = [
    ("sbc_calls", "Calls now, ringing ones included", GAUGE, |shard| &shard.held.calls),
    ("sbc_transactions", "SIP transactions now", GAUGE, |shard| &shard.held.transactions),
    ("sbc_bindings", "Registered contacts now", GAUGE, |shard| &shard.held.bindings),
    ("sbc_sip_connections", "Open SIP connections", GAUGE, |shard| &shard.streams.open),
    ("sbc_sip_shards_behind", "Signalling shards that are behind and refuse what is new", GAUGE, |shard| {
        &shard.is_behind
    }),
    ("sbc_sip_received_total", "SIP messages received", COUNTER, |shard| &shard.received),
    ("sbc_sip_sent_total", "SIP messages sent", COUNTER, |shard| &shard.sent),
    ("sbc_sip_refused_total", "SIP messages that could not be read", COUNTER, |shard| &shard.dropped.refused),
    (
        "sbc_sip_panicked_total",
        "SIP messages dropped because their reading panicked: a mistake of the program",
        COUNTER,
        |shard| &shard.dropped.panicked,
    ),
    ("sbc_sip_keepalives_total", "Keepalives received", COUNTER, |shard| &shard.keepalives),
    ("sbc_sip_send_failed_total", "SIP messages that could not be sent", COUNTER, |shard| &shard.send_failed),
    ("sbc_sip_denied_total", "SIP messages and connections dropped by address list", COUNTER, |shard| {
        &shard.dropped.denied
    }),
    ("sbc_sip_limited_total", "SIP messages dropped by the rate of their source", COUNTER, |shard| {
        &shard.dropped.limited
    }),
    (
        "sbc_sip_headers_withheld_total",
        "Headers that did not pass because their realm is not trusted with them",
        COUNTER,
        |shard| &shard.withheld,
    ),
    ("sbc_sip_scanners_total", "Requests of scanners, dropped", COUNTER, |shard| &shard.dropped.scanners),
    ("sbc_sip_inbox_full_total", "Replies dropped because a shard did not keep up", COUNTER, |shard| {
        &shard.dropped.inbox_full
    }),
    (
        "sbc_sip_connections_refused_total",
        "SIP connections refused because there are too many",
        COUNTER,
        |shard| &shard.streams.refused,
    ),
    (
        "sbc_sip_connections_evicted_total",
        "SIP connections of strangers closed for newcomers",
        COUNTER,
        |shard| &shard.streams.evicted,
    ),
    (
        "sbc_sip_connections_stalled_total",
        "SIP connections closed because the peer took nothing",
        COUNTER,
        |shard| &shard.streams.stalled,
    ),
    (
        "sbc_sip_connections_idle_total",
        "SIP connections closed because the peer said nothing",
        COUNTER,
        |shard| &shard.streams.idle,
    ),
    ("sbc_sip_handshakes_failed_total", "TLS handshakes that failed", COUNTER, |shard| {
        &shard.streams.handshakes_failed
    }),
];

const MEDIA: [MediaNumber; 11] = [
    ("sbc_media_sessions", "Media sessions now", GAUGE, |worker| worker.sessions),
    ("sbc_media_port_pairs", "Pairs of media ports in use", GAUGE, |worker| worker.ports_in_use),
    ("sbc_media_received_total", "Media packets received", COUNTER, |worker| worker.received),
    ("sbc_media_sent_total", "Media packets sent", COUNTER, |worker| worker.sent),
    (
        "sbc_media_dropped_total",
        "Media packets that belonged to nobody or came from strangers",
        COUNTER,
        |worker| worker.dropped,
    ),
    (
        "sbc_media_keepalives_total",
        "Packets on media ports that only hold a NAT open, consumed",
        COUNTER,
        |worker| worker.keepalives,
    ),
    (
        "sbc_media_strangers_learnt_total",
        "How often a stranger was believed to be a party, where a realm's latching is `any`",
        COUNTER,
        |worker| worker.strangers_learnt,
    ),
    (
        "sbc_media_copies_lost_total",
        "Copies of media packets that a listener to a call did not get, since too many waited for it",
        COUNTER,
        |worker| worker.copies_lost,
    ),
    (
        "sbc_media_panicked_total",
        "Media packets and descriptions dropped because their reading panicked: a mistake of the program",
        COUNTER,
        |worker| worker.panicked,
    ),
    ("sbc_media_send_failed_total", "Media packets that the kernel refused to send", COUNTER, |worker| {
        worker.send_failed
    }),
    (
        "sbc_media_unreachable_total",
        "Media packets to addresses that no route leads to, as phones behind NATs name them before they are heard",
        COUNTER,
        |worker| worker.unreachable,
    ),
];

impl Collector for Sources {
    fn desc(&self) -> Vec<&Desc> {
        // Nothing to check against others: the names are all in this file.
        Vec::new()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        let mut families = Vec::new();
        for (name, help, kind, pick) in SIGNALLING {
            let sum = self.shards.iter().map(|shard| pick(shard).get()).sum();
            families.push(family(name, help, kind, vec![(Vec::new(), sum)]));
        }
        families.extend(self.traffic());
        let workers: Vec<Snapshot> = self.relay.counters().map(|worker| worker.snapshot()).collect();
        for (name, help, kind, pick) in MEDIA {
            families.push(family(name, help, kind, vec![(Vec::new(), workers.iter().map(pick).sum())]));
        }
        let (journal, ship) = (&self.journal.counters, &self.ship);
        let numbers: [(&str, &str, MetricType, &AtomicU64); 9] = [
            ("sbc_journal_written_bytes_total", "Bytes written to the journal", COUNTER, &journal.written),
            (
                "sbc_journal_failures_total",
                "Writes and synchronisations of the journal that failed",
                COUNTER,
                &journal.failed,
            ),
            (
                "sbc_journal_waiting_lines",
                "Lines that wait in memory because the disk takes none",
                GAUGE,
                &journal.waiting,
            ),
            (
                "sbc_journal_lost_events_total",
                "Call events lost because the disk took none for too long",
                COUNTER,
                &journal.lost,
            ),
            (
                "sbc_journal_damaged_lines_total",
                "Lines of the journal that could not be read back",
                COUNTER,
                &journal.damaged,
            ),
            (
                "sbc_journal_backlog_bytes",
                "Bytes of the journal that wait for the database",
                GAUGE,
                &ship.backlog,
            ),
            ("sbc_store_shipped_events_total", "Call events written to the database", COUNTER, &ship.shipped),
            (
                "sbc_store_refused_rows_total",
                "Rows of bindings and outcomes that the database refused for good (refused-rows.jsonl)",
                COUNTER,
                &self.store.refused,
            ),
            (
                "sbc_store_rejected_events_total",
                "Call events that the database refused for good (rejected.jsonl)",
                COUNTER,
                &ship.rejected,
            ),
        ];
        for (name, help, kind, number) in numbers {
            families.push(family(name, help, kind, vec![(Vec::new(), number.load(Ordering::Relaxed))]));
        }
        let failures =
            ship.failed.load(Ordering::Relaxed).saturating_add(self.store.failures.load(Ordering::Relaxed));
        families.push(family(
            "sbc_store_failures_total",
            "Batches that the database did not take at once, or whose rows it refused",
            COUNTER,
            vec![(Vec::new(), failures)],
        ));
        let ready = u64::from(self.is_ready.load(Ordering::Relaxed));
        families.push(family(
            "sbc_store_ready",
            "Whether subscribers, trunks and routes were read",
            GAUGE,
            vec![(Vec::new(), ready)],
        ));
        let silences = self.vitals.silences().into_iter();
        families.push(family(
            "sbc_part_silent_seconds",
            "How long each thread and task of the process has said nothing",
            GAUGE,
            silences.map(|(part, silence)| (vec![("part", part.to_string())], silence.as_secs())).collect(),
        ));
        let (used, limit) = (&self.memory.used, &self.memory.limit);
        let memory = [
            ("sbc_memory_bytes", "Memory in use that can't be reclaimed; 0 without a limit", used),
            ("sbc_memory_limit_bytes", "Memory that the program may use; 0: no limit is known", limit),
        ];
        for (name, help, number) in memory {
            families.push(family(name, help, GAUGE, vec![(Vec::new(), number.load(Ordering::Relaxed))]));
        }
        families.push(family(
            "sbc_http_restarts_total",
            "How often what serves the pages ended or hung and was replaced",
            COUNTER,
            vec![(Vec::new(), self.http_restarts.load(Ordering::Relaxed))],
        ));
        families
    }
}

type Labels = Vec<(&'static str, String)>;

impl Sources {
    fn traffic(&self) -> [MetricFamily; 2] {
        let mut requests: Vec<(Labels, u64)> = Vec::new();
        let mut responses: Vec<(Labels, u64)> = Vec::new();
        for shard in &self.shards {
            for (direction, traffic) in [("received", &shard.traffic_received), ("sent", &shard.traffic_sent)]
            {
                for (method, count) in traffic.requests() {
                    add(
                        &mut requests,
                        vec![("direction", direction.to_owned()), ("method", method.to_owned())],
                        count,
                    );
                }
                for (code, count) in traffic.responses() {
                    add(
                        &mut responses,
                        vec![("code", code.to_string()), ("direction", direction.to_owned())],
                        count,
                    );
                }
            }
        }
        [
            family(
                "sbc_sip_requests_total",
                "SIP requests by method, retransmissions included",
                COUNTER,
                requests,
            ),
            family(
                "sbc_sip_responses_total",
                "SIP responses by code, retransmissions included",
                COUNTER,
                responses,
            ),
        ]
    }
}

fn add(numbers: &mut Vec<(Labels, u64)>, labels: Labels, count: u64) {
    match numbers.iter_mut().find(|number| number.0 == labels) {
        Some(number) => number.1 = number.1.saturating_add(count),
        None => numbers.push((labels, count)),
    }
}

fn family(name: &str, help: &str, kind: MetricType, numbers: Vec<(Labels, u64)>) -> MetricFamily {
    let metrics = numbers.into_iter().map(|(labels, number)| {
        let pairs = labels.into_iter().map(|(name, value)| {
            let mut pair = LabelPair::default();
            pair.set_name(name.to_owned());
            pair.set_value(value);
            pair
        });
        let mut metric = Metric::from_label(pairs.collect());
        if kind == COUNTER {
            let mut counter = Counter::default();
            counter.set_value(number as f64);
            metric.set_counter(counter);
        } else {
            let mut gauge = Gauge::default();
            gauge.set_value(number as f64);
            metric.set_gauge(gauge);
        }
        metric
    });
    let mut family = MetricFamily::default();
    family.set_name(name.to_owned());
    family.set_help(help.to_owned());
    family.set_field_type(kind);
    family.set_metric(metrics.collect());
    family
}
