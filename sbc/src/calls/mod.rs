//! Running calls: whoever wants something of one of them asks here, and is answered.

pub mod policy;

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use sip_engine::door::{CallAnswer, CallAnswered, CallId, CallOrder, NotDone};
use sip_engine::io::Command;
use sip_engine::slot::Slot;
use tokio::sync::oneshot;

use crate::host::Ear;

/// Signalling answers at once, but for what it must ask media first.
const PATIENCE: Duration = Duration::from_secs(5);

/// Why an order came to nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// Signalling says why.
    #[error(transparent)]
    NotDone(#[from] NotDone),
    /// Nobody has answered: the shard is overloaded or gone. What was ordered may still be done.
    #[error("the call's home has not answered in time")]
    Silent,
}

type Answer = Result<CallAnswer, NotDone>;
/// Hands a command to the shard that is a slot's home.
pub type Tell = Box<dyn Fn(Slot, Command) + Send + Sync>;

/// The door to the calls of this node.
pub struct Calls {
    node: u8,
    tell: Tell,
    patience: Duration,
    next: AtomicU64,
    /// Who waits for which answer.
    waiting: Mutex<HashMap<u64, oneshot::Sender<Answer>>>,
}

impl Calls {
    /// Of the node of this number.
    pub fn new(node: u8, tell: Tell) -> Self {
        Self { node, tell, patience: PATIENCE, next: AtomicU64::new(1), waiting: Mutex::default() }
    }

    fn waiting(&self) -> MutexGuard<'_, HashMap<u64, oneshot::Sender<Answer>>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether a call lives here, by its name.
    pub fn are_home_of(&self, id: CallId) -> bool {
        id.node() == self.node
    }

    /// Orders something of a call, and waits for what becomes of it.
    pub async fn order(&self, id: CallId, order: CallOrder) -> Result<CallAnswer, Refused> {
        if !self.are_home_of(id) {
            return Err(NotDone::Elsewhere.into());
        }
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let (answer, answered) = oneshot::channel();
        self.waiting().insert(number, answer);
        (self.tell)(id.slot(), Command::Call { id, number, order });
        let result = tokio::time::timeout(self.patience, answered).await;
        self.waiting().remove(&number);
        match result {
            Ok(Ok(answer)) => Ok(answer?),
            Ok(Err(_)) | Err(_) => Err(Refused::Silent),
        }
    }
}

impl Ear for Calls {
    fn answered(&self, answered: &CallAnswered) {
        if let Some(waiting) = self.waiting().remove(&answered.number) {
            let _ = waiting.send(answered.result.clone());
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, OnceLock};

    use super::*;

    const ID: CallId = CallId((1234 << 64) | (7 << 54) | 1);

    /// What was ordered, and of which slot.
    type Orders = Arc<Mutex<Vec<(u16, CallOrder)>>>;

    /// A door whose shards give this answer to every order.
    fn door(result: Answer) -> (Arc<Calls>, Orders) {
        let told = Arc::new(Mutex::new(Vec::new()));
        let door: Arc<OnceLock<Arc<Calls>>> = Arc::default();
        let (heard, back) = (told.clone(), door.clone());
        let tell = move |slot: Slot, command| {
            let Command::Call { number, order, .. } = command else { return };
            heard.lock().unwrap().push((slot.number(), order));
            if let Some(calls) = back.get() {
                calls.answered(&CallAnswered { number, result: result.clone() });
            }
        };
        let calls = Arc::new(Calls::new(7, Box::new(tell)));
        let _ = door.set(calls.clone());
        (calls, told)
    }

    #[tokio::test]
    async fn an_order_goes_to_the_slot_that_the_call_names_and_its_answer_comes_back() {
        let (calls, told) = door(Ok(CallAnswer::Done));
        assert_eq!(calls.order(ID, CallOrder::HangUp).await, Ok(CallAnswer::Done));
        assert_eq!(*told.lock().unwrap(), [(1234, CallOrder::HangUp)]);
        assert!(calls.waiting().is_empty());
    }

    #[tokio::test]
    async fn what_signalling_refuses_is_told_and_another_nodes_call_is_not_asked_for() {
        let (calls, told) = door(Err(NotDone::Over));
        assert_eq!(calls.order(ID, CallOrder::Query).await, Err(NotDone::Over.into()));
        let elsewhere = CallId(ID.0 ^ (1 << 54));
        assert_eq!(calls.order(elsewhere, CallOrder::Query).await, Err(NotDone::Elsewhere.into()));
        assert_eq!(told.lock().unwrap().len(), 1);
    }

    #[tokio::test]
    async fn a_home_that_says_nothing_is_waited_for_no_longer_than_is_said() {
        let calls = Calls { patience: Duration::from_millis(10), ..Calls::new(7, Box::new(|_, _| {})) };
        assert_eq!(calls.order(ID, CallOrder::Query).await, Err(Refused::Silent));
        assert!(calls.waiting().is_empty());
    }
}
