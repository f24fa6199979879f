//! What the kernel knows of a thread (proc(5)).

use std::time::Duration;

/// `USER_HZ`: what every Linux port of today says.
const TICKS_A_SECOND: u64 = 100;

thread_local! {
    static NUMBER: i32 = rustix::thread::gettid().as_raw_nonzero().get();
}

/// Of the calling thread.
pub(crate) fn number() -> i32 {
    NUMBER.with(|number| *number)
}

/// What a thread of this process does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Activity {
    /// Processor time that it has used, in steps of 10 ms.
    pub(crate) used: Duration,
    /// A device keeps it waiting, or somebody has stopped it: it is not its own fault that it is silent.
    pub(crate) is_held: bool,
}

/// `None` if there is no such thread, or no `/proc`.
pub(crate) fn activity(thread: i32) -> Option<Activity> {
    parse(&std::fs::read_to_string(format!("/proc/self/task/{thread}/stat")).ok()?)
}

fn parse(stat: &str) -> Option<Activity> {
    // The name, in brackets, may hold anything.
    let mut fields = stat.rsplit_once(')')?.1.split_ascii_whitespace();
    let state = fields.next()?;
    let user: u64 = fields.nth(10)?.parse().ok()?;
    let system: u64 = fields.next()?.parse().ok()?;
    let used = Duration::from_millis(user.saturating_add(system).saturating_mul(1000 / TICKS_A_SECOND));
    Some(Activity { used, is_held: matches!(state, "D" | "T" | "t") })
}

/// Whether a debugger holds this process: it stops threads for as long as somebody thinks.
pub(crate) fn is_traced() -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let tracer = status.lines().find_map(|line| line.strip_prefix("TracerPid:"));
    tracer.is_some_and(|tracer| tracer.trim() != "0")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_thread_that_works_uses_time_and_one_whose_name_is_odd_is_read_too() {
        let before = activity(number()).unwrap();
        let end = before.used + Duration::from_millis(50);
        while activity(number()).unwrap().used < end {}
        let odd = "7 (a) b (c)) D 1 1 1 0 -1 0 0 0 0 0 150 25 0 0 20 0 1 0 5 0";
        assert_eq!(parse(odd), Some(Activity { used: Duration::from_millis(1750), is_held: true }));
        assert_eq!(activity(i32::MAX), None);
    }
}
