//! The admin endpoints on a loopback port or a Unix socket, never on a public listener.

use std::os::fd::AsRawFd;
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::os::unix::net::{UnixListener as StdUnixListener, UnixStream};
use std::path::Path;
use std::sync::Arc;

use async_trait::async_trait;
use http::{Response, StatusCode};
use pingora_core::apps::ServerApp;
use pingora_core::apps::http_app::{HttpServer, ServeHttp};
use pingora_core::protocols::Stream;
use pingora_core::protocols::http::ServerSession;
use pingora_core::protocols::l4::stream::Stream as L4Stream;
use pingora_core::server::{ListenFds, ShutdownWatch};
use pingora_core::services::Service;
use serde_json::{Value, json};

use super::StartError;
use super::supervisor::Readiness;
use crate::admin::{self, AdminRequest, AdminView, Transport};
use crate::census::Census;
use crate::config::{AdminAddress, ListenAddress};
use crate::listener::{BoundSocket, bind, inherited};
use crate::reload::Reloader;
use crate::runtime::Cell;

/// Where the admin endpoints listen.
pub enum AdminSocket {
    Tcp { key: String, bound: Option<BoundSocket> },
    Unix(StdUnixListener),
}

impl AdminSocket {
    pub fn bind(address: &AdminAddress, upgrade: bool) -> Result<Self, StartError> {
        match address {
            AdminAddress::Tcp(address) => {
                let bound =
                    if upgrade { None } else { Some(bind(&ListenAddress::Tcp(*address), &mut |_| None)?) };
                Ok(Self::Tcp { key: format!("admin:{address}"), bound })
            }
            AdminAddress::Unix(path) => match unix(path, upgrade) {
                Ok(socket) => Ok(Self::Unix(socket)),
                Err(source) => Err(StartError::AdminPath { path: path.clone(), source }),
            },
        }
    }
}

/// Replaces a socket that an earlier run left behind, but never another kind of file, nor one that somebody answers on:
/// only an upgrade takes that over.
fn unix(path: &Path, upgrade: bool) -> std::io::Result<StdUnixListener> {
    if std::fs::symlink_metadata(path).is_ok_and(|metadata| metadata.file_type().is_socket()) {
        if !upgrade && UnixStream::connect(path).is_ok() {
            return Err(std::io::Error::new(std::io::ErrorKind::AddrInUse, "another process answers there"));
        }
        std::fs::remove_file(path)?;
    }
    let listener = StdUnixListener::bind(path)?;
    // Whoever may write to it may reload and read what the gateway knows: the owner only.
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600))?;
    listener.set_nonblocking(true)?;
    Ok(listener)
}

/// Serves the admin endpoints on a thread of its own.
pub struct AdminService {
    socket: Option<AdminSocket>,
    app: Arc<HttpServer<Admin>>,
}

/// What the endpoints look at.
#[derive(Clone)]
struct Admin {
    cell: Arc<Cell>,
    reloader: Arc<Reloader>,
    readiness: Arc<Readiness>,
    census: Arc<Census>,
    transport: Transport,
}

impl AdminService {
    pub fn new(
        socket: AdminSocket,
        cell: Arc<Cell>,
        reloader: Arc<Reloader>,
        readiness: Arc<Readiness>,
        census: Arc<Census>,
    ) -> Self {
        let transport = match &socket {
            AdminSocket::Tcp { .. } => Transport::Tcp,
            AdminSocket::Unix(_) => Transport::Unix,
        };
        let admin = Admin { cell, reloader, readiness, census, transport };
        Self { socket: Some(socket), app: Arc::new(HttpServer::new_app(admin)) }
    }

    async fn accept(&mut self, fds: Option<ListenFds>, shutdown: &ShutdownWatch) -> Result<(), StartError> {
        match self.socket.take() {
            Some(AdminSocket::Tcp { key, bound }) => {
                let socket = match bound {
                    Some(bound) => bound,
                    None => inherited(&key, fds.as_ref())?,
                };
                if let Some(fds) = &fds {
                    fds.lock().add(key, socket.as_raw_fd());
                }
                let listener = socket.into_tokio()?;
                loop {
                    match listener.accept().await {
                        Ok((tcp, _)) => self.serve(Box::new(L4Stream::from(tcp)), shutdown),
                        Err(error) => pause(&error).await,
                    }
                }
            }
            Some(AdminSocket::Unix(listener)) => {
                log::debug!("admin socket {}", listener.as_raw_fd());
                let listener = tokio::net::UnixListener::from_std(listener).map_err(StartError::Admin)?;
                loop {
                    match listener.accept().await {
                        Ok((unix, _)) => self.serve(Box::new(L4Stream::from(unix)), shutdown),
                        Err(error) => pause(&error).await,
                    }
                }
            }
            None => Ok(()),
        }
    }

    fn serve(&self, stream: Stream, shutdown: &ShutdownWatch) {
        let (app, shutdown) = (self.app.clone(), shutdown.clone());
        tokio::spawn(async move {
            app.process_new(stream, &shutdown).await;
        });
    }
}

async fn pause(error: &std::io::Error) {
    log::error!("the admin socket cannot accept: {error}");
    tokio::time::sleep(std::time::Duration::from_millis(100)).await;
}

#[async_trait]
impl Service for AdminService {
    async fn start_service(&mut self, fds: Option<ListenFds>, shutdown: ShutdownWatch, _: usize) {
        // It answers through a drain: `/readyz` says 503 then, and `/metrics` shows the last connections go.
        if let Err(error) = self.accept(fds, &shutdown).await {
            log::error!("{error}");
        }
    }

    fn name(&self) -> &'static str {
        "admin"
    }

    fn threads(&self) -> Option<usize> {
        Some(1)
    }
}

#[async_trait]
impl ServeHttp for Admin {
    async fn response(&self, session: &mut ServerSession) -> Response<Vec<u8>> {
        let header = session.req_header().clone();
        let admin = self.clone();
        // A reload reads files: `/healthz` and `/metrics` answer meanwhile.
        let answered = tokio::task::spawn_blocking(move || {
            let headers = &header.headers;
            let request = AdminRequest {
                method: &header.method,
                path: header.uri.path(),
                host: headers.get("host").and_then(|value| value.to_str().ok()),
                has_origin: headers.contains_key("origin"),
                is_cross_site: headers.get_all("sec-fetch-site").iter().any(|site| site != "none"),
                transport: admin.transport,
            };
            admin::respond(&request, &admin)
        });
        let Ok(answer) = answered.await else {
            let mut failed = Response::default();
            *failed.status_mut() = StatusCode::INTERNAL_SERVER_ERROR;
            return failed;
        };
        let response = Response::builder()
            .status(answer.status)
            .header("Content-Type", answer.content_type)
            .header("Content-Length", answer.body.len())
            .header("Cache-Control", "no-store")
            .body(answer.body.into_bytes());
        response.unwrap_or_default()
    }
}

impl AdminView for Admin {
    fn is_ready(&self) -> bool {
        self.readiness.is_ready()
    }

    fn metrics(&self) -> String {
        self.census.metrics(&self.cell.load().trust)
    }

    fn status(&self) -> Value {
        let runtime = self.cell.load();
        json!({
            "version": env!("CARGO_PKG_VERSION"),
            "ready": self.is_ready(),
            "uptime_seconds": self.reloader.surroundings().started.elapsed().as_secs(),
            "configuration": {
                "file": runtime.config.file.display().to_string(),
                "generation": runtime.generation,
                "loaded_at": jiff::Timestamp::try_from(runtime.loaded_at).map(|time| time.to_string()).ok(),
                "stale_because": self.reloader.last_error(),
                "warnings": runtime.warnings,
            },
            "listeners": runtime.listeners.iter().map(|listener| {
                let (full, resumed, failed) = listener.metrics.handshakes();
                json!({
                    "name": &*listener.name,
                    "address": listener.address.to_string(),
                    "demands_certificate": listener.demands_certificate(),
                    "open_connections": listener.metrics.open_connections(),
                    "handshakes": { "full": full, "resumed": resumed, "failed": failed },
                })
            }).collect::<Vec<_>>(),
            "trust": runtime.trust.iter().map(|domain| json!({
                "name": &**domain.name(),
                "anchors": domain.anchors().len(),
                "revoked": domain.revoked(),
            })).collect::<Vec<_>>(),
            "pools": runtime.pools.iter().map(|pool| json!({
                "name": &**pool.name(),
                "endpoints": pool.endpoints().iter().map(|endpoint| json!({
                    "address": &**endpoint.address(),
                    "available": endpoint.is_available(),
                    "in_flight": endpoint.in_flight(),
                })).collect::<Vec<_>>(),
            })).collect::<Vec<_>>(),
            "routes": runtime.routes.routes().len(),
        })
    }

    fn certificates(&self) -> Value {
        let runtime = self.cell.load();
        runtime
            .certificates
            .iter()
            .map(|certificate| {
                json!({
                    "kind": certificate.kind,
                    "name": &*certificate.name,
                    "subject": certificate.subject,
                    "not_after": jiff::Timestamp::from_second(certificate.not_after).map(|t| t.to_string()).ok(),
                })
            })
            .collect()
    }

    fn census(&self) -> Value {
        self.census.report(&self.cell.load().trust)
    }

    fn reload(&self) -> Result<u64, String> {
        self.reloader.reload()
    }
}
