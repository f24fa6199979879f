//! What the two hear, and what their agents have come to.

use std::time::Duration;

use crush::agent::Event as Agent;
use play::phone::device::Device;

use crate::world::World;

impl World {
    pub(crate) fn forget_silence(&mut self) {
        self.phones.iter_mut().for_each(|phone| *phone.longest_silence() = Duration::ZERO);
    }

    pub(crate) fn longest_silence(&mut self) -> Duration {
        let now = self.now;
        let of = |phone: &mut Device| (*phone.longest_silence()).max(now.saturating_sub(phone.heard()));
        self.phones.iter_mut().map(of).max().unwrap_or_default()
    }

    /// Whether somebody who is to hear something does not.
    pub(crate) fn is_silent(&self) -> bool {
        let limit = Duration::from_millis(250);
        self.phones.iter().any(|phone| phone.is_hearing() && self.now > phone.heard() + limit)
    }

    /// Of each party where it sends, or what its agent has come to, and for how long it has heard nothing.
    pub(crate) fn ears(&self) -> [String; 2] {
        self.phones.each_ref().map(|phone| {
            let silence = self.now.saturating_sub(phone.heard());
            match phone {
                Device::Ordinary(phone) => format!("{:?}, {silence:?}", phone.target),
                Device::Crush(phone) => format!("{:?}, {silence:?}", phone.events),
                Device::Ice(phone) => format!("{phone:?}, {silence:?}"),
            }
        })
    }

    /// Whether an agent has ever looked for the other end.
    pub(crate) fn has_looked(&self) -> bool {
        let looks = |event: &Agent| !matches!(event, Agent::Connecting | Agent::Relayed { .. });
        self.phones
            .iter()
            .any(|phone| matches!(phone, Device::Crush(phone) if phone.events.iter().any(looks)))
    }
}
