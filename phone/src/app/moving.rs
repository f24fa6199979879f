//! Another network (docs/crush.md §9).

use std::net::{IpAddr, SocketAddr};

use bytes::Bytes;
use serde_json::json;
use sip_engine::ua::CallNumber;

use super::{App, Duration, flow, listener};
use crate::network;

impl App {
    /// Looks whether another address leads to the registrar now.
    pub(super) fn look(&mut self) {
        let Ok(address) = network::towards(self.place.registrar) else { return };
        if address != self.place.address && self.ending.ends_at.is_none() {
            self.switch(address);
        }
    }

    /// Another network (docs/crush.md §9): media first, then signalling.
    pub(super) fn switch(&mut self, address: IpAddr) {
        let now = self.clock.now();
        if self.signalling.bind(SocketAddr::new(address, self.options.port)).is_err() {
            // The address is not usable yet; the next look tries again.
            return;
        }
        self.place.address = address;
        self.report.tell(now.monotonic, None, "moved", json!({ "address": address.to_string() }));
        let numbers: Vec<CallNumber> = self.calls.keys().copied().collect();
        for number in &numbers {
            let Ok(sockets) = self.open() else { continue };
            self.disown(*number);
            let Some(call) = self.calls.get_mut(number) else { continue };
            call.moved(address, &sockets, now.monotonic);
            self.own(*number);
            self.settle_call(*number);
        }
        let listeners = vec![listener(&self.options, self.signalling.local())];
        self.agent.moved(listeners, flow(&self.options, self.place.registrar), now);
        if self.options.expires > 0 {
            self.agent.register(Duration::from_secs(u64::from(self.options.expires)), now);
        }
        for number in numbers {
            self.renegotiate(number);
        }
    }

    /// Offers what has changed, now or as soon as the call lets us.
    pub(super) fn renegotiate(&mut self, number: CallNumber) {
        let Some(call) = self.calls.get_mut(&number) else { return };
        let offer = Bytes::from(call.offer());
        call.due.is_offer = self.agent.reinvite(number, Some(offer), self.clock.now()).is_err();
    }
}
