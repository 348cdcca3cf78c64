//! What is a header, what is none, and what may still become one.

use std::net::IpAddr;

use proptest::prelude::*;

use super::*;

fn client(source: &str, destination: &str) -> Header {
    Header::Client { source: source.parse().unwrap(), destination: destination.parse().unwrap() }
}

/// A header of version 2 with these bytes after the fixed part.
fn binary(command: u8, kind: u8, said: &[u8]) -> Vec<u8> {
    let mut bytes = v2::SIGNATURE.to_vec();
    bytes.extend([command, kind]);
    bytes.extend(u16::try_from(said.len()).unwrap().to_be_bytes());
    bytes.extend(said);
    bytes
}

const TCP4: [u8; 12] = [192, 0, 2, 1, 198, 51, 100, 1, 0xdd, 0xd5, 0x20, 0xfb];

#[test]
fn lines_of_version_1_are_read_as_they_are_written_down() {
    let read = |line: &str| read(format!("{line}\r\n\x16\x03").as_bytes());
    for (line, says) in [
        ("PROXY TCP4 192.0.2.1 198.51.100.1 56789 8443", client("192.0.2.1:56789", "198.51.100.1:8443")),
        ("PROXY TCP4 255.255.255.255 0.0.0.0 65535 0", client("255.255.255.255:65535", "0.0.0.0:0")),
        ("PROXY TCP6 2001:db8::1 ::1 1 2", client("[2001:db8::1]:1", "[::1]:2")),
        ("PROXY UNKNOWN", Header::Own),
        ("PROXY UNKNOWN ffff:f...f:ffff ffff:f...f:ffff 65535 65535", Header::Own),
    ] {
        assert_eq!(read(line), Ok(Some((says, line.len() + 2))), "{line}");
    }
    for line in [
        "PROXY ",
        "PROXY",
        "PROXY TCP4",
        "PROXY TCP5 192.0.2.1 198.51.100.1 1 2",
        "PROXY tcp4 192.0.2.1 198.51.100.1 1 2",
        "PROXY TCP4 192.0.2.1 198.51.100.1 1",
        "PROXY TCP4 192.0.2.1 198.51.100.1 1 2 3",
        "PROXY TCP4 192.0.2.1 198.51.100.1 1 2 ",
        "PROXY  TCP4 192.0.2.1 198.51.100.1 1 2",
        "PROXY TCP4 192.0.2.01 198.51.100.1 1 2",
        "PROXY TCP4 192.0.2 198.51.100.1 1 2",
        "PROXY TCP4 ::1 ::1 1 2",
        "PROXY TCP6 192.0.2.1 198.51.100.1 1 2",
        "PROXY TCP6 fe80::1%eth0 ::1 1 2",
        "PROXY TCP4 192.0.2.1 198.51.100.1 01 2",
        "PROXY TCP4 192.0.2.1 198.51.100.1 +1 2",
        "PROXY TCP4 192.0.2.1 198.51.100.1 65536 2",
        "PROXY TCP4 192.0.2.1 198.51.100.1  2",
        "PROXY UNKNOWNS",
        "PROXY\tUNKNOWN",
    ] {
        assert!(read(line).is_err(), "{line}: {:?}", read(line));
    }
}

#[test]
fn a_line_ends_with_cr_and_lf_within_107_bytes() {
    for line in [&b"PROXY UNKNOWN\n"[..], b"PROXY UNKNOWN\rx", b"PROXY UNKNOWN \n\r\n", b"PROXY \xff\r\n"] {
        assert_eq!(read(line), Err(Fault::Malformed1));
    }
    let long = |length: usize| format!("PROXY UNKNOWN {}", "x".repeat(length - 14));
    assert_eq!(read(format!("{}\r\n", long(105)).as_bytes()), Ok(Some((Header::Own, 107))));
    assert_eq!(read(long(106).as_bytes()), Ok(None));
    assert_eq!(read(format!("{}\r", long(106)).as_bytes()), Err(Fault::TooLong));
    assert_eq!(read(format!("{}\r\n", long(106)).as_bytes()), Err(Fault::TooLong));
    assert_eq!(read(long(107).as_bytes()), Err(Fault::TooLong));
}

#[test]
fn headers_of_version_2_are_read_and_what_balancers_add_is_passed_over() {
    let says = client("192.0.2.1:56789", "198.51.100.1:8443");
    let mut with_tlvs = TCP4.to_vec();
    with_tlvs.extend(b"\x02\x00\x0bexample.com\x04\x00\x00\xea\x00\x01x");
    for said in [&TCP4[..], &with_tlvs] {
        let header = binary(0x21, 0x11, said);
        let mut bytes = header.clone();
        bytes.extend(b"\x16\x03\x01");
        assert_eq!(read(&bytes), Ok(Some((says, header.len()))));
    }
    let own = |command, kind, said: &[u8]| {
        let bytes = binary(command, kind, said);
        assert_eq!(read(&bytes), Ok(Some((Header::Own, bytes.len()))));
    };
    own(0x20, 0x00, b"");
    own(0x20, 0x11, &TCP4);
    own(0x20, 0xff, b"whatever");
    own(0x21, 0x00, b"whatever");
    let mut six = vec![0; 36];
    (six[15], six[31], six[33], six[35]) = (1, 2, 3, 4);
    let bytes = binary(0x21, 0x21, &six);
    assert_eq!(read(&bytes), Ok(Some((client("[::1]:3", "[::2]:4"), 52))));
}

#[test]
fn what_is_no_header_of_version_2_is_refused() {
    let with = |tlvs: &[u8]| binary(0x21, 0x11, &[&TCP4, tlvs].concat());
    for (bytes, fault) in [
        (binary(0x22, 0x11, &TCP4), Fault::Malformed2),
        (binary(0x11, 0x11, &TCP4), Fault::Malformed2),
        (binary(0x21, 0x11, &TCP4[..11]), Fault::Malformed2),
        (binary(0x21, 0x21, &TCP4), Fault::Malformed2),
        (binary(0x21, 0x12, &TCP4), Fault::NotTcp),
        (binary(0x21, 0x31, &[0; 216]), Fault::NotTcp),
        (binary(0x21, 0x41, &TCP4), Fault::NotTcp),
        (with(b"\x02"), Fault::Malformed2),
        (with(b"\x02\x00"), Fault::Malformed2),
        (with(b"\x02\x00\x02x"), Fault::Malformed2),
        (with(b"\x03\x00\x03abc"), Fault::Malformed2),
        (with(b"\x03\x00\x04abcd"), Fault::Checksum),
        (b"\r\n\r\n\0\r\nQUIT\n\x21\x11\xff\xff".to_vec(), Fault::TooLong),
        (b"\r\n\r\n\0\r\nQUIX\n".to_vec(), Fault::NoHeader),
        (b"GET / HTTP/1.1\r\n".to_vec(), Fault::NoHeader),
        (b"\x16\x03\x01".to_vec(), Fault::Tls),
        (b"P\r\n".to_vec(), Fault::NoHeader),
    ] {
        assert_eq!(read(&bytes), Err(fault), "{bytes:?}");
    }
}

#[test]
fn a_checksum_that_is_there_is_right() {
    assert_eq!(v2::checksum(b"123456789".iter()), 0xE306_9283, "the check value of CRC-32C");
    let mut bytes = binary(0x21, 0x11, &[&TCP4[..], b"\x03\x00\x04\0\0\0\0\x04\x00\x01x"].concat());
    let at = 16 + 12 + 3;
    let crc = v2::checksum(bytes.iter());
    bytes[at..at + 4].copy_from_slice(&crc.to_be_bytes());
    assert!(matches!(read(&bytes), Ok(Some((Header::Client { .. }, 39)))));
    bytes[16] ^= 1;
    assert_eq!(read(&bytes), Err(Fault::Checksum));
}

#[test]
fn addresses_of_two_families_are_written_as_one() {
    let mixed = client("192.0.2.1:1", "[2001:db8::1]:2");
    let line = Version::V1.write(&mixed);
    assert_eq!(line, b"PROXY TCP6 ::ffff:192.0.2.1 2001:db8::1 1 2\r\n");
    let mapped = client("[::ffff:192.0.2.1]:1", "[::ffff:192.0.2.2]:2");
    assert_eq!(Version::V1.write(&mapped), b"PROXY TCP4 192.0.2.1 192.0.2.2 1 2\r\n");
}

fn headers() -> impl Strategy<Value = Header> {
    let address =
        || (any::<IpAddr>(), any::<u16>()).prop_map(|(ip, port)| canonical(SocketAddr::new(ip, port)));
    prop_oneof![
        9 => (address(), address()).prop_map(|(source, destination)| Header::Client { source, destination }),
        1 => Just(Header::Own),
    ]
}

fn versions() -> impl Strategy<Value = Version> {
    prop_oneof![Just(Version::V1), Just(Version::V2)]
}

proptest! {
    #[test]
    fn what_is_written_is_read_back_and_what_is_shorter_waits_for_more(header in headers(), version in versions()) {
        let bytes = version.write(&header);
        for length in 0..bytes.len() {
            prop_assert_eq!(read(&bytes[..length]), Ok(None), "{}", length);
        }
        let (back, length) = read(&bytes).unwrap().unwrap();
        prop_assert_eq!(length, bytes.len());
        let same = match back {
            Header::Client { source, destination } => {
                Header::Client { source: canonical(source), destination: canonical(destination) }
            }
            Header::Own => Header::Own,
        };
        prop_assert_eq!(same, header);
        let followed = [&bytes[..], b"\x16\x03\x01\x02"].concat();
        prop_assert_eq!(read(&followed), Ok(Some((back, length))));
    }

    /// Whatever comes: no panic, no header beyond the bytes or the bound, and no answer that more bytes would change.
    #[test]
    fn whatever_comes_has_an_answer_that_more_bytes_do_not_change(
        start in prop_oneof![
            Just(Vec::new()),
            Just(b"PROXY ".to_vec()),
            Just(b"PROXY TCP4 1.2.3.4 ".to_vec()),
            Just(v2::SIGNATURE.to_vec()),
            Just([v2::SIGNATURE, &[0x21, 0x11, 0]].concat()),
            Just([v2::SIGNATURE, &[0x21, 0x21, 0]].concat()),
        ],
        rest in prop::collection::vec(any::<u8>(), 0..200),
    ) {
        let bytes = [start, rest].concat();
        let mut before = Ok(None);
        for length in 0..=bytes.len() {
            let now = read(&bytes[..length]);
            if before != Ok(None) {
                prop_assert_eq!(now, before);
            }
            if let Ok(Some((_, end))) = now {
                prop_assert!(end <= length && end <= LONGEST);
            }
            before = now;
        }
    }

    #[test]
    fn there_is_an_answer_by_the_time_the_bound_is_reached(start in versions(), filler: u8) {
        let start = match start { Version::V1 => v1::START, Version::V2 => v2::SIGNATURE };
        let mut bytes = start.to_vec();
        bytes.resize(LONGEST, filler);
        prop_assert_ne!(read(&bytes), Ok(None));
    }
}
