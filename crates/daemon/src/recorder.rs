//! The metrics recorder of the process. Every described metric has a series from the start, so that dashboards and
//! alerts see the first event as an increase from zero, and distinguish "none yet" from "no such metric".

use metrics::{
    Counter, Gauge, Histogram, Key, KeyName, Level, Metadata, Recorder, SharedString, Unit, counter,
};

const METADATA: Metadata<'static> = Metadata::new(module_path!(), Level::INFO, Some(module_path!()));

/// Creates the series of a counter with these values of one label, at 0. Call it where the counter is described, for
/// each label that an alert or a panel selects.
pub fn zero_counters(name: &'static str, label: &'static str, values: &[&'static str]) {
    for value in values {
        counter!(name, label => *value).increment(0);
    }
}

/// Creates the series without labels of each metric that is described, at 0.
pub(crate) struct ZeroingRecorder<R>(pub(crate) R);

impl<R: Recorder> Recorder for ZeroingRecorder<R> {
    fn describe_counter(&self, name: KeyName, unit: Option<Unit>, description: SharedString) {
        self.0.describe_counter(name.clone(), unit, description);
        self.0.register_counter(&Key::from_name(name), &METADATA).increment(0);
    }

    fn describe_gauge(&self, name: KeyName, unit: Option<Unit>, description: SharedString) {
        self.0.describe_gauge(name.clone(), unit, description);
        self.0.register_gauge(&Key::from_name(name), &METADATA).increment(0.0);
    }

    fn describe_histogram(&self, name: KeyName, unit: Option<Unit>, description: SharedString) {
        self.0.describe_histogram(name.clone(), unit, description);
        // The exporter shows the buckets of a histogram once it is registered.
        let _ = self.0.register_histogram(&Key::from_name(name), &METADATA);
    }

    fn register_counter(&self, key: &Key, metadata: &Metadata<'_>) -> Counter {
        self.0.register_counter(key, metadata)
    }

    fn register_gauge(&self, key: &Key, metadata: &Metadata<'_>) -> Gauge {
        self.0.register_gauge(key, metadata)
    }

    fn register_histogram(&self, key: &Key, metadata: &Metadata<'_>) -> Histogram {
        self.0.register_histogram(key, metadata)
    }
}

#[cfg(test)]
mod tests {
    use metrics_exporter_prometheus::PrometheusBuilder;

    use super::*;

    #[test]
    fn described_metrics_start_at_zero_and_keep_their_value() {
        let recorder = PrometheusBuilder::new().set_buckets(&[1.0]).unwrap().build_recorder();
        let page = recorder.handle();
        metrics::with_local_recorder(&ZeroingRecorder(recorder), || {
            metrics::describe_counter!("a_total", "Some");
            metrics::describe_gauge!("b", "Many");
            metrics::describe_histogram!("c", "Sizes");
            metrics::gauge!("b").set(7.0);
            metrics::describe_gauge!("b", "Many");
            zero_counters("a_total", "reason", &["full"]);
        });
        let page = page.render();
        for line in ["a_total 0", "a_total{reason=\"full\"} 0", "b 7", "c_bucket{le=\"+Inf\"} 0", "c_count 0"]
        {
            assert!(page.lines().any(|shown| shown == line), "{line} is missing from\n{page}");
        }
    }
}
