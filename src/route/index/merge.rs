//! Merges ascending lists of route numbers without copying them.

/// Few lists are ever found at once; those fit here without allocating.
const INLINE: usize = 12;

/// Yields the numbers of all lists in ascending order, each once.
pub(in crate::route) struct Candidates<'a> {
    lists: [&'a [u32]; INLINE],
    used: usize,
    more: Vec<&'a [u32]>,
}

impl<'a> Candidates<'a> {
    pub(super) fn new(always: &'a [u32]) -> Self {
        let mut lists: [&[u32]; INLINE] = [&[]; INLINE];
        lists[0] = always;
        Self { lists, used: 1, more: Vec::new() }
    }

    pub(super) fn add(&mut self, list: &'a [u32]) {
        if self.used < INLINE {
            self.lists[self.used] = list;
            self.used += 1;
        } else if !self.more.contains(&list) {
            self.more.push(list);
        }
    }
}

impl Iterator for Candidates<'_> {
    type Item = usize;

    fn next(&mut self) -> Option<usize> {
        let lists = || self.lists[..self.used].iter().chain(&self.more);
        let least = *lists().filter_map(|list| list.first()).min()?;
        for list in self.lists[..self.used].iter_mut().chain(&mut self.more) {
            if list.first() == Some(&least) {
                *list = &list[1..];
            }
        }
        Some(least as usize)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn every_number_comes_once_and_in_order(
            lists in proptest::collection::vec(proptest::collection::btree_set(0u32..50, 0..10), 1..30)
        ) {
            let lists: Vec<Vec<u32>> = lists.into_iter().map(|list| list.into_iter().collect()).collect();
            let mut candidates = Candidates::new(&lists[0]);
            lists[1..].iter().for_each(|list| candidates.add(list));
            let all: BTreeSet<usize> = lists.iter().flatten().map(|&number| number as usize).collect();
            prop_assert_eq!(candidates.collect::<Vec<_>>(), all.into_iter().collect::<Vec<_>>());
        }
    }
}
