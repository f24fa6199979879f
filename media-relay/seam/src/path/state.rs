//! States of a path, and why they change.

use crate::words::words;

words! {
    /// Where the media of one direction of one m-line goes.
    pub enum PathState {
        /// Through the relay.
        Anchored = "anchored",
        /// Through the relay, while a NAT is learnt.
        Probing = "probing",
        /// Moved, not proven yet.
        Synchronising = "synchronising",
        /// From party to party, proven.
        Direct = "direct",
        /// On its way back to the relay.
        Returning = "returning",
    }
}

words! {
    /// Why the state changed.
    pub enum Reason {
        /// The call was answered.
        Answered = "answered",
        /// A way was found worth a try.
        Try = "try",
        /// The trial is over, and reports will tell; or they did, and it has proven the path.
        Trial = "trial",
        /// Reports confirmed both directions.
        Proven = "proven",
        /// The path is certain by configuration: no report has proven it, and none will.
        Certain = "certain",
        /// A report says that packets do not arrive.
        Refuted = "refuted",
        /// The checks of two phones that speak ICE have found no direct path in time, or no report has told of it.
        Unproven = "unproven",
        /// A phone sends to the relay again by itself.
        CameBack = "came_back",
        /// A phone refused to be moved.
        Refused = "refused",
        /// Reports stopped.
        ReportsStopped = "reports_stopped",
        /// The direct path loses more than the limit.
        Quality = "quality",
        /// An offer of one of the parties (hold, transfer, another codec).
        Renegotiated = "renegotiated",
        /// Told to leave the direct path by a party's offer, they stayed with each other.
        Clung = "clung",
        /// Policy wants it on the relay.
        Policy = "policy",
        /// Both are heard at the relay again.
        Heard = "heard",
        /// No RTP comes to the relay, while an end says that it sends directly, or reports count what it sends.
        Counted = "counted",
    }
}

words! {
    /// Why CRUSH endpoints move their media (docs/crush.md §7.1).
    pub enum HandoffReason {
        /// Both paths are synchronised.
        Synchronised = "synchronised",
        /// The direct path delivers nothing.
        Missing = "missing",
        /// The other path is better.
        Quality = "quality",
        /// The SBC or the application forbids the direct path.
        Policy = "policy",
        /// The local address changed.
        Network = "network_switch",
        /// Consent ran out (RFC 7675).
        Consent = "consent_lost",
        /// A comparison of both paths.
        Comparison = "comparison",
        /// The application asked.
        Application = "application",
    }
}

words! {
    /// What policy says of a call, the strictest first; may change at any moment.
    #[derive(PartialOrd, Ord)]
    pub enum Constraint {
        /// It stays on the relay, and comes back if it is not there.
        MustAnchor = "anchor",
        /// Its audio does; video of two endpoints in CRUSH may leave. Of phones, which are moved with all their media, all stays.
        VideoOnly = "video",
        /// It may be released where that is likely to work.
        MayRelease = "allow",
        /// It is released wherever that can work: a path that failed is tried once more after a rest, even unproven.
        PreferRelease = "prefer",
    }
}

impl Constraint {
    /// What it says of all media at once, as phones are moved.
    #[must_use]
    pub fn of_all_media(self) -> Self {
        if self == Self::VideoOnly { Self::MustAnchor } else { self }
    }
}
