//! The figures of our own process, with the start time from our own clock: the stock collector wants `/proc/stat`,
//! which a sandbox with `ProcSubset=pid` does not show, and says 0 then.

use std::time::{SystemTime, UNIX_EPOCH};

use prometheus::core::{Collector, Desc};
use prometheus::process_collector::ProcessCollector;
use prometheus::proto::MetricFamily;
use prometheus::{IntGauge, Opts};

const START_TIME: &str = "process_start_time_seconds";

/// Made at the start of the process, so that its own age is the process's.
pub(super) struct Process {
    stock: ProcessCollector,
    start_time: IntGauge,
}

impl Process {
    /// # Panics
    /// Not with the literal name above.
    pub(super) fn new() -> Self {
        let options = Opts::new(START_TIME, "Start time of the process since unix epoch in seconds.");
        let start_time = IntGauge::with_opts(options).expect("a valid literal name");
        start_time.set(SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |at| at.as_secs() as i64));
        Self { stock: ProcessCollector::for_self(), start_time }
    }
}

impl Collector for Process {
    fn desc(&self) -> Vec<&Desc> {
        let stock = self.stock.desc().into_iter().filter(|desc| desc.fq_name != START_TIME);
        stock.chain(self.start_time.desc()).collect()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        let stock = self.stock.collect().into_iter().filter(|family| family.name() != START_TIME);
        stock.chain(self.start_time.collect()).collect()
    }
}

#[cfg(test)]
mod tests {
    use crate::telemetry::Metrics;

    #[test]
    fn the_process_knows_when_it_started() {
        let text = Metrics::new().render();
        let values: Vec<i64> = text
            .lines()
            .filter_map(|line| line.strip_prefix("process_start_time_seconds "))
            .map(|value| value.parse().unwrap())
            .collect();
        assert!(matches!(values[..], [at] if at > 1_600_000_000), "{values:?}");
        assert!(text.contains("process_cpu_seconds_total ") && text.contains("process_open_fds "));
    }
}
