//! Listening sockets: bound by us, passed by systemd, or inherited from the process that is being upgraded.

use std::io;
use std::net::{SocketAddr, TcpListener as StdListener, TcpStream};
use std::os::fd::{AsRawFd, FromRawFd, RawFd};

use pingora_core::server::ListenFds;
use rustix::net::{SocketFlags, acceptfrom_with};
use socket2::{Domain, Protocol, SockRef, Socket, Type};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use crate::config::ListenAddress;

/// Connections that wait for us to accept them; the kernel caps it at `net.core.somaxconn`.
const BACKLOG: i32 = 4096;

#[derive(Debug, thiserror::Error)]
pub enum BindError {
    #[error("cannot listen on `{address}`: {source}{hint}")]
    Bind { address: SocketAddr, source: std::io::Error, hint: &'static str },
    #[error(
        "systemd passed no socket called `{name}` (hint: `FileDescriptorName={name}` in the .socket unit)"
    )]
    NotPassed { name: String },
    #[error("the process being upgraded passed no socket for `{address}`")]
    NotInherited { address: String },
    #[error("the socket cannot be used: {0}")]
    Unusable(#[from] std::io::Error),
}

/// A socket that has its address.
pub struct BoundSocket(StdListener);

impl BoundSocket {
    pub fn as_raw_fd(&self) -> RawFd {
        self.0.as_raw_fd()
    }

    /// From now on clients can connect. A socket that somebody else bound listens already.
    pub fn listen(&self) -> Result<(), BindError> {
        let socket = SockRef::from(&self.0);
        if socket.is_listener()? {
            return Ok(());
        }
        let address = self.0.local_addr()?;
        // Another process may have bound the same address, and got here first.
        socket.listen(BACKLOG).map_err(|source| BindError::new(address, source))
    }

    pub fn into_tokio(self) -> Result<tokio::net::TcpListener, BindError> {
        self.0.set_nonblocking(true)?;
        Ok(tokio::net::TcpListener::from_std(self.0)?)
    }

    pub fn into_accepting(self) -> Result<Accepting, BindError> {
        self.0.set_nonblocking(true)?;
        // Small answers must not wait for the client's acknowledgement of the one before; connections inherit it.
        SockRef::from(&self.0).set_tcp_nodelay(true)?;
        // SAFETY: the listener keeps its descriptor, and nobody but `Accepting` has it until both are dropped.
        #[allow(unsafe_code)]
        let socket = unsafe { AsyncFd::register_with_interest(self.0, Interest::READABLE) };
        Ok(Accepting(socket.map_err(io::Error::from)?))
    }
}

/// A socket that connections are taken from. They are not registered with the reactor that accepts, but with that of
/// the worker that serves them: two system calls less for each.
pub struct Accepting(AsyncFd<StdListener>);

impl Accepting {
    /// The next connection, not blocking.
    pub async fn accept(&self) -> io::Result<(TcpStream, SocketAddr)> {
        self.0.async_io(Interest::READABLE, take).await
    }

    /// Those that wait now.
    pub fn waiting(&self) -> impl Iterator<Item = (TcpStream, SocketAddr)> {
        std::iter::from_fn(|| take(self.0.get_ref()).ok()).take(BACKLOG as usize)
    }
}

fn take(socket: &StdListener) -> io::Result<(TcpStream, SocketAddr)> {
    let (connection, peer) = acceptfrom_with(socket, SocketFlags::NONBLOCK | SocketFlags::CLOEXEC)?;
    let peer = peer.ok_or(io::ErrorKind::ConnectionAborted)?;
    let peer = peer.try_into().map_err(|_| io::Error::from(io::ErrorKind::Unsupported))?;
    Ok((connection.into(), peer))
}

/// Binds, or takes what systemd passed. `passed` finds a socket by its name. Nobody can connect until it
/// [listens](BoundSocket::listen): what is behind it may take a while to load.
pub fn bind(
    address: &ListenAddress,
    passed: &mut dyn FnMut(&str) -> Option<StdListener>,
) -> Result<BoundSocket, BindError> {
    match address {
        ListenAddress::Tcp(address) => reserve(*address).map(BoundSocket),
        ListenAddress::Systemd(name) => {
            passed(name).map(BoundSocket).ok_or_else(|| BindError::NotPassed { name: name.clone() })
        }
    }
}

fn reserve(address: SocketAddr) -> Result<StdListener, BindError> {
    let reserve = || {
        let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
        if address.is_ipv6() && address.ip().is_unspecified() {
            // `[::]` means every address of the machine, IPv4 ones too.
            socket.set_only_v6(false)?;
        }
        // No SO_REUSEPORT: one accept loop spreads connections over all workers evenly, which separate queues do not, and a
        // second process of ours must find the port in use instead of taking half of the clients away.
        // A restart must not wait for the connections of the run before (TIME_WAIT).
        socket.set_reuse_address(true)?;
        socket.bind(&address.into())?;
        Ok(socket.into())
    };
    reserve().map_err(|source: std::io::Error| BindError::new(address, source))
}

impl BindError {
    fn new(address: SocketAddr, source: std::io::Error) -> Self {
        let hint = match source.kind() {
            std::io::ErrorKind::AddrInUse => " (hint: `ss -ltnp` shows which process has it)",
            std::io::ErrorKind::PermissionDenied => " (hint: ports below 1024 need CAP_NET_BIND_SERVICE)",
            std::io::ErrorKind::AddrNotAvailable => " (hint: this machine has no such address)",
            _ => "",
        };
        Self::Bind { address, source, hint }
    }
}

/// The socket that the process being upgraded handed over under `address`.
pub fn inherited(address: &str, fds: Option<&ListenFds>) -> Result<BoundSocket, BindError> {
    let fd = fds.and_then(|fds| fds.lock().get(address).copied());
    let fd = fd.ok_or_else(|| BindError::NotInherited { address: address.to_owned() })?;
    // SAFETY: the descriptor was received over the upgrade socket; nobody else in this process owns it.
    #[allow(unsafe_code)]
    let listener = unsafe { StdListener::from_raw_fd(fd) };
    Ok(BoundSocket(listener))
}
