//! What a fault of the program (a panic) ends: the work it happened in, and nothing else.
//!
//! A task that serves a connection or a request ends alone: tokio catches what it panics with. What goes on for as long as the
//! process lives does its work in rounds, and each round is [contained](contain). Should such a thread or loop end all the same, the
//! process ends with it, since a gateway that no longer reloads, or no longer shows out whom a list names, is worse than
//! one that starts anew. Each panic is counted and logged where it happens, by the hook in `telemetry`.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::thread;

/// Of a process that lost what it cannot do without; what Rust itself ends with after a panic.
const EXIT_CODE: i32 = 101;

/// Does `work`; `None` where it panicked. What it changed half by then is behind locks and cells that others go on using, so
/// whoever calls this says what is to become of it.
pub fn contain<T>(work: impl FnOnce() -> T) -> Option<T> {
    catch_unwind(AssertUnwindSafe(work)).ok()
}

/// Starts a thread that the process cannot do without.
pub fn thread(name: &'static str, work: impl FnOnce() + Send + 'static) -> std::io::Result<()> {
    let work = move || {
        let _vital = Vital(name);
        work();
    };
    thread::Builder::new().name(name.into()).spawn(work).map(drop)
}

/// Held by what the process cannot do without: a panic that ends its holder ends the process.
pub struct Vital(pub &'static str);

impl Drop for Vital {
    fn drop(&mut self) {
        if thread::panicking() {
            log::error!("`{}` is gone by a fault of the program, so the gateway ends", self.0);
            log::logger().flush();
            std::process::exit(EXIT_CODE);
        }
    }
}

/// Panics where a test says so: in the file that the environment variable `PORTCULLIS_TEST_PANIC` names stands a `place`.
/// There is nothing of this in a release build.
#[cfg(debug_assertions)]
#[allow(clippy::manual_assert, reason = "an assertion would claim that it is a fault")]
pub fn provoke(place: &str) {
    use std::path::PathBuf;
    use std::sync::LazyLock;
    static FILE: LazyLock<Option<PathBuf>> =
        LazyLock::new(|| std::env::var_os("PORTCULLIS_TEST_PANIC").map(PathBuf::from));
    let Some(file) = &*FILE else { return };
    if std::fs::read_to_string(file).is_ok_and(|text| text.trim() == place) {
        panic!("a test asked for it");
    }
}

#[cfg(not(debug_assertions))]
#[inline(always)]
pub fn provoke(_place: &str) {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_panics_ends_alone() {
        assert_eq!(contain(|| 1), Some(1));
        assert_eq!(contain(|| if std::hint::black_box(true) { panic!("of a test") } else { 1 }), None);
    }

    #[test]
    fn what_ends_well_ends_nothing_else() {
        let (done, is_done) = std::sync::mpsc::channel();
        thread("short", move || done.send(()).unwrap()).unwrap();
        is_done.recv().unwrap();
        drop(Vital("nothing"));
    }
}
