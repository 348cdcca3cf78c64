//! Where the issuer of a certificate publishes the revocation list that speaks about it: cRLDistributionPoints (RFC 5280,
//! section 4.2.1.13).

use super::der::{NotDer, Reader, SEQUENCE};

/// The names of all points, in a row as they are encoded (GeneralName). Empty where a certificate names none, where it
/// names them in relation to the issuer, and where nobody can read what it says.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ListPoints(Box<[u8]>);

impl ListPoints {
    /// From the value of the extension.
    pub(super) fn read(value: &[u8]) -> Self {
        Self(full_names(value).unwrap_or_default().into())
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether one of `names` (GeneralNames without their head) is among them.
    pub(crate) fn any_of(&self, names: &[u8]) -> bool {
        elements(names).any(|name| elements(&self.0).any(|own| own == name))
    }
}

fn full_names(value: &[u8]) -> Result<Vec<u8>, NotDer> {
    let mut outer = Reader::new(value);
    let mut points = Reader::new(outer.expect(SEQUENCE)?.content);
    outer.finish()?;
    let mut names = Vec::new();
    while !points.is_empty() {
        let mut fields = Reader::new(points.expect(SEQUENCE)?.content);
        // distributionPoint [0], in which fullName is [0] and nameRelativeToCRLIssuer is [1].
        if let Some(point) = fields.optional(0xa0)?
            && let Some(full) = Reader::new(point.content).optional(0xa0)?
        {
            names.extend_from_slice(full.content);
        }
    }
    Ok(names)
}

fn elements(row: &[u8]) -> impl Iterator<Item = &[u8]> {
    let mut row = Reader::new(row);
    std::iter::from_fn(move || row.any().ok().map(|element| element.raw))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::der::{element, sequence};
    use super::*;

    fn uri(uri: &str) -> Vec<u8> {
        element(0x86, uri.as_bytes())
    }

    fn point(names: &[Vec<u8>]) -> Vec<u8> {
        sequence(&[&element(0xa0, &element(0xa0, &names.concat()))])
    }

    #[test]
    fn each_name_of_each_point_is_found_and_no_other() {
        let relative = sequence(&[&element(0xa0, &element(0xa1, b"x"))]);
        let value =
            sequence(&[&point(&[uri("http://a/1"), uri("ldap://a")]), &relative, &point(&[uri("http://b")])]);
        let points = ListPoints::read(&value);
        for name in ["http://a/1", "ldap://a", "http://b"] {
            assert!(points.any_of(&[uri("x"), uri(name)].concat()), "{name}");
        }
        assert!(!points.any_of(&[uri("http://a"), uri("x")].concat()) && !points.any_of(b""));
        assert!(ListPoints::read(&sequence(&[&relative])).is_empty());
        assert!(ListPoints::read(&value[1..]).is_empty());
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_never_panic(value in proptest::collection::vec(any::<u8>(), 0..60)) {
            let _ = ListPoints::read(&value).any_of(&value);
        }
    }
}
