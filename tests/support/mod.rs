//! A gateway of its own for each test: the real binary on loopback, with certificates minted for the run.

pub mod frames;
pub mod ocsp;
pub mod open;
pub mod publisher;
pub mod records;
pub mod steady;
mod wire;

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::atomic::{AtomicU16, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

pub use wire::{Call, Scripted, Wire};

pub const BINARY: &str = env!("CARGO_BIN_EXE_portcullis");
/// What the gateways of the tests want to be shown over TCP, in the file `admin.token`.
pub const TOKEN: &str = "a-token-that-only-the-tests-know-0123456789";
const PATIENCE: Duration = Duration::from_secs(20);

/// Waits for something that must happen, for a bounded time.
pub fn eventually<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(Instant::now() < deadline, "{what}: not within {PATIENCE:?}");
        thread::sleep(Duration::from_millis(20));
    }
}

/// A port for a server that is started later. The kernel hands out ports from 32768 up to whoever asks for any, so one
/// of those could be taken meanwhile; these lie below, and no two tests of this run get the same.
pub fn free_port() -> u16 {
    const EACH: u16 = 2000;
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let start = 10_000 + (std::process::id() % 11) as u16 * EACH;
    loop {
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        assert!(number < EACH, "no port is free");
        if TcpListener::bind(("127.0.0.1", start + number)).is_ok() {
            return start + number;
        }
    }
}

/// A file that its owner only can read.
pub fn write_secret(path: &Path, text: &str) {
    use std::os::unix::fs::OpenOptionsExt;
    let mut options = std::fs::OpenOptions::new();
    let file = options.write(true).create(true).truncate(true).mode(0o600).open(path);
    file.unwrap().write_all(text.as_bytes()).unwrap();
}

/// An address that refuses connections for as long as this is held: bound, but nobody listens.
pub struct DeadEndpoint {
    _socket: socket2::Socket,
    pub address: String,
}

impl DeadEndpoint {
    pub fn new() -> Self {
        let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
        socket.bind(&std::net::SocketAddr::from(([127, 0, 0, 1], 0)).into()).unwrap();
        let address = socket.local_addr().unwrap().as_socket().unwrap().to_string();
        Self { _socket: socket, address }
    }
}

/// Runs a command and fails the test if it fails.
pub fn run(directory: &Path, program: &str, arguments: &[&str]) -> Output {
    let output = Command::new(program).args(arguments).current_dir(directory).output().unwrap();
    assert!(
        output.status.success(),
        "{program} {arguments:?}: {}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    output
}

/// An origin that answers with what it was sent: the request line and its headers, one a line.
pub struct Origin {
    pub address: String,
    requests: Arc<Mutex<Vec<String>>>,
}

impl Origin {
    pub fn start() -> Self {
        Self::answering(|head| {
            format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{head}", head.len()).into_bytes()
        })
    }

    /// At an address of the caller's choice.
    pub fn at(address: &str) -> Self {
        Self::listening(TcpListener::bind(address).unwrap(), |head| {
            format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{head}", head.len()).into_bytes()
        })
    }

    /// `answer` makes the whole response from the request's head.
    pub fn answering(answer: impl Fn(&str) -> Vec<u8> + Send + Sync + 'static) -> Self {
        Self::listening(TcpListener::bind("127.0.0.1:0").unwrap(), answer)
    }

    fn listening(listener: TcpListener, answer: impl Fn(&str) -> Vec<u8> + Send + Sync + 'static) -> Self {
        let address = listener.local_addr().unwrap().to_string();
        let requests = Arc::new(Mutex::new(Vec::new()));
        let (answer, seen) = (Arc::new(answer), requests.clone());
        thread::spawn(move || {
            for connection in listener.incoming().flatten() {
                let (answer, seen) = (answer.clone(), seen.clone());
                thread::spawn(move || serve(connection, &*answer, &seen));
            }
        });
        Self { address, requests }
    }

    /// The heads of all requests so far.
    pub fn requests(&self) -> Vec<String> {
        self.requests.lock().unwrap().clone()
    }
}

fn serve(connection: TcpStream, answer: &dyn Fn(&str) -> Vec<u8>, seen: &Mutex<Vec<String>>) -> Option<()> {
    let mut reader = BufReader::new(connection.try_clone().ok()?);
    let mut writer = connection;
    loop {
        let mut head = String::new();
        let mut length = 0;
        loop {
            let mut line = String::new();
            if reader.read_line(&mut line).ok()? == 0 {
                return None;
            }
            if line == "\r\n" {
                break;
            }
            if let Some(value) = line.to_ascii_lowercase().strip_prefix("content-length:") {
                length = value.trim().parse().ok()?;
            }
            head.push_str(&line);
        }
        let mut body = vec![0; length];
        reader.read_exact(&mut body).ok()?;
        seen.lock().unwrap().push(head.clone());
        let bytes = answer(&head);
        if bytes.is_empty() {
            return None;
        }
        writer.write_all(&bytes).ok()?;
    }
}

/// An origin that speaks HTTP/2 without TLS and ends each answer with trailers, as gRPC does.
pub struct H2Origin {
    pub address: String,
    requests: Arc<Mutex<Vec<String>>>,
}

impl H2Origin {
    pub fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let requests = Arc::new(Mutex::new(Vec::new()));
        let seen = requests.clone();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        thread::spawn(move || {
            runtime.block_on(async move {
                let listener = tokio::net::TcpListener::from_std(listener).unwrap();
                while let Ok((stream, _)) = listener.accept().await {
                    tokio::spawn(serve_h2(stream, seen.clone()));
                }
            });
        });
        Self { address, requests }
    }

    /// The headers of all requests so far, one a line.
    pub fn requests(&self) -> Vec<String> {
        self.requests.lock().unwrap().clone()
    }
}

async fn serve_h2(stream: tokio::net::TcpStream, seen: Arc<Mutex<Vec<String>>>) -> Result<(), h2::Error> {
    let mut connection = h2::server::handshake(stream).await?;
    while let Some(request) = connection.accept().await {
        let (request, mut respond) = request?;
        let seen = seen.clone();
        tokio::spawn(async move {
            let (head, mut body) = request.into_parts();
            let header = |(name, value): (&http::HeaderName, &http::HeaderValue)| {
                format!("{name}: {}\n", String::from_utf8_lossy(value.as_bytes()))
            };
            seen.lock().unwrap().push(head.headers.iter().map(header).collect());
            let mut echo = b"echo ".to_vec();
            while let Some(data) = body.data().await {
                let data = data?;
                let _ = body.flow_control().release_capacity(data.len());
                echo.extend_from_slice(&data);
            }
            if let Some(trailers) = body.trailers().await? {
                seen.lock().unwrap().push(trailers.iter().map(header).collect());
            }
            let response = http::Response::builder().header("content-type", "application/grpc");
            let mut stream = respond.send_response(response.body(()).unwrap(), false)?;
            stream.send_data(echo.into(), false)?;
            let trailers =
                [("grpc-status", "0")].map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap()));
            stream.send_trailers(trailers.into_iter().collect())
        });
    }
    Ok(())
}

/// A directory with an authority `ca.crt`, a server certificate, and clients; and then a gateway.
pub struct Site {
    pub directory: tempfile::TempDir,
    pub port: u16,
    pub admin: u16,
}

impl Site {
    pub fn new() -> Self {
        let site = Self { directory: tempfile::tempdir().unwrap(), port: free_port(), admin: free_port() };
        write_secret(&site.path().join("admin.token"), TOKEN);
        site.pki(&["init", "--common-name", "Test CA"]);
        site.pki(&["issue", "server", "--kind", "server", "--subject", "CN=localhost", "--dns", "localhost"]);
        site.client("sensor-1", "CN=sensor-1,OU=sensors");
        site
    }

    pub fn path(&self) -> &Path {
        self.directory.path()
    }

    /// `portcullis pki VERB -d . …`
    pub fn pki(&self, arguments: &[&str]) {
        self.pki_in(".", arguments);
    }

    pub fn pki_in(&self, directory: &str, arguments: &[&str]) {
        let (verb, rest) = arguments.split_first().unwrap();
        run(self.path(), BINARY, &[&["pki", verb, "-d", directory], rest].concat());
    }

    pub fn client(&self, name: &str, subject: &str) {
        self.pki(&["issue", name, "--subject", subject]);
    }

    /// A client's certificate that is valid so many seconds from and until now, with a key of its own.
    pub fn mint(&self, name: &str, subject: &str, seconds: std::ops::Range<i64>) {
        use openssl::asn1::Asn1Time;
        use openssl::pkey::PKey;
        use openssl::x509::{X509, X509Builder, X509Name};
        let read = |file: &str| std::fs::read(self.path().join(file)).unwrap();
        let ca = X509::from_pem(&read("ca.crt")).unwrap();
        let ca_key = PKey::private_key_from_pem(&read("ca.key")).unwrap();
        let group = openssl::ec::EcGroup::from_curve_name(openssl::nid::Nid::X9_62_PRIME256V1).unwrap();
        let key = PKey::from_ec_key(openssl::ec::EcKey::generate(&group).unwrap()).unwrap();
        let mut builder = X509Builder::new().unwrap();
        builder.set_version(2).unwrap();
        let mut serial = openssl::bn::BigNum::new().unwrap();
        serial.rand(127, openssl::bn::MsbOption::ONE, false).unwrap();
        builder.set_serial_number(&serial.to_asn1_integer().unwrap()).unwrap();
        let mut name_builder = X509Name::builder().unwrap();
        for (key, value) in subject.split(',').map(|part| part.split_once('=').unwrap()) {
            name_builder.append_entry_by_text(key, value).unwrap();
        }
        builder.set_subject_name(&name_builder.build()).unwrap();
        builder.set_issuer_name(ca.subject_name()).unwrap();
        builder.set_pubkey(&key).unwrap();
        let now =
            std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs() as i64;
        builder.set_not_before(&Asn1Time::from_unix(now + seconds.start).unwrap()).unwrap();
        builder.set_not_after(&Asn1Time::from_unix(now + seconds.end).unwrap()).unwrap();
        builder.sign(&ca_key, openssl::hash::MessageDigest::sha256()).unwrap();
        let write = |kind: &str, pem: Vec<u8>| {
            std::fs::write(self.path().join(format!("{name}.{kind}")), pem).unwrap();
        };
        write("crt", builder.build().to_pem().unwrap());
        write("key", key.private_key_to_pem_pkcs8().unwrap());
    }

    /// The usual configuration; `extra` replaces or adds whole sections.
    pub fn configure(&self, origin: &str, extra: &[(&str, &str)]) -> PathBuf {
        let mut sections = vec![
            (
                "listeners",
                format!(
                    "[{{ name: edge, address: \"127.0.0.1:{}\", tls: {{ certificates: [{{ chain: server.crt, key: \
                     server.key }}] }}, client_auth: {{ mode: require, trust: [fleet] }}, limits: {{ \
                     handshake_timeout: 1s }} }}]",
                    self.port
                ),
            ),
            ("trust", "{ fleet: { anchors: ca.crt } }".to_owned()),
            ("pools", format!("{{ main: {{ endpoints: [\"{origin}\"] }} }}")),
            (
                "routes",
                "[{ name: sensors, client: { trust: fleet, subject: { OU: sensors } }, pool: main }]".into(),
            ),
            ("identity_headers", "[rfc9440, plain, nginx, xfcc]".into()),
            ("admin", format!("{{ address: \"127.0.0.1:{}\", token_file: admin.token }}", self.admin)),
            ("server", "{ threads: 1, drain_timeout: 5s }".into()),
        ];
        for (name, text) in extra {
            let text = text.replace("PORT", &self.port.to_string());
            match sections.iter_mut().find(|(known, _)| known == name) {
                Some(section) => section.1 = text,
                None => sections.push((name, text)),
            }
        }
        let mut yaml = String::from("version: 1\n");
        for (name, text) in sections {
            yaml += &format!("{name}: {text}\n");
        }
        let file = self.path().join("gateway.yaml");
        std::fs::write(&file, yaml).unwrap();
        file
    }

    pub fn start(&self) -> Gateway {
        Gateway::start(self.path(), self.admin)
    }

    /// A gateway that believes whatever `file` says to be the address of every name.
    pub fn start_with_names(&self, file: &str) -> Gateway {
        self.start_with("names", "NAMES_FILE", file)
    }

    /// A gateway whose clock is as many seconds ahead as `file` says.
    pub fn start_with_clock(&self, file: &str) -> Gateway {
        self.start_with("clock", "CLOCK_FILE", file)
    }

    fn start_with(&self, library: &str, variable: &str, file: &str) -> Gateway {
        let source = format!("{}/tests/support/{library}.c", env!("CARGO_MANIFEST_DIR"));
        let built = format!("{library}.so");
        run(self.path(), "cc", &["-shared", "-fPIC", "-o", &built, &source, "-ldl"]);
        let mut command = Gateway::command(self.path());
        command.env("LD_PRELOAD", self.path().join(built)).env(variable, self.path().join(file));
        Gateway::spawn(command, self.admin)
    }

    /// A gateway that a shell starts after it has done what `before` says, with what `after` says behind its arguments.
    pub fn start_in_shell(&self, before: &str, after: &str) -> Gateway {
        let mut command = Command::new("sh");
        command.current_dir(self.path());
        command.args(["-c", &format!("{before}; exec {BINARY} run -c gateway.yaml {after}")]);
        Gateway::spawn(command, self.admin)
    }

    /// A POST over HTTP/2 whose body ends with trailers. Its status.
    pub fn post_with_trailers(
        &self,
        client: &str,
        path: &str,
        trailers: &[(&'static str, &'static str)],
    ) -> u16 {
        let trailers: http::HeaderMap = trailers
            .iter()
            .map(|(name, value)| (name.parse().unwrap(), http::HeaderValue::from_static(value)))
            .collect::<Vec<(http::HeaderName, _)>>()
            .into_iter()
            .collect();
        let request = http::Request::post(format!("https://localhost:{}{path}", self.port)).body(()).unwrap();
        self.over_h2(client, async move |send| {
            let (response, mut body) = send.ready().await.unwrap().send_request(request, false).unwrap();
            body.send_data(bytes::Bytes::from_static(b"message"), false).unwrap();
            body.send_trailers(trailers).unwrap();
            response.await.unwrap().status().as_u16()
        })
    }

    /// Asks over HTTP/2 and takes it back at once, as often as the gateway lets it, at most `times`. How often that was.
    pub fn reset_rapidly(&self, client: &str, times: usize) -> usize {
        let url = format!("https://localhost:{}/", self.port);
        self.over_h2(client, async move |mut send| {
            for done in 0..times {
                let request = http::Request::get(&url).body(()).unwrap();
                let Ok(ready) = send.ready().await else { return done };
                send = ready;
                let Ok((_, mut body)) = send.send_request(request, false) else { return done };
                body.send_reset(h2::Reason::CANCEL);
                // Lets the connection send both.
                tokio::task::yield_now().await;
            }
            times
        })
    }

    pub fn over_h2<T>(
        &self,
        client: &str,
        exchange: impl AsyncFnOnce(h2::client::SendRequest<bytes::Bytes>) -> T,
    ) -> T {
        use openssl::ssl::{SslConnector, SslFiletype, SslMethod};
        let mut builder = SslConnector::builder(SslMethod::tls_client()).unwrap();
        builder.set_ca_file(self.path().join("ca.crt")).unwrap();
        builder.set_certificate_chain_file(self.path().join(format!("{client}.crt"))).unwrap();
        let key = self.path().join(format!("{client}.key"));
        builder.set_private_key_file(key, SslFiletype::PEM).unwrap();
        builder.set_alpn_protos(b"\x02h2").unwrap();
        let ssl = builder.build().configure().unwrap().into_ssl("localhost").unwrap();
        let all = async {
            let tcp = tokio::net::TcpStream::connect(("127.0.0.1", self.port)).await.unwrap();
            let mut tls = tokio_openssl::SslStream::new(ssl, tcp).unwrap();
            std::pin::Pin::new(&mut tls).connect().await.unwrap();
            let (send, connection) = h2::client::handshake(tls).await.unwrap();
            tokio::spawn(connection);
            exchange(send).await
        };
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async { tokio::time::timeout(PATIENCE, all).await.unwrap() })
    }

    /// curl as a client with certificate NAME.crt, or as one without.
    pub fn curl(&self, client: Option<&str>, arguments: &[&str], path: &str) -> Reply {
        self.curl_at(client, arguments, &format!("https://localhost:{}{path}", self.port))
    }

    pub fn curl_at(&self, client: Option<&str>, arguments: &[&str], url: &str) -> Reply {
        let mut command = Command::new("curl");
        command.current_dir(self.path()).args([
            "-sS",
            "--max-time",
            "15",
            "--path-as-is",
            "--cacert",
            "ca.crt",
        ]);
        command.args(["-o", "-", "-w", "\n%{http_code} %{http_version}"]);
        if let Some(client) = client {
            command.args(["--cert", &format!("{client}.crt"), "--key", &format!("{client}.key")]);
        }
        let output = command.args(arguments).arg(url).output().unwrap();
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let (body, code) = text.rsplit_once('\n').unwrap_or(("", "0 0"));
        let (status, version) = code.split_once(' ').unwrap_or(("0", "0"));
        Reply { status: status.parse().unwrap_or(0), version: version.to_owned(), body: body.to_owned() }
    }

    /// `openssl s_client` as sensor-1, with a request on its standard input.
    pub fn s_client(&self, arguments: &[&str], input: &str) -> String {
        let mut child = Command::new("openssl")
            .current_dir(self.path())
            .args(["s_client", "-connect", &format!("127.0.0.1:{}", self.port), "-CAfile", "ca.crt"])
            .args(["-cert", "sensor-1.crt", "-key", "sensor-1.key", "-ign_eof"])
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let _ = child.stdin.take().unwrap().write_all(input.as_bytes());
        let output = child.wait_with_output().unwrap();
        format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
    }
}

/// What curl got. Status 0: no answer at all.
#[derive(Debug)]
pub struct Reply {
    pub status: u16,
    pub version: String,
    pub body: String,
}

impl Reply {
    /// The value of a header that the echoing origin saw.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.body.lines().find_map(|line| {
            let (key, value) = line.split_once(':')?;
            key.eq_ignore_ascii_case(name).then(|| value.trim())
        })
    }
}

/// The real binary, running.
pub struct Gateway {
    child: Child,
    admin: u16,
    log: Arc<Mutex<String>>,
}

impl Gateway {
    pub fn start(directory: &Path, admin: u16) -> Self {
        Self::spawn(Self::command(directory), admin)
    }

    fn command(directory: &Path) -> Command {
        let mut command = Command::new(BINARY);
        command.args(["run", "-c", "gateway.yaml"]).current_dir(directory);
        command
    }

    pub fn spawn(mut command: Command, admin: u16) -> Self {
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let log = Arc::new(Mutex::new(String::new()));
        let streams: [Box<dyn Read + Send>; 2] =
            [Box::new(child.stdout.take().unwrap()), Box::new(child.stderr.take().unwrap())];
        for stream in streams {
            let log = log.clone();
            thread::spawn(move || {
                for line in BufReader::new(stream).lines().map_while(Result::ok) {
                    let mut log = log.lock().unwrap();
                    log.push_str(&line);
                    log.push('\n');
                }
            });
        }
        let mut gateway = Self { child, admin, log };
        eventually("the gateway is ready", || {
            let ended = gateway.child.try_wait().unwrap();
            assert!(ended.is_none(), "the gateway ended: {ended:?}\n{}", gateway.log());
            (gateway.admin_get("/readyz").0 == 200).then_some(())
        });
        gateway
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    pub fn log(&self) -> String {
        self.log.lock().unwrap().clone()
    }

    /// A line of the log with all of these in it.
    pub fn logged(&self, parts: &[&str]) -> String {
        eventually(&format!("{parts:?} is logged\n{}", self.log()), || {
            let log = self.log();
            log.lines().find(|line| parts.iter().all(|part| line.contains(part))).map(str::to_owned)
        })
    }

    pub fn signal(&self, signal: &str) {
        run(Path::new("/"), "kill", &[&format!("-{signal}"), &self.pid().to_string()]);
    }

    pub fn admin_get(&self, path: &str) -> (u16, String) {
        self.admin_request("GET", path)
    }

    pub fn admin_request(&self, method: &str, path: &str) -> (u16, String) {
        let url = format!("http://127.0.0.1:{}{path}", self.admin);
        let output = Command::new("curl")
            .args(["-s", "--max-time", "10", "-X", method, "-w", "\n%{http_code}", &url])
            .args(["-H", &format!("Authorization: Bearer {TOKEN}")])
            .output()
            .unwrap();
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let (body, status) = text.rsplit_once('\n').unwrap_or(("", "0"));
        (status.parse().unwrap_or(0), body.to_owned())
    }

    /// The value of a metric, by its name and labels as they are rendered.
    pub fn metric(&self, name: &str) -> f64 {
        let (_, text) = self.admin_get("/metrics");
        let line =
            text.lines().find(|line| line.strip_prefix(name).is_some_and(|rest| rest.starts_with(' ')));
        line.and_then(|line| line.rsplit_once(' ')?.1.parse().ok()).unwrap_or(0.0)
    }

    pub fn reload(&self) -> (u16, String) {
        self.admin_request("POST", "/reload")
    }

    /// Waits until it ended by itself; its exit code.
    pub fn wait(&mut self) -> Option<i32> {
        eventually("the gateway ends", || self.child.try_wait().unwrap()).code()
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if thread::panicking() {
            eprintln!("gateway log:\n{}", self.log());
        }
    }
}
