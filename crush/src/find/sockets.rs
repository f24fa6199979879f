//! Many sockets, each of which sends once: the other half of the birthday method (docs/crush.md §5.2, "sockets").
//!
//! The peer's NAT lets in whom the peer has shot at, for half a minute. So each new port has all shots of that time against it, as each shot
//! has all ports that are open. Repeating on old ports only what was sent before gains nothing: they have had their chance. At r new ports
//! and s shots a second nothing is met within t (up to half a minute) with the probability exp(-r·s·t²/64512).

use std::collections::VecDeque;

use crate::agent::SocketId;

/// Sockets that wait for their turn.
const AHEAD: usize = 8;

/// See the module.
#[derive(Debug)]
pub(super) struct Sockets {
    most: usize,
    fresh: VecDeque<SocketId>,
    /// Asked for, and not there.
    coming: usize,
    /// Have sent; the oldest first.
    sent: VecDeque<SocketId>,
}

impl Sockets {
    /// At most so many are open at a time.
    pub(super) fn new(most: usize) -> Self {
        Self { most: most.max(1), fresh: VecDeque::new(), coming: 0, sent: VecDeque::new() }
    }

    /// How many are to be opened now.
    pub(super) fn wanted(&mut self) -> Option<usize> {
        let have = self.fresh.len().saturating_add(self.coming);
        let count = AHEAD.min(self.most).saturating_sub(have);
        self.coming = self.coming.saturating_add(count);
        (count > 0).then_some(count)
    }

    pub(super) fn opened(&mut self, socket: SocketId) {
        self.coming = self.coming.saturating_sub(1);
        self.fresh.push_back(socket);
    }

    /// There are no more: so many are the most.
    pub(super) fn refused(&mut self) {
        self.coming = self.coming.saturating_sub(1);
        self.most = self.sent.len().saturating_add(self.fresh.len()).clamp(1, self.most);
    }

    /// The one that sends next.
    pub(super) fn next(&mut self) -> Option<SocketId> {
        let next = self.fresh.pop_front()?;
        self.sent.push_back(next);
        Some(next)
    }

    /// One that makes room for others, but for those that the peer has met.
    pub(super) fn spent(&mut self, is_met: impl Fn(SocketId) -> bool) -> Option<SocketId> {
        if self.sent.len().saturating_add(AHEAD) <= self.most {
            return None;
        }
        self.sent.pop_front().filter(|oldest| !is_met(*oldest))
    }

    /// Nothing can be sent before another is there.
    pub(super) fn is_idle(&self) -> bool {
        self.fresh.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn new_ports_take_the_place_of_old_ones_but_of_those_that_were_met() {
        let mut sockets = Sockets::new(64);
        let (mut next, mut open) = (0, HashSet::new());
        let mut sent = 0;
        for _ in 0..1000 {
            for _ in 0..sockets.wanted().unwrap_or(0) {
                next += 1;
                open.insert(SocketId(next));
                sockets.opened(SocketId(next));
            }
            sent += u32::from(sockets.next().is_some());
            if let Some(spent) = sockets.spent(|socket| socket == SocketId(3)) {
                open.remove(&spent);
            }
            assert!(open.len() <= 65, "{}", open.len());
        }
        assert!(sent == 1000 && open.contains(&SocketId(3)));
    }

    #[test]
    fn who_gets_no_more_sockets_goes_on_with_as_many_as_there_were() {
        let mut sockets = Sockets::new(64);
        let mut next = 0;
        for _ in 0..200 {
            for _ in 0..sockets.wanted().unwrap_or(0) {
                next += 1;
                if next > 20 && next < 30 { sockets.refused() } else { sockets.opened(SocketId(next)) }
            }
            let _ = sockets.next();
            let _ = sockets.spent(|_| false);
        }
        assert!(sockets.most <= 28 && !sockets.is_idle());
    }
}
