//! Remembers every metric that is described, so that `/metrics` names it before anything has happened to it:
//! dashboards, alerts and people can tell "not yet" from "no such thing".

use std::{collections::BTreeMap, fmt::Write as _, sync::Arc};

use metrics::{Counter, Gauge, Histogram, Key, KeyName, Metadata, Recorder, SharedString, Unit};
use parking_lot::Mutex;

/// What is known of a metric: its type, as the text format calls it, and its description.
type Descriptions = BTreeMap<String, (&'static str, String)>;

/// Handle to what [`CatalogueRecorder`] has been told.
#[derive(Clone, Default)]
pub(crate) struct Catalogue(Arc<Mutex<Descriptions>>);

impl Catalogue {
    fn add(&self, name: &KeyName, kind: &'static str, description: &SharedString) {
        self.0.lock().insert(name.as_str().to_owned(), (kind, description.to_string()));
    }

    /// Appends the metrics that the page does not show yet, without samples.
    pub(crate) fn append_missing(&self, page: &mut String) {
        let shown: Vec<String> = page
            .lines()
            .filter_map(|line| line.strip_prefix("# TYPE "))
            .filter_map(|line| line.split(' ').next())
            .map(str::to_owned)
            .collect();
        for (name, (kind, description)) in self.0.lock().iter().filter(|(name, _)| !shown.contains(name)) {
            // Writing into a string can not fail.
            let _ = write!(page, "# HELP {name} {description}\n# TYPE {name} {kind}\n\n");
        }
    }
}

/// A recorder that passes everything on, and keeps the descriptions.
pub(crate) struct CatalogueRecorder<R> {
    pub(crate) recorder: R,
    pub(crate) catalogue: Catalogue,
}

impl<R: Recorder> Recorder for CatalogueRecorder<R> {
    fn describe_counter(&self, key: KeyName, unit: Option<Unit>, description: SharedString) {
        self.catalogue.add(&key, "counter", &description);
        self.recorder.describe_counter(key, unit, description);
    }

    fn describe_gauge(&self, key: KeyName, unit: Option<Unit>, description: SharedString) {
        self.catalogue.add(&key, "gauge", &description);
        self.recorder.describe_gauge(key, unit, description);
    }

    fn describe_histogram(&self, key: KeyName, unit: Option<Unit>, description: SharedString) {
        self.catalogue.add(&key, "histogram", &description);
        self.recorder.describe_histogram(key, unit, description);
    }

    fn register_counter(&self, key: &Key, metadata: &Metadata<'_>) -> Counter {
        self.recorder.register_counter(key, metadata)
    }

    fn register_gauge(&self, key: &Key, metadata: &Metadata<'_>) -> Gauge {
        self.recorder.register_gauge(key, metadata)
    }

    fn register_histogram(&self, key: &Key, metadata: &Metadata<'_>) -> Histogram {
        self.recorder.register_histogram(key, metadata)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn metrics_without_samples_are_listed_once() {
        let catalogue = Catalogue::default();
        let recorder = CatalogueRecorder { recorder: metrics::NoopRecorder, catalogue: catalogue.clone() };
        metrics::with_local_recorder(&recorder, || {
            metrics::describe_counter!("a_total", "Some");
            metrics::describe_gauge!("b", "Many");
        });
        let mut page = "# TYPE b gauge\nb 1\n".to_owned();
        catalogue.append_missing(&mut page);
        assert_eq!(page, "# TYPE b gauge\nb 1\n# HELP a_total Some\n# TYPE a_total counter\n\n");
    }
}
