//! When which attempt is made.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender};
use std::thread;
use std::time::{Duration, Instant};

use super::{FetchError, Notice, Obtained, Order, Wanted};
use crate::panics;
use crate::telemetry::{FetchMetrics, FetchResult, Metrics};
use crate::tls;

/// At once; a thread each.
const MOST_AT_ONCE: usize = 8;

/// After the first failure; each further one doubles it.
const FIRST_RETRY: Duration = Duration::from_secs(5);

/// However rarely something is fetched: a failure is made good within this time.
const LONGEST_RETRY: Duration = Duration::from_secs(3600);

pub(super) struct Schedule {
    metrics: Arc<Metrics>,
    order: Sender<Order>,
    notice: Option<Notice>,
    /// By the file in which each is kept.
    entries: HashMap<PathBuf, Entry>,
    under_way: usize,
}

struct Entry {
    wanted: Wanted,
    metrics: Arc<FetchMetrics>,
    due: Instant,
    failures: u32,
    is_under_way: bool,
    /// Dropped after the next attempt: nobody receives anything but the end.
    waiting: Vec<Sender<()>>,
}

impl Schedule {
    pub(super) fn new(metrics: Arc<Metrics>, order: Sender<Order>) -> Self {
        Self { metrics, order, notice: None, entries: HashMap::new(), under_way: 0 }
    }

    pub(super) fn run(mut self, orders: &Receiver<Order>) {
        loop {
            let order = match panics::contain(|| self.start_due())
                .unwrap_or_else(|| Some(Instant::now() + FIRST_RETRY))
            {
                Some(next) => orders.recv_timeout(next.saturating_duration_since(Instant::now())),
                None => orders.recv().map_err(RecvTimeoutError::from),
            };
            match order {
                Ok(Order::Follow(wanted, waiting)) => {
                    let _ = panics::contain(|| self.follow(wanted, waiting.as_ref()));
                }
                Ok(Order::Notify(notice)) => {
                    self.notice = Some(notice.clone());
                    // Not here: it may take its time, and what is due does not wait.
                    start("fetched", move || notice());
                }
                Ok(Order::Ended(kept, result)) => {
                    let _ = panics::contain(|| self.ended(&kept, result));
                }
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return,
            }
        }
    }

    fn follow(&mut self, wanted: Vec<Wanted>, waiting: Option<&Sender<()>>) {
        let now = Instant::now();
        let mut before = std::mem::take(&mut self.entries);
        for wanted in wanted {
            let kept = wanted.kept().to_owned();
            let mut entry = before.remove(&kept).unwrap_or_else(|| Entry {
                metrics: wanted.metrics(&self.metrics),
                wanted: wanted.clone(),
                due: now,
                failures: 0,
                is_under_way: false,
                waiting: Vec::new(),
            });
            // What was lost meanwhile, or is to be fetched in another way, is not put off.
            let is_lost = wanted.is_missing() && (waiting.is_some() || !entry.wanted.is_missing());
            if is_lost || !wanted.is_same_way(&entry.wanted) {
                (entry.due, entry.failures) = (now, 0);
            }
            if wanted.is_missing() {
                entry.waiting.extend(waiting.cloned());
            }
            entry.wanted = wanted;
            self.entries.insert(kept, entry);
        }
    }

    /// Starts what is due. When the next is, if anything waits for nothing but the clock.
    fn start_due(&mut self) -> Option<Instant> {
        let now = Instant::now();
        for entry in self.entries.values_mut() {
            if self.under_way >= MOST_AT_ONCE {
                break;
            }
            if entry.due <= now && !entry.is_under_way {
                (entry.is_under_way, self.under_way) = (true, self.under_way + 1);
                attempt(entry.wanted.clone(), self.order.clone(), self.notice.clone());
            }
        }
        let idle = self.entries.values().filter(|entry| !entry.is_under_way);
        idle.map(|entry| entry.due).filter(|due| *due > now).min()
    }

    fn ended(&mut self, kept: &Path, result: Result<Obtained, FetchError>) {
        self.under_way -= 1;
        // It may be wanted no longer.
        let Some(entry) = self.entries.get_mut(kept) else { return };
        entry.is_under_way = false;
        entry.waiting.clear();
        let wait = if let Ok(obtained) = &result {
            entry.failures = 0;
            obtained.again
        } else {
            let doubled = FIRST_RETRY * 2_u32.saturating_pow(entry.failures.min(16));
            entry.failures += 1;
            doubled.min(LONGEST_RETRY).min(entry.wanted.longest_retry())
        };
        // A tenth of jitter keeps many gateways from falling into step.
        let wait = wait.mul_f64(rand::random_range(0.9..1.1));
        entry.due = Instant::now() + wait;
        entry.tell(&result, wait);
    }
}

impl Entry {
    fn tell(&self, result: &Result<Obtained, FetchError>, wait: Duration) {
        let name = self.wanted.name();
        match result {
            Ok(Obtained { what: Some(what), .. }) => {
                self.metrics.succeeded(FetchResult::New, tls::now());
                log::info!("{name} was fetched: {what}");
            }
            Ok(Obtained { what: None, .. }) => self.metrics.succeeded(FetchResult::Unchanged, tls::now()),
            Err(error) => {
                self.metrics.failed(error.result());
                log::warn!(
                    "{name} could not be fetched: {error}; {}; the next attempt is in {:.0} s (hint: {})",
                    self.wanted.meanwhile(),
                    wait.as_secs_f64(),
                    error.hint()
                );
            }
        }
    }
}

fn attempt(wanted: Wanted, order: Sender<Order>, notice: Option<Notice>) {
    let mut end = End { order, kept: wanted.kept().to_owned(), result: Some(Err(FetchError::Broken)) };
    let work = move || {
        let result = wanted.fetch(tls::now());
        let is_success = result.is_ok();
        end.result = Some(result);
        drop(end);
        // Only now: whoever waits for the end may hold what the notice needs.
        if let Some(notice) = notice.filter(|_| is_success) {
            notice();
        }
    };
    start("fetching", work);
}

fn start(name: &str, work: impl FnOnce() + Send + 'static) {
    if let Err(error) = thread::Builder::new().name(name.into()).spawn(work) {
        log::error!("no thread could be started to fetch something: {error}");
    }
}

/// Tells the schedule, whatever becomes of the attempt.
struct End {
    order: Sender<Order>,
    kept: PathBuf,
    result: Option<Result<Obtained, FetchError>>,
}

impl Drop for End {
    fn drop(&mut self) {
        if let Some(result) = self.result.take() {
            let _ = self.order.send(Order::Ended(std::mem::take(&mut self.kept), result));
        }
    }
}
