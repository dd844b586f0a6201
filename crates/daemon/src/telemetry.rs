//! Sets up logging: lines on standard error, pretty for people and JSON for machines, and the export to a collector.

use std::io::IsTerminal;

use tracing_subscriber::{
    EnvFilter, Layer, filter::filter_fn, layer::SubscriberExt, registry, util::SubscriberInitExt,
};

use crate::{LogConfig, LogFormat, event, otlp};

/// Installs the global subscriber. Where the process already has one (tests), that one stays.
pub(crate) fn install(config: &LogConfig) -> otlp::Exporter {
    let (export, exporter) = otlp::pair();
    let pretty = match config.format {
        LogFormat::Auto => std::io::stderr().is_terminal(),
        LogFormat::Pretty => true,
        LogFormat::Json => false,
    };
    let lines = tracing_subscriber::fmt::layer().with_writer(std::io::stderr);
    let lines = if pretty { lines.boxed() } else { lines.json().flatten_event(true).boxed() };
    let print_events = config.print_events || config.otlp == "off";
    let lines =
        lines.with_filter(filter_fn(move |metadata| print_events || metadata.target() != event::TARGET));
    let export = (config.otlp != "off").then_some(export);
    // The filter's syntax was checked with the settings; the default is the same as theirs.
    let filter = EnvFilter::try_new(&config.filter).unwrap_or_else(|_| EnvFilter::new("info"));
    if registry().with(filter).with(export).with(lines).try_init().is_err() {
        tracing::debug!("a subscriber is installed already");
    }
    exporter
}
