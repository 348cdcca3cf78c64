//! Which certificates of its issuer a list speaks about: its issuing distribution point (RFC 5280, section 5.2.5).

use std::fmt;

use openssl::sha::sha256;

use super::RevocationError;
use crate::certificate::Certificate;
use crate::certificate::der::{self, NotDer, Reader};

/// Lists of one issuer with different scopes complement each other.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Scope {
    covers: Covers,
    /// DistributionPointName as it is encoded; empty: there is none.
    point: Box<[u8]>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
enum Covers {
    #[default]
    All,
    Clients,
    Authorities,
}

/// uniformResourceIdentifier of a GeneralName.
const URI: u8 = 0x86;

impl Scope {
    /// From the value of the extension.
    pub(super) fn read(value: &[u8]) -> Result<Self, RevocationError> {
        let malformed = |_| RevocationError::Malformed("issuing distribution point");
        let mut outer = Reader::new(value);
        let mut fields = Reader::new(outer.expect(der::SEQUENCE).map_err(malformed)?.content);
        outer.finish().map_err(malformed)?;
        let mut scope = Self::default();
        while !fields.is_empty() {
            let field = fields.any().map_err(malformed)?;
            let is_true = field.content.iter().any(|byte| *byte != 0);
            match field.tag {
                0xa0 => scope.point = field.content.into(),
                0x81 if is_true => scope.covers = Covers::Clients,
                0x82 if is_true => scope.covers = Covers::Authorities,
                // onlySomeReasons (3), onlyContainsAttributeCerts (5).
                0x83 => return Err(RevocationError::Partial),
                0x85 if is_true => return Err(RevocationError::Partial),
                0x84 if is_true => return Err(RevocationError::Indirect),
                0x81 | 0x82 | 0x84 | 0x85 => {}
                _ => return Err(RevocationError::Malformed("issuing distribution point")),
            }
        }
        Ok(scope)
    }

    pub(super) fn includes(&self, certificate: &Certificate) -> bool {
        let is_of_its_kind = match self.covers {
            Covers::All => true,
            Covers::Clients => !certificate.is_ca(),
            Covers::Authorities => certificate.is_ca(),
        };
        is_of_its_kind && self.is_where(certificate)
    }

    /// A certificate that says where its list is published is on that one (RFC 5280, section 6.3.3, step b). One that
    /// says nothing may be on any.
    fn is_where(&self, certificate: &Certificate) -> bool {
        let points = certificate.list_points();
        match Reader::new(&self.point).optional(0xa0) {
            Ok(Some(full)) if !points.is_empty() => points.any_of(full.content),
            _ => true,
        }
    }
}

/// The address in a DistributionPointName that is one address and nothing else.
fn address(point: &[u8]) -> Result<&str, NotDer> {
    let mut point = Reader::new(point);
    let mut names = Reader::new(point.expect(0xa0)?.content);
    point.finish()?;
    let address = names.expect(URI)?.content;
    names.finish()?;
    std::str::from_utf8(address).map_err(|_| NotDer)
}

/// Empty for a list that speaks about all certificates. Two that differ are written in different ways.
impl fmt::Display for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.covers {
            Covers::All => "",
            Covers::Clients => "clients",
            Covers::Authorities => "authorities",
        })?;
        if self.point.is_empty() {
            return Ok(());
        }
        let space = if self.covers == Covers::All { "" } else { " " };
        if let Ok(address) = address(&self.point) {
            return write!(f, "{space}{address}");
        }
        write!(f, "{space}#")?;
        sha256(&self.point)[..8].iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::certificate::der::{element, sequence};

    #[test]
    fn a_scope_is_told_by_what_it_says_and_not_by_how() {
        let uri = |uri: &str| element(0xa0, &element(0xa0, &element(URI, uri.as_bytes())));
        let flag = |number: u8, value: u8| element(0x80 | number, &[value]);
        let read = |fields: &[Vec<u8>]| Scope::read(&sequence(&[&fields.concat()])).unwrap();
        for (fields, text) in [
            (vec![], ""),
            (vec![flag(1, 0)], ""),
            (vec![flag(1, 0xff)], "clients"),
            (vec![flag(2, 0xff), flag(4, 0)], "authorities"),
            (vec![uri("http://crl.example/7")], "http://crl.example/7"),
            (vec![uri("http://crl.example/7"), flag(1, 0xff)], "clients http://crl.example/7"),
            // Relative to the issuer.
            (vec![element(0xa0, &element(0xa1, &[]))], "#"),
        ] {
            assert!(
                read(&fields).to_string().starts_with(text)
                    && (text.is_empty() == read(&fields).to_string().is_empty())
            );
        }
        assert_eq!(read(&[flag(1, 0)]), Scope::default());
        assert_ne!(read(&[uri("a")]), read(&[uri("b")]));
        assert!(Scope::read(&[sequence(&[]), vec![0]].concat()).is_err());
    }
}
