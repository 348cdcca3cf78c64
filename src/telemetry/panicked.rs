//! What is told of a panic: that it happened and where, and nothing of what a client sent.

use std::panic::PanicHookInfo;
use std::sync::Arc;

use super::metrics::Metrics;

/// One figure and one line of the log for each. The report of the standard library goes to stderr as well where somebody
/// asked for it (`RUST_BACKTRACE`).
pub(super) fn count(metrics: Arc<Metrics>) {
    let before = std::panic::take_hook();
    let is_wanted = std::env::var_os("RUST_BACKTRACE").is_some_and(|value| value != "0");
    std::panic::set_hook(Box::new(move |panic| {
        metrics.panicked();
        log::error!("{}", describe(panic));
        if is_wanted {
            before(panic);
        }
    }));
}

/// A message that stands in the source is told; one that was put together may hold what a client sent.
fn describe(panic: &PanicHookInfo<'_>) -> String {
    let thread = std::thread::current();
    let place = panic.location().map_or_else(String::new, |at| format!(" at {}:{}", at.file(), at.line()));
    let message = panic.payload().downcast_ref::<&'static str>();
    let message = message.map_or_else(String::new, |message| format!(": {message}"));
    format!(
        "a fault of the program ended what thread `{}` was doing: panic{place}{message}",
        thread.name().unwrap_or_default()
    )
}
