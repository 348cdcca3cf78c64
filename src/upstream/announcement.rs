//! Connections that begin with a PROXY protocol header: the endpoint is told who the client is before anything else.

use async_trait::async_trait;
use pingora_core::connectors::L4Connect;
use pingora_core::protocols::l4::socket::SocketAddr;
use pingora_core::protocols::l4::stream::Stream;
use pingora_core::{ErrorType, OkOrErr, OrErr, Result};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

use crate::proxy_protocol::Header;

/// For whom an endpoint is asked.
pub struct OnBehalf {
    pub header: Header,
    /// Connections for one of these are never used for another one.
    pub connection: u64,
}

/// Connects, and says who the client is. How long that may take is Pingora's business (`total_connection_timeout`).
#[derive(Debug)]
pub(super) struct Announcing(pub(super) Vec<u8>);

#[async_trait]
impl L4Connect for Announcing {
    async fn connect(&self, address: &SocketAddr) -> Result<Stream> {
        let context = || format!("connecting to {address}");
        let address = address.as_inet().or_err(ErrorType::InternalError, "no address of the Internet")?;
        let mut tcp = TcpStream::connect(address).await.or_err_with(ErrorType::ConnectError, context)?;
        tcp.write_all(&self.0).await.or_err_with(ErrorType::ConnectError, context)?;
        Ok(tcp.into())
    }
}
