//! Clients of every kind that keep coming, whatever is done to the gateway meanwhile.

use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use openssl::ssl::{SslConnector, SslSession, SslSessionCacheMode, SslStream, SslVersion};

use super::open::builder;
use super::{PATIENCE, Site, eventually};

/// Between two requests of a client.
const PAUSE: Duration = Duration::from_millis(15);

/// How a client comes.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Kind {
    New,
    Resumed,
    KeptHttp1,
    KeptHttp2,
}

/// Clients at work. Each asks for `/` or for `/slow` again and again.
pub struct Steady {
    stop: Arc<AtomicBool>,
    clients: Vec<Working>,
}

struct Working {
    /// Ends with the client's first failure.
    client: JoinHandle<Result<(), String>>,
    served: Arc<AtomicUsize>,
}

impl Steady {
    /// Returns when each of them was served.
    pub fn start(site: &Site) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let mut clients = Vec::new();
        for (kind, version, path) in [
            (Kind::New, SslVersion::TLS1_2, "/"),
            (Kind::New, SslVersion::TLS1_3, "/"),
            (Kind::Resumed, SslVersion::TLS1_2, "/"),
            (Kind::Resumed, SslVersion::TLS1_3, "/"),
            (Kind::KeptHttp1, SslVersion::TLS1_3, "/"),
            (Kind::KeptHttp1, SslVersion::TLS1_3, "/slow"),
            (Kind::KeptHttp2, SslVersion::TLS1_3, "/"),
            (Kind::KeptHttp2, SslVersion::TLS1_3, "/slow"),
        ] {
            let served = Arc::new(AtomicUsize::new(0));
            let client = Client::new(site, kind, version, path, stop.clone(), served.clone());
            clients.push(Working { client: thread::spawn(move || client.run()), served });
        }
        let steady = Self { stop, clients };
        steady.serves_everybody();
        steady
    }

    /// Waits until each of them was served once more, or gave up.
    pub fn serves_everybody(&self) {
        for Working { client, served } in &self.clients {
            let before = served.load(Ordering::Relaxed);
            eventually("a client is served", || {
                (served.load(Ordering::Relaxed) > before || client.is_finished()).then_some(())
            });
        }
    }

    /// Why clients gave up.
    pub fn failures(self) -> Vec<String> {
        self.stop.store(true, Ordering::Relaxed);
        self.clients.into_iter().filter_map(|working| working.client.join().unwrap().err()).collect()
    }
}

struct Client {
    kind: Kind,
    path: &'static str,
    port: u16,
    connector: SslConnector,
    newest: Arc<Mutex<Option<SslSession>>>,
    stop: Arc<AtomicBool>,
    served: Arc<AtomicUsize>,
}

impl Client {
    fn new(
        site: &Site,
        kind: Kind,
        version: SslVersion,
        path: &'static str,
        stop: Arc<AtomicBool>,
        served: Arc<AtomicUsize>,
    ) -> Self {
        let protocol: &[u8] = if kind == Kind::KeptHttp2 { b"\x02h2" } else { b"\x08http/1.1" };
        let mut builder = builder(site, Some("sensor-1"), protocol);
        builder.set_min_proto_version(Some(version)).unwrap();
        builder.set_max_proto_version(Some(version)).unwrap();
        let newest = Arc::new(Mutex::new(None));
        if kind == Kind::Resumed {
            let newest = newest.clone();
            builder.set_session_cache_mode(SslSessionCacheMode::CLIENT);
            builder.set_new_session_callback(move |_, session| *newest.lock().unwrap() = Some(session));
        }
        Self { kind, path, port: site.port, connector: builder.build(), newest, stop, served }
    }

    fn run(self) -> Result<(), String> {
        let result = match self.kind {
            Kind::New | Kind::Resumed => self.come_anew(),
            Kind::KeptHttp1 => self.keep_http1(),
            Kind::KeptHttp2 => {
                let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
                runtime.block_on(self.keep_http2())
            }
        };
        result.map_err(|error| format!("{:?} {}: {error}", self.kind, self.path))
    }

    fn goes_on(&self) -> bool {
        !self.stop.load(Ordering::Relaxed)
    }

    fn was_served(&self) {
        self.served.fetch_add(1, Ordering::Relaxed);
    }

    fn connect(&self) -> Result<SslStream<TcpStream>, String> {
        let tcp =
            TcpStream::connect(("127.0.0.1", self.port)).map_err(|error| format!("connect: {error}"))?;
        tcp.set_read_timeout(Some(PATIENCE)).unwrap();
        let mut configuration = self.connector.configure().unwrap();
        if let Some(session) = &*self.newest.lock().unwrap() {
            // SAFETY: the session was made by a connection of this very context.
            unsafe { configuration.set_session(session) }.unwrap();
        }
        configuration.connect("localhost", tcp).map_err(|error| format!("handshake: {error}"))
    }

    fn come_anew(&self) -> Result<(), String> {
        while self.goes_on() {
            let mut tls = self.connect()?;
            let answer = self.ask(&mut tls, "Connection: close\r\n")?;
            if !answer.starts_with("http/1.1 200") {
                return Err(answer);
            }
            self.was_served();
            thread::sleep(PAUSE);
        }
        Ok(())
    }

    fn keep_http1(&self) -> Result<(), String> {
        while self.goes_on() {
            let mut tls = self.connect()?;
            loop {
                let answer = self.ask(&mut tls, "")?;
                if !answer.starts_with("http/1.1 200") {
                    return Err(answer);
                }
                self.was_served();
                thread::sleep(PAUSE);
                if answer.contains("\r\nconnection: close") || has_ended(tls.get_ref()) || !self.goes_on() {
                    break;
                }
            }
        }
        Ok(())
    }

    /// The head of the answer, in lower case.
    fn ask(&self, tls: &mut SslStream<TcpStream>, fields: &str) -> Result<String, String> {
        let request = format!("GET {} HTTP/1.1\r\nHost: localhost\r\n{fields}\r\n", self.path);
        tls.write_all(request.as_bytes()).map_err(|error| format!("the request: {error}"))?;
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            let mut byte = [0];
            tls.read_exact(&mut byte).map_err(|error| format!("the answer after {head:?}: {error}"))?;
            head.push(byte[0]);
        }
        let head = String::from_utf8_lossy(&head).to_ascii_lowercase();
        let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")?.parse().ok());
        tls.read_exact(&mut vec![0; length.unwrap_or(0)]).map_err(|error| format!("the body: {error}"))?;
        Ok(head)
    }

    async fn keep_http2(&self) -> Result<(), String> {
        while self.goes_on() {
            let tcp = tokio::net::TcpStream::connect(("127.0.0.1", self.port))
                .await
                .map_err(|error| format!("connect: {error}"))?;
            let ssl = self.connector.configure().unwrap().into_ssl("localhost").unwrap();
            let mut tls = tokio_openssl::SslStream::new(ssl, tcp).unwrap();
            std::pin::Pin::new(&mut tls).connect().await.map_err(|error| format!("handshake: {error}"))?;
            let (mut send, connection) =
                h2::client::handshake(tls).await.map_err(|error| error.to_string())?;
            tokio::spawn(connection);
            let url = format!("https://localhost:{}{}", self.port, self.path);
            while self.goes_on() {
                // What was not sent yet may be sent elsewhere.
                let Ok(ready) = send.ready().await else { break };
                send = ready;
                let request = http::Request::get(&url).body(()).unwrap();
                let Ok((response, _)) = send.send_request(request, true) else { break };
                let response = tokio::time::timeout(PATIENCE, response).await.map_err(|_| "no answer")?;
                if response.as_ref().is_err_and(was_left_out) {
                    break;
                }
                let response = response.map_err(|error| error.to_string())?;
                if response.status() != 200 {
                    return Err(response.status().to_string());
                }
                self.was_served();
                tokio::time::sleep(PAUSE).await;
            }
        }
        Ok(())
    }
}

/// GOAWAY says that this request was not looked at (RFC 9113, section 6.8): the `h2` crate may acknowledge the end of its
/// connection before it sends a request that was made earlier.
fn was_left_out(error: &h2::Error) -> bool {
    error.is_go_away() && error.is_remote() && error.reason() == Some(h2::Reason::NO_ERROR)
}

/// What a client looks for before it sends a request on a connection that was idle: nobody sends anything on one but to
/// end it.
fn has_ended(tcp: &TcpStream) -> bool {
    tcp.set_nonblocking(true).unwrap();
    let peeked = tcp.peek(&mut [0]);
    tcp.set_nonblocking(false).unwrap();
    !peeked.is_err_and(|error| error.kind() == ErrorKind::WouldBlock)
}
