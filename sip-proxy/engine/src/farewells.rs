//! BYEs that reached nobody because the phone's connection was gone. A phone that comes back believes in its call for as
//! long as nobody tells it otherwise: the BYE is sent once more over the flow by which it registers (RFC 5626 §5.3).

use std::collections::VecDeque;
use std::time::Duration;

use ahash::AHashMap;

use crate::dialog::Dialog;
use crate::flow::Flow;

/// So many are kept, the latest, and each for so long: until then its phone has registered, or its session has expired.
const KEPT: usize = 1000;
const LONGEST: Duration = Duration::from_secs(3600);

/// A BYE, and where its phone was.
#[derive(Debug, Clone)]
pub(crate) struct Farewell {
    pub(crate) dialog: Dialog,
    /// The connection that it came by, if it was sent elsewhere because that had closed.
    pub(crate) left: Option<Flow>,
    pub(crate) reason: Option<Box<[u8]>>,
}

#[derive(Debug)]
pub(crate) struct Farewells {
    /// On their way, by number.
    sent: AHashMap<u32, Farewell>,
    next: u32,
    /// Not delivered, and since when.
    undelivered: VecDeque<(Duration, Farewell)>,
}

impl Farewells {
    pub(crate) fn new() -> Self {
        Self { sent: AHashMap::new(), next: 0, undelivered: VecDeque::new() }
    }

    /// One is on its way; its number.
    pub(crate) fn sent(&mut self, farewell: Farewell) -> u32 {
        self.next = self.next.wrapping_add(1);
        self.sent.insert(self.next, farewell);
        self.next
    }

    /// It was heard.
    pub(crate) fn heard(&mut self, number: u32) {
        self.sent.remove(&number);
    }

    /// It was not.
    pub(crate) fn unheard(&mut self, number: u32, now: Duration) {
        let Some(farewell) = self.sent.remove(&number) else { return };
        if self.undelivered.len() >= KEPT {
            self.undelivered.pop_front();
        }
        self.undelivered.push_back((now, farewell));
    }

    /// Those of a phone that has moved from one flow to another.
    pub(crate) fn of(&mut self, from: Flow, now: Duration) -> Vec<Farewell> {
        self.undelivered.retain(|(since, _)| now.saturating_sub(*since) < LONGEST);
        let is_its = |farewell: &Farewell| farewell.dialog.flow == from || farewell.left == Some(from);
        let (its, others) =
            std::mem::take(&mut self.undelivered).into_iter().partition(|(_, one)| is_its(one));
        self.undelivered = others;
        let its: VecDeque<(Duration, Farewell)> = its;
        its.into_iter().map(|(_, farewell)| farewell).collect()
    }
}
