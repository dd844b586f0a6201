//! A tracing event as an OTLP log record: message, level and target, and every field as an attribute.

use std::time::SystemTime;

use opentelemetry_proto::tonic::{
    common::v1::{AnyValue, KeyValue, any_value::Value},
    logs::v1::{LogRecord, SeverityNumber},
    resource::v1::Resource,
};
use tracing::{
    Event, Level,
    field::{Field, Visit},
};

pub(super) fn of_event(event: &Event<'_>) -> LogRecord {
    let metadata = event.metadata();
    let (severity, text) = severity(*metadata.level());
    let mut fields = Fields::default();
    event.record(&mut fields);
    fields.attributes.push(pair_of("target", text_value(metadata.target())));
    let now = unix_nanos();
    LogRecord {
        time_unix_nano: now,
        observed_time_unix_nano: now,
        severity_number: severity.into(),
        severity_text: text.into(),
        body: Some(text_value(&fields.message)),
        attributes: fields.attributes,
        ..LogRecord::default()
    }
}

/// Names the daemon in the words of OpenTelemetry's resource conventions.
pub(crate) fn resource(kind: &str, name: &str) -> Resource {
    Resource {
        attributes: vec![
            pair_of("service.namespace", text_value("shardkeep")),
            pair_of("service.name", text_value(kind)),
            pair_of("service.instance.id", text_value(name)),
            pair_of("service.version", text_value(env!("CARGO_PKG_VERSION"))),
        ],
        ..Resource::default()
    }
}

#[derive(Default)]
struct Fields {
    message: String,
    attributes: Vec<KeyValue>,
}

impl Fields {
    fn push(&mut self, field: &Field, value: Value) {
        self.attributes.push(pair_of(field.name(), AnyValue { value: Some(value) }));
    }
}

impl Visit for Fields {
    fn record_debug(&mut self, field: &Field, value: &dyn std::fmt::Debug) {
        self.record_str(field, &format!("{value:?}"));
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        if field.name() == "message" {
            value.clone_into(&mut self.message);
        } else {
            self.push(field, Value::StringValue(value.to_owned()));
        }
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.push(field, Value::IntValue(value));
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        match i64::try_from(value) {
            Ok(value) => self.push(field, Value::IntValue(value)),
            Err(_) => self.push(field, Value::StringValue(value.to_string())),
        }
    }

    fn record_f64(&mut self, field: &Field, value: f64) {
        self.push(field, Value::DoubleValue(value));
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.push(field, Value::BoolValue(value));
    }
}

fn pair_of(key: &str, value: AnyValue) -> KeyValue {
    KeyValue { key: key.to_owned(), value: Some(value), ..KeyValue::default() }
}

fn text_value(text: &str) -> AnyValue {
    AnyValue { value: Some(Value::StringValue(text.to_owned())) }
}

fn severity(level: Level) -> (SeverityNumber, &'static str) {
    match level {
        Level::ERROR => (SeverityNumber::Error, "ERROR"),
        Level::WARN => (SeverityNumber::Warn, "WARN"),
        Level::INFO => (SeverityNumber::Info, "INFO"),
        Level::DEBUG => (SeverityNumber::Debug, "DEBUG"),
        Level::TRACE => (SeverityNumber::Trace, "TRACE"),
    }
}

fn unix_nanos() -> u64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
}
