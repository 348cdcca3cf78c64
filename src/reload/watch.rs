//! Notices when a file that the configuration names has become another one, and has it read.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::thread;
use std::time::{Duration, Instant};

use notify::{Config, Event, RecommendedWatcher, RecursiveMode, Watcher};

use super::Reloader;
use super::ageing::Ageing;
use super::files::directories;
use crate::panics;
use crate::tls;

/// Quiet for so long: whoever writes several files, or one in pieces, is done.
const QUIET: Duration = Duration::from_millis(100);

/// However busy the directory is, nobody waits longer.
const LONGEST: Duration = Duration::from_millis(400);

/// Also without any event: the configuration may name other files now, and network file systems tell nothing.
const LOOK: Duration = Duration::from_secs(2);

/// Watches on a thread of its own, for as long as the process lives.
pub fn watch(reloader: Arc<Reloader>) -> std::io::Result<()> {
    let (tell, told) = channel();
    let watcher = RecommendedWatcher::new(
        move |event: notify::Result<Event>| {
            // To read a file is no change, and would never end: each reload reads them.
            if !event.is_ok_and(|event| event.kind.is_access()) {
                let _ = tell.send(());
            }
        },
        Config::default(),
    );
    let watcher = watcher
        .inspect_err(|error| {
            log::warn!(
                "files are looked at every {LOOK:?} only, since they cannot be watched: {error} (hint: raise \
                        fs.inotify.max_user_instances)"
            );
        })
        .ok();
    let mut watch = Watch { reloader, watcher, watched: BTreeSet::new(), ageing: Ageing::since(tls::now()) };
    watch.follow();
    panics::thread("watch", move || watch.run(&told))
}

struct Watch {
    reloader: Arc<Reloader>,
    watcher: Option<RecommendedWatcher>,
    watched: BTreeSet<PathBuf>,
    ageing: Ageing,
}

impl Watch {
    fn run(&mut self, told: &Receiver<()>) {
        loop {
            match told.recv_timeout(LOOK) {
                Ok(()) => settle(told),
                Err(RecvTimeoutError::Timeout) => {}
                // There is no watcher: only the clock.
                Err(RecvTimeoutError::Disconnected) => thread::sleep(LOOK),
            }
            panics::provoke("watch");
            // The next look may find what this one broke off at in order.
            panics::contain(|| self.look());
        }
    }

    fn look(&mut self) {
        self.reloader.tell_of_old_lists(&mut self.ageing);
        if self.reloader.is_watching() {
            // Links may lead elsewhere now, so that what comes next happens in other directories.
            self.follow();
            self.reloader.refresh();
        }
    }

    /// Watches the directories of all files, not the files: a file that is replaced takes its watch with it.
    fn follow(&mut self) {
        let Some(watcher) = &mut self.watcher else { return };
        let wanted = directories(&self.reloader.files());
        for gone in self.watched.difference(&wanted) {
            // It may be gone already.
            let _ = watcher.unwatch(gone);
        }
        // Watching again what is watched costs nothing, and is needed where a directory was replaced.
        self.watched = wanted
            .into_iter()
            .filter(|directory| watcher.watch(directory, RecursiveMode::NonRecursive).is_ok())
            .collect();
    }
}

fn settle(told: &Receiver<()>) {
    let until = Instant::now() + LONGEST;
    while Instant::now() < until && told.recv_timeout(QUIET).is_ok() {}
}
