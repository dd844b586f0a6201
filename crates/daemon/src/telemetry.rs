//! Sets up logging: lines for people or as JSON, to standard error or a file, and the export to a collector.

use std::{
    backtrace::{Backtrace, BacktraceStatus},
    io::IsTerminal,
};

use anyhow::Context;
use tracing_subscriber::{
    EnvFilter, Layer, filter::filter_fn, fmt::writer::BoxMakeWriter, layer::SubscriberExt, registry,
    util::SubscriberInitExt,
};

use crate::{LogConfig, LogFormat, event, otlp, repeat_limit::RepeatLimit, rotating_file::RotatingFile};

/// The parts of logging that need a task of the daemon.
pub(crate) struct Telemetry {
    pub(crate) exporter: otlp::Exporter,
    pub(crate) repeat_limit: RepeatLimit,
}

/// Installs the global subscriber and the panic hook. If the process already has a subscriber (tests), that one stays.
///
/// # Errors
/// When the log file cannot be opened.
pub(crate) fn install(config: &LogConfig) -> anyhow::Result<Telemetry> {
    let (export, exporter) = otlp::pair();
    let writer = match &config.file {
        Some(path) => {
            let file = RotatingFile::open(path, config.file_bytes)
                .with_context(|| format!("cannot open the log file {} (log.file)", path.display()))?;
            BoxMakeWriter::new(move || file.clone())
        }
        None => BoxMakeWriter::new(std::io::stderr),
    };
    let pretty = match config.format {
        LogFormat::Auto => config.file.is_none() && std::io::stderr().is_terminal(),
        LogFormat::Pretty => true,
        LogFormat::Json => false,
    };
    let lines = tracing_subscriber::fmt::layer().with_writer(writer);
    let lines = if config.file.is_some() { lines.with_ansi(false) } else { lines };
    let lines = if pretty { lines.boxed() } else { lines.json().flatten_event(true).boxed() };
    let print_events = config.print_events || config.otlp == "off";
    let lines =
        lines.with_filter(filter_fn(move |metadata| print_events || metadata.target() != event::TARGET));
    let export = (config.otlp != "off").then_some(export);
    // The syntax of the filter was checked with the settings.
    let filter = EnvFilter::try_new(&config.filter).unwrap_or_else(|_| EnvFilter::new("info"));
    let repeat_limit = RepeatLimit::default();
    if registry().with(filter).with(repeat_limit.clone()).with(export).with(lines).try_init().is_err() {
        tracing::debug!("a subscriber is installed already");
    }
    std::panic::set_hook(Box::new(|panic| {
        let backtrace = Backtrace::capture();
        let shown = (backtrace.status() == BacktraceStatus::Captured).then(|| backtrace.to_string());
        tracing::error!(%panic, backtrace = shown, "panic");
    }));
    Ok(Telemetry { exporter, repeat_limit })
}
