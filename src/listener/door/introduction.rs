//! The header with which a balancer says for whom it passes a connection on.

use std::io;
use std::time::Duration;

use pingora_timeout::fast_timeout::fast_timeout;
use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;

use crate::proxy_protocol::{self, Fault, Header, LONGEST};

/// Room for what is usual; few balancers add more.
const USUAL: usize = 256;

#[derive(Debug, thiserror::Error)]
pub(super) enum Unintroduced {
    #[error("the balancer closed the connection before its PROXY protocol header was there")]
    Gone,
    #[error("the PROXY protocol header was not there within {0:?}")]
    Late(Duration),
    #[error("from a network of `proxy_protocol.from`: {0}")]
    Fault(#[from] Fault),
}

/// Reads the header and not a byte more: the next one is TLS.
pub(super) async fn header(tcp: &mut TcpStream, limit: Duration) -> Result<Header, Unintroduced> {
    fast_timeout(limit, read(tcp)).await.unwrap_or(Err(Unintroduced::Late(limit)))
}

async fn read(tcp: &mut TcpStream) -> Result<Header, Unintroduced> {
    let gone = |_: io::Error| Unintroduced::Gone;
    let mut bytes = vec![0; USUAL];
    let mut taken = 0;
    loop {
        if taken == bytes.len() {
            bytes.resize(LONGEST, 0);
        }
        let there = taken + tcp.peek(&mut bytes[taken..]).await.map_err(gone)?;
        if there == taken {
            return Err(Unintroduced::Gone);
        }
        let header = proxy_protocol::read(&bytes[..there])?;
        // As long as it is not complete, all that is there belongs to it.
        let end = header.map_or(there, |(_, length)| length);
        tcp.read_exact(&mut bytes[taken..end]).await.map_err(gone)?;
        taken = end;
        if let Some((header, _)) = header {
            return Ok(header);
        }
    }
}
