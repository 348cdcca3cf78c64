//! The thread of the census: fetches who has come, forgets who stayed away, and sees that the file follows.

use std::io;
use std::path::Path;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::Census;
use super::entry::Moment;
use super::file::{CensusFile, Found, Writer};
use super::ledger::Ledger;
use crate::certificate::Fingerprint;
use crate::panics;
use crate::telemetry::Written;

/// How long clients that came wait at most until they are counted.
const TICK: Duration = Duration::from_millis(250);

/// How often clients of connections that stay open are seen again, and those who stayed away are forgotten.
const ROUND: Duration = Duration::from_secs(1800);

/// How often the file is written: what a crash may cost.
const WRITE: Duration = Duration::from_secs(600);

/// How long a stop waits for the last write.
const LAST_WRITE: Duration = Duration::from_secs(5);

/// Ends the thread, with everything written.
pub struct Keeper {
    stop: Mutex<Option<SyncSender<SyncSender<()>>>>,
}

impl Keeper {
    /// `directory`: where the file is kept; without one the census lasts as long as the process.
    pub fn start(census: Arc<Census>, directory: Option<&Path>) -> io::Result<Self> {
        let file = directory.map(|directory| {
            let opened = CensusFile::new(directory);
            opened.inspect_err(|error| {
                log::error!(
                    "the census of client certificates is kept in memory only: nothing can be written to `{}`: {error}",
                    directory.display()
                );
            })
        });
        if file.is_none() && (census.settings)().maximum > 0 {
            log::info!(
                "the census of client certificates is kept in memory only (hint: `server.state_directory` names a \
                 directory for it)"
            );
        }
        let file = file.and_then(Result::ok);
        let (stop, stopped) = sync_channel(1);
        let keeping = Keeping { census, file, failed: false };
        panics::thread("census", move || keeping.run(&stopped))?;
        Ok(Self { stop: Mutex::new(Some(stop)) })
    }

    /// Writes what was seen, once and for all. Bounded: a disk that hangs holds up no stop.
    pub fn close(&self) {
        let Some(stop) = self.stop.lock().unwrap_or_else(PoisonError::into_inner).take() else { return };
        let (done, is_done) = sync_channel(1);
        if stop.send(done).is_ok() && is_done.recv_timeout(LAST_WRITE).is_err() {
            log::error!("the census could not be written within {LAST_WRITE:?}");
        }
    }
}

impl Drop for Keeper {
    fn drop(&mut self) {
        self.close();
    }
}

struct Keeping {
    census: Arc<Census>,
    file: Option<CensusFile>,
    /// The last write did; it is told once.
    failed: bool,
}

impl Keeping {
    fn run(mut self, stop: &Receiver<SyncSender<()>>) {
        if let Err(error) = self.read() {
            log::warn!("the census of an earlier run cannot be read: {error}");
        }
        let (mut round, mut write) = (Instant::now() + ROUND, Instant::now() + WRITE);
        loop {
            let stopping = stop.recv_timeout(TICK);
            panics::contain(|| self.census.receive());
            let now = Instant::now();
            if now >= round || stopping.is_ok() {
                panics::contain(|| self.go_round());
                round = now + ROUND;
            }
            if now >= write || stopping.is_ok() {
                panics::contain(|| self.write());
                write = now + WRITE;
            }
            match stopping {
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return,
                Ok(done) => {
                    // Whoever asked may have stopped waiting.
                    let _ = done.try_send(());
                    return;
                }
            }
        }
    }

    /// A client whose connection stays open for weeks makes no handshake, and is there all the same.
    fn go_round(&self) {
        let census = &self.census;
        let maximum = (census.settings)().maximum;
        let (window, mut open) = (census.window(), Vec::new());
        census.live.clients(|identity| open.push(identity.clone()));
        let mut ledger = census.ledger();
        if maximum == 0 {
            *ledger = Ledger::default();
            return;
        }
        for identity in &open {
            ledger.saw(identity, maximum, window.now);
        }
        ledger.forget_before(window.since);
    }

    /// What an earlier process left, or one that is being replaced has written meanwhile.
    fn read(&mut self) -> io::Result<()> {
        let maximum = (self.census.settings)().maximum;
        let Some(file) = &mut self.file else { return Ok(()) };
        match file.read_new(maximum)? {
            Found::Nothing => {}
            Found::Census(found) => {
                let mut ledger = self.census.ledger();
                ledger.unite(found, maximum);
                log::debug!("the census knows {} certificates", ledger.len());
            }
            Found::Broken { reason, put } => log::warn!(
                "the census in `{}` is broken and begins anew: {reason} (it was put aside as `{}`)",
                file.path().display(),
                put.display()
            ),
        }
        Ok(())
    }

    fn write(&mut self) {
        if (self.census.settings)().maximum == 0 {
            return;
        }
        // What cannot be read is not overwritten.
        let read = self.read();
        let Some(file) = &mut self.file else { return };
        let census = &self.census;
        match read.and_then(|()| file.replace(|out| write(census, out))) {
            Ok(()) => {
                census.metrics.census.written(Written::Ok);
                if self.failed {
                    log::info!("the census is written again");
                }
                self.failed = false;
            }
            Err(error) => {
                census.metrics.census.written(Written::Failed);
                if !self.failed {
                    log::error!(
                        "the census cannot be kept in `{}`: {error} (hint: room on the disk, and a directory that \
                         this user may write to); it goes on in memory",
                        file.path().display()
                    );
                }
                self.failed = true;
            }
        }
    }
}

/// Nobody waits for the disk: the ledger is held for one block at a time, and frozen meanwhile, so that no entry changes
/// its place. What comes behind the last block of now is for the next time.
fn write(census: &Census, out: &mut dyn io::Write) -> io::Result<()> {
    let frozen = Frozen::new(census);
    let mut writer = Writer::begin(out)?;
    writer.subjects(&frozen.subjects)?;
    writer.count(frozen.count)?;
    let mut left = frozen.count;
    for number in 0.. {
        let Some(block) = census.ledger().block(number).map(<[_]>::to_vec) else { break };
        let block = &block[..block.len().min(left)];
        writer.entries(block)?;
        left -= block.len();
    }
    // Last, so that there is none among the entries that is not among these.
    let vouchers = census.ledger().vouchers().to_vec();
    writer.vouchers(&vouchers)?;
    writer.end()
}

/// No entry of the ledger goes until this is dropped.
struct Frozen<'a> {
    census: &'a Census,
    count: usize,
    subjects: Vec<(Moment, Fingerprint, Arc<str>)>,
}

impl<'a> Frozen<'a> {
    fn new(census: &'a Census) -> Self {
        let mut ledger = census.ledger();
        ledger.set_frozen(true);
        let subjects = ledger.soonest().iter();
        let subjects = subjects
            .map(|(not_after, fingerprint, subject)| (not_after, *fingerprint, subject.clone()))
            .collect();
        Self { census, count: ledger.len(), subjects }
    }
}

impl Drop for Frozen<'_> {
    fn drop(&mut self) {
        self.census.ledger().set_frozen(false);
    }
}
