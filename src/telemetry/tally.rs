//! What is counted for every request and every handshake: each thread writes a tally of its own, and they are added up
//! when somebody asks.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use prometheus::proto::{Bucket, Counter, Histogram, LabelPair, Metric};

use crate::shard::Sharded;

/// The upper bounds of a histogram's buckets; the last bucket has none.
pub(super) struct Scale {
    pub(super) bounds: &'static [u64],
    /// How many of the bounds' units make one of what is shown.
    pub(super) unit: f64,
}

/// Nanoseconds.
pub(super) const HANDSHAKE: Scale = Scale {
    bounds: &[
        500_000,
        1_000_000,
        2_500_000,
        5_000_000,
        10_000_000,
        25_000_000,
        50_000_000,
        100_000_000,
        250_000_000,
        500_000_000,
        1_000_000_000,
        2_500_000_000,
        5_000_000_000,
    ],
    unit: 1e9,
};

/// Nanoseconds.
pub(super) const REQUEST: Scale = Scale {
    bounds: &[
        500_000,
        1_000_000,
        2_500_000,
        5_000_000,
        10_000_000,
        25_000_000,
        50_000_000,
        100_000_000,
        250_000_000,
        500_000_000,
        1_000_000_000,
        2_500_000_000,
        5_000_000_000,
        10_000_000_000,
        30_000_000_000,
    ],
    unit: 1e9,
};

pub(super) const REQUESTS_PER_CONNECTION: Scale =
    Scale { bounds: &[0, 1, 2, 5, 10, 50, 100, 1000, 10_000], unit: 1.0 };

/// More than any scale has, so that a tally is of one size.
const BUCKETS: usize = 16;

/// How things ended, one counter for each way, and a histogram of how much there was.
pub(super) struct Tally<const WAYS: usize> {
    ways: [AtomicU64; WAYS],
    buckets: [AtomicU64; BUCKETS],
    sum: AtomicU64,
}

impl<const WAYS: usize> Default for Tally<WAYS> {
    fn default() -> Self {
        let zero = || AtomicU64::new(0);
        Self { ways: std::array::from_fn(|_| zero()), buckets: std::array::from_fn(|_| zero()), sum: zero() }
    }
}

impl<const WAYS: usize> Tally<WAYS> {
    pub(super) fn count(&self, way: usize, scale: &Scale, duration: Duration) {
        self.ways[way].fetch_add(1, Ordering::Relaxed);
        self.observe(scale, duration.as_nanos() as u64);
    }

    pub(super) fn observe(&self, scale: &Scale, amount: u64) {
        let bucket = scale.bounds.iter().take_while(|bound| amount > **bound).count();
        self.buckets[bucket].fetch_add(1, Ordering::Relaxed);
        self.sum.fetch_add(amount, Ordering::Relaxed);
    }
}

/// All threads' tallies added up.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Sum<const WAYS: usize> {
    pub(super) ways: [u64; WAYS],
    buckets: [u64; BUCKETS],
    amount: u64,
}

impl<const WAYS: usize> Sum<WAYS> {
    pub(super) fn of<'a>(tallies: impl Iterator<Item = &'a Tally<WAYS>>) -> Self {
        let mut all = Self { ways: [0; WAYS], buckets: [0; BUCKETS], amount: 0 };
        let add = |to: &mut [u64], from: &[AtomicU64]| {
            to.iter_mut().zip(from).for_each(|(to, from)| *to += from.load(Ordering::Relaxed));
        };
        for tally in tallies {
            add(&mut all.ways, &tally.ways);
            add(&mut all.buckets, &tally.buckets);
            all.amount += tally.sum.load(Ordering::Relaxed);
        }
        all
    }

    pub(super) fn of_all(tallies: &Sharded<Tally<WAYS>>) -> Self {
        Self::of(tallies.all())
    }

    /// In the form of the exposition.
    pub(super) fn histogram(&self, scale: &Scale, labels: Vec<LabelPair>) -> Metric {
        let mut count = 0;
        let mut cumulative = self.buckets.iter().map(|bucket| {
            count += bucket;
            count
        });
        let bounds = scale.bounds.iter().zip(&mut cumulative).map(|(bound, cumulative)| {
            let mut bucket = Bucket::default();
            bucket.set_upper_bound(*bound as f64 / scale.unit);
            bucket.set_cumulative_count(cumulative);
            bucket
        });
        let buckets = bounds.collect();
        let mut histogram = Histogram::default();
        histogram.set_bucket(buckets);
        histogram.set_sample_count(self.buckets.iter().sum());
        histogram.set_sample_sum(self.amount as f64 / scale.unit);
        let mut metric = Metric::from_label(labels);
        metric.set_histogram(histogram);
        metric
    }
}

/// A counter in the form of the exposition.
pub(super) fn counter(value: u64, labels: Vec<LabelPair>) -> Metric {
    let mut counter = Counter::default();
    counter.set_value(value as f64);
    let mut metric = Metric::from_label(labels);
    metric.set_counter(counter);
    metric
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_amount_falls_into_the_first_bucket_whose_bound_it_does_not_exceed() {
        let tally = Tally::<0>::default();
        for amount in [0, 1, 2, 3, 5, 6, 10_000, 10_001] {
            tally.observe(&REQUESTS_PER_CONNECTION, amount);
        }
        let metric = Sum::of([&tally].into_iter()).histogram(&REQUESTS_PER_CONNECTION, Vec::new());
        let histogram = metric.get_histogram();
        let counts: Vec<_> = histogram.get_bucket().iter().map(Bucket::cumulative_count).collect();
        assert_eq!(counts, [1, 2, 3, 5, 6, 6, 6, 6, 7]);
        assert_eq!((histogram.get_sample_count(), histogram.get_sample_sum()), (8, 20_018.0));
    }

    #[test]
    fn every_scale_has_room_for_its_last_bucket() {
        for scale in [HANDSHAKE, REQUEST, REQUESTS_PER_CONNECTION] {
            assert!(scale.bounds.len() < BUCKETS && scale.bounds.is_sorted());
            Tally::<0>::default().observe(&scale, u64::MAX / 2);
        }
    }
}
