//! Version 1: a line of text.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use super::{Fault, Header};

pub(super) const START: &[u8] = b"PROXY ";

/// With its CR LF.
const LONGEST: usize = 107;

pub(super) fn read(bytes: &[u8]) -> Result<Option<(Header, usize)>, Fault> {
    let within = &bytes[..bytes.len().min(LONGEST)];
    let Some(end) = within.iter().position(|byte| matches!(byte, b'\r' | b'\n')) else {
        return if within.len() == LONGEST { Err(Fault::TooLong) } else { Ok(None) };
    };
    match (within[end], within.get(end + 1)) {
        (b'\r', Some(b'\n')) => {
            let line = std::str::from_utf8(&within[..end]).map_err(|_| Fault::Malformed1)?;
            Ok(Some((line_says(line)?, end + 2)))
        }
        (b'\r', None) if within.len() < LONGEST => Ok(None),
        (b'\r', None) => Err(Fault::TooLong),
        _ => Err(Fault::Malformed1),
    }
}

fn line_says(line: &str) -> Result<Header, Fault> {
    let words: Vec<&str> = line.split(' ').collect();
    let (source, destination) = match words[1..] {
        // Whatever follows is to be ignored.
        ["UNKNOWN", ..] => return Ok(Header::Own),
        ["TCP4", source, destination, from, to] => {
            (at::<Ipv4Addr>(source, from)?, at::<Ipv4Addr>(destination, to)?)
        }
        ["TCP6", source, destination, from, to] => {
            (at::<Ipv6Addr>(source, from)?, at::<Ipv6Addr>(destination, to)?)
        }
        _ => return Err(Fault::Malformed1),
    };
    Ok(Header::Client { source, destination })
}

fn at<A: std::str::FromStr + Into<IpAddr>>(address: &str, port: &str) -> Result<SocketAddr, Fault> {
    let address: A = address.parse().map_err(|_| Fault::Malformed1)?;
    let is_number = port.bytes().all(|byte| byte.is_ascii_digit()) && (port == "0" || !port.starts_with('0'));
    let port = if is_number { port.parse().ok() } else { None };
    Ok(SocketAddr::new(address.into(), port.ok_or(Fault::Malformed1)?))
}

pub(super) fn write(header: &Header) -> Vec<u8> {
    match header {
        Header::Own => b"PROXY UNKNOWN\r\n".to_vec(),
        Header::Client { source, destination } => {
            let family = if source.is_ipv4() { "TCP4" } else { "TCP6" };
            let (from, to) = (source.port(), destination.port());
            format!("PROXY {family} {} {} {from} {to}\r\n", source.ip(), destination.ip()).into_bytes()
        }
    }
}
