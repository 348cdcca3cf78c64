//! Envoy's `X-Forwarded-Client-Cert`.

use super::encode;
use super::field::SanType;
use crate::trust::ClientIdentity;

/// One element for the client. `By` is left out: it would name the gateway, whose certificates origins do not know.
///
/// Every value that comes from a certificate is quoted. Envoy's own escaping of quotes leaves a backslash before the
/// closing quote to chance; so quotes, backslashes and semicolons, and commas that belong to a value, are
/// percent-encoded. What remains cannot be misread even by an origin that splits without minding quotes.
pub(super) fn element(identity: &ClientIdentity) -> String {
    let certificate = identity.certificate();
    let mut element = format!("Hash={}", certificate.fingerprint());
    let mut add = |key: &str, value: &str| {
        element.push(';');
        element.push_str(key);
        element.push_str("=\"");
        element.push_str(value);
        element.push('"');
    };
    add("Cert", &encode::pem([certificate.der()]));
    if !identity.intermediates().is_empty() {
        let path = identity.intermediates().iter().map(Vec::as_slice);
        add("Chain", &encode::pem(std::iter::once(certificate.der()).chain(path)));
    }
    add("Subject", &distinguished_name(&certificate.subject().to_string()));
    for (key, kind) in [("URI", SanType::Uri), ("DNS", SanType::Dns)] {
        for name in certificate.subject_alternative_names().iter().filter_map(|name| kind.of(name)) {
            add(key, &encode::escaped(&name, |byte| matches!(byte, b'\\' | b';' | b',')));
        }
    }
    element
}

/// RFC 4514 puts a backslash before each comma that belongs to a value; those that separate attributes stay.
fn distinguished_name(text: &str) -> String {
    let parts: Vec<String> =
        text.split("\\,").map(|part| encode::escaped(part, |byte| matches!(byte, b'\\' | b';'))).collect();
    parts.join("%5C%2C")
}
