//! Version 2: binary.

use std::net::{IpAddr, SocketAddr};

use super::{Fault, Header, LONGEST};

pub(super) const SIGNATURE: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";

/// Signature, version and command, family and transport, length of what follows.
const FIXED: usize = 16;

const LOCAL: u8 = 0x20;
const PROXY: u8 = 0x21;

const UNSPECIFIED: u8 = 0x00;
const TCP4: u8 = 0x11;
const TCP6: u8 = 0x21;

/// The TLV of a CRC-32C over the whole header.
const CRC32C: u8 = 0x03;

pub(super) fn read(bytes: &[u8]) -> Result<Option<(Header, usize)>, Fault> {
    let Some((fixed, rest)) = bytes.split_at_checked(FIXED) else { return Ok(None) };
    let (command, kind) = (fixed[12], fixed[13]);
    if !matches!(command, LOCAL | PROXY) {
        return Err(Fault::Malformed2);
    }
    let length = usize::from(u16::from_be_bytes([fixed[14], fixed[15]]));
    if FIXED + length > LONGEST {
        return Err(Fault::TooLong);
    }
    let Some(said) = rest.get(..length) else { return Ok(None) };
    let header = match (command, kind) {
        // What it may say beside is to be ignored.
        (LOCAL, _) | (PROXY, UNSPECIFIED) => Header::Own,
        (_, TCP4) => client::<4>(said, &bytes[..FIXED + length])?,
        (_, TCP6) => client::<16>(said, &bytes[..FIXED + length])?,
        _ => return Err(Fault::NotTcp),
    };
    Ok(Some((header, FIXED + length)))
}

/// Two addresses of `N` bytes, two ports, TLVs. `whole` is the header that they stand in.
fn client<const N: usize>(said: &[u8], whole: &[u8]) -> Result<Header, Fault>
where
    IpAddr: From<[u8; N]>,
{
    let (addresses, tlvs) = said.split_at_checked(2 * N + 4).ok_or(Fault::Malformed2)?;
    let address = |at: usize| {
        let mut octets = [0; N];
        octets.copy_from_slice(&addresses[at..at + N]);
        IpAddr::from(octets)
    };
    let port = |at: usize| u16::from_be_bytes([addresses[at], addresses[at + 1]]);
    check(tlvs, whole)?;
    Ok(Header::Client {
        source: SocketAddr::new(address(0), port(2 * N)),
        destination: SocketAddr::new(address(N), port(2 * N + 2)),
    })
}

/// That the TLVs, which we do not use, fill their room, and that the checksum is right if there is one.
fn check(mut tlvs: &[u8], whole: &[u8]) -> Result<(), Fault> {
    while let Some((&[kind, high, low], rest)) = tlvs.split_first_chunk() {
        let length = usize::from(u16::from_be_bytes([high, low]));
        let (value, others) = rest.split_at_checked(length).ok_or(Fault::Malformed2)?;
        if kind == CRC32C {
            let told = u32::from_be_bytes(value.try_into().map_err(|_| Fault::Malformed2)?);
            let at = whole.len() - rest.len();
            // Over the header in which the checksum itself is zero.
            let parts = [&whole[..at], &[0; 4], &whole[at + 4..]];
            if checksum(parts.into_iter().flatten()) != told {
                return Err(Fault::Checksum);
            }
        }
        tlvs = others;
    }
    if tlvs.is_empty() { Ok(()) } else { Err(Fault::Malformed2) }
}

/// CRC-32C (RFC 9260, appendix A), bit by bit: few bytes, and few balancers send it.
pub(super) fn checksum<'a>(bytes: impl Iterator<Item = &'a u8>) -> u32 {
    let shifted = |crc: u32| if crc & 1 == 1 { crc >> 1 ^ 0x82F6_3B78 } else { crc >> 1 };
    !bytes.fold(!0, |crc, byte| (0..8).fold(crc ^ u32::from(*byte), |crc, _| shifted(crc)))
}

pub(super) fn write(header: &Header) -> Vec<u8> {
    let mut bytes = SIGNATURE.to_vec();
    match header {
        Header::Own => bytes.extend([LOCAL, UNSPECIFIED, 0, 0]),
        Header::Client { source, destination } => {
            let (kind, length) = if source.is_ipv4() { (TCP4, 12) } else { (TCP6, 36) };
            bytes.extend([PROXY, kind, 0, length]);
            for address in [source, destination] {
                match address.ip() {
                    IpAddr::V4(address) => bytes.extend(address.octets()),
                    IpAddr::V6(address) => bytes.extend(address.octets()),
                }
            }
            bytes.extend(source.port().to_be_bytes());
            bytes.extend(destination.port().to_be_bytes());
        }
    }
    bytes
}
