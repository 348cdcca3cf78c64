//! Where the admin endpoints listen: loopback ports and Unix sockets, never a public listener.

use std::fs::{File, Permissions};
use std::io::{Error, ErrorKind};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::os::unix::net::{UnixListener as StdUnixListener, UnixStream};
use std::path::{Path, PathBuf};

use pingora_core::protocols::l4::stream::Stream;
use pingora_core::server::ListenFds;
use socket2::{Domain, SockAddr, Socket, Type};
use tokio::net::{TcpListener, UnixListener};

use super::StartError;
use crate::admin::Caller;
use crate::config::{AdminAddress, ListenAddress};
use crate::listener::{BoundSocket, bind, inherited};

/// One of them, before anything starts.
pub enum AdminSocket {
    /// `None`: it comes from the process that is being upgraded.
    Tcp { key: String, bound: Option<BoundSocket> },
    /// `None`: it is not there yet.
    Unix { path: PathBuf, bound: Option<StdUnixListener> },
}

/// One that accepts.
pub enum Accepting {
    Tcp(TcpListener),
    Unix(UnixListener),
}

impl AdminSocket {
    /// Takes the port, if it is one.
    pub fn reserve(address: &AdminAddress, upgrade: bool) -> Result<Self, StartError> {
        Ok(match address {
            AdminAddress::Tcp(address) => {
                let bound =
                    if upgrade { None } else { Some(bind(&ListenAddress::Tcp(*address), &mut |_| None)?) };
                Self::Tcp { key: format!("admin:{address}"), bound }
            }
            AdminAddress::Unix(path) => Self::Unix { path: path.clone(), bound: None },
        })
    }

    /// Whoever asks is heard from now on, and answered when the gateway serves.
    pub fn listen(&mut self, upgrade: bool) -> Result<(), StartError> {
        match self {
            Self::Tcp { bound, .. } => bound.iter().try_for_each(BoundSocket::listen)?,
            Self::Unix { path, bound } => match unix(path, upgrade) {
                Ok(socket) => *bound = Some(socket),
                Err(source) => return Err(StartError::AdminPath { path: path.clone(), source }),
            },
        }
        Ok(())
    }

    pub fn into_accepting(self, fds: Option<&ListenFds>) -> Result<Accepting, StartError> {
        match self {
            Self::Tcp { key, bound } => {
                let socket = match bound {
                    Some(bound) => bound,
                    None => inherited(&key, fds)?,
                };
                if let Some(fds) = fds {
                    fds.lock().add(key, socket.as_raw_fd());
                }
                Ok(Accepting::Tcp(socket.into_tokio()?))
            }
            Self::Unix { bound, .. } => {
                let listener = bound.ok_or_else(|| StartError::Admin(ErrorKind::NotConnected.into()))?;
                log::debug!("admin socket {}", listener.as_raw_fd());
                UnixListener::from_std(listener).map(Accepting::Unix).map_err(StartError::Admin)
            }
        }
    }
}

impl Accepting {
    pub async fn accept(&self) -> std::io::Result<(Stream, Caller)> {
        match self {
            Self::Tcp(listener) => {
                let (stream, peer) = listener.accept().await?;
                Ok((stream.into(), Caller::Tcp(peer)))
            }
            Self::Unix(listener) => {
                let (stream, _) = listener.accept().await?;
                // What the kernel says of the process that connected (SO_PEERCRED, unix(7)).
                let peer = stream.peer_cred()?;
                Ok((stream.into(), Caller::Unix { user: peer.uid(), process: peer.pid() }))
            }
        }
    }
}

/// Replaces a socket that an earlier run left behind, but never another kind of file, nor one that somebody answers on:
/// only an upgrade takes that over.
fn unix(path: &Path, upgrade: bool) -> std::io::Result<StdUnixListener> {
    if std::fs::symlink_metadata(path).is_ok_and(|metadata| metadata.file_type().is_socket()) {
        if !upgrade && UnixStream::connect(path).is_ok() {
            return Err(Error::new(ErrorKind::AddrInUse, "another process answers there"));
        }
        std::fs::remove_file(path)?;
    }
    // Whoever may write to it may do what an operator may: the owner only. Said before it has a name, so that there is
    // no moment at which others could connect; on Linux the name inherits the mode.
    let owner_only = || Permissions::from_mode(0o600);
    let socket = File::from(OwnedFd::from(Socket::new(Domain::UNIX, Type::STREAM, None)?));
    socket.set_permissions(owner_only())?;
    let socket = Socket::from(OwnedFd::from(socket));
    socket.bind(&SockAddr::unix(path)?)?;
    std::fs::set_permissions(path, owner_only())?;
    socket.listen(128)?;
    socket.set_nonblocking(true)?;
    Ok(OwnedFd::from(socket).into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_unix_socket_belongs_to_its_owner_only() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("admin.sock");
        let socket = unix(&path, false).unwrap();
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o7777, 0o600);
        assert_eq!(unix(&path, false).unwrap_err().kind(), ErrorKind::AddrInUse);
        drop(socket);
        assert!(unix(&path, false).is_ok(), "nobody answers there any more");
    }
}
