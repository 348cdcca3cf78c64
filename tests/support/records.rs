//! TLS by hand: records and handshake messages as no library would send them (RFC 8446).

use std::io::{ErrorKind, Read, Result, Write};
use std::net::TcpStream;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use openssl::sha::{sha256, sha384};
use openssl::ssl::{ErrorCode, HandshakeError, Ssl, SslContext, SslMethod, SslStream};
use openssl::symm::{Cipher, encrypt_aead};

use super::Site;
use super::open::builder;

pub const CHANGE_CIPHER_SPEC: u8 = 20;
pub const ALERT: u8 = 21;
pub const HANDSHAKE: u8 = 22;
pub const DATA: u8 = 23;

const MOST_IN_A_RECORD: usize = 16 * 1024;
const PATIENCE: Duration = Duration::from_secs(10);

/// One record that is not encrypted.
pub fn record(kind: u8, body: &[u8]) -> Vec<u8> {
    let length = (body.len() as u16).to_be_bytes();
    [&[kind, 3, 3, length[0], length[1]], body].concat()
}

/// As many as it takes, of `size` bytes each.
pub fn records(kind: u8, body: &[u8], size: usize) -> Vec<u8> {
    body.chunks(size).flat_map(|part| record(kind, part)).collect()
}

/// A handshake message.
pub fn message(kind: u8, body: &[u8]) -> Vec<u8> {
    [&[kind][..], &(body.len() as u32).to_be_bytes()[1..], body].concat()
}

/// The hello of the library, as the handshake message it is.
pub fn client_hello() -> Vec<u8> {
    let ssl = Ssl::new(&SslContext::builder(SslMethod::tls_client()).unwrap().build()).unwrap();
    match ssl.connect(Recorder::default()) {
        Err(HandshakeError::WouldBlock(stream)) => stream.get_ref().0[5..].to_vec(),
        _ => unreachable!("nobody answers"),
    }
}

/// The same with more extensions.
pub fn hello_with(extensions: &[(u16, &[u8])]) -> Vec<u8> {
    let body = client_hello()[4..].to_vec();
    let after = |at: usize, size: usize| {
        let length = body[at..at + size].iter().fold(0, |sum, byte| sum << 8 | usize::from(*byte));
        at + size + length
    };
    // Version and random, then session identifier, cipher suites, compression methods.
    let at = after(after(after(34, 1), 2), 1);
    let mut all = body[at + 2..].to_vec();
    for (number, content) in extensions {
        all.extend([number.to_be_bytes(), (content.len() as u16).to_be_bytes()].concat());
        all.extend_from_slice(content);
    }
    message(1, &[&body[..at], &(all.len() as u16).to_be_bytes(), &all].concat())
}

/// Takes down what is said, and says nothing.
#[derive(Debug, Default)]
struct Recorder(Vec<u8>);

impl Read for Recorder {
    fn read(&mut self, _: &mut [u8]) -> Result<usize> {
        Err(ErrorKind::WouldBlock.into())
    }
}

impl Write for Recorder {
    fn write(&mut self, bytes: &[u8]) -> Result<usize> {
        self.0.write(bytes)
    }

    fn flush(&mut self) -> Result<()> {
        Ok(())
    }
}

/// What seals the records of one side in TLS 1.3.
pub struct Sealer {
    suite: Suite,
    secret: Vec<u8>,
    key: Vec<u8>,
    nonce: Vec<u8>,
    sequence: u64,
}

#[derive(Clone, Copy)]
enum Suite {
    Aes128Sha256,
    Aes256Sha384,
}

impl Sealer {
    fn new(suite: Suite, secret: Vec<u8>) -> Self {
        let key = match suite {
            Suite::Aes128Sha256 => 16,
            Suite::Aes256Sha384 => 32,
        };
        let (key, nonce) = (suite.expand(&secret, "key", key), suite.expand(&secret, "iv", 12));
        Self { suite, secret, key, nonce, sequence: 0 }
    }

    /// A record of `kind`, with so many bytes of padding.
    pub fn seal(&mut self, kind: u8, content: &[u8], padding: usize) -> Vec<u8> {
        let inner = [content, &[kind], &vec![0; padding]].concat();
        let mut sealed = record(DATA, &vec![0; inner.len() + 16])[..5].to_vec();
        let mut nonce = self.nonce.clone();
        for (byte, number) in nonce[4..].iter_mut().zip(self.sequence.to_be_bytes()) {
            *byte ^= number;
        }
        self.sequence += 1;
        let mut tag = [0; 16];
        let cipher = match self.suite {
            Suite::Aes128Sha256 => Cipher::aes_128_gcm(),
            Suite::Aes256Sha384 => Cipher::aes_256_gcm(),
        };
        let text = encrypt_aead(cipher, &self.key, Some(&nonce), &sealed, &inner, &mut tag).unwrap();
        sealed.extend(text);
        sealed.extend(tag);
        sealed
    }

    /// What follows this message is sealed with other keys.
    pub fn key_update(&mut self, wants_answer: bool) -> Vec<u8> {
        let sealed = self.seal(HANDSHAKE, &message(24, &[u8::from(wants_answer)]), 0);
        let next = self.suite.expand(&self.secret, "traffic upd", self.secret.len());
        *self = Self::new(self.suite, next);
        sealed
    }
}

impl Suite {
    /// HKDF-Expand-Label without a context, of at most one block (RFC 8446, section 7.1).
    fn expand(self, secret: &[u8], label: &str, length: usize) -> Vec<u8> {
        let label = format!("tls13 {label}");
        let mut info = (length as u16).to_be_bytes().to_vec();
        info.push(label.len() as u8);
        info.extend(label.as_bytes());
        info.extend([0, 1]);
        self.hmac(secret, &info)[..length].to_vec()
    }

    fn hmac(self, key: &[u8], text: &[u8]) -> Vec<u8> {
        let mut block = vec![0; if matches!(self, Self::Aes128Sha256) { 64 } else { 128 }];
        block[..key.len()].copy_from_slice(key);
        let keyed = |pad: u8, text: &[u8]| {
            let block: Vec<u8> = block.iter().map(|byte| byte ^ pad).collect();
            self.digest(&[&block, text].concat())
        };
        keyed(0x5c, &keyed(0x36, text))
    }

    fn digest(self, bytes: &[u8]) -> Vec<u8> {
        match self {
            Self::Aes128Sha256 => sha256(bytes).to_vec(),
            Self::Aes256Sha384 => sha384(bytes).to_vec(),
        }
    }
}

/// A connection of TLS 1.3 whose client's records we seal ourselves.
pub struct Hijacked {
    pub tls: SslStream<Muzzle>,
    pub sealer: Sealer,
}

/// Sends on what the library writes until it is told to swallow it.
#[derive(Debug)]
pub struct Muzzle {
    tcp: TcpStream,
    /// Swallows all that is written after the first answer.
    is_for_handshake: bool,
    swallows: bool,
}

impl Read for Muzzle {
    fn read(&mut self, buffer: &mut [u8]) -> Result<usize> {
        self.swallows |= self.is_for_handshake;
        self.tcp.read(buffer)
    }
}

impl Write for Muzzle {
    fn write(&mut self, bytes: &[u8]) -> Result<usize> {
        if self.swallows { Ok(bytes.len()) } else { self.tcp.write(bytes) }
    }

    fn flush(&mut self) -> Result<()> {
        self.tcp.flush()
    }
}

impl Hijacked {
    /// Once the client is in, by its certificate.
    pub fn after_handshake(site: &Site, client: &str) -> Self {
        Self::new(site, Some(client), "CLIENT_TRAFFIC_SECRET_0")
    }

    /// When it is up to the client to show its certificate.
    pub fn before_certificate(site: &Site) -> Self {
        Self::new(site, None, "CLIENT_HANDSHAKE_TRAFFIC_SECRET")
    }

    fn new(site: &Site, client: Option<&str>, secret: &'static str) -> Self {
        let mut context = builder(site, client, b"\x08http/1.1");
        let told = Arc::new(Mutex::new(String::new()));
        let heard = told.clone();
        context.set_keylog_callback(move |_, line| {
            if let Some(line) = line.strip_prefix(secret).filter(|line| line.starts_with(' ')) {
                line.rsplit(' ').next().unwrap().clone_into(&mut heard.lock().unwrap());
            }
        });
        let tcp = TcpStream::connect(("127.0.0.1", site.port)).unwrap();
        tcp.set_read_timeout(Some(PATIENCE)).unwrap();
        tcp.set_write_timeout(Some(PATIENCE)).unwrap();
        tcp.set_nodelay(true).unwrap();
        let muzzle = Muzzle { tcp, is_for_handshake: client.is_none(), swallows: false };
        let tls = context.build().connect("localhost", muzzle).unwrap();
        let cipher = match tls.ssl().current_cipher().unwrap().name() {
            "TLS_AES_128_GCM_SHA256" => Suite::Aes128Sha256,
            "TLS_AES_256_GCM_SHA384" => Suite::Aes256Sha384,
            other => unreachable!("{other} is not among those that are preferred"),
        };
        let hex = told.lock().unwrap().clone();
        let byte = |at: usize| u8::from_str_radix(&hex[2 * at..2 * at + 2], 16).unwrap();
        let sealer = Sealer::new(cipher, (0..hex.len() / 2).map(byte).collect());
        Self { tls, sealer }
    }

    /// False when the gateway no longer takes it.
    pub fn send(&mut self, bytes: &[u8]) -> bool {
        self.tls.get_mut().tcp.write_all(bytes).is_ok()
    }

    pub fn send_sealed(&mut self, kind: u8, content: &[u8]) -> bool {
        let parts = content.chunks(MOST_IN_A_RECORD);
        let sealed: Vec<u8> = parts.flat_map(|part| self.sealer.seal(kind, part, 0)).collect();
        self.send(&sealed)
    }

    /// The certificates, as they are, and a signature that proves nothing.
    pub fn show(&mut self, chain: &[Vec<u8>]) -> bool {
        let mut list = Vec::new();
        for der in chain {
            list.extend(&(der.len() as u32).to_be_bytes()[1..]);
            list.extend(der);
            list.extend([0, 0]);
        }
        let certificates = [&[0][..], &(list.len() as u32).to_be_bytes()[1..], &list].concat();
        let proof = message(15, &[&[4, 3, 0, 64][..], &[0x30; 64]].concat());
        self.send_sealed(HANDSHAKE, &[message(11, &certificates), proof].concat())
    }

    /// How the gateway ended it: the alert in the library's words, or nothing at all.
    pub fn ending(&mut self) -> String {
        let mut bytes = [0; 4096];
        loop {
            match self.tls.ssl_read(&mut bytes) {
                Ok(1..) => {}
                Ok(_) => return "closed".into(),
                Err(error) if error.code() == ErrorCode::ZERO_RETURN => return "closed".into(),
                Err(error) => {
                    let reason = error.ssl_error().and_then(|stack| stack.errors().first()?.reason());
                    return reason.map_or_else(|| "cut".to_owned(), str::to_ascii_lowercase);
                }
            }
        }
    }
}
