//! The process itself: admin endpoints, log, threads, sockets.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use serde_yaml::{Mapping, Value};

use super::super::file::{AdminFile, CensusFile, FormatFile, LevelFile, LoggingFile, ServerFile};
use super::super::types::{
    AccessLog, AdminAddress, AdminConfig, CensusConfig, LogFormat, LoggingConfig, ServerSettings,
};
use super::Builder;

const DEFAULT_UPGRADE_SOCKET: &str = "/run/portcullis/upgrade.sock";

const LONGEST_SOCKET_PATH: usize = 107;

/// What Pingora passes from process to process at once.
const MOST_SOCKETS: usize = 32;

impl Builder {
    /// Two sockets that the kernel would not give us both, however differently their addresses are written.
    pub(super) fn check_ports(&mut self, root: &Mapping, admin: Option<&AdminConfig>) {
        let mut taken: Vec<(String, SocketAddr)> = Vec::new();
        for address in admin.into_iter().flat_map(|admin| &admin.addresses) {
            if let AdminAddress::Tcp(address) = address {
                taken.push(("admin".to_owned(), *address));
            }
        }
        let texts = root.get("listeners").and_then(Value::as_sequence);
        if texts.map_or(0, Vec::len) + taken.len() > MOST_SOCKETS {
            let expected = format!("at most {MOST_SOCKETS} sockets, that of `admin` among them");
            self.problem("listeners", "an upgrade could not hand over so many", Some(&expected), None);
        }
        for (index, item) in texts.into_iter().flatten().enumerate() {
            let address = item.get("address").and_then(Value::as_str).and_then(|text| text.parse().ok());
            let Some(address) = address else { continue };
            let at = format!("listeners[{index}].address");
            let other = taken.iter().find(|(_, other)| overlap(*other, address));
            if let Some((other, theirs)) = other.filter(|_| self.problems.iter().all(|told| told.at != at)) {
                let found = format!("`{address}` and `{theirs}` of `{other}` cannot both be listened on");
                self.problem(at, found, Some("another port"), None);
            }
            taken.push((format!("listeners[{index}]"), address));
        }
    }

    pub(super) fn admin(&mut self, file: &AdminFile) -> Option<AdminConfig> {
        let texts: Vec<&str> = file.address.iter().collect();
        let mut addresses = Vec::new();
        for (index, text) in texts.iter().enumerate() {
            let at =
                if texts.len() == 1 { "admin.address".into() } else { format!("admin.address[{index}]") };
            match self.admin_address(&at, text) {
                Some(address) if addresses.contains(&address) => {
                    self.problem(at, format!("`{text}` is there twice"), None, None);
                }
                Some(address) => addresses.push(address),
                // It is told already.
                None => return None,
            }
        }
        if addresses.is_empty() {
            self.problem("admin.address", "there are none", Some("at least one"), None);
        }
        let token_file = file.token_file.as_deref().map(|text| self.path(text));
        if token_file.is_some() && !addresses.iter().any(|address| matches!(address, AdminAddress::Tcp(_))) {
            let found = "nobody would be asked for it: over a Unix socket no token is needed";
            self.problem("admin.token_file", found, Some("a loopback address among `admin.address`"), None);
        }
        Some(AdminConfig { addresses, token_file })
    }

    fn admin_address(&mut self, at: &str, text: &str) -> Option<AdminAddress> {
        if let Some(path) = text.strip_prefix("unix:") {
            return Some(AdminAddress::Unix(self.socket_path(at, path)));
        }
        match text.parse::<SocketAddr>() {
            Ok(address) if address.port() > 0 && address.ip().is_loopback() => {
                return Some(AdminAddress::Tcp(address));
            }
            Ok(address) if address.port() > 0 => {
                let hint = "put a proxy of your own in front of it where others must reach it".to_owned();
                let found = format!("`{address}` can be reached from other machines");
                self.problem(at, found, Some("a loopback address, or `unix:PATH`"), Some(hint));
            }
            Ok(_) | Err(_) => {
                let found = format!("`{text}` is not an address");
                self.problem(at, found, Some("`127.0.0.1:9900` or `unix:PATH`"), None);
            }
        }
        None
    }

    /// The kernel takes no longer path (`unix(7)`), and an empty one would be the directory.
    fn socket_path(&mut self, at: &str, text: &str) -> PathBuf {
        let path = self.path(text);
        if text.is_empty() || path.as_os_str().len() > LONGEST_SOCKET_PATH {
            let found = format!("`{text}` is not a path for a Unix socket");
            self.problem(at, found, Some("a path of at most 107 bytes"), None);
        }
        path
    }

    /// Without one in the file, the first that systemd has made for the service (`systemd.exec(5)`).
    fn state_directory(&mut self, text: Option<&str>) -> Option<PathBuf> {
        match text {
            Some("") => {
                self.problem("server.state_directory", "it is empty", Some("a directory"), None);
                None
            }
            Some(text) => Some(self.path(text)),
            None => std::env::split_paths(&std::env::var_os("STATE_DIRECTORY")?)
                .next()
                .filter(|directory| directory.is_absolute()),
        }
    }

    pub(super) fn server(&mut self, root: &Mapping) -> ServerSettings {
        let file = self.section::<ServerFile>(root, "server").unwrap_or_default();
        if file.threads == Some(0) {
            self.problem("server.threads", "0 threads serve nobody", Some("1 or more"), None);
        }
        let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        ServerSettings {
            threads: self.at_most("server.threads", file.threads.unwrap_or(cores.min(1024)), 1024),
            drain_timeout: file.drain_timeout.map_or(Duration::from_secs(30), |span| span.0),
            // Never Pingora's own default, which lies in `/tmp`, where anybody may put a socket.
            upgrade_socket: Some(self.socket_path(
                "server.upgrade_socket",
                file.upgrade_socket.as_deref().unwrap_or(DEFAULT_UPGRADE_SOCKET),
            )),
            state_directory: self.state_directory(file.state_directory.as_deref()),
            watch: file.watch.unwrap_or(true),
            sandbox: self.sandbox(file.sandbox),
        }
    }
}

/// What is remembered costs memory: 70 MB for a million.
const MOST_CERTIFICATES: usize = 50_000_000;

impl Builder {
    pub(super) fn census(&mut self, root: &Mapping) -> CensusConfig {
        let file = self.section::<CensusFile>(root, "census").unwrap_or_default();
        CensusConfig {
            window: file.window.map_or(Duration::from_secs(30 * 86_400), |span| span.0),
            maximum: self.at_most("census.maximum", file.maximum.unwrap_or(1_000_000), MOST_CERTIFICATES),
        }
    }
}

/// Whether the kernel would refuse the second of two listening sockets: `[::]` takes the port of every address.
fn overlap(one: SocketAddr, other: SocketAddr) -> bool {
    let (a, b) = (one.ip().to_canonical(), other.ip().to_canonical());
    let covers = |wide: IpAddr, narrow: IpAddr| wide.is_unspecified() && (wide.is_ipv6() || narrow.is_ipv4());
    one.port() == other.port() && (a == b || covers(a, b) || covers(b, a))
}

pub(super) fn logging(file: LoggingFile) -> LoggingConfig {
    LoggingConfig {
        format: match file.format {
            Some(FormatFile::Text) => LogFormat::Text,
            Some(FormatFile::Json) | None => LogFormat::Json,
        },
        level: match file.level {
            Some(LevelFile::Error) => log::LevelFilter::Error,
            Some(LevelFile::Warn) => log::LevelFilter::Warn,
            Some(LevelFile::Debug) => log::LevelFilter::Debug,
            Some(LevelFile::Info) | None => log::LevelFilter::Info,
        },
        access: AccessLog {
            requests: file.access.requests.unwrap_or(true),
            connections: file.access.connections.unwrap_or(true),
            sample: file.access.sample.unwrap_or(1).max(1),
        },
    }
}
