//! Connections whose peers have shown a password, by whose it was. They are served before strangers', so one user must
//! not have all of them: beyond as many as his phones and calls can need, his oldest closes.

use std::collections::VecDeque;
use std::sync::Arc;

use ahash::AHashMap;

use crate::config::Limits;
use crate::flow::ConnectionId;

#[derive(Debug)]
pub(crate) struct Proven {
    /// Oldest first.
    of: AHashMap<Arc<str>, VecDeque<ConnectionId>>,
    whose: AHashMap<ConnectionId, Arc<str>>,
}

impl Proven {
    pub(crate) fn new() -> Self {
        Self { of: AHashMap::new(), whose: AHashMap::new() }
    }

    /// A user has shown over a connection who he is; the one that must close for it.
    pub(crate) fn note(
        &mut self,
        aor: &Arc<str>,
        connection: ConnectionId,
        limits: &Limits,
    ) -> Option<ConnectionId> {
        if limits.calls_per_user == 0 || self.whose.contains_key(&connection) {
            return None;
        }
        self.whose.insert(connection, aor.clone());
        let all = self.of.entry(aor.clone()).or_default();
        all.push_back(connection);
        if all.len() <= limits.calls_per_user.saturating_add(limits.bindings_per_aor) {
            return None;
        }
        let oldest = all.pop_front()?;
        self.whose.remove(&oldest);
        Some(oldest)
    }

    pub(crate) fn closed(&mut self, connection: ConnectionId) {
        let Some(aor) = self.whose.remove(&connection) else { return };
        let Some(all) = self.of.get_mut(&aor) else { return };
        all.retain(|open| *open != connection);
        if all.is_empty() {
            self.of.remove(&aor);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_user_has_as_many_connections_as_phones_and_calls_and_then_the_oldest_gives_way() {
        let limits = Limits { calls_per_user: 2, bindings_per_aor: 1, ..Limits::default() };
        let [alice, bob]: [Arc<str>; 2] = ["alice@a".into(), "bob@a".into()];
        let mut proven = Proven::new();
        let mut note = |aor, number| proven.note(aor, ConnectionId(number), &limits).map(|closed| closed.0);
        assert_eq!([1, 2, 3, 3].map(|number| note(&alice, number)), [None; 4]);
        assert_eq!((note(&bob, 4), note(&alice, 5), note(&alice, 6)), (None, Some(1), Some(2)));
        (3..=6).for_each(|number| proven.closed(ConnectionId(number)));
        assert!(proven.of.is_empty() && proven.whose.is_empty());
        assert_eq!(proven.note(&alice, ConnectionId(7), &Limits { calls_per_user: 0, ..limits }), None);
    }
}
