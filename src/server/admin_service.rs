//! Serves the admin endpoints, on a thread of its own.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use http::{Method, Response, StatusCode};
use pingora_core::apps::ServerApp;
use pingora_core::apps::http_app::{HttpServer, ServeHttp};
use pingora_core::protocols::http::ServerSession;
use pingora_core::protocols::l4::stream::Stream;
use pingora_core::server::{ListenFds, ShutdownWatch};
use pingora_core::services::Service;

use super::admin_socket::{Accepting, AdminSocket};
use super::admin_view::{Admin, AdminState};
use crate::admin::{self, AdminRequest, Caller};
use crate::panics::{self, Vital};
use crate::tls;

/// What a request has to say fits many times.
const LARGEST_BODY: usize = 16 * 1024;

/// For all of the body.
const BODY_TIMEOUT: Duration = Duration::from_secs(5);

pub struct AdminService {
    sockets: Vec<AdminSocket>,
    state: Arc<AdminState>,
}

/// Answers the requests of one connection.
struct Answering {
    state: Arc<AdminState>,
    caller: Caller,
}

impl AdminService {
    pub fn new(sockets: Vec<AdminSocket>, state: AdminState) -> Self {
        Self { sockets, state: Arc::new(state) }
    }
}

async fn accept(socket: Accepting, state: Arc<AdminState>, shutdown: ShutdownWatch) {
    let _vital = Vital("the accept loop of the admin endpoints");
    loop {
        match socket.accept().await {
            Ok((stream, caller)) => {
                let _ = panics::contain(|| serve(stream, caller, &state, &shutdown));
            }
            Err(error) => {
                log::error!("the admin socket cannot accept: {error}");
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
}

fn serve(stream: Stream, caller: Caller, state: &Arc<AdminState>, shutdown: &ShutdownWatch) {
    let app = Arc::new(HttpServer::new_app(Answering { state: state.clone(), caller }));
    let shutdown = shutdown.clone();
    tokio::spawn(async move {
        let mut stream: pingora_core::protocols::Stream = Box::new(stream);
        while let Some(reused) = app.process_new(stream, &shutdown).await {
            stream = reused;
        }
    });
}

#[async_trait]
impl Service for AdminService {
    async fn start_service(&mut self, fds: Option<ListenFds>, shutdown: ShutdownWatch, _: usize) {
        let mut accepting = Vec::new();
        for socket in self.sockets.drain(..) {
            match socket.into_accepting(fds.as_ref()) {
                Ok(socket) => {
                    accepting.push(tokio::spawn(accept(socket, self.state.clone(), shutdown.clone())));
                }
                Err(error) => log::error!("{error}"),
            }
        }
        // It answers through a drain: `/readyz` says 503 then, and `/metrics` shows the last connections go.
        for task in accepting {
            let _ = task.await;
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
impl ServeHttp for Answering {
    async fn response(&self, session: &mut ServerSession) -> Response<Vec<u8>> {
        let header = session.req_header().clone();
        let body = match header.method {
            Method::POST => match tokio::time::timeout(BODY_TIMEOUT, read_body(session)).await {
                Ok(Ok(body)) => body,
                Ok(Err(status)) => return bare(status),
                Err(_) => return bare(StatusCode::REQUEST_TIMEOUT),
            },
            _ => Vec::new(),
        };
        let (state, caller) = (self.state.clone(), self.caller);
        // A reload reads files: `/healthz` and `/metrics` answer meanwhile.
        let answered = tokio::task::spawn_blocking(move || {
            panics::provoke("admin");
            let request = AdminRequest {
                method: &header.method,
                path: header.uri.path(),
                query: header.uri.query().unwrap_or_default(),
                headers: &header.headers,
                body: &body,
                caller,
                now: tls::now(),
            };
            admin::respond(&request, &Admin { state: &state, caller })
        });
        let Ok(answer) = answered.await else { return bare(StatusCode::INTERNAL_SERVER_ERROR) };
        let mut response = Response::builder()
            .status(answer.status)
            .header("Content-Type", answer.content_type)
            .header("Content-Length", answer.body.len())
            .header("Cache-Control", "no-store")
            .header("X-Content-Type-Options", "nosniff");
        if let Some((name, value)) = answer.header {
            response = response.header(name, value);
        }
        response.body(answer.body.into_bytes()).unwrap_or_default()
    }
}

async fn read_body(session: &mut ServerSession) -> Result<Vec<u8>, StatusCode> {
    let mut body = Vec::new();
    while let Some(more) = session.read_request_body().await.map_err(|_| StatusCode::BAD_REQUEST)? {
        body.extend_from_slice(&more);
        if body.len() > LARGEST_BODY {
            return Err(StatusCode::PAYLOAD_TOO_LARGE);
        }
    }
    Ok(body)
}

fn bare(status: StatusCode) -> Response<Vec<u8>> {
    let mut response = Response::default();
    *response.status_mut() = status;
    response
}
