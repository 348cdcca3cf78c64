//! A certificate authority, two origins and a gateway on loopback: everything in one command.

use std::fmt::Write as _;
use std::io::{BufRead, BufReader, Write as _};
use std::net::{TcpListener, TcpStream};
use std::path::Path;

use crate::pki::{KeyType, Kind, Pki, PkiError, Request, parse_subject};
use crate::server::{self, StartError};

#[derive(Debug, thiserror::Error)]
pub enum DemoError {
    #[error(transparent)]
    Pki(#[from] PkiError),
    #[error("an origin could not be started: {0}")]
    Origin(std::io::Error),
    #[error("the configuration could not be written: {0}")]
    Write(std::io::Error),
    #[error(transparent)]
    Start(#[from] StartError),
}

/// Serves until Ctrl-C. A directory that an earlier run made is used again.
pub fn run(directory: &Path, port: u16, prepare_only: bool) -> Result<(), DemoError> {
    if !directory.join("ca.crt").exists() {
        prepare(directory)?;
    }
    let origins =
        if prepare_only { ["127.0.0.1:9001".into(), "127.0.0.1:9101".into()] } else { start_origins()? };
    let file = directory.join("gateway.yaml");
    std::fs::write(&file, configuration(directory, port, &origins)).map_err(DemoError::Write)?;
    // Nobody may be reading; the demo runs all the same.
    let _ = std::io::stdout().write_all(instructions(directory, port).as_bytes());
    if prepare_only {
        return Ok(());
    }
    Ok(server::run(&file, false)?)
}

fn prepare(directory: &Path) -> Result<(), DemoError> {
    let pki = Pki::init(directory, "Portcullis Demo CA", 365, KeyType::P256)?;
    let request = |name: &str, kind, subject: &str, email: &[&str]| -> Result<Request, PkiError> {
        let server = kind == Kind::Server;
        Ok(Request {
            name: name.into(),
            kind,
            subject: parse_subject(subject)?,
            dns: if server { vec!["localhost".into()] } else { vec![] },
            email: email.iter().map(|&email| email.to_owned()).collect(),
            uri: vec![],
            ip: if server { vec![[127, 0, 0, 1].into()] } else { vec![] },
            days: 365,
            key_type: KeyType::P256,
        })
    };
    pki.issue(&request("localhost", Kind::Server, "CN=localhost", &[])?)?;
    pki.issue(&request("sensor-1", Kind::Client, "CN=sensor-1,OU=sensors", &[])?)?;
    pki.issue(&request("sensor-2", Kind::Client, "CN=sensor-2,OU=sensors", &[])?)?;
    pki.issue(&request("alice", Kind::Client, "CN=alice,OU=staff", &["alice@example.com"])?)?;
    pki.issue(&request("mallory", Kind::Client, "CN=mallory", &[])?)?;
    // Something to be refused: this sensor was stolen.
    pki.revoke(&directory.join("sensor-2.crt"))?;
    pki.crl(365)?;
    Ok(())
}

fn configuration(directory: &Path, port: u16, origins: &[String; 2]) -> String {
    let operators = if can_be_operated(directory) {
        "admin: { address: \"unix:admin.sock\" }\nserver: { state_directory: state }\n"
    } else {
        ""
    };
    format!(
        r#"# Written by `portcullis demo`.
version: 1
listeners:
  - name: edge
    address: "127.0.0.1:{port}"
    tls: {{ certificates: [{{ chain: localhost.crt, key: localhost.key }}] }}
    client_auth: {{ mode: require, trust: [fleet] }}
trust:
  fleet:
    anchors: ca.crt
    revocation: {{ lists: [ca.crl] }}
pools:
  telemetry: {{ endpoints: ["{}"] }}
  backoffice: {{ endpoints: ["{}"] }}
routes:
  - name: sensors
    client: {{ trust: fleet, subject: {{ OU: sensors, CN: "sensor-*" }} }}
    pool: telemetry
  - name: staff
    client: {{ trust: fleet, san: {{ email: "*@example.com" }} }}
    pool: backoffice
identity_headers: [rfc9440, plain]
logging: {{ format: text }}
{operators}"#,
        origins[0], origins[1]
    )
}

/// The path of a Unix socket is short (`unix(7)`).
fn can_be_operated(directory: &Path) -> bool {
    directory.join("admin.sock").as_os_str().len() <= 107
}

fn instructions(directory: &Path, port: u16) -> String {
    let dir = directory.display();
    let mut text = String::from("Try, in another terminal:\n\n");
    let mut step = |who: &str, what: &str| {
        let identity = if who.is_empty() {
            String::new()
        } else {
            format!(" --cert {dir}/{who}.crt --key {dir}/{who}.key")
        };
        let _ = writeln!(
            text,
            "  # {what}\n  curl --cacert {dir}/ca.crt{identity} https://localhost:{port}/readings\n"
        );
    };
    step("", "no certificate: refused in the handshake");
    step("sensor-1", "a sensor: reaches the telemetry pool");
    step("alice", "staff, by e-mail address: reaches the backoffice pool");
    step("sensor-2", "a stolen sensor, revoked: refused in the handshake");
    step("mallory", "a good certificate that no route names: 403");
    if can_be_operated(directory) {
        let _ = writeln!(
            text,
            "  # a sensor was stolen: out at once, and after a restart too; `unblock` lets it in again\n  \
             portcullis block -c {dir}/gateway.yaml --subject CN=sensor-1 --reason stolen\n\n  \
             # who is that, and would they be let in?\n  \
             portcullis who -c {dir}/gateway.yaml --cert {dir}/sensor-1.crt\n"
        );
    }
    let _ = writeln!(
        text,
        "  # why?\n  portcullis explain -c {dir}/gateway.yaml --cert {dir}/mallory.crt GET https://localhost/readings\n\n\
         Ctrl-C ends the demo.\n"
    );
    text
}

/// Two origins that say who called.
fn start_origins() -> Result<[String; 2], DemoError> {
    Ok([start_origin("telemetry")?, start_origin("backoffice")?])
}

fn start_origin(pool: &'static str) -> Result<String, DemoError> {
    let listener = TcpListener::bind("127.0.0.1:0").map_err(DemoError::Origin)?;
    let address = listener.local_addr().map_err(DemoError::Origin)?;
    let serve = move || {
        for connection in listener.incoming().flatten() {
            std::thread::spawn(move || serve_origin(&connection, pool));
        }
    };
    std::thread::Builder::new().name("origin".into()).spawn(serve).map_err(DemoError::Origin)?;
    Ok(address.to_string())
}

/// HTTP/1.1 for requests without a body, which is all the demo needs.
fn serve_origin(connection: &TcpStream, pool: &str) -> Option<()> {
    let mut reader = BufReader::new(connection);
    loop {
        let mut client = String::from("somebody");
        loop {
            let mut line = String::new();
            if reader.read_line(&mut line).ok()? == 0 {
                return None;
            }
            match line.trim_end().split_once(':') {
                Some((name, value)) if name.eq_ignore_ascii_case("x-client-cn") => {
                    value.trim().clone_into(&mut client);
                }
                _ if line.trim_end().is_empty() => break,
                _ => {}
            }
        }
        let body = format!("{client} reached pool `{pool}`\n");
        let answer = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{body}", body.len());
        // One write, one packet.
        let mut writer = connection;
        writer.write_all(answer.as_bytes()).ok()?;
    }
}
