//! From which networks a key has connections open: a certificate that is in several places at once may be a copy.

use std::net::IpAddr;
use std::sync::{Mutex, MutexGuard, PoisonError};

use ahash::AHashMap;

use super::spec::Mode;

/// So many pieces, each under a lock of its own.
const PIECES: usize = 64;

/// Networks of one key that are told apart. More of them change nothing: it is over any limit.
pub const MOST_NETWORKS: u32 = 64;

/// Where a connection comes from: the first 24 bits of an address of IPv4, 48 of IPv6.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Network(u64);

impl Network {
    pub fn of(address: IpAddr) -> Self {
        match address.to_canonical() {
            IpAddr::V4(address) => Self(u64::from(address.to_bits() >> 8)),
            // No two of both kinds are the same.
            IpAddr::V6(address) => Self(1 << 63 | (address.to_bits() >> 80) as u64),
        }
    }
}

/// Only keys with open connections are here: there are never more of them than connections.
#[derive(Default)]
pub(super) struct Networks {
    pieces: Box<[Piece]>,
}

#[derive(Default)]
#[repr(align(128))]
struct Piece(Mutex<AHashMap<u64, Places>>);

/// Of one key.
#[derive(Default)]
struct Places {
    /// Each with its connections.
    open: Vec<(Network, u32)>,
    /// It was told of since it was last within the limit.
    is_told: bool,
}

/// That a key is in more networks than it may.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Spread {
    pub networks: u32,
    /// Not only since another connection of it came.
    pub is_news: bool,
}

impl Networks {
    pub(super) fn new() -> Self {
        Self { pieces: (0..PIECES).map(|_| Piece::default()).collect() }
    }

    /// Counts a connection. One from a network beyond `most` is not counted, unless in a shadow, which lets it in.
    pub(super) fn enter(&self, key: u64, network: Network, most: u32, mode: Mode) -> Result<(), Spread> {
        let mut piece = self.piece(key);
        let places = piece.entry(key).or_default();
        let known = places.open.iter().position(|(open, _)| *open == network);
        let count = places.open.len() as u32 + u32::from(known.is_none());
        let is_over = count > most;
        let is_new_here = known.is_none();
        if !is_over || mode == Mode::Shadow || !is_new_here {
            match known {
                Some(at) => places.open[at].1 += 1,
                None if places.open.len() < MOST_NETWORKS as usize => places.open.push((network, 1)),
                None => {}
            }
        }
        // Whoever has a place already keeps it: only who comes from elsewhere is one too many.
        if !is_over || !is_new_here && mode == Mode::Enforce {
            return Ok(());
        }
        Err(Spread { networks: count, is_news: !std::mem::replace(&mut places.is_told, true) })
    }

    /// A connection that was counted is over.
    pub(super) fn leave(&self, key: u64, network: Network, most: u32, mode: Mode) {
        let mut piece = self.piece(key);
        let Some(places) = piece.get_mut(&key) else { return };
        if let Some(at) = places.open.iter().position(|(open, _)| *open == network) {
            places.open[at].1 -= 1;
            if places.open[at].1 == 0 {
                places.open.swap_remove(at);
            }
        }
        // Where nobody beyond the limit is let in, one more would be too many as long as it is reached.
        let networks = places.open.len() as u32;
        places.is_told &= match mode {
            Mode::Enforce => networks >= most,
            Mode::Shadow => networks > most,
        };
        if places.open.is_empty() {
            piece.remove(&key);
        }
    }

    pub(super) fn keys(&self) -> usize {
        self.pieces.iter().map(|piece| piece.lock().len()).sum()
    }

    fn piece(&self, key: u64) -> MutexGuard<'_, AHashMap<u64, Places>> {
        self.pieces[(key >> 58) as usize % PIECES].lock()
    }
}

impl Piece {
    fn lock(&self) -> MutexGuard<'_, AHashMap<u64, Places>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    fn network(text: &str) -> Network {
        Network::of(text.parse().unwrap())
    }

    #[test]
    fn addresses_of_one_network_are_one_place() {
        assert_eq!(network("192.0.2.1"), network("192.0.2.255"));
        assert_ne!(network("192.0.2.1"), network("192.0.3.1"));
        assert_eq!(network("::ffff:192.0.2.9"), network("192.0.2.1"));
        assert_eq!(network("2001:db8:1:2::1"), network("2001:db8:1:3::1"));
        assert_ne!(network("2001:db8:1::1"), network("2001:db8:2::1"));
        assert_ne!(network("::1"), network("0.0.0.1"));
    }

    #[test]
    fn who_comes_from_one_network_too_many_is_told_of_once_and_those_who_are_there_stay() {
        let places = Networks::new();
        let (home, work, cafe) = (network("10.0.0.1"), network("10.0.1.1"), network("10.0.2.1"));
        assert!(
            places.enter(1, home, 2, Mode::Enforce).is_ok()
                && places.enter(1, work, 2, Mode::Enforce).is_ok()
        );
        assert_eq!(places.enter(1, cafe, 2, Mode::Enforce), Err(Spread { networks: 3, is_news: true }));
        assert_eq!(places.enter(1, cafe, 2, Mode::Enforce), Err(Spread { networks: 3, is_news: false }));
        assert!(places.enter(1, home, 2, Mode::Enforce).is_ok(), "it is there already");
        assert!(places.enter(2, cafe, 2, Mode::Enforce).is_ok(), "another key");
        places.leave(1, work, 2, Mode::Enforce);
        assert!(places.enter(1, cafe, 2, Mode::Enforce).is_ok());
        for _ in 0..2 {
            places.leave(1, home, 2, Mode::Enforce);
        }
        places.leave(1, cafe, 2, Mode::Enforce);
        places.leave(2, cafe, 2, Mode::Enforce);
        assert_eq!(places.keys(), 0);
        places.leave(1, cafe, 2, Mode::Enforce);
    }

    #[test]
    fn who_is_within_the_limit_again_is_told_of_anew() {
        for mode in [Mode::Enforce, Mode::Shadow] {
            let places = Networks::new();
            let (home, work) = (network("10.0.0.1"), network("10.0.1.1"));
            for _ in 0..2 {
                places.enter(1, home, 1, mode).unwrap();
                let is_news = |found: Result<(), Spread>| found.unwrap_err().is_news;
                assert!(is_news(places.enter(1, work, 1, mode)), "{mode:?}");
                assert!(!is_news(places.enter(1, work, 1, mode)), "{mode:?}");
                for _ in 0..if mode == Mode::Shadow { 2 } else { 0 } {
                    places.leave(1, work, 1, mode);
                }
                places.leave(1, home, 1, mode);
            }
        }
    }

    #[test]
    fn a_lower_limit_refuses_no_network_that_is_there() {
        let places = Networks::new();
        let (home, work, cafe) = (network("10.0.0.1"), network("10.0.1.1"), network("10.0.2.1"));
        for place in [home, work] {
            places.enter(1, place, 2, Mode::Enforce).unwrap();
        }
        assert!(places.enter(1, work, 1, Mode::Enforce).is_ok());
        assert!(places.enter(1, cafe, 1, Mode::Enforce).is_err());
    }

    proptest! {
        /// In a shadow, whatever comes and goes: what is over is forgotten, and nothing else.
        #[test]
        fn what_enters_and_leaves_adds_up(steps in proptest::collection::vec((0_u64..3, 0_u8..100, any::<bool>()), 1..300)) {
            let (places, mut open) = (Networks::new(), BTreeMap::<(u64, u8), u32>::new());
            for (key, place, enters) in steps {
                let network = network(&format!("10.0.{place}.1"));
                if enters {
                    let found = places.enter(key, network, 3, Mode::Shadow);
                    *open.entry((key, place)).or_default() += 1;
                    let distinct = open.keys().filter(|(of, _)| *of == key).count();
                    prop_assert_eq!(found.is_err(), distinct > 3);
                } else if let Some(count) = open.get_mut(&(key, place)) {
                    *count -= 1;
                    if *count == 0 {
                        open.remove(&(key, place));
                    }
                    places.leave(key, network, 3, Mode::Shadow);
                }
                let keys: std::collections::BTreeSet<_> = open.keys().map(|(key, _)| key).collect();
                // Beyond so many networks of one key they are not told apart any more.
                if open.len() < MOST_NETWORKS as usize {
                    prop_assert_eq!(places.keys(), keys.len());
                }
            }
        }
    }
}
