//! The border between C and Rust: no panic crosses it, and a failure leaves a sentence behind.

use std::cell::{Cell, UnsafeCell};
use std::ffi::c_char;
use std::fmt::{self, Write};
use std::panic::{self, AssertUnwindSafe};
use std::sync::Once;

use libc::c_int;

use crate::failure::Failure;

/// The longest sentence, with its NUL; longer ones are cut.
const LENGTH: usize = 512;

/// The last failure's sentence. Fixed in size and without a destructor: it can be written when there
/// is no memory, and read until the thread ends.
struct Sentence {
    bytes: UnsafeCell<[u8; LENGTH]>,
    len: Cell<usize>,
}

thread_local! {
    static LAST: Sentence =
        const { Sentence { bytes: UnsafeCell::new([0; LENGTH]), len: Cell::new(0) } };
    /// Calls of this library that this thread is in.
    static INSIDE: Cell<u32> = const { Cell::new(0) };
    /// Callbacks of the caller's that this thread is in.
    static CALLBACKS: Cell<u32> = const { Cell::new(0) };
}

impl Sentence {
    fn clear(&self) {
        self.len.set(0);
        // SAFETY: only this thread has the buffer, and no reference to it outlives a method.
        unsafe { (*self.bytes.get())[0] = 0 };
    }
}

impl Write for &Sentence {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        // SAFETY: as in `clear`.
        let bytes = unsafe { &mut *self.bytes.get() };
        let from = self.len.get();
        let mut room = (LENGTH - 1 - from).min(text.len());
        while !text.is_char_boundary(room) {
            room -= 1;
        }
        bytes[from..from + room].copy_from_slice(&text.as_bytes()[..room]);
        bytes[from + room] = 0;
        self.len.set(from + room);
        Ok(())
    }
}

fn record(arguments: fmt::Arguments<'_>) {
    LAST.with(|last| {
        last.clear();
        // It never fails.
        let mut last: &Sentence = last;
        let _ = last.write_fmt(arguments);
    });
}

/// The answer to a failure of the function `name`.
#[cold]
#[inline(never)]
pub(crate) fn fail(name: &str, failure: &Failure) -> c_int {
    record(format_args!("{name}: {}", failure.text()));
    failure.code()
}

/// Runs the function `name`. A panic in it is a failure.
pub(crate) fn enter(name: &str, call: impl FnOnce() -> Result<c_int, Failure>) -> c_int {
    match catch(call) {
        Some(Ok(answer)) => answer,
        Some(Err(failure)) => fail(name, &failure),
        None => {
            // The hook has recorded what was said.
            -libc::ENOTRECOVERABLE
        }
    }
}

/// Runs `call`; `None` if it panicked.
pub(crate) fn catch<T>(call: impl FnOnce() -> T) -> Option<T> {
    hear_panics();
    INSIDE.with(|inside| inside.set(inside.get() + 1));
    // What a panic leaves half done is reached by later calls only through the cache, whose own
    // guards put it right, or through this crate's locks, under which nothing panics.
    let result = panic::catch_unwind(AssertUnwindSafe(call));
    INSIDE.with(|inside| inside.set(inside.get() - 1));
    result.ok()
}

/// Runs a callback of the caller's; `None` if it panicked.
pub(crate) fn callback<T>(call: impl FnOnce() -> T) -> Option<T> {
    CALLBACKS.with(|depth| depth.set(depth.get() + 1));
    let result = catch(call);
    CALLBACKS.with(|depth| depth.set(depth.get() - 1));
    result
}

/// Whether this thread is in a callback.
pub(crate) fn is_in_callback() -> bool {
    CALLBACKS.with(|depth| depth.get() > 0)
}

/// What a panic says inside a call goes to `regcache_last_error()`; a library prints nothing. All
/// others are the program's own.
fn hear_panics() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let others = panic::take_hook();
        panic::set_hook(Box::new(move |news| {
            if INSIDE.try_with(|inside| inside.get() == 0).unwrap_or(true) {
                return others(news);
            }
            record(format_args!("panic: {news}"));
        }));
    });
}

/// `regcache_last_error()`
#[unsafe(no_mangle)]
pub extern "C" fn regcache_last_error() -> *const c_char {
    LAST.with(|last| last.bytes.get().cast_const().cast())
}

/// `regcache_version()`
#[unsafe(no_mangle)]
pub extern "C" fn regcache_version() -> *const c_char {
    concat!(env!("CARGO_PKG_VERSION"), "\0").as_ptr().cast()
}

#[cfg(test)]
mod tests {
    use std::ffi::CStr;

    use super::*;

    fn last() -> String {
        // SAFETY: it is a string of this thread.
        unsafe { CStr::from_ptr(regcache_last_error()) }.to_str().unwrap().to_owned()
    }

    #[test]
    fn a_panic_is_an_error_with_its_own_words() {
        assert_eq!(enter("f", || panic!("{}", "ouch")), -libc::ENOTRECOVERABLE);
        assert!(last().contains("ouch"), "{}", last());
    }

    #[test]
    fn a_sentence_is_cut_between_characters() {
        let long = "é".repeat(LENGTH);
        assert_eq!(enter("f", || Err(Failure::invalid(long))), -libc::EINVAL);
        assert!(last().len() < LENGTH && last().starts_with("f: é"));
    }
}
