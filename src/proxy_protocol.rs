//! The PROXY protocol, versions 1 and 2: how a balancer that only passes bytes on tells who the client is
//! (<https://www.haproxy.org/download/3.2/doc/proxy-protocol.txt>).
//!
//! Read strictly and in bounded memory: what it says is believed, so that nothing may be read into it. Whoever calls has made
//! sure that it comes from somebody who may say so.

mod v1;
mod v2;

use std::net::SocketAddr;

/// No header is longer, with all that balancers add to it (TLVs); the specification asks for room for 536 bytes.
pub const LONGEST: usize = 4096;

/// What a header says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Header {
    /// The connection is passed on for this client.
    Client { source: SocketAddr, destination: SocketAddr },
    /// It is the balancer's own, such as a health check, or it does not know for whom it is: who connected is who is there.
    Own,
}

/// Why what came is no header.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    #[error("it does not begin with a PROXY protocol header")]
    NoHeader,
    #[error("it begins with TLS and not with a PROXY protocol header")]
    Tls,
    #[error("the header is longer than {LONGEST} bytes, or of version 1 than 107")]
    TooLong,
    #[error("the header is none of version 1 as the specification has it")]
    Malformed1,
    #[error("the header is none of version 2 as the specification has it")]
    Malformed2,
    #[error("the header speaks of something else than TCP over IP")]
    NotTcp,
    #[error("the checksum of the header is wrong")]
    Checksum,
}

/// The header at the start of `bytes`, and how long it is. `None`: not all of it is there, and whatever there is belongs to it.
pub fn read(bytes: &[u8]) -> Result<Option<(Header, usize)>, Fault> {
    if begins(bytes, v2::SIGNATURE) {
        v2::read(bytes)
    } else if begins(bytes, v1::START) {
        v1::read(bytes)
    } else if bytes[0] == TLS_HANDSHAKE {
        Err(Fault::Tls)
    } else {
        Err(Fault::NoHeader)
    }
}

/// The content type of a ClientHello's record (RFC 8446, section 5.1).
const TLS_HANDSHAKE: u8 = 22;

/// As far as `bytes` go.
fn begins(bytes: &[u8], start: &[u8]) -> bool {
    let common = bytes.len().min(start.len());
    bytes[..common] == start[..common]
}

/// Which one is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Version {
    V1,
    V2,
}

impl Version {
    /// The bytes that say `header`.
    pub fn write(self, header: &Header) -> Vec<u8> {
        let header = match *header {
            // One family for both.
            Header::Client { source, destination } => {
                let (source, destination) = (canonical(source), canonical(destination));
                let alike = source.is_ipv4() == destination.is_ipv4();
                let as_one = |address| if alike { address } else { mapped(address) };
                Header::Client { source: as_one(source), destination: as_one(destination) }
            }
            Header::Own => Header::Own,
        };
        match self {
            Self::V1 => v1::write(&header),
            Self::V2 => v2::write(&header),
        }
    }
}

fn canonical(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}

fn mapped(address: SocketAddr) -> SocketAddr {
    match address {
        SocketAddr::V4(address) => SocketAddr::new(address.ip().to_ipv6_mapped().into(), address.port()),
        SocketAddr::V6(_) => address,
    }
}

#[cfg(test)]
mod tests;
