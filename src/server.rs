//! Assembles everything and runs it; the only module that knows all the others.

mod admin_service;
mod admin_socket;
mod admin_view;
mod rotation;
mod supervisor;
mod who;

use std::os::unix::fs::FileTypeExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use pingora_core::apps::HttpServerOptions;
use pingora_core::server::configuration::{Opt, ServerConf};
use pingora_core::server::{RunArgs, Server};
use pingora_core::services::background::background_service;
use pingora_proxy::HttpProxy;

use crate::census::{Census, Keeper};
use crate::config::{Config, ConfigErrors, ListenerConfig};
use crate::confinement::{Confinement, ConfinementError, Places};
use crate::fetch::Fetcher;
use crate::gateway::Gateway;
use crate::health::HealthChecker;
use crate::listener::{BindError, BoundSocket, Doorkeeper, Edge, LiveConnections, bind};
use crate::reload::{self, FileStates, Reloader};
use crate::runtime::{Cell, Runtime, Surroundings};
use crate::telemetry::{LogWriter, Metrics, Telemetry};
use crate::tls;
use admin_service::AdminService;
use admin_socket::AdminSocket;
use admin_view::AdminState;
use supervisor::{Readiness, StopSignals, Supervisor};

#[derive(Debug, thiserror::Error)]
pub enum StartError {
    #[error(transparent)]
    Config(#[from] ConfigErrors),
    #[error(transparent)]
    Bind(#[from] BindError),
    #[error(transparent)]
    Confinement(#[from] ConfinementError),
    #[error("the admin address cannot be used: {0}")]
    Admin(std::io::Error),
    #[error("the admin address `unix:{path}` cannot be used: {source}")]
    AdminPath { path: PathBuf, source: std::io::Error },
    #[error(
        "systemd passed two sockets named `{0}` (hint: one `ListenStream=` with a `FileDescriptorName=` of its own in \
         each .socket unit)"
    )]
    SameName(String),
    #[error("the sockets cannot be taken over at `{path}`: {source} (hint: `server.upgrade_socket`)")]
    Upgrade { path: PathBuf, source: std::io::Error },
    #[error("the log could not be started: {0}")]
    Log(std::io::Error),
    #[error("a thread could not be started: {0}")]
    Thread(std::io::Error),
}

/// Loads a configuration as `run` would, without serving it.
pub fn load(config: Config) -> Result<Runtime, StartError> {
    let surroundings = surroundings(Arc::new(Metrics::new()), Confinement::none());
    Ok(Runtime::load(config, None, &surroundings, tls::now())?)
}

/// What asks only gives nothing up.
fn surroundings(metrics: Arc<Metrics>, confinement: Confinement) -> Surroundings {
    Surroundings { metrics, started: Instant::now(), confinement: Arc::new(confinement) }
}

/// Serves until told to stop. `upgrade`: take the sockets over from a running process.
pub fn run(file: &Path, upgrade: bool) -> Result<(), StartError> {
    let config = Config::read(file)?;
    let mut taken = Taken::reserve(&config, upgrade)?;
    let confinement = confine(&config, upgrade)?;
    let metrics = Arc::new(Metrics::new());
    let log = LogWriter::start(&config.logging, metrics.clone()).map_err(StartError::Log)?;
    let telemetry = Arc::new(Telemetry::new(metrics.clone(), log, &config.logging));
    confinement.tell();
    let surroundings = surroundings(metrics, confinement);
    let fetcher = Arc::new(Fetcher::start(surroundings.metrics.clone()).map_err(StartError::Thread)?);
    let (runtime, files) = reload::first(config, &surroundings, &fetcher)?;
    for warning in runtime.warnings() {
        log::warn!("{warning}");
    }
    taken.listen(upgrade)?;
    let loaded = Loaded { runtime, files, surroundings, fetcher };
    serve(loaded, telemetry, taken, upgrade)
}

/// While there is one thread only, and everything that takes privileges is done.
fn confine(config: &Config, upgrade: bool) -> Result<Confinement, StartError> {
    let mut places = Places::of(config, reload::directories_of(config));
    if let Some(socket) = config.server.upgrade_socket.as_deref().filter(|_| upgrade) {
        check_upgrade_socket(socket)
            .map_err(|source| StartError::Upgrade { path: socket.to_owned(), source })?;
        places = places.upgrading(socket);
    }
    Ok(Confinement::enter(&config.server.sandbox, places)?)
}

/// Pingora removes whatever is at this path and takes for granted that it can put a socket there.
fn check_upgrade_socket(path: &Path) -> std::io::Result<()> {
    if std::fs::symlink_metadata(path).is_ok_and(|found| !found.file_type().is_socket()) {
        let found = "it is there already, and is no socket";
        return Err(std::io::Error::new(std::io::ErrorKind::AlreadyExists, found));
    }
    let probe = path.with_extension(std::process::id().to_string());
    std::fs::File::create_new(&probe)?;
    std::fs::remove_file(probe)
}

/// The addresses that the process listens on.
struct Taken {
    /// `None`: it comes from the process that is being upgraded.
    listeners: Vec<Option<BoundSocket>>,
    admin: Vec<AdminSocket>,
}

impl Taken {
    /// Takes every port before anything starts, so that one in use is one clear error, and no privilege is needed later.
    fn reserve(config: &Config, upgrade: bool) -> Result<Self, StartError> {
        let mut passed = supervisor::sockets_from_systemd().map_err(StartError::SameName)?;
        let mut take = |listener: &ListenerConfig| {
            if upgrade {
                return Ok(None);
            }
            Ok::<_, StartError>(Some(bind(&listener.address, &mut |name| passed.remove(name))?))
        };
        let listeners = config.listeners.iter().map(&mut take).collect::<Result<_, _>>()?;
        let addresses = config.admin.iter().flat_map(|admin| &admin.addresses);
        let admin =
            addresses.map(|address| AdminSocket::reserve(address, upgrade)).collect::<Result<_, _>>()?;
        Ok(Self { listeners, admin })
    }

    /// What is behind them is there: clients are let in as soon as somebody accepts.
    fn listen(&mut self, upgrade: bool) -> Result<(), StartError> {
        self.listeners.iter().flatten().try_for_each(BoundSocket::listen)?;
        self.admin.iter_mut().try_for_each(|socket| socket.listen(upgrade))
    }
}

/// What the process starts with.
struct Loaded {
    runtime: Runtime,
    files: FileStates,
    surroundings: Surroundings,
    fetcher: Arc<Fetcher>,
}

fn serve(loaded: Loaded, telemetry: Arc<Telemetry>, taken: Taken, upgrade: bool) -> Result<(), StartError> {
    let Taken { listeners: sockets, admin } = taken;
    let Loaded { runtime, files, surroundings, fetcher } = loaded;
    runtime.take_effect(&surroundings.metrics);
    let settings = runtime.config.server.clone();
    let conf = pingora_conf(&settings);
    let cell = Arc::new(Cell::new(runtime));
    let open = Arc::new(LiveConnections::default());
    let doorkeeper = Arc::new(Doorkeeper::new(cell.clone(), open.clone(), telemetry.clone()));
    let reloader = Arc::new(Reloader::new(
        cell.clone(),
        surroundings,
        telemetry.clone(),
        doorkeeper.clone(),
        fetcher.clone(),
        files,
    ));
    let readiness = Arc::new(Readiness::default());
    let census = {
        let (metrics, cell) = (telemetry.metrics.clone(), cell.clone());
        Arc::new(Census::new(open.clone(), metrics, tls::now, move || cell.load().config.census))
    };
    let keeper = Keeper::start(census.clone(), settings.state_directory.as_deref());
    let keeper = Arc::new(keeper.map_err(StartError::Thread)?);

    let mut server = Server::new_with_opt_and_conf(Opt { upgrade, ..Opt::default() }, conf);
    server.bootstrap();

    let gateway = Gateway::new(cell.clone(), telemetry.clone());
    let mut proxy = HttpProxy::new(gateway, server.configuration.clone());
    let mut options = HttpServerOptions::default();
    options.h2_idle_timeout = Some(h2_idle_timeout(&cell));
    proxy.server_options = Some(options);
    proxy.handle_init_modules();
    let started = {
        let readiness = readiness.clone();
        move || readiness.started()
    };
    doorkeeper.clone().start(tls::now).map_err(StartError::Thread)?;
    let edge =
        Edge::new(cell.clone(), telemetry.clone(), proxy, sockets, open.clone(), doorkeeper.clone(), started);
    server.add_service(edge);
    if !admin.is_empty() {
        let state = AdminState {
            cell: cell.clone(),
            reloader: reloader.clone(),
            telemetry: telemetry.clone(),
            readiness: readiness.clone(),
            live: open.clone(),
            doorkeeper,
            census,
        };
        server.add_service(AdminService::new(admin, state));
    }
    let mut health = background_service("health", HealthChecker::new(supervisor::pools(cell.clone())));
    health.threads = Some(1);
    server.add_service(health);
    let mut drain = background_service(
        "supervisor",
        Supervisor::new(open, readiness, telemetry, keeper.clone(), settings.drain_timeout),
    );
    drain.threads = Some(1);
    server.add_service(drain);
    reload::watch(reloader.clone()).map_err(StartError::Thread)?;
    rotation::rotate_ticket_keys(cell).map_err(StartError::Thread)?;
    let refreshed = reloader.clone();
    fetcher.notify(Arc::new(move || refreshed.refresh()));
    supervisor::reload_on_hangup(reloader).map_err(StartError::Thread)?;
    let shutdown_signal = Box::new(StopSignals { upgrade_socket: settings.upgrade_socket.clone() });
    server.run(RunArgs { shutdown_signal });
    keeper.close();
    Ok(())
}

/// Pingora knows one value for all listeners: the longest that any of them allows. It is read at start only.
fn h2_idle_timeout(cell: &Cell) -> Duration {
    let runtime = cell.load();
    let timeouts = runtime.listeners.iter().map(|listener| listener.limits.keepalive_timeout);
    timeouts.max().unwrap_or(Duration::from_secs(60))
}

fn pingora_conf(settings: &crate::config::ServerSettings) -> ServerConf {
    let mut conf = ServerConf {
        threads: settings.threads,
        // A connection stays on one thread: nothing is stolen, little is shared.
        work_stealing: false,
        // The supervisor ends the process as soon as the last connection did; these are the upper bounds.
        grace_period_seconds: Some(settings.drain_timeout.as_secs() + 1),
        graceful_shutdown_timeout_seconds: Some(1),
        upstream_keepalive_pool_size: 1024,
        // The gateway itself decides whether a request may be sent again.
        max_retries: 16,
        ..ServerConf::default()
    };
    if let Some(socket) = &settings.upgrade_socket {
        conf.upgrade_sock = socket.to_string_lossy().into_owned();
    }
    conf
}
