//! Who is registered over which flow.

use std::net::SocketAddr;
use std::sync::Arc;

use ahash::{AHashMap, AHashSet};
use smallvec::SmallVec;

use crate::flow::{ConnectionId, Flow};

/// What tells flows apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum FlowKey {
    Datagrams(SocketAddr),
    Connection(ConnectionId),
}

impl FlowKey {
    fn of(flow: &Flow) -> Self {
        flow.connection.map_or(FlowKey::Datagrams(flow.remote), FlowKey::Connection)
    }
}

/// So many are looked through one by one.
const FEW: usize = 8;

/// Mostly one; several behind a gateway; behind a proxy that stands before an office or a town, thousands, none of
/// which may cost more than the first.
#[derive(Debug, Default)]
struct Members {
    few: SmallVec<[Arc<str>; 1]>,
    more: Option<Box<AHashSet<Arc<str>>>>,
}

impl Members {
    fn get(&self, aor: &str) -> Option<&Arc<str>> {
        let few = self.few.iter().find(|known| &***known == aor);
        few.or_else(|| self.more.as_ref()?.get(aor))
    }

    fn insert(&mut self, aor: Arc<str>) {
        if self.get(&aor).is_some() {
        } else if self.few.len() < FEW {
            self.few.push(aor);
        } else {
            self.more.get_or_insert_with(|| Box::new(AHashSet::new())).insert(aor);
        }
    }

    fn remove(&mut self, aor: &str) {
        self.few.retain(|known| &**known != aor);
        if let Some(more) = &mut self.more {
            more.remove(aor);
            if more.is_empty() {
                self.more = None;
            }
        }
    }

    fn iter(&self) -> impl Iterator<Item = &Arc<str>> {
        self.few.iter().chain(self.more.iter().flat_map(|more| more.iter()))
    }
}

/// AORs by the flow of one of their bindings.
#[derive(Debug)]
pub(super) struct Over(AHashMap<FlowKey, Members>);

impl Over {
    pub(super) fn new() -> Self {
        Self(AHashMap::new())
    }

    pub(super) fn insert(&mut self, flow: &Flow, aor: Arc<str>) {
        self.0.entry(FlowKey::of(flow)).or_default().insert(aor);
    }

    pub(super) fn remove(&mut self, flow: &Flow, aor: &str) {
        let key = FlowKey::of(flow);
        if let Some(members) = self.0.get_mut(&key) {
            members.remove(aor);
            if members.iter().next().is_none() {
                self.0.remove(&key);
            }
        }
    }

    /// The one who is claimed, if he is among them, or else one of them.
    pub(super) fn one(&self, flow: &Flow, claimed: Option<&str>) -> Option<Arc<str>> {
        let members = self.0.get(&FlowKey::of(flow))?;
        claimed.and_then(|aor| members.get(aor)).or_else(|| members.iter().next()).cloned()
    }

    pub(super) fn all(&self, connection: ConnectionId) -> Vec<Arc<str>> {
        let members = self.0.get(&FlowKey::Connection(connection));
        members.into_iter().flat_map(Members::iter).cloned().collect()
    }

    /// Whether both are one.
    pub(super) fn is_same(one: &Flow, other: &Flow) -> bool {
        FlowKey::of(one) == FlowKey::of(other)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::flow::{ListenerId, Transport};

    #[test]
    fn an_office_behind_one_flow_is_found_one_by_one_and_forgotten_so() {
        let flow = Flow {
            listener: ListenerId(0),
            transport: Transport::Udp,
            remote: "192.0.2.1:5060".parse().unwrap(),
            connection: None,
        };
        let aor = |number: usize| Arc::<str>::from(format!("{number}@x"));
        let mut over = Over::new();
        for number in (0..100).chain(0..100) {
            over.insert(&flow, aor(number));
        }
        assert!((0..100).all(|number| over.one(&flow, Some(&aor(number))) == Some(aor(number))));
        assert_eq!(over.one(&flow, Some("stranger@x")), Some(aor(0)));
        assert_eq!(over.one(&flow, None), Some(aor(0)));
        for number in 0..99 {
            over.remove(&flow, &aor(number));
            assert_ne!(over.one(&flow, Some(&aor(number))), Some(aor(number)));
        }
        assert_eq!(over.one(&flow, None), Some(aor(99)));
        over.remove(&flow, &aor(99));
        assert_eq!(over.one(&flow, None), None);
        assert!(over.0.is_empty());
    }
}
