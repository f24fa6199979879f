//! Phones whose registration is gone, and that may come back: in whatever order a connection closes, a binding ends and a
//! REGISTER arrives, the phone is found in its calls (RFC 5626 §5.3).

use std::collections::VecDeque;
use std::sync::Arc;

use ahash::AHashMap;

use super::BindingRecord;
use super::same::is_same_phone;
use crate::flow::Flow;

/// Registrations that are remembered, and of one AOR; the oldest go first.
const REMEMBERED: usize = 10_000;
const OF_ONE: usize = 4;

#[derive(Debug)]
pub(super) struct Lost {
    phones: AHashMap<Arc<str>, VecDeque<BindingRecord>>,
    order: VecDeque<Arc<str>>,
}

impl Lost {
    pub(super) fn new() -> Self {
        Self { phones: AHashMap::new(), order: VecDeque::new() }
    }

    /// A registration is gone.
    pub(super) fn remember(&mut self, record: BindingRecord) {
        if self.order.len() >= REMEMBERED
            && let Some(oldest) = self.order.pop_front()
            && let Some(phones) = self.phones.get_mut(&oldest)
        {
            phones.pop_front();
            if phones.is_empty() {
                self.phones.remove(&oldest);
            }
        }
        let aor = record.aor.clone();
        let phones = self.phones.entry(aor.clone()).or_default();
        phones.push_back(record);
        if phones.len() > OF_ONE {
            phones.pop_front();
        } else {
            self.order.push_back(aor);
        }
    }

    /// The flows that the phone of a new registration has left.
    pub(super) fn found(&mut self, new: &BindingRecord) -> Vec<Flow> {
        let Some(phones) = self.phones.get_mut(&new.aor) else { return Vec::new() };
        let (same, others): (VecDeque<_>, VecDeque<_>) =
            std::mem::take(phones).into_iter().partition(|known| is_same_phone(known, new));
        *phones = others;
        if phones.is_empty() {
            self.phones.remove(&new.aor);
        }
        for _ in &same {
            if let Some(at) = self.order.iter().position(|aor| *aor == new.aor) {
                self.order.remove(at);
            }
        }
        same.into_iter().map(|known| known.flow).collect()
    }
}
