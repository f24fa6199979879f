//! Parts, their beats, and their ends.

use std::cell::RefCell;
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::atomic::{AtomicBool, AtomicI32, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, Weak};
use std::task::Waker;
use std::time::{Duration, Instant};

use crate::seen::Seen;

/// The status of a process one of whose parts panicked or ended (`EX_SOFTWARE` of sysexits).
const DIED: i32 = 70;
/// The status of a process one of whose parts hung.
const HUNG: i32 = 71;
/// How long a dead part waits for the watchdog to end the process before it does so itself.
const BURIAL: Duration = Duration::from_secs(2);

thread_local! {
    /// The part whose code this thread runs.
    static CURRENT: RefCell<Option<Arc<Body>>> = const { RefCell::new(None) };
}

/// How a part is dead.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum How {
    /// It panicked.
    Panicked,
    /// It returned, or was dropped, though it should not.
    Returned,
    /// It said nothing for so long: of its own processor time, or by the clock.
    Hung(Duration),
}

/// A part that is dead.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Death {
    /// Its name.
    pub part: Arc<str>,
    /// How.
    pub how: How,
}

impl Death {
    /// The status that the process ends with: 70, or 71 if the part hung.
    pub fn status(&self) -> i32 {
        match self.how {
            How::Panicked | How::Returned => DIED,
            How::Hung(_) => HUNG,
        }
    }
}

impl fmt::Display for Death {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.how {
            How::Panicked => write!(out, "{} panicked", self.part),
            How::Returned => write!(out, "{} ended though it should not", self.part),
            How::Hung(time) => write!(out, "{} has not moved for {time:.1?}", self.part),
        }
    }
}

/// The parts of a process. Clones are one.
#[derive(Clone, Default)]
pub struct Vitals(pub(crate) Arc<Inner>);

#[derive(Default)]
pub(crate) struct Inner {
    parts: Mutex<Vec<Arc<Body>>>,
    state: Mutex<State>,
    pub(crate) changed: Condvar,
    is_retiring: AtomicBool,
}

#[derive(Default)]
pub(crate) struct State {
    pub(crate) death: Option<Death>,
    pub(crate) is_watched: bool,
    /// The death has been dealt with, and the process lives: in tests.
    pub(crate) is_buried: bool,
    /// When the watchdog last looked.
    pub(crate) looked: Option<Instant>,
}

/// What is known of a part.
pub(crate) struct Body {
    pub(crate) name: Arc<str>,
    pub(crate) beats: AtomicU64,
    pub(crate) rounds: AtomicU64,
    /// The thread that runs its code; 0 while none does.
    pub(crate) thread: AtomicI32,
    pub(crate) has_ended: AtomicBool,
    /// Its end and its silence are told, and do not end the process.
    pub(crate) is_replaced: bool,
    /// It waits for a device: its silence is told, its computing in circles ends the process.
    pub(crate) may_wait: bool,
    /// A round that takes longer is a hang, however often it beats.
    pub(crate) longest_round: Option<Duration>,
    pub(crate) waker: Mutex<Option<Waker>>,
    pub(crate) seen: Mutex<Seen>,
    vitals: Weak<Inner>,
    #[cfg(debug_assertions)]
    pub(crate) fault: crate::fault::Fault,
}

impl fmt::Debug for Vitals {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_list().entries(self.parts().iter().map(|body| body.name.clone())).finish()
    }
}

/// Locks that hold no state that a panic could leave half done.
pub(crate) fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Vitals {
    /// A part with this name, which an operator reads. It counts as alive from now on.
    pub fn part(&self, name: impl Into<Arc<str>>) -> Part {
        let body = Body {
            name: name.into(),
            beats: AtomicU64::new(0),
            rounds: AtomicU64::new(0),
            thread: AtomicI32::new(0),
            has_ended: AtomicBool::new(false),
            is_replaced: false,
            may_wait: false,
            longest_round: None,
            waker: Mutex::default(),
            seen: Mutex::default(),
            vitals: Arc::downgrade(&self.0),
            #[cfg(debug_assertions)]
            fault: Default::default(),
        };
        Part { body, vitals: self.clone() }
    }

    /// The process is about to stop: parts may end from now on. Panics and hangs are still deaths.
    pub fn retire(&self) {
        self.0.is_retiring.store(true, Ordering::Relaxed);
    }

    /// The first death, if there was one.
    pub fn death(&self) -> Option<Death> {
        locked(&self.0.state).death.clone()
    }

    pub(crate) fn state(&self) -> MutexGuard<'_, State> {
        locked(&self.0.state)
    }

    /// Those that have not ended.
    pub(crate) fn parts(&self) -> Vec<Arc<Body>> {
        let mut parts = locked(&self.0.parts);
        parts.retain(|body| !body.has_ended.load(Ordering::Relaxed));
        parts.clone()
    }

    fn enter(&self, body: Body) -> Arc<Body> {
        let body = Arc::new(body);
        locked(&self.0.parts).push(body.clone());
        body
    }

    /// The part with this name was replaced; what is left of it counts no more.
    pub fn forget(&self, name: &str) {
        self.parts().iter().filter(|body| &*body.name == name).for_each(|body| body.forget());
    }

    /// Does not return while the process ends for it: what a dead part has left half done, others of
    /// its thread must not go on with.
    fn bury(&self, death: Death) {
        let mut state = self.state();
        state.death.get_or_insert(death);
        self.0.changed.notify_all();
        if !state.is_watched {
            return;
        }
        let waited = self.0.changed.wait_timeout_while(state, BURIAL, |state| !state.is_buried);
        if waited.is_ok_and(|(state, _)| !state.is_buried) {
            // The watchdog itself is dead.
            std::process::exit(DIED);
        }
    }
}

impl Body {
    /// A part has ended, or has panicked in what belongs to it.
    pub(crate) fn ended(&self, how: How) {
        if self.has_ended.swap(true, Ordering::Relaxed) || self.is_replaced {
            return;
        }
        let Some(vitals) = self.vitals.upgrade().map(Vitals) else { return };
        if how == How::Panicked || !vitals.0.is_retiring.load(Ordering::Relaxed) {
            vitals.bury(Death { part: self.name.clone(), how });
        }
    }

    /// Takes a part that was replaced off the list.
    fn forget(&self) {
        self.has_ended.store(true, Ordering::Relaxed);
    }
}

/// A part that is about to begin.
pub struct Part {
    body: Body,
    vitals: Vitals,
}

impl Part {
    /// It says [`round`] at least so often, whatever it waits for; otherwise it hangs though it beats.
    pub fn rounds(mut self, longest: Duration) -> Self {
        self.body.longest_round = Some(longest);
        self
    }

    /// Whoever carries it replaces it when it is silent or has ended: the process goes on.
    pub fn replaced(mut self) -> Self {
        self.body.is_replaced = true;
        self
    }

    /// It waits for a device that may stand still for long.
    pub fn waits(mut self) -> Self {
        self.body.may_wait = true;
        self
    }

    /// The part is a thread, this one: `work` is its life, and beats at least four times a second.
    pub fn run<T>(self, work: impl FnOnce(&Pulse) -> T) -> T {
        let body = self.vitals.enter(self.body);
        let pulse = Pulse(body.clone());
        let turn = Turn::begin(body.clone());
        // Nothing that the part held is looked at afterwards: the process ends, or the panic goes on.
        let result = catch_unwind(AssertUnwindSafe(|| work(&pulse)));
        drop(turn);
        match result {
            Ok(value) => {
                body.ended(How::Returned);
                value
            }
            Err(panic) => {
                body.ended(How::Panicked);
                resume_unwind(panic)
            }
        }
    }

    /// The part is a task. It beats when it is polled, and the watchdog has it polled when it is idle.
    pub fn task<F: Future<Output = ()>>(self, future: F) -> crate::Task<F> {
        let body = self.vitals.enter(self.body);
        crate::Task::new(future, body)
    }
}

/// A thread's way to say that it lives.
pub struct Pulse(Arc<Body>);

impl Pulse {
    /// At each turn of a thread's loop. False only where a test has it end like that.
    #[must_use]
    pub fn beat(&self) -> bool {
        self.0.beats.fetch_add(1, Ordering::Relaxed);
        #[cfg(debug_assertions)]
        return !self.0.fault.strikes();
        #[cfg(not(debug_assertions))]
        true
    }
}

/// While a thread runs a part's code.
pub(crate) struct Turn {
    body: Arc<Body>,
    before: Option<Arc<Body>>,
}

impl Turn {
    pub(crate) fn begin(body: Arc<Body>) -> Self {
        body.beats.fetch_add(1, Ordering::Relaxed);
        body.thread.store(crate::thread::number(), Ordering::Relaxed);
        let before = CURRENT.with_borrow_mut(|current| current.replace(body.clone()));
        Self { body, before }
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        self.body.thread.store(0, Ordering::Relaxed);
        let before = self.before.take();
        CURRENT.with_borrow_mut(|current| *current = before);
    }
}

/// What a part starts beside itself, a connection say: it may end when it likes, but its panic is the part's, and while it
/// runs the part is not idle. For the thread of the part that calls this; elsewhere, and outside of parts, the future
/// is left as it is.
pub fn belonging<F: Future<Output = ()>>(future: F) -> crate::Belonging<F> {
    crate::Belonging::new(future, CURRENT.with_borrow(Clone::clone))
}

/// The part that runs here lives: in the middle of a long turn.
pub fn beat() {
    CURRENT.with_borrow(|current| {
        if let Some(body) = current {
            body.beats.fetch_add(1, Ordering::Relaxed);
        }
    });
}

/// The part that runs here has come round: it waits for nothing for ever.
pub fn round() {
    CURRENT.with_borrow(|current| {
        if let Some(body) = current {
            body.rounds.fetch_add(1, Ordering::Relaxed);
        }
    });
}
