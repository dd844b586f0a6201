//! A tracing event as an OTLP log record: message, level and target, and every field as an attribute. It is encoded where
//! it happens, as it stands in a batch: to make the record out of strings first would cost as much as what is recorded.

use std::{
    cell::Cell,
    fmt::{Debug, Write as _},
    time::SystemTime,
};

use opentelemetry_proto::tonic::{
    common::v1::{AnyValue, KeyValue, any_value::Value},
    logs::v1::SeverityNumber,
    resource::v1::Resource,
};
use prost::encoding::{bool as boolean, double, fixed64, int32, int64};
use shardkeep_rpc::fields::{delimited_len, encode_field_header};
use tracing::{
    Event, Level,
    field::{Field, Visit},
};

/// Field of the records in `ScopeLogs`.
const LOG_RECORDS: u32 = 2;

/// Fields of `LogRecord`.
mod log_record {
    pub(super) const TIME_UNIX_NANO: u32 = 1;
    pub(super) const SEVERITY_NUMBER: u32 = 2;
    pub(super) const SEVERITY_TEXT: u32 = 3;
    pub(super) const BODY: u32 = 5;
    pub(super) const ATTRIBUTES: u32 = 6;
    pub(super) const OBSERVED_TIME_UNIX_NANO: u32 = 11;
}

/// Hands the event's record to `take`, encoded with its key and length.
pub(super) fn with_encoded<R>(event: &Event<'_>, take: impl FnOnce(&[u8]) -> R) -> R {
    thread_local! {
        /// Buffers that each event uses again. An event that happens while another is recorded has its own.
        static FIELDS: Cell<Fields> = const { Cell::new(Fields::new()) };
    }
    let mut fields = FIELDS.take();
    fields.clear();
    event.record(&mut fields);
    let result = take(fields.record(event));
    FIELDS.set(fields);
    result
}

/// Names the daemon in the words of OpenTelemetry's resource conventions.
pub(crate) fn resource(kind: &str, name: &str) -> Resource {
    let text = |text: &str| Some(AnyValue { value: Some(Value::StringValue(text.to_owned())) });
    let pair = |key: &str, value| KeyValue { key: key.to_owned(), value: text(value), ..KeyValue::default() };
    Resource {
        attributes: vec![
            pair("service.namespace", "shardkeep"),
            pair("service.name", kind),
            pair("service.instance.id", name),
            pair("service.version", env!("CARGO_PKG_VERSION")),
        ],
        ..Resource::default()
    }
}

/// An event's fields, as far as they are encoded.
#[derive(Default)]
struct Fields {
    message: String,
    /// As they stand in the record.
    attributes: Vec<u8>,
    /// What `Debug` writes, whose length is not known before.
    text: String,
    record: Vec<u8>,
}

/// A value of an attribute: the cases of `AnyValue` that fields have.
#[derive(Clone, Copy)]
enum FieldValue<'a> {
    Text(&'a str),
    Bool(bool),
    Int(i64),
    Double(f64),
}

impl Fields {
    const fn new() -> Self {
        Self { message: String::new(), attributes: Vec::new(), text: String::new(), record: Vec::new() }
    }

    fn clear(&mut self) {
        self.message.clear();
        self.attributes.clear();
    }

    fn push(&mut self, key: &str, value: FieldValue<'_>) {
        let value_len = value.encoded_len();
        let length = text_len(1, key) + delimited_len(2, value_len);
        encode_field_header(&mut self.attributes, log_record::ATTRIBUTES, length);
        text(1, key, &mut self.attributes);
        encode_field_header(&mut self.attributes, 2, value_len);
        value.encode(&mut self.attributes);
    }

    /// The record of the event whose fields these are.
    fn record(&mut self, event: &Event<'_>) -> &[u8] {
        let metadata = event.metadata();
        self.push("target", FieldValue::Text(metadata.target()));
        let (number, name) = severity(*metadata.level());
        let (number, now, body) = (number as i32, unix_nanos(), FieldValue::Text(&self.message));
        let body_len = body.encoded_len();
        let length = fixed64::encoded_len(log_record::TIME_UNIX_NANO, &now)
            + int32::encoded_len(log_record::SEVERITY_NUMBER, &number)
            + text_len(log_record::SEVERITY_TEXT, name)
            + delimited_len(log_record::BODY, body_len)
            + self.attributes.len()
            + fixed64::encoded_len(log_record::OBSERVED_TIME_UNIX_NANO, &now);
        let out = &mut self.record;
        out.clear();
        encode_field_header(out, LOG_RECORDS, length);
        fixed64::encode(log_record::TIME_UNIX_NANO, &now, out);
        int32::encode(log_record::SEVERITY_NUMBER, &number, out);
        text(log_record::SEVERITY_TEXT, name, out);
        encode_field_header(out, log_record::BODY, body_len);
        body.encode(out);
        out.extend_from_slice(&self.attributes);
        fixed64::encode(log_record::OBSERVED_TIME_UNIX_NANO, &now, out);
        out
    }
}

impl Visit for Fields {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        let mut text = std::mem::take(&mut self.text);
        text.clear();
        // A value that cannot say what it is leaves what it has said.
        let _ = write!(text, "{value:?}");
        self.record_str(field, &text);
        self.text = text;
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        if field.name() == "message" {
            value.clone_into(&mut self.message);
        } else {
            self.push(field.name(), FieldValue::Text(value));
        }
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.push(field.name(), FieldValue::Int(value));
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        match i64::try_from(value) {
            Ok(value) => self.push(field.name(), FieldValue::Int(value)),
            Err(_) => self.push(field.name(), FieldValue::Text(&value.to_string())),
        }
    }

    fn record_f64(&mut self, field: &Field, value: f64) {
        self.push(field.name(), FieldValue::Double(value));
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.push(field.name(), FieldValue::Bool(value));
    }
}

impl FieldValue<'_> {
    fn encoded_len(self) -> usize {
        match self {
            Self::Text(value) => text_len(1, value),
            Self::Bool(value) => boolean::encoded_len(2, &value),
            Self::Int(value) => int64::encoded_len(3, &value),
            Self::Double(value) => double::encoded_len(4, &value),
        }
    }

    fn encode(self, out: &mut Vec<u8>) {
        match self {
            Self::Text(value) => text(1, value, out),
            Self::Bool(value) => boolean::encode(2, &value, out),
            Self::Int(value) => int64::encode(3, &value, out),
            Self::Double(value) => double::encode(4, &value, out),
        }
    }
}

fn text(tag: u32, text: &str, out: &mut Vec<u8>) {
    encode_field_header(out, tag, text.len());
    out.extend_from_slice(text.as_bytes());
}

fn text_len(tag: u32, text: &str) -> usize {
    delimited_len(tag, text.len())
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

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use opentelemetry_proto::tonic::logs::v1::{LogRecord, ScopeLogs};
    use prost::Message;
    use tracing::Subscriber;
    use tracing_subscriber::{
        layer::{Context, Layer, SubscriberExt},
        registry,
    };

    use super::*;

    /// Keeps every event's record, decoded as a collector does.
    #[derive(Clone, Default)]
    struct RecordCollector(Arc<Mutex<Vec<LogRecord>>>);

    impl<S: Subscriber> Layer<S> for RecordCollector {
        fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
            let logs = with_encoded(event, |record| ScopeLogs::decode(record).unwrap());
            assert_eq!(logs.log_records.len(), 1);
            self.0.lock().unwrap().extend(logs.log_records);
        }
    }

    /// Says something while it is recorded.
    #[derive(Debug)]
    struct LoggingDisplay;

    impl std::fmt::Display for LoggingDisplay {
        fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            tracing::debug!("inner");
            out.write_str("outer's value")
        }
    }

    #[test]
    fn encoded_event_decodes_with_all_fields() {
        let collector = RecordCollector::default();
        tracing::subscriber::with_default(registry().with(collector.clone()), || {
            tracing::warn!(
                target: "here",
                text = "grüße",
                shown = %"x".repeat(300),
                debugged = ?Some(1),
                below = -7,
                above = u64::MAX,
                half = 0.5,
                no = false,
                empty = "",
                "a {}", "message"
            );
            tracing::info!("next");
        });
        let records = collector.0.lock().unwrap();
        let [record, next] = &records[..] else { panic!("{records:?}") };
        let text = |text: &str| Some(Value::StringValue(text.into()));
        let body = |record: &LogRecord| record.body.clone().unwrap().value;
        assert_eq!((body(record), body(next)), (text("a message"), text("next")));
        assert_eq!((record.severity_number, &*record.severity_text), (SeverityNumber::Warn as i32, "WARN"));
        assert!(record.time_unix_nano > 0 && record.time_unix_nano == record.observed_time_unix_nano);
        let attributes: Vec<_> =
            record.attributes.iter().map(|pair| (&*pair.key, pair.value.clone().unwrap().value)).collect();
        let expected = [
            ("text", text("grüße")),
            ("shown", text(&"x".repeat(300))),
            ("debugged", text("Some(1)")),
            ("below", Some(Value::IntValue(-7))),
            ("above", text(&u64::MAX.to_string())),
            ("half", Some(Value::DoubleValue(0.5))),
            ("no", Some(Value::BoolValue(false))),
            ("empty", text("")),
            ("target", text("here")),
        ];
        assert_eq!(attributes, expected);
        assert_eq!(next.attributes.len(), 1, "nothing of the one before is left");
    }

    #[test]
    fn event_logged_while_recording_is_a_separate_record() {
        let collector = RecordCollector::default();
        tracing::subscriber::with_default(registry().with(collector.clone()), || {
            tracing::info!(value = %LoggingDisplay, "outer");
        });
        let records = collector.0.lock().unwrap();
        let outer = records.last().unwrap();
        assert_eq!(outer.body.clone().unwrap().value, Some(Value::StringValue("outer".into())));
        assert_eq!(
            outer.attributes[0].value.clone().unwrap().value,
            Some(Value::StringValue("outer's value".into()))
        );
    }
}
