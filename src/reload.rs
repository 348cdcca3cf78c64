//! Reads everything anew and swaps it whole, or changes nothing and says why.

use std::sync::{Arc, Mutex};

use crate::config::{Config, ConfigErrors};
use crate::listener::Doorkeeper;
use crate::runtime::{Cell, Runtime, Surroundings};
use crate::telemetry::Telemetry;
use crate::tls;

/// What SIGHUP and `POST /reload` call.
pub struct Reloader {
    cell: Arc<Cell>,
    surroundings: Surroundings,
    telemetry: Arc<Telemetry>,
    doorkeeper: Arc<Doorkeeper>,
    /// One at a time; holds why the last one failed.
    last_error: Mutex<Option<String>>,
}

impl Reloader {
    pub fn new(
        cell: Arc<Cell>,
        surroundings: Surroundings,
        telemetry: Arc<Telemetry>,
        doorkeeper: Arc<Doorkeeper>,
    ) -> Self {
        Self { cell, surroundings, telemetry, doorkeeper, last_error: Mutex::new(None) }
    }

    /// Blocks while files are read and tables are built: call it off the serving threads.
    pub fn reload(&self) -> Result<u64, String> {
        let mut last_error = self.last_error.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let metrics = &self.surroundings.metrics;
        match self.load() {
            Ok(runtime) => {
                let generation = runtime.generation;
                for warning in &runtime.warnings {
                    log::warn!("{warning}");
                }
                self.telemetry.follow(&runtime.config.logging);
                self.cell.store(Arc::new(runtime));
                *last_error = None;
                metrics.reload_succeeded();
                log::info!("configuration reloaded, generation {generation}");
                let ended = self.doorkeeper.review_all(tls::now());
                if ended > 0 {
                    log::warn!("{ended} open connections ended: their clients may no longer enter");
                }
                Ok(generation)
            }
            Err(errors) => {
                let text = errors.to_string();
                metrics.reload_failed();
                log::error!("reload refused, the configuration before it stays in force: {text}");
                *last_error = Some(text.clone());
                Err(text)
            }
        }
    }

    fn load(&self) -> Result<Runtime, ConfigErrors> {
        let current = self.cell.load_full();
        let config = Config::read(&current.config.file)?;
        Runtime::load(config, Some(&current), &self.surroundings, tls::now())
    }

    /// Why the last reload failed, if what is in force is older than what is on disk.
    pub fn last_error(&self) -> Option<String> {
        self.last_error.lock().unwrap_or_else(std::sync::PoisonError::into_inner).clone()
    }

    pub fn surroundings(&self) -> &Surroundings {
        &self.surroundings
    }
}
