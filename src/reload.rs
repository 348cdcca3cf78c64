//! Reads everything anew and swaps it whole, or changes nothing and says why.

mod fetched;
mod files;
mod watch;

use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::config::{Config, ConfigErrors};
use crate::fetch::Fetcher;
use crate::listener::Doorkeeper;
use crate::runtime::{Cell, Runtime, Surroundings};
use crate::telemetry::Telemetry;
use crate::tls;

pub use fetched::first;
pub use files::FileStates;
pub use watch::watch;

/// What SIGHUP and `POST /reload` call, and who watches the files.
pub struct Reloader {
    cell: Arc<Cell>,
    surroundings: Surroundings,
    telemetry: Arc<Telemetry>,
    doorkeeper: Arc<Doorkeeper>,
    fetcher: Arc<Fetcher>,
    /// One at a time.
    last: Mutex<Last>,
}

/// What the last reload came to.
#[derive(Default)]
struct Last {
    /// Why it failed, if nothing has mended it since.
    error: Option<(Trigger, String)>,
    /// The files as they were before it read them.
    seen: FileStates,
}

/// Why there is a reload.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Trigger {
    /// Somebody asked for it: SIGHUP, `POST /reload`.
    Asked,
    FileChanged,
}

impl Reloader {
    /// `seen`: the files as they were before the configuration in force was loaded.
    pub fn new(
        cell: Arc<Cell>,
        surroundings: Surroundings,
        telemetry: Arc<Telemetry>,
        doorkeeper: Arc<Doorkeeper>,
        fetcher: Arc<Fetcher>,
        seen: FileStates,
    ) -> Self {
        let last = Last { seen, error: None };
        Self { cell, surroundings, telemetry, doorkeeper, fetcher, last: Mutex::new(last) }
    }

    /// Reads the configuration and every file that it names. Blocks meanwhile: call it off the serving threads.
    pub fn reload(&self) -> Result<u64, String> {
        let mut last = self.last();
        let current = self.cell.load_full();
        let read = Config::read(&current.config.file).and_then(|config| {
            last.seen = FileStates::of(&config);
            let runtime = self.load(config)?;
            if fetched::lost(&runtime, &current).is_empty() {
                return Ok(runtime);
            }
            self.fetcher.obtain(fetched::wanted(&runtime), fetched::PATIENCE);
            last.seen = FileStates::of(&runtime.config);
            self.load(runtime.config).and_then(|runtime| fetched::refuse_lost(runtime, &current))
        });
        self.put_in_force(&mut last, read, Trigger::Asked)
    }

    /// Reads the files anew that the configuration in force names, if one of them changed. Not the configuration itself:
    /// what somebody is still writing takes no effect by itself, and holds up no revocation.
    pub fn refresh(&self) {
        let mut last = self.last();
        let config = self.cell.load().config.clone();
        let seen = FileStates::of(&config);
        if seen == last.seen {
            return;
        }
        log::info!("a file that the configuration names has changed");
        last.seen = seen;
        let current = self.cell.load_full();
        let read = self.load(config).and_then(|runtime| fetched::refuse_lost(runtime, &current));
        // Its result is in the log, in `/status` and in the metrics.
        let _ = self.put_in_force(&mut last, read, Trigger::FileChanged);
    }

    fn put_in_force(
        &self,
        last: &mut Last,
        read: Result<Runtime, ConfigErrors>,
        trigger: Trigger,
    ) -> Result<u64, String> {
        let metrics = &self.surroundings.metrics;
        match read {
            Ok(runtime) => {
                self.fetcher.follow(fetched::wanted(&runtime));
                let generation = runtime.generation;
                for warning in &runtime.warnings {
                    log::warn!("{warning}");
                }
                self.telemetry.follow(&runtime.config.logging);
                self.cell.store(runtime);
                // Files that are right do not mend a configuration that is wrong.
                last.error.take_if(|(failed, _)| trigger == Trigger::Asked || *failed == trigger);
                metrics.reload_succeeded(last.error.is_some());
                log::info!("configuration reloaded, generation {generation}");
                let ended = self.doorkeeper.review_all(tls::now());
                if ended > 0 {
                    log::warn!("{ended} open connections ended: their clients may no longer enter");
                }
                Ok(generation)
            }
            Err(errors) => {
                self.fetcher.follow(fetched::wanted(&self.cell.load()));
                let text = errors.to_string();
                metrics.reload_failed();
                log::error!("reload refused, the configuration before it stays in force: {text}");
                if trigger == Trigger::Asked || last.error.is_none() {
                    last.error = Some((trigger, text.clone()));
                }
                Err(text)
            }
        }
    }

    fn load(&self, config: Config) -> Result<Runtime, ConfigErrors> {
        Runtime::load(config, Some(&self.cell.load_full()), &self.surroundings, tls::now())
    }

    fn files(&self) -> Vec<PathBuf> {
        files::watched(&self.cell.load().config)
    }

    fn is_watching(&self) -> bool {
        self.cell.load().config.server.watch
    }

    fn last(&self) -> MutexGuard<'_, Last> {
        self.last.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Why the last reload failed, if what is in force is older than what is on disk.
    pub fn last_error(&self) -> Option<String> {
        self.last().error.as_ref().map(|(_, text)| text.clone())
    }

    pub fn surroundings(&self) -> &Surroundings {
        &self.surroundings
    }
}
