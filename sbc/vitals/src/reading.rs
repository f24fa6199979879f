//! A mistake in the reading of one message costs that message.

use std::any::Any;
use std::cell::Cell;
use std::panic::{PanicHookInfo, UnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

thread_local! {
    static IS_CONTAINED: Cell<bool> = const { Cell::new(false) };
}

/// The reading panicked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Panicked;

/// Reads what a stranger wrote. The bound keeps out what a panic could leave half done (`&mut`, cells): `read` owns or
/// only looks at what it is given, and what it makes is dropped. Do not talk the compiler out of it.
pub fn contained<T>(read: impl FnOnce() -> T + UnwindSafe) -> Result<T, Panicked> {
    let before = IS_CONTAINED.replace(true);
    let result = catch_unwind(read);
    IS_CONTAINED.set(before);
    result.map_err(|_| Panicked)
}

/// Has panics told in the log. The words of one can quote what was being read, a password among it: only those that
/// are part of the program are told. Of contained ones, which a stranger may repeat, one a second.
pub fn tell_panics() {
    static LAST: AtomicU64 = AtomicU64::new(0);
    std::panic::set_hook(Box::new(|info| {
        let is_contained = IS_CONTAINED.get();
        if is_contained {
            let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
            if LAST.swap(now, Ordering::Relaxed) == now {
                return;
            }
        }
        let thread = std::thread::current();
        let thread = thread.name().unwrap_or("unnamed");
        let place = info.location().map(ToString::to_string).unwrap_or_default();
        tracing::error!(thread, place, is_contained, "panic: {}; please report it", words(info));
    }));
}

fn words<'a>(info: &'a PanicHookInfo<'_>) -> &'a str {
    spoken(info.payload())
}

fn spoken(payload: &(dyn Any + Send)) -> &str {
    if let Some(words) = payload.downcast_ref::<&'static str>() {
        return words;
    }
    // Numbers only.
    let formatted = payload.downcast_ref::<String>().filter(|words| words.starts_with("index out of bounds"));
    formatted.map_or("(its words may quote a message)", |words| words)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_in_reading_is_an_error_and_its_words_are_told_only_if_they_quote_nothing() {
        assert_eq!(contained(|| 7), Ok(7));
        let octets = b"ab".to_vec();
        assert_eq!(contained(move || octets[octets.len()]), Err(Panicked));
        assert!(!IS_CONTAINED.get());
        assert_eq!(spoken(&"attempt to add with overflow"), "attempt to add with overflow");
        let quoting: Box<dyn Any + Send> =
            Box::new("not a boundary; it is inside 'é' of `secret`".to_owned());
        assert!(!spoken(&*quoting).contains("secret"));
    }
}
