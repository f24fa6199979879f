//! The watchdog: sees who has not beaten, tells it, and ends the process for it.

use std::fmt;
use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use crate::part::{Body, Death, How, Vitals, locked};
use crate::seen::Seen;
use crate::thread::{activity, is_traced};

/// How often it looks.
const TICK: Duration = Duration::from_millis(50);
/// A part that said nothing for so long is asked.
const ASK: Duration = Duration::from_millis(250);
/// And after so long it counts as dead for those who ask.
const LATE: Duration = Duration::from_secs(2);
/// A part that has computed for so long without a beat will not end by itself. Its own processor time counts, not the
/// clock: on a machine that stands still, or under a debugger, nobody is at fault.
const BUSY: Duration = Duration::from_millis(700);

/// What the watchdog does.
pub struct Watch {
    /// A part that says nothing for so long, and does not compute either, ends the process; zero: it is only told.
    pub silence: Duration,
    /// At every look, while no part is dead: for a service manager that watches too.
    pub tick: Box<dyn FnMut() + Send>,
    /// Ends the process for a death.
    pub end: Box<dyn FnOnce(&Death) + Send>,
}

impl fmt::Debug for Watch {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("Watch").field("silence", &self.silence).finish_non_exhaustive()
    }
}

impl Vitals {
    /// Starts the watchdog. What died before ends the process now.
    pub fn watch(&self, watch: Watch) -> io::Result<()> {
        self.state().is_watched = true;
        let vitals = self.clone();
        // Its handle is nobody's: who looks after it is the service manager that it tells of itself, and the pages.
        std::thread::Builder::new().name("watchdog".to_owned()).spawn(move || vitals.look(watch)).map(drop)
    }

    /// The parts that have said nothing for two seconds or more, or whose round takes too long, and since when.
    pub fn silent(&self) -> Vec<(Arc<str>, Duration)> {
        let looked = { self.state().looked };
        let watchdog = looked.map(|at| at.elapsed()).filter(|silence| *silence > LATE);
        let mut silent: Vec<_> =
            watchdog.map(|silence| (Arc::from("watchdog"), silence)).into_iter().collect();
        for body in self.parts() {
            let seen = locked(&body.seen);
            if seen.silent >= LATE {
                silent.push((body.name.clone(), seen.silent));
            } else if body.longest_round.is_some_and(|longest| seen.waiting >= longest) {
                silent.push((body.name.clone(), seen.waiting));
            }
        }
        silent
    }

    /// Each part, and how long it has said nothing.
    pub fn silences(&self) -> Vec<(Arc<str>, Duration)> {
        self.parts().iter().map(|body| (body.name.clone(), locked(&body.seen).silent)).collect()
    }

    fn look(self, watch: Watch) {
        let Watch { silence, mut tick, end } = watch;
        #[cfg(debug_assertions)]
        let faults = crate::fault::file();
        let mut last = Instant::now();
        let death = loop {
            let state = self.state();
            let waited = self.0.changed.wait_timeout_while(state, TICK, |state| state.death.is_none());
            let now = Instant::now();
            // While the machine stood still nobody could beat.
            let elapsed = now.duration_since(last).min(TICK.saturating_mul(2));
            last = now;
            if let Ok((mut state, _)) = waited {
                if let Some(death) = &state.death {
                    break death.clone();
                }
                state.looked = Some(now);
            }
            #[cfg(debug_assertions)]
            if let Some(file) = &faults {
                crate::fault::look(file, &self);
            }
            if let Some(death) = self.parts().iter().find_map(|body| judge(body, elapsed, silence)) {
                break death;
            }
            tick();
        };
        end(&death);
        let mut state = self.state();
        state.death.get_or_insert(death);
        state.is_buried = true;
        self.0.changed.notify_all();
    }
}

/// How a part is, after a time.
fn judge(body: &Body, elapsed: Duration, silence: Duration) -> Option<Death> {
    let mut seen = locked(&body.seen);
    let (beats, rounds) = (body.beats.load(Ordering::Relaxed), body.rounds.load(Ordering::Relaxed));
    if rounds != seen.rounds {
        (seen.rounds, seen.waiting) = (rounds, Duration::ZERO);
    }
    seen.waiting = seen.waiting.saturating_add(elapsed);
    if beats != seen.beats {
        if seen.is_told {
            tracing::info!(part = &*body.name, "a part that was silent has moved again");
        }
        *seen = Seen { beats, rounds, waiting: seen.waiting, ..Seen::default() };
    } else {
        seen.silent = seen.silent.saturating_add(elapsed);
    }
    let hung = |time| Some(Death { part: body.name.clone(), how: How::Hung(time) });
    if let Some(longest) = body.longest_round
        && seen.waiting >= longest
        && !silence.is_zero()
        && !is_traced()
    {
        return hung(seen.waiting);
    }
    if seen.silent < ASK {
        return None;
    }
    if seen.silent >= seen.asked.saturating_add(ASK) {
        seen.asked = seen.silent;
        if let Some(waker) = &*locked(&body.waker) {
            waker.wake_by_ref();
        }
    }
    let thread = body.thread.load(Ordering::Relaxed);
    let activity = if thread == 0 { None } else { activity(thread) };
    let mut busy = Duration::ZERO;
    if let Some(activity) = activity {
        match seen.used {
            Some((before, used)) if before == thread => busy = activity.used.saturating_sub(used),
            _ => seen.used = Some((thread, activity.used)),
        }
    }
    if seen.silent >= LATE && !seen.is_told {
        seen.is_told = true;
        tracing::warn!(
            part = &*body.name,
            busy_ms = busy.as_millis() as u64,
            "a part of the process says nothing"
        );
    }
    if body.is_replaced || is_traced() {
        return None;
    }
    if busy >= BUSY {
        return hung(seen.silent);
    }
    let is_held = body.may_wait || activity.is_some_and(|activity| activity.is_held);
    if !silence.is_zero() && seen.silent >= silence && !is_held { hung(seen.silent) } else { None }
}
