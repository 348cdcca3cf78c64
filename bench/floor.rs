//! What the TLS library alone costs the server: client and server in one process, no sockets, one small request and
//! reply. What a gateway costs beyond this figure is its own. `bench/floor` runs it; see README.md.
//!
//! Only the server's calls into the library are timed, as CPU time of the thread, between two readings of its clock.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::error::Error;
use std::io::{self, Read, Write};
use std::process::ExitCode;
use std::rc::Rc;
use std::time::{Duration, Instant};

use openssl::asn1::Asn1Time;
use openssl::bn::BigNum;
use openssl::ec::{EcGroup, EcKey};
use openssl::hash::MessageDigest;
use openssl::nid::Nid;
use openssl::pkey::{PKey, Private};
use openssl::rsa::Rsa;
use openssl::ssl::{
    self, ErrorCode, Ssl, SslContext, SslContextBuilder, SslMethod, SslSession, SslSessionCacheMode,
    SslStream, SslVerifyMode, SslVersion,
};
use openssl::x509::extension::BasicConstraints;
use openssl::x509::{X509, X509Name};

type Outcome<T> = Result<T, Box<dyn Error>>;

const REQUEST: &[u8] = b"GET / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
const REPLY: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 64\r\nConnection: close\r\n\r\n\
    a small answer from the origin behind the gateway, 64 bytes long";
// A handshake takes two or three turns of each side; one that takes this many never ends.
const MOST_TURNS: usize = 20;

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(problem) => {
            eprintln!("error: {problem}");
            ExitCode::FAILURE
        }
    }
}

/// Prints one line of JSON for each case. The only argument is the seconds for each.
fn run() -> Outcome<()> {
    let seconds: f64 = match std::env::args().nth(1) {
        Some(text) => text.parse().map_err(|_| format!("`{text}` is not a number of seconds"))?,
        None => 2.0,
    };
    let (p256, rsa) = (Pki::with_p256()?, Pki::with_rsa2048()?);
    for (name, pki, version, resumed) in [
        ("full13-p256", &p256, SslVersion::TLS1_3, Resumed::No),
        ("full13-rsa", &rsa, SslVersion::TLS1_3, Resumed::No),
        ("full12-p256", &p256, SslVersion::TLS1_2, Resumed::No),
        ("resumed13", &p256, SslVersion::TLS1_3, Resumed::Yes),
        ("resumed12", &p256, SslVersion::TLS1_2, Resumed::Yes),
    ] {
        let figure = Pair::new(pki, version, resumed)?.measure(Duration::try_from_secs_f64(seconds)?)?;
        println!(
            "{{\"case\": \"{name}\", \"library\": \"{}\", \"cipher\": \"{}\", \"microseconds\": {:.2}, \"done\": {}}}",
            openssl::version::version(),
            figure.cipher,
            figure.server.as_secs_f64() * 1e6 / f64::from(figure.done),
            figure.done,
        );
    }
    Ok(())
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Resumed {
    Yes,
    No,
}

/// An authority, and a server and a client with certificates of it.
struct Pki {
    authority: X509,
    server: (X509, PKey<Private>),
    client: (X509, PKey<Private>),
}

impl Pki {
    fn with_p256() -> Outcome<Self> {
        let group = EcGroup::from_curve_name(Nid::X9_62_PRIME256V1)?;
        Self::new(|| Ok(PKey::from_ec_key(EcKey::generate(&group)?)?))
    }

    fn with_rsa2048() -> Outcome<Self> {
        Self::new(|| Ok(PKey::from_rsa(Rsa::generate(2048)?)?))
    }

    fn new(make_key: impl Fn() -> Outcome<PKey<Private>>) -> Outcome<Self> {
        let authority_key = make_key()?;
        let authority = issue("Bench CA", 1, &authority_key, None)?;
        let issuer = Some((&authority, &authority_key));
        let (server_key, client_key) = (make_key()?, make_key()?);
        let server = issue("localhost", 2, &server_key, issuer)?;
        let client = issue("sensor-1", 3, &client_key, issuer)?;
        Ok(Self { authority, server: (server, server_key), client: (client, client_key) })
    }
}

fn issue(
    name: &str,
    serial: u32,
    key: &PKey<Private>,
    issuer: Option<(&X509, &PKey<Private>)>,
) -> Outcome<X509> {
    let mut subject = X509Name::builder()?;
    subject.append_entry_by_nid(Nid::ORGANIZATIONNAME, "Example")?;
    subject.append_entry_by_nid(Nid::COMMONNAME, name)?;
    let subject = subject.build();
    let mut builder = X509::builder()?;
    builder.set_version(2)?;
    builder.set_serial_number(&*BigNum::from_u32(serial)?.to_asn1_integer()?)?;
    builder.set_subject_name(&subject)?;
    builder.set_issuer_name(issuer.map_or(&*subject, |(certificate, _)| certificate.subject_name()))?;
    builder.set_not_before(&*Asn1Time::from_unix(now_minus_a_day())?)?;
    builder.set_not_after(&*Asn1Time::days_from_now(30)?)?;
    builder.set_pubkey(key)?;
    if issuer.is_none() {
        builder.append_extension(BasicConstraints::new().critical().ca().build()?)?;
    }
    builder.sign(issuer.map_or(key, |(_, key)| key), MessageDigest::sha256())?;
    Ok(builder.build())
}

fn now_minus_a_day() -> i64 {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    i64::try_from(now.as_secs()).unwrap_or(i64::MAX) - 86_400
}

thread_local! {
    /// The session that the client was given last. Here, because the library's callback must be `Send`.
    static NEWEST: RefCell<Option<SslSession>> = const { RefCell::new(None) };
}

/// The two contexts of a case.
struct Pair {
    server: SslContext,
    client: SslContext,
    resumed: Resumed,
}

struct Figure {
    server: Duration,
    done: u32,
    cipher: &'static str,
}

impl Pair {
    fn new(pki: &Pki, version: SslVersion, resumed: Resumed) -> Outcome<Self> {
        let mut server = context(&pki.authority, &pki.server, version)?;
        server.set_verify(SslVerifyMode::PEER | SslVerifyMode::FAIL_IF_NO_PEER_CERT);
        server.set_session_id_context(b"floor")?;
        server.set_session_cache_mode(SslSessionCacheMode::OFF);
        // As the gateway does: one ticket for a handshake, not two.
        // SAFETY: the builder owns the context, which lives through the call.
        unsafe { openssl_sys::SSL_CTX_set_num_tickets(server.as_ptr(), 1) };
        let mut client = context(&pki.authority, &pki.client, version)?;
        client.set_verify(SslVerifyMode::PEER);
        client.set_session_cache_mode(SslSessionCacheMode::CLIENT | SslSessionCacheMode::NO_INTERNAL);
        client.set_new_session_callback(|_, session| NEWEST.set(Some(session)));
        NEWEST.set(None);
        Ok(Self { server: server.build(), client: client.build(), resumed })
    }

    fn measure(&self, time: Duration) -> Outcome<Figure> {
        // The first ones fill caches, and bring the session that the next one resumes.
        for _ in 0..100 {
            self.exchange()?;
        }
        let mut figure = Figure { server: Duration::ZERO, done: 0, cipher: "" };
        let end = Instant::now() + time;
        while Instant::now() < end {
            let (spent, resumed, cipher) = self.exchange()?;
            if resumed != self.resumed {
                return Err("a handshake was resumed that should not be, or the reverse".into());
            }
            figure = Figure { server: figure.server + spent, done: figure.done + 1, cipher };
        }
        Ok(figure)
    }

    /// One connection, from the handshake to its close: what the server spent, whether it resumed, and the cipher.
    fn exchange(&self) -> Outcome<(Duration, Resumed, &'static str)> {
        let (near, far) = pipe();
        let mut client = Ssl::new(&self.client)?;
        // Kept, not taken: TLS 1.2 gives no new one when a session is resumed.
        let session = NEWEST.with_borrow(Option::clone);
        if let (Resumed::Yes, Some(session)) = (self.resumed, session) {
            // SAFETY: the session came from a connection of this very context.
            unsafe { client.set_session(&session)? };
        }
        let mut client = SslStream::new(client, near)?;
        let mut clock = Clock(Duration::ZERO);
        let mut server = clock.time(|| SslStream::new(Ssl::new(&self.server)?, far))?;
        let mut asked = false;
        let mut turns = 0..MOST_TURNS;
        loop {
            turns.next().ok_or("a handshake does not end")?;
            if !asked && goes_on(client.connect())? {
                client.write_all(REQUEST)?;
                asked = true;
            }
            if clock.time(|| serve(&mut server))? {
                break;
            }
        }
        let mut reply = [0; 512];
        let length = client.read(&mut reply)?;
        if &reply[..length] != REPLY {
            return Err("the reply is not what the server sent".into());
        }
        let cipher = server.ssl().current_cipher().map_or("", |cipher| cipher.name());
        let resumed = if server.ssl().session_reused() { Resumed::Yes } else { Resumed::No };
        client.shutdown()?;
        clock.time(|| {
            let closed = server.shutdown();
            drop(server);
            closed
        })?;
        Ok((clock.0, resumed, cipher_name(cipher)))
    }
}

/// Ciphers are few and their names end with the connection; these live on.
fn cipher_name(name: &str) -> &'static str {
    ["TLS_AES_128_GCM_SHA256", "ECDHE-ECDSA-AES128-GCM-SHA256", "ECDHE-RSA-AES128-GCM-SHA256"]
        .into_iter()
        .find(|known| *known == name)
        .unwrap_or("another than asked for")
}

/// What both sides have in common: their certificate, whom they believe, and cryptography as in the benchmark's load.
fn context(authority: &X509, own: &(X509, PKey<Private>), version: SslVersion) -> Outcome<SslContextBuilder> {
    let mut builder = SslContext::builder(SslMethod::tls())?;
    builder.set_min_proto_version(Some(version))?;
    builder.set_max_proto_version(Some(version))?;
    builder.set_certificate(&own.0)?;
    builder.set_private_key(&own.1)?;
    builder.cert_store_mut().add_cert(authority.clone())?;
    builder.set_cipher_list("ECDHE-ECDSA-AES128-GCM-SHA256:ECDHE-RSA-AES128-GCM-SHA256")?;
    // AWS-LC has no such setting and prefers this suite by itself.
    #[cfg(not(feature = "aws-lc"))]
    builder.set_ciphersuites("TLS_AES_128_GCM_SHA256")?;
    builder.set_groups_list("X25519:P-256")?;
    Ok(builder)
}

/// The server's part until it waits for the client; true once it has replied.
fn serve(server: &mut SslStream<Pipe>) -> Outcome<bool> {
    if !goes_on(server.accept())? {
        return Ok(false);
    }
    let mut request = [0; 512];
    let length = match server.ssl_read(&mut request) {
        Ok(length) => length,
        Err(error) if error.code() == ErrorCode::WANT_READ => return Ok(false),
        Err(error) => return Err(error.into()),
    };
    if &request[..length] != REQUEST {
        return Err("the request is not what the client sent".into());
    }
    server.write_all(REPLY)?;
    Ok(true)
}

/// Whether a handshake is done; when it waits for the other side it is not, and that is no error.
fn goes_on(step: Result<(), ssl::Error>) -> Outcome<bool> {
    match step {
        Ok(()) => Ok(true),
        Err(error) if error.code() == ErrorCode::WANT_READ => Ok(false),
        Err(error) => Err(error.into()),
    }
}

/// Adds up the CPU time that this thread spends in what it is given.
struct Clock(Duration);

impl Clock {
    fn time<T>(&mut self, work: impl FnOnce() -> T) -> T {
        let start = thread_time();
        let result = work();
        self.0 += thread_time().saturating_sub(start);
        result
    }
}

fn thread_time() -> Duration {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the structure is ours and lives through the call.
    unsafe { libc::clock_gettime(libc::CLOCK_THREAD_CPUTIME_ID, &raw mut time) };
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}

type Bytes = Rc<RefCell<VecDeque<u8>>>;

/// One end of a connection in memory: what one end writes the other reads, and nobody ever waits.
struct Pipe {
    incoming: Bytes,
    outgoing: Bytes,
}

fn pipe() -> (Pipe, Pipe) {
    let (there, back) = (Bytes::default(), Bytes::default());
    (Pipe { incoming: back.clone(), outgoing: there.clone() }, Pipe { incoming: there, outgoing: back })
}

impl Read for Pipe {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let mut incoming = self.incoming.borrow_mut();
        if incoming.is_empty() {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        incoming.read(into)
    }
}

impl Write for Pipe {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.outgoing.borrow_mut().write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
