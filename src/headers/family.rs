//! The names under which origins look for a client's identity. None of them may come from a client.
//!
//! Names are compared after folding case and `_` to `-`: CGI, WSGI and many frameworks take `client_cert` and
//! `Client-Cert` for one.

/// Whole names, folded.
const NAMES: &[&str] = &[
    "client-cert",
    "client-cert-chain",
    "x-forwarded-client-cert",
    "x-client-subject",
    "x-client-cn",
    "x-client-serial",
    "x-client-fingerprint",
    "x-client-issuer",
    "x-client-san",
    "x-client-trust-domain",
    "x-client-dn",
    "x-client-verify",
    "x-client-verified",
    "x-arr-clientcert",
    "x-spiffe-id",
];

/// Beginnings of names, folded.
const PREFIXES: &[&str] = &[
    "x-ssl-client",
    "ssl-client",
    "x-tls-client",
    "tls-client",
    "x-client-cert",
    "x-forwarded-tls-client-cert",
    "x-goog-client-cert",
    "x-amzn-mtls",
];

pub(super) fn fold(name: &str) -> String {
    name.bytes().map(|byte| fold_byte(byte) as char).collect()
}

fn fold_byte(byte: u8) -> u8 {
    if byte == b'_' { b'-' } else { byte.to_ascii_lowercase() }
}

/// `folded` against a name as it came.
pub(super) fn same(folded: &str, name: &str) -> bool {
    folded.len() == name.len() && begins(folded, name)
}

fn begins(folded: &str, name: &str) -> bool {
    name.len() >= folded.len() && folded.bytes().zip(name.bytes()).all(|(a, b)| a == fold_byte(b))
}

pub(super) fn contains(name: &str) -> bool {
    // Most headers of most requests leave here.
    match name.as_bytes().first().map(u8::to_ascii_lowercase) {
        Some(b'c' | b's' | b't' | b'x') => {}
        _ => return false,
    }
    NAMES.iter().any(|known| same(known, name)) || PREFIXES.iter().any(|prefix| begins(prefix, name))
}
