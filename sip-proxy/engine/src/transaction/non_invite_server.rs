//! The non-INVITE server transaction (RFC 3261 §17.2.2).

use bytes::Bytes;

use super::machine::{Port, Step};
use super::rest::Rest;

/// States of RFC 3261 figure 8.
#[derive(Debug)]
pub(super) enum NonInviteServer {
    /// The user has not answered yet.
    Trying,
    /// It answered provisionally.
    Proceeding { last: Bytes },
    /// The final response answers retransmissions.
    Completed { response: Bytes },
}

impl NonInviteServer {
    pub(super) fn start() -> Self {
        Self::Trying
    }

    /// A response of the user; only the first final one counts.
    pub(super) fn respond(&mut self, status: u16, response: Bytes, port: &mut Port<'_>) -> Step {
        match self {
            Self::Trying | Self::Proceeding { .. } => {
                port.send(response.clone());
                if status < 200 {
                    *self = Self::Proceeding { last: response };
                    return Step::Absorb;
                }
                if port.is_reliable() {
                    return Step::End;
                }
                port.end_after(port.patience());
                *self = Self::Completed { response };
                Step::Absorb
            }
            Self::Completed { .. } => Step::Absorb,
        }
    }

    /// As plain data, once it has its final response.
    pub(super) fn rest(&self) -> Option<Rest> {
        match self {
            Self::Trying | Self::Proceeding { .. } => None,
            Self::Completed { response } => Some(Rest::Responded(response.clone())),
        }
    }

    /// The request again.
    pub(super) fn retransmission(&mut self, port: &mut Port<'_>) {
        match self {
            Self::Trying => {}
            Self::Proceeding { last: response } | Self::Completed { response } => {
                let response = response.clone();
                port.send(response);
            }
        }
    }
}
