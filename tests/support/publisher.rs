//! A web server that publishes revocation lists and OCSP responses, well or badly.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use openssl::ssl::{SslAcceptor, SslFiletype, SslMethod};

/// What it does with the next requests.
#[derive(Clone)]
pub enum Manner {
    /// Publishes this, with an entity tag.
    Body(Vec<u8>),
    /// Answers with this status line and a web page.
    Page(&'static str),
    Redirect(String),
    /// Announces so many bytes, and sends them as long as anybody reads.
    Announced(u64),
    /// The same without a word about the length.
    Endless,
    /// Half of what it has announced.
    Half(Vec<u8>),
    Silent,
    /// Closes the connection.
    Down,
}

#[derive(Clone)]
pub struct Publisher {
    pub url: String,
    manner: Arc<Mutex<Manner>>,
    heads: Arc<Mutex<Vec<String>>>,
}

impl Publisher {
    pub fn start(manner: Manner) -> Self {
        Self::serve("http", manner, Some)
    }

    /// Over TLS, with `NAME.crt` and `NAME.key`.
    pub fn with_tls(directory: &Path, name: &str, manner: Manner) -> Self {
        let mut acceptor = SslAcceptor::mozilla_intermediate_v5(SslMethod::tls_server()).unwrap();
        acceptor.set_certificate_chain_file(directory.join(format!("{name}.crt"))).unwrap();
        acceptor.set_private_key_file(directory.join(format!("{name}.key")), SslFiletype::PEM).unwrap();
        let acceptor = acceptor.build();
        Self::serve("https", manner, move |tcp| acceptor.accept(tcp).ok())
    }

    fn serve<S: Read + Write>(
        scheme: &str,
        manner: Manner,
        wrap: impl Fn(TcpStream) -> Option<S> + Send + Sync + 'static,
    ) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("{scheme}://localhost:{}/fleet.crl", listener.local_addr().unwrap().port());
        let publisher = Self { url, manner: Arc::new(Mutex::new(manner)), heads: Arc::default() };
        let (serving, wrap) = (publisher.clone(), Arc::new(wrap));
        thread::spawn(move || {
            for tcp in listener.incoming().flatten() {
                let (serving, wrap) = (serving.clone(), wrap.clone());
                thread::spawn(move || wrap(tcp).and_then(|stream| serving.answer(stream).ok()));
            }
        });
        publisher
    }

    pub fn becomes(&self, manner: Manner) {
        *self.manner.lock().unwrap() = manner;
    }

    /// The heads of all requests so far.
    pub fn requests(&self) -> Vec<String> {
        self.heads.lock().unwrap().clone()
    }

    fn answer(&self, mut stream: impl Read + Write) -> std::io::Result<()> {
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            let mut byte = [0];
            stream.read_exact(&mut byte)?;
            head.push(byte[0]);
        }
        let head = String::from_utf8_lossy(&head).to_ascii_lowercase();
        let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")?.parse().ok());
        stream.read_exact(&mut vec![0; length.unwrap_or(0)])?;
        self.heads.lock().unwrap().push(head.clone());
        let manner = self.manner.lock().unwrap().clone();
        let page = "<!doctype html><title>moved</title>";
        match manner {
            Manner::Body(body) => {
                let tag =
                    format!("\"{:x}\"", body.iter().fold(0_u64, |sum, b| sum.rotate_left(7) ^ u64::from(*b)));
                if head.contains(&format!("if-none-match: {tag}")) {
                    return write!(stream, "HTTP/1.1 304 Not Modified\r\nETag: {tag}\r\n\r\n");
                }
                let length = body.len();
                write!(stream, "HTTP/1.1 200 OK\r\nETag: {tag}\r\nContent-Length: {length}\r\n\r\n")?;
                stream.write_all(&body)
            }
            Manner::Page(status) => {
                write!(stream, "HTTP/1.1 {status}\r\nContent-Length: {}\r\n\r\n{page}", page.len())
            }
            Manner::Redirect(to) => {
                write!(stream, "HTTP/1.1 302 Found\r\nLocation: {to}\r\nContent-Length: 0\r\n\r\n")
            }
            Manner::Announced(length) => {
                write!(stream, "HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n\r\n")?;
                flood(&mut stream)
            }
            Manner::Endless => {
                write!(stream, "HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n")?;
                flood(&mut stream)
            }
            Manner::Half(body) => {
                write!(stream, "HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", body.len())?;
                stream.write_all(&body[..body.len() / 2])
            }
            Manner::Silent => {
                thread::sleep(Duration::from_secs(120));
                Ok(())
            }
            Manner::Down => Ok(()),
        }
    }
}

fn flood(stream: &mut impl Write) -> std::io::Result<()> {
    loop {
        stream.write_all(&[b'0'; 8192])?;
    }
}
