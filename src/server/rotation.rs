//! Replaces the keys that seal session tickets when their time has come.

use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use crate::panics;
use crate::runtime::Cell;

/// A reload may have changed the schedule.
const LOOK: Duration = Duration::from_secs(5);
/// Also where a key could not be made.
const PAUSE: Duration = Duration::from_millis(10);

/// On a thread of its own, for as long as the process lives.
pub fn rotate_ticket_keys(cell: Arc<Cell>) -> std::io::Result<()> {
    let rotate = move || {
        loop {
            let now = Instant::now();
            let due = panics::contain(|| cell.load().rotate_ticket_keys(now)).flatten();
            let wait = due.map_or(LOOK, |due| due.saturating_duration_since(now));
            thread::sleep(wait.clamp(PAUSE, LOOK));
        }
    };
    panics::thread("ticket-keys", rotate)
}
