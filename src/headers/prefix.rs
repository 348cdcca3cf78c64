//! Networks: an address, and how many of its bits count.

use std::borrow::Cow;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer};

/// `192.0.2.0/24`, `2001:db8::/32`, or an address, which is a network of one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Prefix {
    address: IpAddr,
    bits: u8,
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PrefixError {
    #[error("`{0}` is not a network (expected: `192.0.2.0/24`, `2001:db8::/32`, or an address)")]
    NotANetwork(String),
    /// Somebody meant another network than the one that would be taken.
    #[error("`{text}` has bits set beyond its length (expected: `{expected}`)")]
    HostBits { text: String, expected: Prefix },
}

impl Prefix {
    /// The network of such a length that `address` lies in; IPv4 has at most 32 bits.
    pub fn of(address: IpAddr, bits: u8) -> Self {
        let address = address.to_canonical();
        let bits = bits.min(if address.is_ipv4() { 32 } else { 128 });
        Self { address: masked(address, bits), bits }
    }

    /// The first address that lies in it.
    pub fn first(&self) -> IpAddr {
        self.address
    }

    /// The last one.
    pub fn last(&self) -> IpAddr {
        let bits = u32::from(self.bits);
        match self.address {
            IpAddr::V4(first) => {
                Ipv4Addr::from_bits(first.to_bits() | u32::MAX.checked_shr(bits).unwrap_or(0)).into()
            }
            IpAddr::V6(first) => {
                Ipv6Addr::from_bits(first.to_bits() | u128::MAX.checked_shr(bits).unwrap_or(0)).into()
            }
        }
    }

    /// Whether `address` lies in it. An IPv4 address counts also where a dual-stack socket shows it as an IPv6 one.
    pub fn contains(&self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        address.is_ipv4() == self.address.is_ipv4() && masked(address, self.bits) == self.address
    }
}

fn masked(address: IpAddr, bits: u8) -> IpAddr {
    let bits = u32::from(bits);
    match address {
        IpAddr::V4(address) => {
            let mask = u32::MAX.checked_shl(32 - bits).unwrap_or(0);
            Ipv4Addr::from_bits(address.to_bits() & mask).into()
        }
        IpAddr::V6(address) => {
            let mask = u128::MAX.checked_shl(128 - bits).unwrap_or(0);
            Ipv6Addr::from_bits(address.to_bits() & mask).into()
        }
    }
}

impl FromStr for Prefix {
    type Err = PrefixError;

    fn from_str(text: &str) -> Result<Self, PrefixError> {
        let error = || PrefixError::NotANetwork(text.to_owned());
        let (address, bits) = match text.split_once('/') {
            Some((address, bits)) if bits.bytes().all(|byte| byte.is_ascii_digit()) => (address, Some(bits)),
            Some(_) => return Err(error()),
            None => (text, None),
        };
        let mut address: IpAddr = address.parse().map_err(|_| error())?;
        let all = if address.is_ipv4() { 32 } else { 128 };
        let mut bits = bits.map_or(Ok(all), str::parse::<u8>).map_err(|_| error())?;
        if bits > all {
            return Err(error());
        }
        // `::ffff:192.0.2.0/120` is written by people who think of a dual-stack socket.
        if address.to_canonical() != address && bits >= 96 {
            (address, bits) = (address.to_canonical(), bits - 96);
        }
        let expected = Self { address: masked(address, bits), bits };
        if expected.address == address {
            Ok(expected)
        } else {
            Err(PrefixError::HostBits { text: text.to_owned(), expected })
        }
    }
}

impl fmt::Display for Prefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let all = if self.address.is_ipv4() { 32 } else { 128 };
        if self.bits == all { self.address.fmt(f) } else { write!(f, "{}/{}", self.address, self.bits) }
    }
}

impl<'de> Deserialize<'de> for Prefix {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

impl JsonSchema for Prefix {
    fn schema_name() -> Cow<'static, str> {
        "Prefix".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "string", "description": "`192.0.2.0/24`, `2001:db8::/32`, or an address." })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn prefixes_contain_what_they_say() {
        let contains =
            |prefix: &str, ip: &str| prefix.parse::<Prefix>().unwrap().contains(ip.parse().unwrap());
        assert!(contains("10.0.0.0/8", "10.255.0.1") && !contains("10.0.0.0/8", "11.0.0.1"));
        assert!(contains("0.0.0.0/0", "1.2.3.4") && !contains("0.0.0.0/0", "::1"));
        assert!(contains("::/0", "::1") && !contains("::/0", "1.2.3.4"));
        assert!(contains("2001:db8::/32", "2001:db8:1::"));
        assert!(contains("::1", "::1") && !contains("::1", "::2"));
        assert!(contains("192.0.2.0/24", "::ffff:192.0.2.9"));
        assert!(
            contains("::ffff:192.0.2.0/120", "192.0.2.9") && !contains("::ffff:192.0.2.0/120", "192.0.3.9")
        );
    }

    #[test]
    fn what_is_no_network_is_refused() {
        for text in
            ["", "x", "10.0.0.0/33", "10.0.0.0/", "10.0.0.0/+8", "::/129", "10.0.0/8", "/8", "::1/128/1"]
        {
            assert!(matches!(text.parse::<Prefix>(), Err(PrefixError::NotANetwork(_))), "{text}");
        }
        assert_eq!(
            "192.0.2.1/24".parse::<Prefix>().unwrap_err().to_string(),
            "`192.0.2.1/24` has bits set beyond its length (expected: `192.0.2.0/24`)"
        );
    }

    proptest! {
        #[test]
        fn a_prefix_survives_its_own_text_and_holds_the_address_it_was_made_of(address: IpAddr, bits in 0u8..=128) {
            let address = address.to_canonical();
            let bits = if address.is_ipv4() { bits.min(32) } else { bits };
            let prefix = Prefix::of(address, bits);
            prop_assert!(prefix.contains(address));
            prop_assert!(prefix.contains(prefix.first()) && prefix.contains(prefix.last()));
            prop_assert!(prefix.first() <= address && address <= prefix.last());
            if prefix.address.to_canonical() == prefix.address {
                prop_assert_eq!(prefix.to_string().parse(), Ok(prefix));
            }
        }
    }
}
