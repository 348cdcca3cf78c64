//! Many networks as one set, in which an address is found by halving.

use std::net::IpAddr;

use super::Prefix;

/// The addresses that lie in any of some networks.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Networks {
    /// First and last address of each, in order; none lies in another.
    ranges: Vec<(IpAddr, IpAddr)>,
}

impl Networks {
    pub fn contains(&self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        let behind = self.ranges.partition_point(|(first, _)| *first <= address);
        behind.checked_sub(1).is_some_and(|at| address <= self.ranges[at].1)
    }

    /// Whether they have any address in common with `network`.
    pub fn meet(&self, network: Prefix) -> bool {
        self.contains(network.first()) || self.ranges.iter().any(|(first, _)| network.contains(*first))
    }

    pub fn is_empty(&self) -> bool {
        self.ranges.is_empty()
    }
}

impl FromIterator<Prefix> for Networks {
    fn from_iter<T: IntoIterator<Item = Prefix>>(networks: T) -> Self {
        let mut ranges: Vec<_> =
            networks.into_iter().map(|network| (network.first(), network.last())).collect();
        // Two networks have nothing in common, or one lies in the other: the larger one comes first.
        ranges.sort_by(|(first, last), (other, end)| first.cmp(other).then(end.cmp(last)));
        ranges.dedup_by(|(_, last), (_, end)| last <= end);
        Self { ranges }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn networks(texts: &[&str]) -> Networks {
        texts.iter().map(|text| text.parse::<Prefix>().unwrap()).collect()
    }

    #[test]
    fn a_network_within_another_adds_nothing_and_hides_nothing() {
        let set =
            networks(&["10.1.0.0/16", "10.0.0.0/8", "10.1.2.3", "192.0.2.0/24", "2001:db8::/32", "::1"]);
        assert_eq!(set.ranges.len(), 4);
        for (address, is_in) in [
            ("10.255.255.255", true),
            ("11.0.0.0", false),
            ("9.255.255.255", false),
            ("192.0.2.255", true),
            ("::ffff:192.0.2.1", true),
            ("2001:db8:ffff::", true),
            ("2001:db9::", false),
            ("::1", true),
            ("::", false),
        ] {
            assert_eq!(set.contains(address.parse().unwrap()), is_in, "{address}");
        }
        assert!(!Networks::default().contains("10.0.0.1".parse().unwrap()));
        assert!(networks(&["0.0.0.0/0"]).contains("255.255.255.255".parse().unwrap()));
        assert!(!networks(&["0.0.0.0/0"]).contains("::".parse().unwrap()));
    }

    proptest! {
        #[test]
        fn an_address_is_in_the_set_if_it_is_in_one_of_the_networks(
            of in prop::collection::vec((0u32..64, 24u8..=32), 0..12), asked in 0u32..64,
        ) {
            let address = |low: u32| IpAddr::from(std::net::Ipv4Addr::from_bits(0x0a00_0000 | low));
            let all: Vec<_> = of.into_iter().map(|(low, bits)| Prefix::of(address(low), bits)).collect();
            let set: Networks = all.iter().copied().collect();
            let asked = address(asked);
            prop_assert_eq!(set.contains(asked), all.iter().any(|network| network.contains(asked)));
            for bits in 24..=32 {
                let with = Prefix::of(asked, bits);
                let meets = |network: &Prefix| network.contains(with.first()) || with.contains(network.first());
                prop_assert_eq!(set.meet(with), all.iter().any(meets));
            }
        }
    }
}
