//! What is shown of revocation: each list in force, and how long a change takes until it is felt.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use prometheus::core::{Collector, Desc};
use prometheus::proto::{Gauge, Metric, MetricFamily, MetricType};
use prometheus::{Histogram, HistogramOpts, HistogramVec};

use super::shown::labels;
use crate::UnixTime;

/// Seconds. What is promised is one; `grace` may lengthen the second stage.
const BUCKETS: &[f64] = &[0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0];

/// One list in force.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListStatus {
    pub trust_domain: Arc<str>,
    pub issuer: String,
    /// Empty: all certificates of the issuer.
    pub scope: String,
    pub entries: usize,
    pub this_update: UnixTime,
    pub next_update: Option<UnixTime>,
}

pub struct RevocationMetrics {
    lists: Lists,
    in_force: Histogram,
    connections_closed: Histogram,
}

impl RevocationMetrics {
    pub(super) fn new(registry: &prometheus::Registry) -> Self {
        let lists = Lists::new();
        super::metrics::register(registry, lists.clone());
        let options = HistogramOpts::new(
            "portcullis_revocation_propagation_seconds",
            "From the change of a source to what it says being in force, and from there to the last connection closed.",
        );
        let propagation =
            HistogramVec::new(options.buckets(BUCKETS.to_vec()), &["stage"]).expect("a valid literal name");
        super::metrics::register(registry, propagation.clone());
        Self {
            lists,
            in_force: propagation.with_label_values(&["in_force"]),
            connections_closed: propagation.with_label_values(&["connections_closed"]),
        }
    }

    /// These are the lists in force now, and no others.
    pub fn show_lists(&self, lists: Vec<ListStatus>) {
        *self.lists.in_force.lock().unwrap_or_else(PoisonError::into_inner) = lists;
    }

    /// Something changed about who may be in, so long after its source did.
    pub fn in_force_after(&self, lag: Duration) {
        self.in_force.observe(lag.as_secs_f64());
    }

    /// The last connection that a change ended is closed, so long after it was in force.
    pub fn connections_closed_after(&self, lag: Duration) {
        self.connections_closed.observe(lag.as_secs_f64());
    }
}

const FAMILIES: [(&str, &str); 3] = [
    ("portcullis_revocation_list_entries", "Certificates that a revocation list names."),
    (
        "portcullis_revocation_list_this_update_timestamp_seconds",
        "When the revocation list in force was issued.",
    ),
    (
        "portcullis_revocation_list_next_update_timestamp_seconds",
        "When the issuer promised a newer revocation list.",
    ),
];

/// What a family shows of a list, if there is anything to show.
type Value = fn(&ListStatus) -> Option<i64>;

/// Replaced as a whole, so that nobody sees a list of before beside one of now, or none for a moment.
#[derive(Clone)]
struct Lists {
    in_force: Arc<Mutex<Vec<ListStatus>>>,
    families: Arc<[Desc]>,
}

impl Lists {
    fn new() -> Self {
        let desc = |(name, help): (&str, &str)| {
            let labels = ["trust_domain", "issuer", "scope"].map(str::to_owned).to_vec();
            Desc::new(name.to_owned(), help.to_owned(), labels, HashMap::new()).expect("a valid literal name")
        };
        Self { in_force: Arc::default(), families: FAMILIES.map(desc).into() }
    }
}

impl Collector for Lists {
    fn desc(&self) -> Vec<&Desc> {
        self.families.iter().collect()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        let lists = self.in_force.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let values: [fn(&ListStatus) -> Option<i64>; 3] =
            [|list| i64::try_from(list.entries).ok(), |list| Some(list.this_update), |list| list.next_update];
        let family = |((name, help), value): ((&str, &str), Value)| {
            let mut family = MetricFamily::default();
            family.set_name(name.to_owned());
            family.set_help(help.to_owned());
            family.set_field_type(MetricType::GAUGE);
            family.set_metric(lists.iter().filter_map(|list| Some(gauge(list, value(list)?))).collect());
            family
        };
        FAMILIES.into_iter().zip(values).map(family).collect()
    }
}

fn gauge(list: &ListStatus, value: i64) -> Metric {
    let mut gauge = Gauge::default();
    gauge.set_value(value as f64);
    let mut metric = Metric::default();
    metric.set_label(labels(&[
        ("trust_domain", &list.trust_domain),
        ("issuer", &list.issuer),
        ("scope", &list.scope),
    ]));
    metric.set_gauge(gauge);
    metric
}
