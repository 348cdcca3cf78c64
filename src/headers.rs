//! Tells the origin who is calling, in a way that nobody can forge.
//!
//! Whatever looks like such a header and comes from a client is removed; what is added is encoded so that no name in a
//! certificate can break out of its field.

mod encode;
mod family;
mod field;
mod forwarding;
mod networks;
mod prefix;
mod source;
mod spec;
mod xfcc;

use http::{HeaderMap, HeaderName, HeaderValue};

use crate::trust::ClientIdentity;
use family::Folded;

pub use field::{FieldError, IdentityField};
pub use forwarding::{DROPPED, Forwarding};
pub use networks::Networks;
pub use prefix::{Prefix, PrefixError};
pub use source::Source;
pub use spec::{HeaderPreset, HeaderSpecError, IdentityHeaderSpec, NamedHeader};

/// Says what is wrong with a client in quarantine. Not one of the configured headers: whoever gets such clients must hear
/// of it. Clients can send none of this name, which is one of the well-known family.
const STANDING: &str = "client-cert-standing";

fn standing(identity: &ClientIdentity) -> Option<(HeaderName, HeaderValue)> {
    let fault = identity.standing().fault()?;
    Some((HeaderName::from_static(STANDING), HeaderValue::from_static(fault.kind.as_str())))
}

/// The headers that origins get, and those that clients may not send.
#[derive(Debug)]
pub struct IdentityHeaders {
    headers: Vec<(HeaderName, IdentityField)>,
    /// Names beyond the well-known family.
    own: Vec<Folded>,
}

impl IdentityHeaders {
    pub fn new(specs: &[IdentityHeaderSpec]) -> Result<Self, HeaderSpecError> {
        let mut headers: Vec<(HeaderName, IdentityField)> = Vec::new();
        for spec in specs {
            for (name, field) in spec.headers()? {
                let taken = Folded::new(name.as_str());
                if headers.iter().any(|(other, _)| taken.is(other.as_str())) {
                    return Err(HeaderSpecError::Twice(name.to_string()));
                }
                headers.push((name, field));
            }
        }
        let own = headers.iter().map(|(name, _)| name.as_str()).filter(|name| !family::contains(name));
        let own = own.map(Folded::new).collect();
        Ok(Self { headers, own })
    }

    /// What the origin is told. A field that the identity does not have is a header that is missing. Done once per
    /// connection and configuration.
    pub fn render(&self, identity: Option<&ClientIdentity>) -> Vec<(HeaderName, HeaderValue)> {
        let header = |(name, field): &(HeaderName, IdentityField)| {
            let value = field.value(identity)?;
            Some((name.clone(), HeaderValue::from_str(&value).ok()?))
        };
        let told = |(name, _): &(HeaderName, IdentityField)| name.as_str() == STANDING;
        let standing = (!self.headers.iter().any(told)).then(|| standing(identity?)).flatten();
        self.headers.iter().filter_map(header).chain(standing).collect()
    }

    /// The headers that an origin may get.
    pub fn names(&self) -> impl Iterator<Item = &HeaderName> {
        self.headers.iter().map(|(name, _)| name)
    }

    /// Whether a client may not send it, under any spelling that an origin may take for one of ours. Asked for each
    /// header of each request: does not allocate.
    pub fn is_reserved(&self, name: &str) -> bool {
        family::contains(name) || self.own.iter().any(|own| own.is(name))
    }

    /// Those of `headers`, or of a request's trailers, that must go. Does not allocate where there are none.
    pub fn reserved_in(&self, headers: &HeaderMap) -> Vec<HeaderName> {
        headers.keys().filter(|name| self.is_reserved(name.as_str())).cloned().collect()
    }

    /// Takes away what a client may not send.
    pub fn strip(&self, headers: &mut HeaderMap) {
        for name in self.reserved_in(headers) {
            headers.remove(name);
        }
    }
}

#[cfg(test)]
mod tests;
