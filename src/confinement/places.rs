//! The files and directories that a gateway needs after its start.

use std::collections::BTreeSet;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use crate::config::{AdminAddress, Config};

/// Everything beneath a directory counts.
pub struct Places {
    pub(super) read: BTreeSet<PathBuf>,
    /// Where files are made, replaced and read again.
    pub(super) keep: BTreeSet<PathBuf>,
    /// Where Unix sockets are made, and those of an earlier run removed.
    pub(super) sockets: BTreeSet<PathBuf>,
    /// Whoever supervises the process may listen on one (`sd_notify(3)`).
    pub(super) needs_abstract_sockets: bool,
}

/// What the C library and the TLS library read while a process runs: how names are resolved (also the modules that do
/// it), whom the system believes, what the kernel says about the process and the machine. Files in `/etc` are replaced by
/// others of the same name, so that only the directory can be named.
const SYSTEM: &[&str] = &[
    "/etc",
    "/usr",
    "/lib",
    "/lib64",
    "/nix/store",
    "/gnu/store",
    "/run/systemd/resolve",
    "/run/resolvconf",
    "/run/NetworkManager",
    "/run/nscd",
    "/var/lib/ca-certificates",
    "/proc",
    "/sys/fs/cgroup",
    "/sys/devices/system",
    "/sys/kernel/mm/transparent_hugepage",
    "/dev/null",
    "/dev/urandom",
];

/// What may lead elsewhere.
const LINKS: &[&str] = &["/etc/resolv.conf", "/etc/hosts", "/etc/nsswitch.conf"];

/// Where somebody says that the certificates of the system are.
const VARIABLES: &[&str] = &["SSL_CERT_FILE", "SSL_CERT_DIR"];

impl Places {
    /// `named`: the directories of the files that the configuration names, and of the configuration itself.
    pub fn of(config: &Config, named: BTreeSet<PathBuf>) -> Self {
        let mut places = Self::of_the_system();
        places.read.extend(named);
        places.read.extend(config.server.sandbox.read.iter().cloned());
        if let Some(directory) = &config.server.state_directory {
            let _ = std::fs::DirBuilder::new().recursive(true).mode(0o700).create(directory);
            places.keep.insert(directory.clone());
        }
        let admin =
            config.admin.iter().flat_map(|admin| &admin.addresses).filter_map(|address| match address {
                AdminAddress::Unix(path) => Some(path),
                AdminAddress::Tcp(_) => None,
            });
        places.sockets.extend(admin.map(|path| directory_of(path)));
        places
    }

    /// A process that takes the sockets over waits for them at a socket of its own.
    #[must_use]
    pub fn upgrading(mut self, socket: &Path) -> Self {
        self.sockets.insert(directory_of(socket));
        self
    }

    /// A rule needs something to hold for: where files were to be kept, and there was no directory.
    pub(super) fn absent(&self) -> impl Iterator<Item = &PathBuf> {
        self.keep.iter().chain(&self.sockets).filter(|place| !place.is_dir())
    }

    pub(super) fn of_the_system() -> Self {
        let mut read: BTreeSet<PathBuf> = SYSTEM.iter().map(PathBuf::from).collect();
        let links = LINKS.iter().filter_map(|link| std::fs::canonicalize(link).ok());
        read.extend(links.map(|target| directory_of(&target)));
        read.extend(VARIABLES.iter().filter_map(std::env::var_os).map(PathBuf::from));
        // Where a panic says where it was, the names of functions are read from it.
        read.extend(std::env::current_exe());
        read.retain(|path| path.exists());
        let supervisor = std::env::var_os("NOTIFY_SOCKET").unwrap_or_default();
        Self {
            read,
            keep: BTreeSet::new(),
            sockets: BTreeSet::new(),
            needs_abstract_sockets: supervisor.as_encoded_bytes().starts_with(b"@"),
        }
    }
}

fn directory_of(file: &Path) -> PathBuf {
    match file.parent() {
        Some(directory) if !directory.as_os_str().is_empty() => directory.to_owned(),
        _ => PathBuf::from("."),
    }
}
