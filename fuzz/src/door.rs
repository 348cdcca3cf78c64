//! What comes before TLS: who a balancer says the client is.

use portcullis::proxy_protocol::{Fault, Header, LONGEST, Version, read};

use crate::Target;

pub const INTRODUCTION: Target = Target {
    name: "proxy_header",
    about: "a PROXY protocol header: what is read is written to be read again, whatever follows it, however it comes",
    run: |bytes| {
        // Nobody asks before a byte has come.
        if bytes.is_empty() {
            return;
        }
        let whole = read(bytes);
        // Until the last byte of it has come, a header is waited for; a fault may be seen early, and stays.
        for end in 1..bytes.len().min(LONGEST + 1) {
            match (read(&bytes[..end]), whole) {
                (Ok(None), _) => {}
                (Ok(Some(found)), whole) => {
                    assert_eq!(whole, Ok(Some(found)), "what follows a header changes it");
                    assert!(end >= found.1);
                }
                (Err(fault), whole) => assert!(whole.is_err(), "{fault:?} {whole:?}"),
            }
        }
        let (header, length) = match whole {
            Ok(Some(found)) => found,
            Ok(None) => return assert!(bytes.len() < LONGEST, "it waits for ever"),
            Err(Fault::Tls | Fault::NoHeader) => return,
            Err(_) => return assert!(b"P\r".contains(&bytes[0])),
        };
        assert!(length <= bytes.len() && length <= LONGEST);
        for version in [Version::V1, Version::V2] {
            let again = version.write(&header);
            let Ok(Some((read, all))) = read(&again) else { panic!("{again:?} cannot be read") };
            assert_eq!(all, again.len());
            match (header, read) {
                // One family for both.
                (
                    Header::Client { source, destination },
                    Header::Client { source: one, destination: other },
                ) => {
                    assert_eq!(
                        (source.ip().to_canonical(), source.port()),
                        (one.ip().to_canonical(), one.port())
                    );
                    let destination = (destination.ip().to_canonical(), destination.port());
                    assert_eq!(destination, (other.ip().to_canonical(), other.port()));
                }
                (header, read) => assert_eq!(header, read),
            }
        }
    },
    seeds: || {
        let two = |command: u8, family: u8, body: &[u8]| {
            let length = (body.len() as u16).to_be_bytes();
            [&b"\r\n\r\n\0\r\nQUIT\n"[..], &[0x20 | command, family], &length, body].concat()
        };
        let v4 = [192, 0, 2, 1, 198, 51, 100, 1, 0x30, 0x39, 1, 0xbb];
        let v6 = [&[0x20, 1, 0xd, 0xb8][..], &[0; 12], &[0; 15], &[1], &v4[8..]].concat();
        vec![
            b"PROXY TCP4 192.0.2.1 198.51.100.1 12345 443\r\n\x16\x03\x01".to_vec(),
            b"PROXY TCP6 2001:db8::1 ::1 12345 443\r\n".to_vec(),
            b"PROXY UNKNOWN anything\r\n".to_vec(),
            two(1, 0x11, &v4),
            two(1, 0x21, &v6),
            // With TLVs: an authority, a no-op, a checksum that is wrong.
            two(1, 0x11, &[&v4[..], &[2, 0, 1, b'a', 4, 0, 2, 0, 0, 3, 0, 4, 1, 2, 3, 4]].concat()),
            two(0, 0, b""),
            two(1, 0x12, &v4),
            b"\x16\x03\x01\x02\0".to_vec(),
        ]
    },
};
