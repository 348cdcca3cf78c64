//! The values by which routes are found: which ones a route asks for, and which ones a request has.

use std::hash::Hash;

use crate::certificate::{AttributeKind, SubjectAltName};
use crate::pattern::Pattern;
use crate::route::client::{ClientMatch, ClientRule, dns, email, lower_case, uri, values};
use crate::route::{RequestView, Route};
use crate::trust::ClientIdentity;

/// Where a value stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Kind {
    Fingerprint,
    KeyFingerprint,
    Serial,
    /// A well-known attribute type of the subject, by its position in [`ATTRIBUTES`].
    Subject(usize),
    SanDns,
    SanEmail,
    SanUri,
    /// A URI up to one of its slashes, or the whole.
    SanUriRoot,
    Trust,
    Host,
    /// The end of a host, from one of its dots on.
    Domain,
    Path,
    /// A path up to one of its slashes, or the whole.
    PathRoot,
}

/// In the order in which they are usually telling.
const ATTRIBUTES: [AttributeKind; 10] = [
    AttributeKind::CommonName,
    AttributeKind::SerialNumber,
    AttributeKind::UserId,
    AttributeKind::EmailAddress,
    AttributeKind::OrganizationalUnit,
    AttributeKind::DomainComponent,
    AttributeKind::Organization,
    AttributeKind::Locality,
    AttributeKind::State,
    AttributeKind::Country,
];

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Key<'a> {
    pub kind: Kind,
    pub value: &'a [u8],
}

impl<'a> Key<'a> {
    fn new(kind: Kind, value: &'a (impl AsRef<[u8]> + ?Sized)) -> Self {
        Self { kind, value: value.as_ref() }
    }
}

impl Kind {
    /// Whether it is looked up piece by piece.
    pub(super) fn is_root(self) -> bool {
        matches!(self, Self::SanUriRoot | Self::PathRoot)
    }
}

/// The fields of a route all of whose alternatives are known: one of the values of each must occur. The most telling
/// field comes first.
pub(super) fn fields(route: &Route) -> Vec<Vec<Key<'_>>> {
    let mut fields = Vec::new();
    if let ClientRule::Verified(client) = &route.client {
        fields.extend(client_fields(client));
    }
    let request = &route.request;
    fields.push(exact(Kind::Path, &request.path));
    fields.push(exact(Kind::Host, &request.host));
    fields.push(either(Kind::Path, Kind::PathRoot, &request.path, Pattern::root));
    fields.push(either(Kind::Host, Kind::Domain, &request.host, Pattern::domain));
    if let ClientRule::Verified(client) = &route.client {
        fields.push(client.trust.iter().map(|name| Key::new(Kind::Trust, name.as_bytes())).collect());
    }
    fields.retain(|field| !field.is_empty());
    fields
}

fn client_fields(client: &ClientMatch) -> Vec<Vec<Key<'_>>> {
    let mut fields = vec![
        client.fingerprint.iter().map(|digest| Key::new(Kind::Fingerprint, &digest.0)).collect(),
        client.key_fingerprint.iter().map(|digest| Key::new(Kind::KeyFingerprint, &digest.0)).collect(),
        client.serial.iter().map(|wanted| Key::new(Kind::Serial, wanted.serial.as_bytes())).collect(),
        exact(Kind::SanUri, &client.san.uri),
        exact(Kind::SanEmail, &client.san.email),
        exact(Kind::SanDns, &client.san.dns),
        either(Kind::SanUri, Kind::SanUriRoot, &client.san.uri, Pattern::root),
    ];
    for (position, kind) in ATTRIBUTES.iter().enumerate() {
        for (_, patterns) in client.subject.iter().filter(|(wanted, _)| wanted == kind) {
            fields.push(exact(Kind::Subject(position), patterns));
        }
    }
    fields
}

/// Empty unless all patterns are exact: with one that is not, any value may match.
fn exact(kind: Kind, patterns: &[Pattern]) -> Vec<Key<'_>> {
    let keys = patterns.iter().map(|pattern| Some(Key::new(kind, pattern.exact()?)));
    keys.collect::<Option<_>>().unwrap_or_default()
}

/// Like [`exact`], for patterns that are exact or have a known beginning or end.
fn either<'a>(
    whole: Kind,
    part: Kind,
    patterns: &'a [Pattern],
    part_of: impl Fn(&'a Pattern) -> Option<&'a str>,
) -> Vec<Key<'a>> {
    let keys = patterns.iter().map(|pattern| match pattern.exact() {
        Some(value) => Some(Key::new(whole, value)),
        None => Some(Key::new(part, part_of(pattern)?)),
    });
    keys.collect::<Option<_>>().unwrap_or_default()
}

/// Calls `see` for each value of this kind.
pub(super) fn found(
    kind: Kind,
    longest_root: usize,
    identity: Option<&ClientIdentity>,
    request: &RequestView<'_>,
    mut see: impl FnMut(&Key<'_>),
) {
    match kind {
        Kind::Host => return see(&Key::new(kind, request.host)),
        Kind::Path => return see(&Key::new(kind, request.path)),
        Kind::PathRoot => return roots(kind, longest_root, request.path, &mut see),
        Kind::Domain => {
            let dots = request.host.bytes().enumerate().filter(|(_, byte)| *byte == b'.');
            return dots.for_each(|(at, _)| see(&Key::new(kind, &request.host[at..])));
        }
        _ => {}
    }
    if let Some(identity) = identity {
        found_in_identity(kind, longest_root, identity, &mut see);
    }
}

fn found_in_identity(
    kind: Kind,
    longest_root: usize,
    identity: &ClientIdentity,
    see: &mut impl FnMut(&Key<'_>),
) {
    let certificate = identity.certificate();
    let names = certificate.subject_alternative_names();
    let mut each = |of: fn(&SubjectAltName) -> Option<&str>| {
        names.iter().filter_map(of).for_each(|name| see(&Key::new(kind, name)));
    };
    match kind {
        Kind::SanEmail => each(email),
        Kind::SanUri => each(uri),
        Kind::SanDns => {
            names.iter().filter_map(dns).for_each(|name| see(&Key::new(kind, lower_case(name).as_bytes())));
        }
        Kind::SanUriRoot => {
            names.iter().filter_map(uri).for_each(|name| roots(kind, longest_root, name, see));
        }
        Kind::Fingerprint => see(&Key::new(kind, &certificate.fingerprint().0)),
        Kind::KeyFingerprint => see(&Key::new(kind, &certificate.key_fingerprint().0)),
        Kind::Serial => see(&Key::new(kind, certificate.serial().as_bytes())),
        Kind::Subject(position) => {
            let values = values(certificate.subject(), &ATTRIBUTES[position]);
            values.for_each(|value| see(&Key::new(kind, value)));
        }
        Kind::Trust => see(&Key::new(kind, identity.trust_domain().as_bytes())),
        Kind::Host | Kind::Domain | Kind::Path | Kind::PathRoot => {}
    }
}

/// The value up to each of its slashes, and the whole, as far as any route asks.
fn roots(kind: Kind, longest: usize, value: &str, see: &mut impl FnMut(&Key<'_>)) {
    let slashes = value.bytes().enumerate().take(longest + 1).filter(|(_, byte)| *byte == b'/');
    slashes.for_each(|(at, _)| see(&Key::new(kind, &value[..at])));
    if value.len() <= longest {
        see(&Key::new(kind, value));
    }
}
