//! Families of metrics whose series are added up when they are shown, and shown as long as anybody counts with them.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use prometheus::core::{Collector, Desc};
use prometheus::proto::{LabelPair, Metric, MetricFamily, MetricType};

/// One family: how it is called, and what it is.
pub(super) struct Family {
    pub(super) name: &'static str,
    pub(super) help: &'static str,
    pub(super) kind: MetricType,
    pub(super) labels: &'static [&'static str],
}

/// Something that is counted and shown in one or more families.
pub(super) trait Counted: Send + Sync + 'static {
    const FAMILIES: &'static [Family];

    /// The series of each family, in their order. `names` tells this one from others of its kind.
    fn series(&self, names: &[String]) -> Vec<Vec<Metric>>;
}

/// Those of one kind that are in use, by their names. One that nobody holds any more is not shown any more.
pub(super) struct Shown<T> {
    counted: Arc<Mutex<BTreeMap<Vec<String>, Weak<T>>>>,
    families: Arc<[Desc]>,
}

impl<T> Clone for Shown<T> {
    fn clone(&self) -> Self {
        Self { counted: self.counted.clone(), families: self.families.clone() }
    }
}

impl<T: Counted> Shown<T> {
    pub(super) fn new() -> Self {
        let desc = |family: &Family| {
            let labels = family.labels.iter().map(|&label| label.to_owned()).collect();
            Desc::new(
                family.name.to_owned(),
                family.help.to_owned(),
                labels,
                std::collections::HashMap::new(),
            )
            .expect("a valid literal name")
        };
        Self { counted: Arc::default(), families: T::FAMILIES.iter().map(desc).collect() }
    }

    /// The one of these names: whoever asked before gets the same, so that no count begins anew with a reload.
    pub(super) fn get(&self, names: &[&str], make: impl FnOnce() -> T) -> Arc<T> {
        let mut counted = self.counted.lock().unwrap_or_else(PoisonError::into_inner);
        let names: Vec<String> = names.iter().map(|&name| name.to_owned()).collect();
        if let Some(known) = counted.get(&names).and_then(Weak::upgrade) {
            return known;
        }
        let new = Arc::new(make());
        counted.insert(names, Arc::downgrade(&new));
        new
    }

    fn in_use(&self) -> Vec<(Vec<String>, Arc<T>)> {
        let mut counted = self.counted.lock().unwrap_or_else(PoisonError::into_inner);
        counted.retain(|_, known| known.strong_count() > 0);
        counted.iter().filter_map(|(names, known)| Some((names.clone(), known.upgrade()?))).collect()
    }
}

impl<T: Counted> Collector for Shown<T> {
    fn desc(&self) -> Vec<&Desc> {
        self.families.iter().collect()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        let mut all: Vec<Vec<Metric>> = T::FAMILIES.iter().map(|_| Vec::new()).collect();
        for (names, counted) in self.in_use() {
            all.iter_mut().zip(counted.series(&names)).for_each(|(all, series)| all.extend(series));
        }
        let family = |(family, series): (&Family, Vec<Metric>)| {
            let mut shown = MetricFamily::default();
            shown.set_name(family.name.to_owned());
            shown.set_help(family.help.to_owned());
            shown.set_field_type(family.kind);
            shown.set_metric(series);
            shown
        };
        T::FAMILIES.iter().zip(all).map(family).collect()
    }
}

/// In the alphabetical order in which the exposition has them.
pub(super) fn labels(pairs: &[(&str, &str)]) -> Vec<LabelPair> {
    let mut pairs = pairs.to_vec();
    pairs.sort_unstable();
    let label = |(name, value): (&str, &str)| {
        let mut label = LabelPair::default();
        label.set_name(name.to_owned());
        label.set_value(value.to_owned());
        label
    };
    pairs.into_iter().map(label).collect()
}
