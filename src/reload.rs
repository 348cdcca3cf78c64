//! Reads everything anew and swaps it whole, or changes nothing and says why.

mod ageing;
mod block;
mod fetched;
mod files;
mod outside;
mod watch;

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Instant, SystemTime};

use crate::config::{Config, ConfigErrors, Problem};
use crate::fetch::Fetcher;
use crate::listener::Doorkeeper;
use crate::panics;
use crate::runtime::{Cell, Runtime, Surroundings};
use crate::telemetry::Telemetry;
use crate::tls;

use ageing::Ageing;
pub use fetched::first;
pub use files::{FileStates, directories_of};
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
    errors: BTreeMap<Trigger, String>,
    /// The files as they were before it read them.
    seen: FileStates,
}

/// Why there is a reload.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Trigger {
    /// Somebody asked for it: SIGHUP, `POST /reload`.
    Asked,
    FileChanged,
    /// A revocation list or a deny list: these wait for nothing else.
    ListChanged,
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
        let last = Last { seen, errors: BTreeMap::new() };
        Self { cell, surroundings, telemetry, doorkeeper, fetcher, last: Mutex::new(last) }
    }

    /// Reads the configuration and every file that it names. Blocks meanwhile: call it off the serving threads.
    pub fn reload(&self) -> Result<u64, String> {
        panics::contain(|| self.read_anew()).unwrap_or_else(|| Err(self.broke_off(Trigger::Asked)))
    }

    fn read_anew(&self) -> Result<u64, String> {
        panics::provoke("reload");
        let asked = SystemTime::now();
        let mut last = self.last();
        let current = self.cell.load_full();
        let file = &current.config.file;
        let read = Config::read(file).map_err(|errors| self.explain(errors, std::slice::from_ref(file)));
        let read = read.and_then(|config| {
            last.seen = FileStates::of(&config);
            let runtime = self.load(config)?;
            let runtime = if fetched::is_worth_waiting(&runtime, &current) {
                self.fetcher.obtain(fetched::wanted(&runtime), fetched::PATIENCE);
                last.seen = FileStates::of(&runtime.config);
                self.load(runtime.config)?
            } else {
                runtime
            };
            fetched::refuse_lost(runtime, &current)
        });
        self.put_in_force_or_refuse(&mut last, read, Trigger::Asked, asked)
    }

    /// Reads the files anew that the configuration in force names, if one of them changed. Not the configuration itself:
    /// what somebody is still writing takes no effect by itself, and holds up no revocation.
    pub fn refresh(&self) {
        if panics::contain(|| self.read_changed()).is_none() {
            self.broke_off(Trigger::FileChanged);
        }
    }

    fn read_changed(&self) {
        let mut last = self.last();
        let config = self.cell.load().config.clone();
        let seen = FileStates::of(&config);
        if seen == last.seen {
            return;
        }
        log::info!("a file that the configuration names has changed");
        panics::provoke("refresh");
        let since = seen.changed_at(&last.seen).unwrap_or_else(SystemTime::now);
        let mut changed = seen.changed_since(&last.seen);
        last.seen = seen;
        self.renew_lists(&mut last, &mut changed, since);
        // What failed because of a list is tried again now that the list may be right.
        let has_failed = |trigger| last.errors.contains_key(&trigger);
        if changed.is_empty()
            && !has_failed(Trigger::FileChanged)
            && !(has_failed(Trigger::Asked) && config.is_what_the_file_says())
        {
            return;
        }
        let current = self.cell.load_full();
        let read = self.load(config).and_then(|runtime| {
            // A list is not waited for. What changes meanwhile has not been seen yet: a list takes effect right after.
            let runtime = if fetched::lacks_staple(&runtime, &current) {
                self.fetcher.obtain(fetched::wanted(&runtime), fetched::PATIENCE);
                self.load(runtime.config)?
            } else {
                runtime
            };
            fetched::refuse_lost(runtime, &current)
        });
        // Its result is in the log, in `/status` and in the metrics.
        let _ = self.put_in_force_or_refuse(&mut last, read, Trigger::FileChanged, since);
    }

    /// Revocation lists and deny lists among the files that have `changed` are read before anything else, and what can be
    /// read of them takes effect whatever else is wrong.
    fn renew_lists(&self, last: &mut Last, changed: &mut BTreeSet<PathBuf>, since: SystemTime) {
        let current = self.cell.load_full();
        let config = &current.config;
        let mut lists = changed.clone();
        lists.retain(|path| config.is_list(path));
        if lists.is_empty() {
            return;
        }
        // A certificate may lie in a directory of lists.
        let (places, files) = (config.list_places(), config.files());
        changed.retain(|path| !lists.contains(path) || files.contains(path) && !places.contains(path));
        if last.errors.contains_key(&Trigger::ListChanged) {
            // What is in force may be more than the files say.
            lists.extend(places);
        }
        let renewed = current.renew(&lists, &self.surroundings, tls::now());
        let put =
            renewed.runtime.map(|runtime| self.put_in_force(last, runtime, Trigger::ListChanged, since));
        if !renewed.problems.is_empty() {
            let errors = ConfigErrors { file: config.file.clone(), problems: renewed.problems };
            let errors = self.explain(errors, &files::watched(config));
            let effect = if put.is_some() { "lists that can be read take effect" } else { "nothing changes" };
            self.refused(last, &errors, Trigger::ListChanged, effect);
        } else if put.is_none() {
            last.errors.remove(&Trigger::ListChanged);
            self.surroundings.metrics.reload_succeeded(!last.errors.is_empty());
        }
    }

    fn put_in_force_or_refuse(
        &self,
        last: &mut Last,
        read: Result<Runtime, ConfigErrors>,
        trigger: Trigger,
        changed: SystemTime,
    ) -> Result<u64, String> {
        match read {
            Ok(runtime) => Ok(self.put_in_force(last, runtime, trigger, changed)),
            Err(errors) => {
                let effect = "the configuration before it stays in force";
                Err(self.refused(last, &errors, trigger, effect))
            }
        }
    }

    /// `changed`: when the newest of what it was made of changed.
    fn put_in_force(&self, last: &mut Last, runtime: Runtime, trigger: Trigger, changed: SystemTime) -> u64 {
        self.fetcher.follow(fetched::wanted(&runtime));
        let generation = runtime.generation;
        let before = self.cell.load_full();
        let told: BTreeSet<&String> = before.warnings().collect();
        // Who asks is told everything; else what was told already is left out.
        let is_new = |warning: &&String| trigger == Trigger::Asked || !told.contains(warning);
        for warning in runtime.warnings().filter(is_new) {
            log::warn!("{warning}");
        }
        self.telemetry.follow(&runtime.config.logging);
        runtime.take_effect(&self.surroundings.metrics);
        self.cell.store(runtime);
        let (in_force, lag) = (Instant::now(), changed.elapsed());
        // Files that are right do not mend a configuration that is wrong, nor lists other files. But if nobody has touched
        // the configuration, what failed when somebody asked was a file.
        let is_whole = trigger == Trigger::FileChanged && before.config.is_what_the_file_says();
        last.errors.retain(|failed, _| !is_whole && *failed < trigger);
        self.surroundings.metrics.reload_succeeded(!last.errors.is_empty());
        log::info!("configuration reloaded, generation {generation}");
        let reviewed = self.doorkeeper.review_after(&before, in_force, tls::now());
        if reviewed.has_changed {
            // A clock that was set back meanwhile measures nothing.
            self.surroundings.metrics.revocation().in_force_after(lag.unwrap_or_default());
        }
        if reviewed.ended > 0 {
            log::warn!("{} open connections ended: their clients may no longer enter", reviewed.ended);
        }
        generation
    }

    fn refused(&self, last: &mut Last, errors: &ConfigErrors, trigger: Trigger, effect: &str) -> String {
        self.fetcher.follow(fetched::wanted(&self.cell.load()));
        let text = errors.to_string();
        self.surroundings.metrics.reload_failed();
        log::error!("reload refused, {effect}: {text}");
        last.errors.insert(trigger, text.clone());
        text
    }

    /// By a fault of the program. The next one is tried as if there had been none.
    fn broke_off(&self, trigger: Trigger) -> String {
        let at = "file".into();
        let found = "reading it broke off by a fault of the program (the log says where)".into();
        let problem = Problem { at, found, expected: None, hint: Some("please report it".into()) };
        let file = self.cell.load().config.file.clone();
        let errors = ConfigErrors { file, problems: vec![problem] };
        self.refused(
            &mut self.last(),
            &errors,
            trigger,
            "what was in force stays so, unless the log says otherwise",
        )
    }

    fn load(&self, config: Config) -> Result<Runtime, ConfigErrors> {
        let named = files::watched(&config);
        let loaded = Runtime::load(config, Some(&self.cell.load_full()), &self.surroundings, tls::now());
        loaded.map_err(|errors| self.explain(errors, &named))
    }

    fn explain(&self, errors: ConfigErrors, named: &[PathBuf]) -> ConfigErrors {
        outside::tell(errors, named, &self.surroundings.confinement)
    }

    /// Tells of lists in force that nobody has replaced in time.
    fn tell_of_old_lists(&self, ageing: &mut Ageing) {
        for notice in ageing.look(&self.cell.load_full(), tls::now()) {
            log::warn!("{notice}");
        }
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
        self.last().errors.values().next().cloned()
    }

    pub fn surroundings(&self) -> &Surroundings {
        &self.surroundings
    }
}
