//! The names under which origins look for a client's identity. None of them may come from a client.
//!
//! Names are compared after folding: CGI, WSGI and many frameworks take `client_cert` and `Client-Cert` for one, and
//! some turn every character that is no letter or digit into an underscore.

/// Whole names, folded.
const NAMES: &[&str] = &[
    "client-cert",
    "client-cert-chain",
    "x-forwarded-client-cert",
    "x-client-subject",
    "x-client-cn",
    "x-client-common-name",
    "x-client-ou",
    "x-client-email",
    "x-client-serial",
    "x-client-fingerprint",
    "x-client-key-fingerprint",
    "x-client-issuer",
    "x-client-san",
    "x-client-dns",
    "x-client-uri",
    "x-client-spiffe-id",
    "x-client-trust-domain",
    "x-client-anchor",
    "x-client-chain",
    "x-client-identity",
    "x-client-not-before",
    "x-client-not-after",
    "x-client-dn",
    "x-client-s-dn",
    "x-client-i-dn",
    "x-client-verify",
    "x-client-verified",
    "x-arr-clientcert",
    "x-spiffe-id",
];

/// Beginnings of names, folded.
const PREFIXES: &[&str] = &[
    "client-cert-",
    "x-ssl-client",
    "ssl-client",
    "x-tls-client",
    "tls-client",
    "x-client-cert",
    "x-forwarded-tls-client",
    "x-forwarded-ssl-client",
    "x-goog-client-cert",
    "x-amzn-mtls",
];

/// A name in the form in which names are compared.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Folded(Box<[u8]>);

impl Folded {
    pub(super) fn new(name: &str) -> Self {
        Self(name.bytes().map(fold).collect())
    }

    pub(super) fn is(&self, name: &str) -> bool {
        same(&self.0, name.as_bytes())
    }
}

fn fold(byte: u8) -> u8 {
    if byte.is_ascii_alphanumeric() { byte.to_ascii_lowercase() } else { b'-' }
}

/// `folded` against a name as it came.
fn same(folded: &[u8], name: &[u8]) -> bool {
    folded.len() == name.len() && begins(folded, name)
}

fn begins(folded: &[u8], name: &[u8]) -> bool {
    // From the end: that is where names of one family differ.
    name.get(..folded.len())
        .is_some_and(|start| folded.iter().rev().eq(start.iter().rev().map(|byte| &FOLDED[*byte as usize])))
}

/// [`fold`] of every byte.
const FOLDED: [u8; 256] = {
    let mut table = [b'-'; 256];
    let mut byte = 0;
    while byte < 256 {
        if (byte as u8).is_ascii_alphanumeric() {
            table[byte] = (byte as u8).to_ascii_lowercase();
        }
        byte += 1;
    }
    table
};

/// Whether the well-known family has this name.
pub(super) fn contains(name: &str) -> bool {
    let name = name.as_bytes();
    // Most headers of most requests leave here: no name of the family is shorter, or begins otherwise.
    if name.len() < "x-client-cn".len().min("ssl-client".len())
        || !matches!(FOLDED[name[0] as usize], b'c' | b's' | b't' | b'x')
    {
        return false;
    }
    NAMES.iter().any(|known| same(known.as_bytes(), name))
        || PREFIXES.iter().any(|prefix| begins(prefix.as_bytes(), name))
}

/// Whether two names are one after folding.
pub(super) fn same_name(one: &str, other: &str) -> bool {
    one.len() == other.len() && one.bytes().map(fold).eq(other.bytes().map(fold))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn no_name_is_shorter_than_the_shortest_that_is_looked_at() {
        assert!(NAMES.iter().chain(PREFIXES).all(|name| name.len() >= 10));
    }

    proptest! {
        #[test]
        fn quick_answers_are_those_of_the_definition(
            name in prop_oneof![
                "[a-zA-Z_-]{0,20}",
                (proptest::sample::select([NAMES, PREFIXES].concat()), "[_a-]{0,2}").prop_map(|(a, b)| format!("{a}{b}")),
            ],
            upper: bool,
        ) {
            let name = if upper { name.to_uppercase().replace('-', "_") } else { name };
            let folded = String::from_utf8(name.bytes().map(fold).collect()).unwrap();
            let expected = NAMES.contains(&&*folded) || PREFIXES.iter().any(|prefix| folded.starts_with(prefix));
            prop_assert_eq!(contains(&name), expected);
        }
    }
}
