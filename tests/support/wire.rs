//! Clients and origins that say exactly what a test wants said, byte for byte.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use openssl::ssl::{SslConnector, SslFiletype, SslMethod, SslStream};

use super::Site;

/// How long either of them waits for the other.
const PATIENCE: Duration = Duration::from_secs(10);

/// A client's TLS connection.
pub struct Wire {
    pub tls: SslStream<TcpStream>,
    read: Vec<u8>,
}

/// An answer: its status, its head as text, its body.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    pub head: String,
    pub body: Vec<u8>,
}

impl Answer {
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    pub fn field(&self, name: &str) -> Option<&str> {
        self.head.lines().find_map(|line| {
            let (key, value) = line.split_once(':')?;
            key.eq_ignore_ascii_case(name).then(|| value.trim())
        })
    }
}

impl Site {
    /// A connection of HTTP/1.1 as `client`.
    pub fn wire(&self, client: &str) -> Wire {
        self.wire_from(client, "127.0.0.1")
    }

    /// The same from another address of this machine.
    pub fn wire_from(&self, client: &str, address: &str) -> Wire {
        let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
        socket.bind(&std::net::SocketAddr::new(address.parse().unwrap(), 0).into()).unwrap();
        socket.connect(&std::net::SocketAddr::from(([127, 0, 0, 1], self.port)).into()).unwrap();
        let tcp = TcpStream::from(socket);
        tcp.set_read_timeout(Some(PATIENCE)).unwrap();
        tcp.set_write_timeout(Some(PATIENCE)).unwrap();
        tcp.set_nodelay(true).unwrap();
        Wire { tls: self.connector(client).connect("localhost", tcp).unwrap(), read: Vec::new() }
    }

    /// Makes TLS connections as `client`, for HTTP/1.1.
    pub fn connector(&self, client: &str) -> SslConnector {
        let mut builder = SslConnector::builder(SslMethod::tls_client()).unwrap();
        builder.set_ca_file(self.path().join("ca.crt")).unwrap();
        builder.set_certificate_chain_file(self.path().join(format!("{client}.crt"))).unwrap();
        builder.set_private_key_file(self.path().join(format!("{client}.key")), SslFiletype::PEM).unwrap();
        builder.set_alpn_protos(b"\x08http/1.1").unwrap();
        builder.build()
    }
}

impl Wire {
    pub fn send(&mut self, bytes: impl AsRef<[u8]>) {
        self.tls.write_all(bytes.as_ref()).unwrap();
    }

    /// Whether there was anything more to read.
    fn more(&mut self) -> bool {
        let mut bytes = [0; 16 * 1024];
        let read = self.tls.read(&mut bytes).unwrap_or(0);
        self.read.extend_from_slice(&bytes[..read]);
        read > 0
    }

    /// The next answer, whose body ends as its head says; `None` when the connection ends before it does.
    pub fn answer(&mut self) -> Option<Answer> {
        self.answer_to("GET")
    }

    pub fn answer_to(&mut self, method: &str) -> Option<Answer> {
        let end = loop {
            if let Some(at) = self.read.windows(4).position(|window| window == b"\r\n\r\n") {
                break at + 4;
            }
            if !self.more() {
                return None;
            }
        };
        let head = String::from_utf8_lossy(&self.read[..end]).into_owned();
        self.read.drain(..end);
        let status = head.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap_or(0);
        let mut answer = Answer { status, head, body: Vec::new() };
        if method == "HEAD" || matches!(status, 100..=199 | 204 | 304) {
            return Some(answer);
        }
        if answer.field("transfer-encoding").is_some() {
            loop {
                let line = self.line()?;
                let size = usize::from_str_radix(line.trim(), 16).unwrap();
                let chunk = self.take(size + 2)?;
                answer.body.extend_from_slice(&chunk[..size]);
                if size == 0 {
                    return Some(answer);
                }
            }
        }
        let length = answer.field("content-length").map_or(0, |length| length.parse().unwrap());
        answer.body = self.take(length)?;
        Some(answer)
    }

    fn line(&mut self) -> Option<String> {
        loop {
            if let Some(at) = self.read.windows(2).position(|window| window == b"\r\n") {
                return Some(String::from_utf8_lossy(&self.take(at + 2)?).into_owned());
            }
            if !self.more() {
                return None;
            }
        }
    }

    fn take(&mut self, length: usize) -> Option<Vec<u8>> {
        while self.read.len() < length {
            if !self.more() {
                return None;
            }
        }
        Some(self.read.drain(..length).collect())
    }

    /// All that comes until the connection ends.
    pub fn rest(&mut self) -> String {
        while self.more() {}
        String::from_utf8_lossy(&std::mem::take(&mut self.read)).into_owned()
    }
}

/// An origin that does with each connection what it is told.
pub struct Scripted {
    pub address: String,
    seen: Arc<Mutex<Vec<Vec<u8>>>>,
}

/// A connection to it, numbered from 0.
pub struct Call {
    pub number: usize,
    pub tcp: TcpStream,
    seen: Arc<Mutex<Vec<Vec<u8>>>>,
}

impl Scripted {
    pub fn start(script: impl Fn(Call) + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let (script, seen) = (Arc::new(script), Arc::new(Mutex::new(Vec::new())));
        let all = seen.clone();
        thread::spawn(move || {
            for (number, tcp) in listener.incoming().flatten().enumerate() {
                tcp.set_read_timeout(Some(PATIENCE)).unwrap();
                let (script, call) = (script.clone(), Call { number, tcp, seen: all.clone() });
                thread::spawn(move || script(call));
            }
        });
        Self { address, seen }
    }

    /// Answers every request on every connection with the same bytes.
    pub fn saying(answer: impl Into<Vec<u8>>) -> Self {
        let answer = answer.into();
        Self::start(move |mut call| {
            while call.request().is_some() {
                if call.tcp.write_all(&answer).is_err() {
                    return;
                }
            }
        })
    }

    /// Requests so far, head and body as they came.
    pub fn requests(&self) -> Vec<String> {
        let seen = self.seen.lock().unwrap();
        seen.iter().map(|request| String::from_utf8_lossy(request).into_owned()).collect()
    }
}

impl Call {
    /// The next request with its body; `None` at the end of the connection.
    pub fn request(&mut self) -> Option<String> {
        let mut bytes = Vec::new();
        let head = loop {
            if bytes.ends_with(b"\r\n\r\n") {
                break String::from_utf8_lossy(&bytes).to_lowercase();
            }
            bytes.push(self.byte()?);
        };
        let length = head.split("\ncontent-length:").nth(1).and_then(|rest| rest.lines().next());
        for _ in 0..length.map_or(0, |length| length.trim().parse().unwrap()) {
            bytes.push(self.byte()?);
        }
        if head.contains("\ntransfer-encoding:") {
            while !bytes.ends_with(b"\r\n0\r\n\r\n") {
                bytes.push(self.byte()?);
            }
        }
        let text = String::from_utf8_lossy(&bytes).into_owned();
        self.seen.lock().unwrap().push(bytes);
        Some(text)
    }

    fn byte(&mut self) -> Option<u8> {
        let mut byte = [0];
        (self.tcp.read(&mut byte).ok()? == 1).then_some(byte[0])
    }

    pub fn say(&mut self, bytes: impl AsRef<[u8]>) {
        let _ = self.tcp.write_all(bytes.as_ref());
    }
}
