//! Asks the admin endpoints of a running gateway, over its Unix socket or with its token over loopback.

use std::fmt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Args;
use http::StatusCode;
use http::header::{AUTHORIZATION, CONTENT_LENGTH, CONTENT_TYPE, HOST};
use pingora_core::protocols::http::v1::client::HttpSession;
use pingora_core::protocols::l4::stream::Stream;
use pingora_http::RequestHeader;
use serde_json::Value;
use tokio::net::{TcpStream, UnixStream};

use crate::config::{AdminAddress, Config};

/// A reload may read a large table.
const PATIENCE: Duration = Duration::from_secs(60);

/// No answer is as long; what has no end is none of ours.
const LONGEST_ANSWER: usize = 64 * 1024 * 1024;

#[derive(Debug, Args)]
pub(super) struct AdminArguments {
    /// The configuration of the gateway: `admin` says where it can be asked
    #[arg(short, long, value_name = "FILE", default_value = "/etc/portcullis/portcullis.yaml")]
    config: PathBuf,
    /// Where the gateway can be asked, without a configuration: `unix:PATH` or a loopback address with a port
    #[arg(long, value_name = "ADDRESS", value_parser = address)]
    admin: Option<AdminAddress>,
    /// What it wants to be shown over TCP [default: `admin.token_file` of the configuration]
    #[arg(long, value_name = "FILE")]
    token_file: Option<PathBuf>,
    /// Machine-readable output
    #[arg(long)]
    pub(super) json: bool,
}

pub(super) struct AdminClient {
    address: AdminAddress,
    token: Option<String>,
}

/// Parameters of a request.
pub(super) type Pairs = Vec<(&'static str, String)>;

impl AdminClient {
    /// Where there is a choice, the Unix socket.
    pub(super) fn find(arguments: &AdminArguments) -> Result<Self, String> {
        let (address, token_file) = match &arguments.admin {
            Some(address) => (address.clone(), arguments.token_file.clone()),
            None => from_configuration(&arguments.config, arguments.token_file.clone())?,
        };
        let token_file = token_file.filter(|_| matches!(address, AdminAddress::Tcp(_)));
        Ok(Self { address, token: token_file.map(|file| read_token(&file)).transpose()? })
    }

    pub(super) fn get(&self, path: &str, pairs: &Pairs) -> Result<Value, String> {
        let target = if pairs.is_empty() { path.to_owned() } else { format!("{path}?{}", encoded(pairs)) };
        parsed(&self.ask("GET", &target, "")?)
    }

    pub(super) fn post(&self, path: &str, pairs: &Pairs) -> Result<Value, String> {
        parsed(&self.post_for_text(path, pairs)?)
    }

    /// For what answers with a line for people.
    pub(super) fn post_for_text(&self, path: &str, pairs: &Pairs) -> Result<String, String> {
        self.ask("POST", path, &encoded(pairs))
    }

    fn ask(&self, method: &str, target: &str, body: &str) -> Result<String, String> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let runtime = runtime.map_err(|error| error.to_string())?;
        let exchange = async { tokio::time::timeout(PATIENCE, self.exchange(method, target, body)).await };
        let (status, answer) = runtime
            .block_on(exchange)
            .map_err(|_| format!("the gateway at {self} does not answer within {PATIENCE:?}"))??;
        match status {
            status if status.is_success() => Ok(answer),
            _ if answer.trim().is_empty() => Err(format!("the gateway answers with {status}")),
            _ => Err(answer.trim_end().to_owned()),
        }
    }

    async fn exchange(&self, method: &str, target: &str, body: &str) -> Result<(StatusCode, String), String> {
        let failed = |error: Box<pingora_core::Error>| format!("asking the gateway at {self}: {error}");
        let stream = self.connect().await.map_err(|error| {
            format!("no gateway can be asked at {self}: {error} (hint: does it run, and may you? `--admin` says where)")
        })?;
        let mut session = HttpSession::new(Box::new(stream));
        let request = self.request(method, target, body).map_err(failed)?;
        session.write_request_header(Box::new(request)).await.map_err(failed)?;
        if !body.is_empty() {
            session.write_body(body.as_bytes()).await.map_err(failed)?;
            session.finish_body().await.map_err(failed)?;
        }
        session.read_response().await.map_err(failed)?;
        let status = session.get_status().unwrap_or(StatusCode::BAD_GATEWAY);
        let mut answer = Vec::new();
        while let Some(more) = session.read_body_bytes().await.map_err(failed)? {
            answer.extend_from_slice(&more);
            if answer.len() > LONGEST_ANSWER {
                return Err(format!("what answers at {self} is no gateway: it does not stop"));
            }
        }
        Ok((status, String::from_utf8_lossy(&answer).into_owned()))
    }

    fn request(&self, method: &str, target: &str, body: &str) -> pingora_core::Result<RequestHeader> {
        let mut request = RequestHeader::build(method, target.as_bytes(), None)?;
        request.insert_header(HOST, "localhost")?;
        if method == "POST" {
            request.insert_header(CONTENT_TYPE, "application/x-www-form-urlencoded")?;
            request.insert_header(CONTENT_LENGTH, body.len())?;
        }
        if let Some(token) = &self.token {
            request.insert_header(AUTHORIZATION, format!("Bearer {token}"))?;
        }
        Ok(request)
    }

    async fn connect(&self) -> std::io::Result<Stream> {
        Ok(match &self.address {
            AdminAddress::Tcp(address) => TcpStream::connect(address).await?.into(),
            AdminAddress::Unix(path) => UnixStream::connect(path).await?.into(),
        })
    }
}

impl fmt::Display for AdminClient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.address {
            AdminAddress::Tcp(address) => write!(f, "`{address}`"),
            AdminAddress::Unix(path) => write!(f, "`unix:{}`", path.display()),
        }
    }
}

fn from_configuration(
    file: &Path,
    token_file: Option<PathBuf>,
) -> Result<(AdminAddress, Option<PathBuf>), String> {
    let hint = "hint: `--admin unix:PATH` asks a gateway without its configuration";
    let config = Config::read(file).map_err(|errors| format!("{errors}\n{hint}"))?;
    let admin = config.admin.ok_or_else(|| {
        format!("{} has no `admin` section, so the gateway cannot be asked (hint: `admin: {{ address: \"unix:PATH\" }}`)", file.display())
    })?;
    let is_unix = |address: &&AdminAddress| matches!(address, AdminAddress::Unix(_));
    let address = admin.addresses.iter().find(is_unix).or(admin.addresses.first());
    // The configuration has at least one.
    let address = address.ok_or("`admin.address` is empty")?;
    Ok((address.clone(), token_file.or(admin.token_file)))
}

fn read_token(file: &Path) -> Result<String, String> {
    let text = std::fs::read_to_string(file)
        .map_err(|error| format!("the token file `{}` cannot be read: {error}", file.display()))?;
    let token = text.trim();
    if token.bytes().all(|byte| byte.is_ascii_graphic()) {
        Ok(token.to_owned())
    } else {
        Err(format!("`{}` holds no token (expected: one line of visible characters)", file.display()))
    }
}

fn address(text: &str) -> Result<AdminAddress, String> {
    if let Some(path) = text.strip_prefix("unix:").filter(|path| !path.is_empty()) {
        return Ok(AdminAddress::Unix(path.into()));
    }
    // The token would cross the network in the clear.
    let address = text.parse().ok().filter(|address: &std::net::SocketAddr| address.ip().is_loopback());
    address
        .map(AdminAddress::Tcp)
        .ok_or_else(|| "expected `unix:PATH`, or a loopback address such as `127.0.0.1:9900`".into())
}

fn encoded(pairs: &Pairs) -> String {
    form_urlencoded::Serializer::new(String::new()).extend_pairs(pairs).finish()
}

fn parsed(answer: &str) -> Result<Value, String> {
    serde_json::from_str(answer).map_err(|error| format!("what answers is no gateway: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_never_sent_to_another_machine() {
        assert_eq!(address("unix:/run/x"), Ok(AdminAddress::Unix("/run/x".into())));
        assert_eq!(address("[::1]:9900"), Ok(AdminAddress::Tcp("[::1]:9900".parse().unwrap())));
        for wrong in ["10.0.0.1:9900", "localhost:9900", "unix:", "/run/x", "127.0.0.1", ""] {
            assert!(address(wrong).is_err(), "{wrong}");
        }
    }
}
