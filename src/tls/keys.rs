//! The keys that seal session tickets: kept in memory only, replaced on a schedule or read from a file that several
//! nodes share.

use std::sync::Arc;
use std::time::{Duration, Instant};

use arc_swap::{ArcSwap, Guard};
use openssl::error::ErrorStack;
use zeroize::Zeroizing;

use super::library::TicketCipher;
use super::now;
use crate::UnixTime;

/// The keys of one listener, for all its contexts, also those of connections that an earlier configuration accepted: a
/// key that is given up is gone everywhere at once.
pub struct TicketKeys(ArcSwap<KeyRing>);

/// The first key seals, all of them open.
pub struct KeyRing {
    keys: Vec<Held>,
    origin: Origin,
    /// When the key that seals was made.
    made_at: UnixTime,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Origin {
    Generated,
    File,
}

#[derive(Clone)]
struct Held {
    key: Arc<TicketKey>,
    /// Since when it seals, and since when no more.
    began: Instant,
    retired: Option<Instant>,
}

/// One key. What it was made of is wiped; what it needs is wiped with it.
pub(super) struct TicketKey {
    /// Stands in front of each ticket in the clear.
    pub(super) name: [u8; TicketKey::NAME],
    pub(super) cipher: TicketCipher,
}

/// How keys that are made here come and go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KeySchedule {
    /// For how long a key seals.
    pub rotate: Duration,
    /// For how long it still opens.
    pub lifetime: Duration,
}

impl TicketKey {
    pub(super) const NAME: usize = 16;
    /// 16 bytes of name, 32 for authentication, 32 for the cipher.
    pub(super) const SIZE: usize = 80;

    pub(super) fn new(bytes: &[u8; Self::SIZE]) -> Result<Self, ErrorStack> {
        let (name, secret) = bytes.split_first_chunk().unwrap_or((&[0; Self::NAME], &[]));
        let secret = secret.first_chunk().ok_or_else(ErrorStack::get)?;
        Ok(Self { name: *name, cipher: TicketCipher::new(secret)? })
    }

    fn generate() -> Result<Self, ErrorStack> {
        let mut bytes = Zeroizing::new([0; Self::SIZE]);
        openssl::rand::rand_bytes(&mut *bytes)?;
        Self::new(&bytes)
    }
}

impl KeyRing {
    /// Of a listener that hands out no tickets.
    pub fn empty() -> Self {
        Self { keys: Vec::new(), origin: Origin::Generated, made_at: 0 }
    }

    /// One new key.
    pub fn generate(began: Instant) -> Result<Self, ErrorStack> {
        let key = Arc::new(TicketKey::generate()?);
        let keys = vec![Held { key, began, retired: None }];
        Ok(Self { keys, origin: Origin::Generated, made_at: now() })
    }

    /// `keys` from a file that was written at `made_at`.
    pub(super) fn shared(keys: Vec<TicketKey>, began: Instant, made_at: UnixTime) -> Self {
        let held = |key| Held { key: Arc::new(key), began, retired: None };
        Self { keys: keys.into_iter().map(held).collect(), origin: Origin::File, made_at }
    }

    pub fn len(&self) -> usize {
        self.keys.len()
    }

    pub fn is_empty(&self) -> bool {
        self.keys.is_empty()
    }

    /// When the key that seals was made; of a file, when that was last written.
    pub fn made_at(&self) -> UnixTime {
        self.made_at
    }

    /// Whether its keys were made here, and are replaced on a schedule.
    pub fn is_generated(&self) -> bool {
        self.origin == Origin::Generated && !self.keys.is_empty()
    }

    /// Whether it holds the same keys in the same order.
    pub fn has_keys_of(&self, other: &Self) -> bool {
        self.keys.iter().map(|held| held.key.name).eq(other.keys.iter().map(|held| held.key.name))
    }

    /// Names the key that seals, for people: two nodes that show the same share it.
    pub fn sealing_name(&self) -> String {
        let name = self.sealing().and_then(|key| key.name.first_chunk()).copied().unwrap_or_default();
        format!("{:08x}", u32::from_be_bytes(name))
    }

    pub(super) fn sealing(&self) -> Option<&TicketKey> {
        self.keys.first().map(|held| &*held.key)
    }

    pub(super) fn named(&self, name: &[u8; TicketKey::NAME]) -> Option<&TicketKey> {
        self.keys.iter().map(|held| &*held.key).find(|key| key.name == *name)
    }

    /// When something is to be done next.
    pub fn due(&self, schedule: KeySchedule) -> Option<Instant> {
        let due = |held: &Held| match held.retired {
            None => held.began + schedule.rotate,
            Some(retired) => retired + schedule.lifetime,
        };
        self.is_generated().then(|| self.keys.iter().map(due).min()).flatten()
    }

    /// What it is to become at `now`; `None`: what it is.
    fn rotated(&self, schedule: KeySchedule, now: Instant) -> Result<Option<Self>, ErrorStack> {
        if self.due(schedule).is_none_or(|due| due > now) {
            return Ok(None);
        }
        let mut keys = self.keys.clone();
        let mut made_at = self.made_at;
        if keys.first().is_some_and(|sealing| sealing.began + schedule.rotate <= now) {
            keys[0].retired = Some(now);
            keys.insert(0, Held { key: Arc::new(TicketKey::generate()?), began: now, retired: None });
            made_at = super::now();
        }
        keys.retain(|held| held.retired.is_none_or(|retired| retired + schedule.lifetime > now));
        Ok(Some(Self { keys, origin: self.origin, made_at }))
    }
}

impl TicketKeys {
    pub fn new(ring: KeyRing) -> Self {
        Self(ArcSwap::from_pointee(ring))
    }

    pub fn current(&self) -> Arc<KeyRing> {
        self.0.load_full()
    }

    pub(super) fn load(&self) -> Guard<Arc<KeyRing>> {
        self.0.load()
    }

    pub fn replace(&self, ring: KeyRing) {
        self.0.store(Arc::new(ring));
    }

    /// Makes a new key and gives old ones up, if it is time; whether it was.
    pub fn rotate(&self, schedule: KeySchedule, now: Instant) -> Result<bool, ErrorStack> {
        loop {
            let current = self.0.load_full();
            let Some(next) = current.rotated(schedule, now)? else { return Ok(false) };
            // A reload may have replaced them meanwhile.
            if Arc::ptr_eq(&self.0.compare_and_swap(&current, Arc::new(next)), &current) {
                return Ok(true);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SCHEDULE: KeySchedule =
        KeySchedule { rotate: Duration::from_secs(100), lifetime: Duration::from_secs(250) };

    fn names(keys: &TicketKeys) -> Vec<[u8; TicketKey::NAME]> {
        keys.load().keys.iter().map(|held| held.key.name).collect()
    }

    #[test]
    fn a_key_opens_for_a_lifetime_after_it_sealed_last_and_is_gone_then() {
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let keys = TicketKeys::new(KeyRing::generate(start).unwrap());
        let first = names(&keys);
        assert!(!keys.rotate(SCHEDULE, at(99)).unwrap());
        assert!(keys.rotate(SCHEDULE, at(100)).unwrap() && !keys.rotate(SCHEDULE, at(100)).unwrap());
        assert_eq!(names(&keys)[1..], first);
        let wiped = Arc::downgrade(&keys.load().keys[1].key);
        assert!(keys.rotate(SCHEDULE, at(200)).unwrap() && keys.rotate(SCHEDULE, at(300)).unwrap());
        assert_eq!((names(&keys).len(), names(&keys)[3]), (4, first[0]));
        assert_eq!(keys.load().due(SCHEDULE), Some(at(350)));
        assert!(keys.rotate(SCHEDULE, at(350)).unwrap());
        assert_eq!((names(&keys).len(), names(&keys).contains(&first[0])), (3, false));
        assert!(wiped.upgrade().is_none());
        // After a long sleep everything is replaced at once.
        let before = names(&keys);
        assert!(keys.rotate(SCHEDULE, at(10_000)).unwrap());
        assert!(names(&keys).len() == 2 && names(&keys)[1] == before[0]);
    }

    #[test]
    fn keys_of_a_file_stay_as_they_are() {
        let now = Instant::now();
        let key = TicketKey::new(&[7; TicketKey::SIZE]).unwrap();
        let keys = TicketKeys::new(KeyRing::shared(vec![key], now, 1));
        assert!(!keys.rotate(SCHEDULE, now + Duration::from_secs(10_000)).unwrap());
        assert_eq!((names(&keys), keys.current().sealing_name()), (vec![[7; 16]], "07070707".to_owned()));
        let empty = TicketKeys::new(KeyRing::empty());
        assert!(!empty.rotate(SCHEDULE, now + Duration::from_secs(10_000)).unwrap());
    }
}
