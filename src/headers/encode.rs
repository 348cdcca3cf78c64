//! Encodings of header values.

use std::fmt::Write;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use percent_encoding::{AsciiSet, CONTROLS, NON_ALPHANUMERIC, utf8_percent_encode};

use crate::certificate::SubjectAltName;
use crate::trust::ClientIdentity;

/// Everything that is not visible ASCII or a space is percent-encoded; the percent sign too, so that no two values
/// look the same.
const INVISIBLE: &AsciiSet = &CONTROLS.add(b'%');

pub(super) fn text(value: &str) -> String {
    utf8_percent_encode(value, INVISIBLE).to_string()
}

/// A structured-field byte sequence (RFC 8941, section 3.3.5), as RFC 9440 wants certificates.
pub(super) fn byte_sequence(bytes: &[u8]) -> String {
    format!(":{}:", STANDARD.encode(bytes))
}

/// A list of byte sequences; `None` where it is empty, since RFC 9440 has no empty chain.
pub(super) fn byte_sequences(items: &[Vec<u8>]) -> Option<String> {
    let items: Vec<String> = items.iter().map(|item| byte_sequence(item)).collect();
    (!items.is_empty()).then(|| items.join(", "))
}

/// One element of Envoy's `x-forwarded-client-cert`.
pub(super) fn xfcc(identity: &ClientIdentity) -> String {
    let certificate = identity.certificate();
    let mut value = format!("Hash={}", certificate.fingerprint());
    let _ = write!(value, ";Cert=\"{}\"", url_encoded_pem(certificate.der()));
    if !identity.intermediates().is_empty() {
        let chain: String = std::iter::once(certificate.der())
            .chain(identity.intermediates().iter().map(Vec::as_slice))
            .map(url_encoded_pem)
            .collect();
        let _ = write!(value, ";Chain=\"{chain}\"");
    }
    let _ = write!(value, ";Subject={}", quoted(&certificate.subject().to_string()));
    for name in certificate.subject_alternative_names() {
        let _ = match name {
            SubjectAltName::Uri(uri) => write!(value, ";URI={}", quoted(uri)),
            SubjectAltName::Dns(name) => write!(value, ";DNS={}", quoted(name)),
            _ => Ok(()),
        };
    }
    value
}

/// Always quoted, whatever is inside: a value that needs no quotes must not look different from one that does.
fn quoted(value: &str) -> String {
    format!("\"{}\"", text(value).replace('\\', "\\\\").replace('"', "\\\""))
}

fn url_encoded_pem(der: &[u8]) -> String {
    let mut pem = String::from("-----BEGIN CERTIFICATE-----\n");
    let base64 = STANDARD.encode(der);
    let mut rest = base64.as_str();
    while !rest.is_empty() {
        let (line, tail) = rest.split_at(rest.len().min(64));
        pem.push_str(line);
        pem.push('\n');
        rest = tail;
    }
    pem.push_str("-----END CERTIFICATE-----\n");
    utf8_percent_encode(&pem, NON_ALPHANUMERIC).to_string()
}

#[cfg(test)]
pub(super) mod tests {
    /// The fields of one element, as an origin reads them.
    pub(crate) fn parse_xfcc(value: &str) -> Option<Vec<(String, String)>> {
        let mut fields = Vec::new();
        let mut rest = value.chars().peekable();
        loop {
            let key: String = std::iter::from_fn(|| rest.next_if(|c| *c != '=')).collect();
            rest.next_if_eq(&'=')?;
            let mut text = String::new();
            if rest.next_if_eq(&'"').is_some() {
                loop {
                    match rest.next()? {
                        '"' => break,
                        '\\' => text.push(rest.next()?),
                        c => text.push(c),
                    }
                }
            } else {
                text.extend(std::iter::from_fn(|| rest.next_if(|c| *c != ';' && *c != ',')));
            }
            fields.push((key, text));
            match rest.next() {
                None => return Some(fields),
                Some(';') => {}
                Some(_) => return None,
            }
        }
    }
}
