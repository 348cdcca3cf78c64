//! What comes back: tickets from clients, answers from endpoints and from responders.

use http::Method;
use portcullis::certificate::Certificate;
use portcullis::tls::Staple;

use crate::Target;
use crate::authority::{NOW, authority, sign};
use crate::der::{element, sequence};

pub const TICKET: Target = Target {
    name: "ticket",
    about: "what a session ticket says once it is opened: read as it was written, or not at all",
    run: portcullis::tls::fuzzing::ticket,
    seeds: || {
        let ticket = portcullis::tls::fuzzing::sample_ticket;
        vec![ticket(b"session", b"a.example"), ticket(b"", b""), ticket(&[0; 40], &[b'a'; 255])]
    },
};

pub const ANSWER: Target = Target {
    name: "answer",
    about: "an endpoint's answer, the first byte says how: read in one way, in whatever pieces; nothing breaks out of a field",
    run: |bytes| {
        let Some((how, text)) = bytes.split_first() else { return };
        let method = if how & 0x80 == 0 { Method::GET } else { Method::HEAD };
        portcullis::relay::fuzzing::response(text, &method, usize::from(how & 0x7f));
    },
    seeds: || {
        [
            "\x05HTTP/1.1 200 OK\r\nContent-Length: 5\r\nDate: x\r\nSet-Cookie: a=b\r\n\r\nhelloHTTP/1.1 200 OK\r\n\r\n",
            "\x01HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nConnection: X-Hop\r\nX-Hop: 1\r\n\r\n5;a=b\r\nhello\r\n0\r\nT: x\r\n\r\n",
            "\x40HTTP/1.0 302\r\nLocation: /\r\nConnection: keep-alive\r\n\r\nuntil the end",
            "\x20HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\nHTTP/1.1 204 No Content\r\n\r\n",
            "\x10HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n\x01\x02",
            "\x30HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 6\r\nTransfer-Encoding: chunked\r\n\r\n",
        ]
        .map(Vec::from)
        .to_vec()
    },
};

pub const OCSP: Target = Target {
    name: "ocsp",
    about: "an OCSP response; with a first byte `s` its signed part, properly signed: believed only while it may be",
    run: |bytes| {
        let Some((kind, rest)) = bytes.split_first() else { return };
        let response = if *kind == b's' { response(&sequence(&[rest])) } else { rest.to_vec() };
        let it = authority();
        let leaf = openssl::x509::X509::from_der(it.leaf.der()).expect("it is one");
        let Ok(staple) = Staple::read(&response, &leaf, &it.x509, NOW) else { return };
        assert!(staple.next_update > NOW && staple.this_update <= NOW + 300, "{staple:?}");
    },
    seeds: || {
        let good = said(&[0x80, 0]);
        let revoked = said(&element(0xa1, &element(0x18, b"20260501000000Z")));
        let whole = response(&sequence(&[&good]));
        vec![[b"s", &good[..]].concat(), [b"s", &revoked[..]].concat(), [b"r", &whole[..]].concat()]
    },
};

/// A successful response around what is signed.
fn response(signed: &[u8]) -> Vec<u8> {
    let basic = sign(signed, &authority().key);
    let oid = [6, 9, 0x2b, 6, 1, 5, 5, 7, 0x30, 1, 1];
    sequence(&[&[0x0a, 1, 0], &element(0xa0, &sequence(&[&oid, &element(4, &basic)]))])
}

/// The content of a ResponseData about the client's certificate.
fn said(status: &[u8]) -> Vec<u8> {
    let it = authority();
    let sha1 = |bytes: &[u8]| {
        openssl::hash::hash(openssl::hash::MessageDigest::sha1(), bytes).expect("SHA-1").to_vec()
    };
    let key = key_digest(&it.certificate);
    let id = sequence(&[
        &sequence(&[&[6, 5, 0x2b, 0x0e, 3, 2, 0x1a], &[5, 0]]),
        &element(4, &sha1(it.leaf.issuer().raw())),
        &element(4, &key),
        &element(2, it.leaf.serial().as_bytes()),
    ]);
    let time = |text: &str| element(0x18, text.as_bytes());
    let single = sequence(&[&id, status, &time("20260531000000Z"), &element(0xa0, &time("20260701000000Z"))]);
    [element(0xa2, &element(4, &key)), time("20260531000000Z"), sequence(&[&single])].concat()
}

/// Of the point, which is the end of the key's encoding.
fn key_digest(issuer: &Certificate) -> Vec<u8> {
    let x509 = openssl::x509::X509::from_der(issuer.der()).expect("it is one");
    let key = x509.public_key().and_then(|key| key.public_key_to_der()).expect("it has a key");
    openssl::hash::hash(openssl::hash::MessageDigest::sha1(), &key[key.len() - 65..]).expect("SHA-1").to_vec()
}
