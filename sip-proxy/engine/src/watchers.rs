//! Who is told of whose dialogs (RFC 4235).

use std::sync::Arc;

use ahash::AHashMap;
use serde::{Deserialize, Serialize};
use sip_wire::{Message, Name};

use crate::question::Caller;

/// Who is told of whose dialogs.
#[derive(Debug)]
pub(crate) struct Watchers(AHashMap<Watch, u32>);

/// One subscription to the dialog events of an AOR (RFC 4235).
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Watch {
    pub(crate) watcher: Arc<str>,
    pub(crate) watched: Arc<str>,
}

impl Watch {
    /// What a SUBSCRIBE of a subscriber watches, if that are dialogs.
    pub(crate) fn of(subscribe: &Message, caller: &Caller) -> Option<Self> {
        let Caller::Subscriber { aor } = caller else { return None };
        let event = subscribe.value(Name::Event)?;
        let package = event.split(|byte| *byte == b';').next().unwrap_or_default().trim_ascii();
        let watched = crate::aor::aor_of(&sip_wire::Uri::parse(subscribe.request_uri()?).ok()?)?;
        package
            .eq_ignore_ascii_case(b"dialog")
            .then(|| Self { watcher: aor.clone(), watched: watched.into() })
    }
}

impl Watchers {
    pub(crate) fn new() -> Self {
        Self(AHashMap::new())
    }

    pub(crate) fn began(&mut self, watch: Watch) {
        let count = self.0.entry(watch).or_default();
        *count = count.saturating_add(1);
    }

    pub(crate) fn ended(&mut self, watch: &Watch) {
        if let Some(count) = self.0.get_mut(watch) {
            *count = count.saturating_sub(1);
            if *count == 0 {
                self.0.remove(watch);
            }
        }
    }

    pub(crate) fn has(&self, watcher: &Arc<str>, watched: &Arc<str>) -> bool {
        self.0.contains_key(&Watch { watcher: watcher.clone(), watched: watched.clone() })
    }

    pub(crate) fn is_idle(&self) -> bool {
        self.0.is_empty()
    }
}
