//! Connections that stay open, as clients hold them.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::mpsc::{Receiver, channel};
use std::thread;
use std::time::{Duration, Instant};

use openssl::ssl::{SslConnector, SslConnectorBuilder, SslFiletype, SslMethod, SslStream};

use super::{PATIENCE, Site};

/// An HTTP/1.1 connection.
pub struct OpenConnection(SslStream<TcpStream>);

impl OpenConnection {
    pub fn new(site: &Site, client: Option<&str>) -> Self {
        Self::over(TcpStream::connect(("127.0.0.1", site.port)).unwrap(), site, client)
    }

    /// Shakes hands on a connection of TCP that is there already.
    pub fn over(tcp: TcpStream, site: &Site, client: Option<&str>) -> Self {
        let connector = connector(site, client, b"\x08http/1.1");
        tcp.set_read_timeout(Some(PATIENCE)).unwrap();
        Self(connector.connect("localhost", tcp).unwrap())
    }

    pub fn send(&mut self, head: &str) {
        self.0.write_all(head.as_bytes()).unwrap();
    }

    /// Asks without waiting for the answer.
    pub fn ask(&mut self, path: &str) {
        self.send(&format!("GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n"));
    }

    /// The status of the next answer, whose body is read too. 0: there is none.
    pub fn answer(&mut self) -> u16 {
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            let mut byte = [0];
            match self.0.read(&mut byte) {
                Ok(1) => head.push(byte[0]),
                _ => return 0,
            }
        }
        let head = String::from_utf8(head).unwrap().to_ascii_lowercase();
        let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")?.parse().ok());
        self.0.read_exact(&mut vec![0; length.unwrap_or(0)]).unwrap();
        head.split(' ').nth(1).unwrap().parse().unwrap()
    }

    pub fn get(&mut self, path: &str) -> u16 {
        self.ask(path);
        self.answer()
    }

    /// The next byte of an upgraded connection.
    pub fn byte(&mut self) -> Option<u8> {
        let mut byte = [0];
        (self.0.read(&mut byte).ok()? == 1).then_some(byte[0])
    }

    /// Whether the gateway ends it within `limit`, without another word.
    pub fn ends_within(&mut self, limit: Duration) -> bool {
        let until = Instant::now() + limit;
        self.0.get_ref().set_read_timeout(Some(limit)).unwrap();
        let read = self.0.read(&mut [0]);
        self.0.get_ref().set_read_timeout(Some(PATIENCE)).unwrap();
        Instant::now() < until && !matches!(read, Ok(1..))
    }
}

/// An HTTP/2 connection that has carried one request, with another under way if there is a path for it.
pub struct OpenHttp2 {
    ended: Receiver<()>,
}

impl OpenHttp2 {
    pub fn new(site: &Site, client: &str, waiting: Option<&str>) -> Self {
        let ssl =
            connector(site, Some(client), b"\x02h2").configure().unwrap().into_ssl("localhost").unwrap();
        let port = site.port;
        let url = move |path: &str| format!("https://localhost:{port}{path}");
        let waiting = waiting.map(url);
        let ((ready, is_ready), (end, ended)) = (channel(), channel());
        thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async move {
                let tcp = tokio::net::TcpStream::connect(("127.0.0.1", port)).await.unwrap();
                let mut tls = tokio_openssl::SslStream::new(ssl, tcp).unwrap();
                std::pin::Pin::new(&mut tls).connect().await.unwrap();
                let (send, connection) = h2::client::handshake(tls).await.unwrap();
                let connection = tokio::spawn(connection);
                let get = |url: String| http::Request::get(url).body(()).unwrap();
                let mut send = send.ready().await.unwrap();
                let (first, _) = send.send_request(get(url("/")), true).unwrap();
                assert_eq!(first.await.unwrap().status(), 200);
                let second = waiting.map(|url| send.send_request(get(url), true).unwrap());
                ready.send(()).unwrap();
                let _ = connection.await;
                let _ = end.send(());
                drop(second);
            });
        });
        is_ready.recv_timeout(PATIENCE).unwrap();
        Self { ended }
    }

    pub fn ends_within(&self, limit: Duration) -> bool {
        self.ended.recv_timeout(limit).is_ok()
    }
}

pub fn connector(site: &Site, client: Option<&str>, protocols: &[u8]) -> SslConnector {
    builder(site, client, protocols).build()
}

/// A client's TLS settings.
pub(super) fn builder(site: &Site, client: Option<&str>, protocols: &[u8]) -> SslConnectorBuilder {
    let mut builder = SslConnector::builder(SslMethod::tls_client()).unwrap();
    builder.set_ca_file(site.path().join("ca.crt")).unwrap();
    if let Some(client) = client {
        builder.set_certificate_chain_file(site.path().join(format!("{client}.crt"))).unwrap();
        let key = site.path().join(format!("{client}.key"));
        builder.set_private_key_file(key, SslFiletype::PEM).unwrap();
    }
    builder.set_alpn_protos(protocols).unwrap();
    builder
}
