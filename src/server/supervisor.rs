//! Start, reload and stop as the operating system asks for them.

use std::collections::HashMap;
use std::net::TcpListener;
use std::os::fd::FromRawFd;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use pingora_core::server::{ShutdownSignal, ShutdownSignalWatch, ShutdownWatch, UnixShutdownSignalWatch};
use pingora_core::services::background::BackgroundService;
use sd_notify::NotifyState;
use tokio::signal::unix::{SignalKind, signal};

use crate::census::Keeper;
use crate::listener::LiveConnections;
use crate::panics::{self, Vital};
use crate::reload::Reloader;
use crate::runtime::Cell;
use crate::telemetry::Telemetry;
use crate::upstream::UpstreamPool;

/// What `/readyz` answers.
#[derive(Default)]
pub struct Readiness(AtomicU8);

const STARTED: u8 = 1;
const DRAINING: u8 = 2;

impl Readiness {
    /// Every listener accepts.
    pub fn started(&self) {
        let _ = self.0.compare_exchange(0, STARTED, Ordering::AcqRel, Ordering::Acquire);
        log::info!("ready");
        let _ = sd_notify::notify(false, &[NotifyState::Ready]);
    }

    fn draining(&self) {
        self.0.store(DRAINING, Ordering::Release);
        let _ = sd_notify::notify(false, &[NotifyState::Stopping]);
    }

    pub fn is_ready(&self) -> bool {
        self.0.load(Ordering::Acquire) == STARTED
    }
}

/// Tells systemd that we live, and ends the process when the last connection of a drain is gone.
pub struct Supervisor {
    open: Arc<LiveConnections>,
    readiness: Arc<Readiness>,
    telemetry: Arc<Telemetry>,
    keeper: Arc<Keeper>,
    drain_timeout: Duration,
}

const DRAIN_POLL: Duration = Duration::from_millis(20);

impl Supervisor {
    pub fn new(
        open: Arc<LiveConnections>,
        readiness: Arc<Readiness>,
        telemetry: Arc<Telemetry>,
        keeper: Arc<Keeper>,
        drain_timeout: Duration,
    ) -> Self {
        Self { open, readiness, telemetry, keeper, drain_timeout }
    }

    async fn drain(&self) {
        self.readiness.draining();
        let deadline = Instant::now() + self.drain_timeout;
        log::info!("draining {} connections, at most {:?}", self.open.count(), self.drain_timeout);
        tokio::select! {
            () = self.last_connection(deadline) => {}
            // Pingora has stopped listening for signals by now, and whoever presses Ctrl-C means it.
            () = interrupted() => log::warn!("interrupted while draining"),
        }
        match self.open.count() {
            0 => log::info!("drained"),
            left => log::warn!("{left} connections are cut off at the drain deadline"),
        }
        self.keeper.close();
        self.telemetry.flush();
        std::process::exit(0);
    }

    async fn last_connection(&self, deadline: Instant) {
        while !self.open.are_gone() && Instant::now() < deadline {
            tokio::time::sleep(DRAIN_POLL).await;
        }
    }
}

/// Never, where the signal cannot be listened for.
async fn interrupted() {
    match signal(SignalKind::interrupt()) {
        Ok(mut interrupt) => drop(interrupt.recv().await),
        Err(_) => std::future::pending().await,
    }
}

/// The signals that end the process: Pingora's own, but that SIGQUIT hands sockets over to somebody or does nothing.
pub struct StopSignals {
    /// Where the process that takes over waits.
    pub upgrade_socket: Option<PathBuf>,
}

/// How long a process that was just started may take until it waits for our sockets; Pingora waits as long.
const SUCCESSOR_PATIENCE: Duration = Duration::from_secs(5);

#[async_trait]
impl ShutdownSignalWatch for StopSignals {
    async fn recv(&self) -> ShutdownSignal {
        let (Ok(mut quit), Ok(mut terminate), Ok(mut interrupt)) =
            (signal(SignalKind::quit()), signal(SignalKind::terminate()), signal(SignalKind::interrupt()))
        else {
            return UnixShutdownSignalWatch.recv().await;
        };
        loop {
            tokio::select! {
                _ = quit.recv() => {
                    if self.successor_waits().await {
                        return ShutdownSignal::GracefulUpgrade;
                    }
                    log::error!("SIGQUIT: no process waits for the sockets, so this one goes on serving \
                        (hint: start the new one with --upgrade first; SIGTERM stops without an upgrade)");
                }
                _ = terminate.recv() => return ShutdownSignal::GracefulTerminate,
                _ = interrupt.recv() => return ShutdownSignal::FastShutdown,
            }
        }
    }
}

impl StopSignals {
    async fn successor_waits(&self) -> bool {
        let deadline = Instant::now() + SUCCESSOR_PATIENCE;
        // To connect would be taken for the upgrade itself.
        while !self.upgrade_socket.as_ref().is_some_and(|socket| socket.exists()) {
            if Instant::now() >= deadline {
                return false;
            }
            tokio::time::sleep(DRAIN_POLL).await;
        }
        true
    }
}

#[async_trait]
impl BackgroundService for Supervisor {
    async fn start(&self, mut shutdown: ShutdownWatch) {
        let _vital = Vital("the supervisor");
        let watchdog = watchdog_interval();
        let mut tick = tokio::time::interval(watchdog.unwrap_or(Duration::from_secs(3600)));
        loop {
            tokio::select! {
                stopping = stopping(&mut shutdown) => {
                    if stopping {
                        self.drain().await;
                    }
                    return;
                }
                _ = tick.tick() => {
                    if watchdog.is_some() {
                        let _ = sd_notify::notify(false, &[NotifyState::Watchdog]);
                    }
                }
            }
        }
    }
}

/// False when the server is gone without having said so.
async fn stopping(shutdown: &mut ShutdownWatch) -> bool {
    shutdown.wait_for(|stopping| *stopping).await.is_ok()
}

/// Half of what systemd allows, as `sd_watchdog_enabled(3)` recommends.
fn watchdog_interval() -> Option<Duration> {
    let mut microseconds = 0;
    (sd_notify::watchdog_enabled(false, &mut microseconds) && microseconds > 0)
        .then(|| Duration::from_micros(microseconds / 2))
}

/// SIGHUP reads everything anew, on a thread of its own: loading a large table must not delay a request.
pub fn reload_on_hangup(reloader: Arc<Reloader>) -> std::io::Result<()> {
    let mut signals = signal_hook::iterator::Signals::new([signal_hook::consts::SIGHUP])?;
    panics::thread("reload", move || {
        for _ in signals.forever() {
            let _ = sd_notify::notify(false, &[NotifyState::Reloading]);
            // Its result is in the log, in `/status` and in the metrics.
            let _ = reloader.reload();
            let _ = sd_notify::notify(false, &[NotifyState::Ready]);
        }
    })
}

/// The sockets systemd passed, by name (`sd_listen_fds_with_names(3)`).
///
/// Two of one name are an error: only one of them could be served, and clients of the other would wait for ever.
pub fn sockets_from_systemd() -> Result<HashMap<String, TcpListener>, String> {
    let names = std::env::var("LISTEN_FDNAMES").unwrap_or_default();
    let mut sockets = HashMap::new();
    let Ok(fds) = sd_notify::listen_fds() else { return Ok(sockets) };
    for (fd, name) in fds.zip(names.split(':')) {
        // SAFETY: systemd passed the descriptor to this process, and it is taken only here, once.
        #[allow(unsafe_code)]
        let listener = unsafe { TcpListener::from_raw_fd(fd) };
        if sockets.insert(name.to_owned(), listener).is_some() {
            return Err(name.to_owned());
        }
    }
    Ok(sockets)
}

/// The pools in force, whichever configuration that is.
pub fn pools(cell: Arc<Cell>) -> Arc<dyn Fn() -> Vec<Arc<UpstreamPool>> + Send + Sync> {
    Arc::new(move || cell.load().pools.iter().cloned().collect())
}
