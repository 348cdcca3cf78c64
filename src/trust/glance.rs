//! Whether a client may have presented a certificate with one of some serials: a glance that reads nothing but the
//! identity itself. Serials and certificates lie elsewhere in memory, and to fetch those of a hundred thousand clients takes
//! longer than to look at them.

use crate::certificate::Serial;

/// Two bytes for each certificate that a client presented.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Glance([u16; 4]);

const NONE: u16 = 0;
/// More certificates than there is room for, or one that cannot be read: nothing is ruled out.
const ANY: u16 = u16::MAX;

impl Glance {
    /// `None`: a certificate that cannot be read.
    pub(super) fn at<'a>(serials: impl Iterator<Item = Option<&'a Serial>>) -> Self {
        let mut tags = [NONE; 4];
        for (index, serial) in serials.enumerate() {
            match (tags.get_mut(index), serial) {
                (Some(tag), Some(serial)) => *tag = self::tag(serial),
                _ => return Self([ANY; 4]),
            }
        }
        Self(tags)
    }
}

/// Some serials. One that is among them is always found; one that is not, hardly ever.
pub(super) struct Tags(Box<[u64]>);

impl Tags {
    pub(super) fn of<'a>(serials: impl Iterator<Item = &'a Serial>) -> Self {
        let mut bits = vec![0_u64; (usize::from(u16::MAX) + 1) / 64].into_boxed_slice();
        for tag in serials.map(tag).chain([ANY]) {
            bits[usize::from(tag) / 64] |= 1 << (tag % 64);
        }
        Self(bits)
    }

    pub(super) fn may_be_in(&self, glance: Glance) -> bool {
        glance.0.iter().any(|tag| self.0[usize::from(*tag) / 64] >> (tag % 64) & 1 == 1)
    }
}

/// Neither [`NONE`] nor [`ANY`].
fn tag(serial: &Serial) -> u16 {
    // FNV-1a.
    let hash = serial.as_bytes().iter().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3)
    });
    ((hash >> 32) % u64::from(ANY - 1)) as u16 + 1
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn what_is_there_is_seen(
            presented in vec(proptest::option::weighted(0.9, vec(any::<u8>(), 1..3)), 0..6),
            wanted in vec(vec(any::<u8>(), 1..3), 0..6),
        ) {
            let serial = |bytes: &Vec<u8>| Serial::from_be_bytes(bytes).unwrap();
            let presented: Vec<_> = presented.iter().map(|it| it.as_ref().map(serial)).collect();
            let wanted: Vec<_> = wanted.iter().map(serial).collect();
            let glance = Glance::at(presented.iter().map(Option::as_ref));
            let is_there = presented.iter().any(|it| it.as_ref().is_none_or(|it| wanted.contains(it)));
            prop_assert!(!is_there || Tags::of(wanted.iter()).may_be_in(glance));
        }
    }

    #[test]
    fn few_are_looked_at_for_nothing() {
        let serial = |number: u32| Serial::from_be_bytes(&number.to_be_bytes()).unwrap();
        let tags = Tags::of((0..100).map(serial).collect::<Vec<_>>().iter());
        let seen =
            (1000..11_000).filter(|number| tags.may_be_in(Glance::at([Some(&serial(*number))].into_iter())));
        assert!(seen.count() < 50);
    }
}
