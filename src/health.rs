//! Active health checks, and names that are resolved again while running.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use pingora_core::connectors::http::Connector;
use pingora_core::protocols::http::client::HttpSession;
use pingora_core::server::ShutdownWatch;
use pingora_core::services::background::BackgroundService;
use pingora_http::RequestHeader;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

use crate::config::{HealthConfig, HealthKind};
use crate::panics;
use crate::proxy_protocol::Header;
use crate::upstream::{Endpoint, OnBehalf, Patience, UpstreamPool};

/// How often it is looked whether a check is due.
const TICK: Duration = Duration::from_millis(100);
const DNS_TIMEOUT: Duration = Duration::from_secs(5);

/// Checks the pools of whichever configuration is in force.
pub struct HealthChecker {
    pools: Arc<dyn Fn() -> Vec<Arc<UpstreamPool>> + Send + Sync>,
}

impl HealthChecker {
    pub fn new(pools: Arc<dyn Fn() -> Vec<Arc<UpstreamPool>> + Send + Sync>) -> Self {
        Self { pools }
    }

    fn run_due(
        &self,
        connector: &Arc<Connector>,
        due: &mut HashMap<(String, String, &'static str), Instant>,
    ) {
        let now = Instant::now();
        let mut is_due = |pool: &UpstreamPool, endpoint: &Endpoint, what, interval: Duration| {
            let at =
                due.entry((pool.name().to_string(), endpoint.address().to_string(), what)).or_insert(now);
            let is_due = *at <= now;
            if is_due {
                // A tenth of jitter keeps the checks of many gateways from falling into step.
                *at = now + interval.mul_f64(rand::random_range(0.9..1.1));
            }
            is_due
        };
        for pool in (self.pools)() {
            for endpoint in pool.endpoints() {
                if let Some(health) = pool.health()
                    && is_due(&pool, endpoint, "health", health.interval)
                {
                    let check = check(pool.clone(), endpoint.clone(), health.clone(), connector.clone());
                    tokio::spawn(check);
                }
                if endpoint.address().parse::<SocketAddr>().is_err()
                    && is_due(&pool, endpoint, "dns", pool.dns_refresh())
                {
                    tokio::spawn(resolve(endpoint.clone()));
                }
            }
        }
    }
}

#[async_trait]
impl BackgroundService for HealthChecker {
    async fn start(&self, mut shutdown: ShutdownWatch) {
        let connector = Arc::new(Connector::new(None));
        let mut due = HashMap::new();
        let mut tick = tokio::time::interval(TICK);
        loop {
            tokio::select! {
                _ = shutdown.wait_for(|stopping| *stopping) => return,
                _ = tick.tick() => {
                    let _ = panics::contain(|| self.run_due(&connector, &mut due));
                }
            }
        }
    }
}

async fn resolve(endpoint: Arc<Endpoint>) {
    let lookup = tokio::net::lookup_host(endpoint.address().to_string());
    match tokio::time::timeout(DNS_TIMEOUT, lookup).await {
        Ok(Ok(addresses)) => endpoint.replace_addresses(addresses.collect()),
        Ok(Err(error)) => {
            log::warn!("`{}` cannot be resolved, its last addresses stay: {error}", endpoint.address());
        }
        Err(_) => log::warn!("`{}` cannot be resolved within {DNS_TIMEOUT:?}", endpoint.address()),
    }
}

async fn check(
    pool: Arc<UpstreamPool>,
    endpoint: Arc<Endpoint>,
    health: HealthConfig,
    connector: Arc<Connector>,
) {
    let probe = async {
        match &health.kind {
            HealthKind::Tcp => connect(&pool, &endpoint).await,
            HealthKind::Http { path } => get(&pool, &endpoint, path, &connector).await,
        }
    };
    let result = tokio::time::timeout(health.timeout, probe).await;
    let result = result.unwrap_or_else(|_| Err(format!("no answer within {:?}", health.timeout)));
    match result {
        Ok(()) => endpoint.report_check(true, health.healthy_after, ""),
        Err(detail) => endpoint.report_check(false, health.unhealthy_after, &detail),
    }
}

async fn connect(pool: &UpstreamPool, endpoint: &Endpoint) -> Result<(), String> {
    let address = endpoint.next_address().ok_or("its name has no address")?;
    let mut tcp = TcpStream::connect(address).await.map_err(|error| error.to_string())?;
    tcp.write_all(&pool.announcement(&Header::Own)).await.map_err(|error| error.to_string())
}

/// A GET through Pingora's own connector, so that the check sees the endpoint as requests do.
async fn get(
    pool: &UpstreamPool,
    endpoint: &Endpoint,
    path: &str,
    connector: &Connector,
) -> Result<(), String> {
    // It is for no client; and no check uses the connection of another one.
    let own = || OnBehalf { header: Header::Own, connection: rand::random() };
    let peer = pool.peer(endpoint, Patience::Usual, own).ok_or("its name has no address")?;
    let (mut session, _) = connector.get_http_session(&*peer).await.map_err(|error| error.to_string())?;
    let mut request =
        RequestHeader::build("GET", path.as_bytes(), None).map_err(|error| error.to_string())?;
    let _ = request.insert_header("Host", &**endpoint.address());
    let _ = request.insert_header("User-Agent", "portcullis-health");
    session.write_request_header(Box::new(request)).await.map_err(|error| error.to_string())?;
    session.finish_request_body().await.map_err(|error| error.to_string())?;
    session.read_response_header().await.map_err(|error| error.to_string())?;
    let status = status(&session);
    while session.read_response_body().await.map_err(|error| error.to_string())?.is_some() {}
    if !pool.announces() {
        connector.release_http_session(session, &*peer, Some(Duration::from_secs(60))).await;
    }
    if (200..400).contains(&status) { Ok(()) } else { Err(format!("GET {path} was answered with {status}")) }
}

fn status(session: &HttpSession) -> u16 {
    session.response_header().map_or(0, |response| response.status.as_u16())
}
