//! Limits: how often somebody was over them, and how much is remembered for them.

use std::sync::{Arc, Mutex, PoisonError};

use prometheus::core::{Collector, Desc};
use prometheus::proto::{Gauge, LabelPair, Metric, MetricFamily, MetricType};

use super::shown::labels;
use super::tally::counter;
use crate::limits::{Limits, Meter};

const FAMILIES: [(&str, &str, MetricType, &[&str]); 3] = [
    (
        "portcullis_limit_exceeded_total",
        "Times that somebody was over a limit, by what became of it.",
        MetricType::COUNTER,
        &["limit", "measure", "outcome"],
    ),
    (
        "portcullis_limit_keys",
        "Keys that are counted at the moment.",
        MetricType::GAUGE,
        &["limit", "measure"],
    ),
    (
        "portcullis_limit_evictions_total",
        "Counts that were given up because there were more keys than may be counted.",
        MetricType::COUNTER,
        &["limit", "measure"],
    ),
];

/// The limits in force. What the serving threads count, they count in the meters themselves.
#[derive(Clone)]
pub(super) struct LimitMetrics {
    shown: Arc<Mutex<Vec<Counted>>>,
    families: Arc<[Desc]>,
}

struct Counted {
    limit: Arc<str>,
    measure: &'static str,
    meter: Arc<Meter>,
}

impl LimitMetrics {
    pub(super) fn new() -> Self {
        let desc = |(name, help, _, labels): &(&str, &str, MetricType, &[&str])| {
            let labels = labels.iter().map(|&label| label.to_owned()).collect();
            Desc::new((*name).to_owned(), (*help).to_owned(), labels, std::collections::HashMap::new())
                .expect("a valid literal name")
        };
        Self { shown: Arc::default(), families: FAMILIES.iter().map(desc).collect() }
    }

    /// From now on these, and no others.
    pub(super) fn show(&self, limits: &Limits) {
        let counted = limits.rules().iter().map(|rule| Counted {
            limit: rule.name().clone(),
            measure: rule.measure().as_str(),
            meter: rule.meter().clone(),
        });
        *self.shown.lock().unwrap_or_else(PoisonError::into_inner) = counted.collect();
    }
}

impl Collector for LimitMetrics {
    fn desc(&self) -> Vec<&Desc> {
        self.families.iter().collect()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        let mut series: [Vec<Metric>; 3] = Default::default();
        for Counted { limit, measure, meter } in
            self.shown.lock().unwrap_or_else(PoisonError::into_inner).iter()
        {
            let names = [("limit", &**limit), ("measure", *measure)];
            for (outcome, count) in [("refused", meter.refused()), ("shadowed", meter.shadowed())] {
                let names = [&names[..], &[("outcome", outcome)]].concat();
                series[0].push(counter(count, labels(&names)));
            }
            let held = meter.held();
            series[1].push(gauge(held.keys, labels(&names)));
            series[2].push(counter(held.evicted, labels(&names)));
        }
        let family = |((name, help, kind, _), series): (&(&str, &str, MetricType, &[&str]), Vec<Metric>)| {
            let mut family = MetricFamily::default();
            family.set_name((*name).to_owned());
            family.set_help((*help).to_owned());
            family.set_field_type(*kind);
            family.set_metric(series);
            family
        };
        FAMILIES.iter().zip(series).map(family).collect()
    }
}

fn gauge(value: usize, labels: Vec<LabelPair>) -> Metric {
    let mut gauge = Gauge::default();
    gauge.set_value(value as f64);
    let mut metric = Metric::from_label(labels);
    metric.set_gauge(gauge);
    metric
}
