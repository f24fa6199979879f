//! What a NAT has done, and why it did not do more.

/// Why a datagram went no further.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Dropped {
    /// UDP is blocked altogether.
    #[error("UDP is blocked")]
    Blocked,
    /// The path to or from this remote address was cut.
    #[error("the path is cut")]
    Cut,
    /// It would have opened a flow beyond the limit, or its host is being punished for that.
    #[error("too many new flows")]
    Limited,
    /// No mapping is at the external address that it was sent to.
    #[error("no mapping")]
    Unmapped,
    /// The mapping does not let this remote end in.
    #[error("filtered")]
    Filtered,
    /// It was sent to an external address from inside, and this NAT does not hairpin.
    #[error("no hairpinning")]
    Hairpin,
    /// No external port is free.
    #[error("no free port")]
    Exhausted,
}

/// What a NAT has done, in datagrams but for `mappings`, `flows` and `blocks`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counters {
    /// From inside to outside.
    pub outbound: u64,
    /// From outside to inside.
    pub inbound: u64,
    /// From inside to inside.
    pub hairpinned: u64,
    /// Mappings made.
    pub mappings: u64,
    /// Flows opened, where there is a limiter to count them: pairs of internal and remote address and port.
    pub flows: u64,
    /// Times that a host was blocked by the limiter.
    pub blocks: u64,
    /// Dropped, since UDP is blocked.
    pub blocked: u64,
    /// Dropped, since the path is cut.
    pub cut: u64,
    /// Dropped by the limiter.
    pub limited: u64,
    /// Dropped for want of a mapping.
    pub unmapped: u64,
    /// Dropped by a mapping's filter.
    pub filtered: u64,
    /// Dropped for want of hairpinning.
    pub unhairpinned: u64,
    /// Dropped for want of a port.
    pub exhausted: u64,
}

impl Counters {
    pub(crate) fn count(&mut self, dropped: Dropped) {
        *match dropped {
            Dropped::Blocked => &mut self.blocked,
            Dropped::Cut => &mut self.cut,
            Dropped::Limited => &mut self.limited,
            Dropped::Unmapped => &mut self.unmapped,
            Dropped::Filtered => &mut self.filtered,
            Dropped::Hairpin => &mut self.unhairpinned,
            Dropped::Exhausted => &mut self.exhausted,
        } += 1;
    }
}
