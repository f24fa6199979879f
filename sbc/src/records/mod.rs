//! What is written down: the journal first, and from it the database; who is registered; and what is read back for a person.

pub mod bindings;
pub mod journal;
pub mod months;
pub mod read;
pub mod ship;
pub mod timeline;

use sip_engine::event::CallEvent;
use sip_engine::registrar::BindingChange;

use crate::host::Keeper;
use journal::Journal;

impl Keeper for Journal {
    fn keep_call(&self, event: CallEvent) -> u64 {
        self.submit(event)
    }

    fn keep_binding(&self, change: BindingChange) -> u64 {
        self.submit_binding(change)
    }

    fn await_ticket(&self, ticket: u64) {
        Self::await_ticket(self, ticket);
    }

    fn settled(&self) -> u64 {
        Self::settled(self)
    }

    fn is_stalled(&self) -> bool {
        Self::is_stalled(self)
    }
}
