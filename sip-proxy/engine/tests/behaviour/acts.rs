//! What a telephone does, and all that follows from it.

use std::net::SocketAddr;

use sip_engine::time::Now;
use sip_engine::ua::{CallNumber, UserAgent};

use crate::line::Line;

impl Line {
    /// A telephone does something.
    pub(crate) fn by<R>(&mut self, phone: SocketAddr, act: impl FnOnce(&mut UserAgent, Now) -> R) -> R {
        let now = self.time();
        let done = act(self.agents.get_mut(&phone).unwrap(), now);
        self.settle();
        done
    }

    pub(crate) fn hang_up(&mut self, phone: SocketAddr, call: CallNumber) {
        self.by(phone, |agent, now| agent.hang_up(call, now)).unwrap();
    }
}
