//! One log record for storage: OTLP's nested form as columns.

use opentelemetry_proto::tonic::{
    common::v1::{AnyValue, KeyValue, any_value::Value as Any},
    logs::v1::LogRecord,
    resource::v1::Resource,
};
use serde_json::{Map, Value};

/// Longer texts are truncated.
const MAX_TEXT_BYTES: usize = 16 << 10;
/// Attributes with longer JSON are omitted. Their columns stay.
const MAX_ATTRIBUTES_BYTES: usize = 32 << 10;

/// A row of the table `log`.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Record {
    /// Microseconds since the Unix epoch.
    pub micros: i64,
    pub daemon: String,
    pub instance: String,
    pub level: String,
    pub target: String,
    pub message: String,
    pub event: Option<String>,
    pub account: Option<String>,
    pub character: Option<String>,
    pub session: Option<String>,
    /// JSON object of everything else.
    pub attributes: String,
}

/// The sender of a record: the name in the peer's certificate, or without one the resource's attributes.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Sender {
    pub daemon: String,
    pub instance: String,
}

impl Sender {
    pub fn of(resource: Option<&Resource>) -> Self {
        let attribute = |key: &str| {
            let attributes = resource.map(|resource| resource.attributes.as_slice()).unwrap_or_default();
            let found = attributes.iter().find(|attribute| attribute.key == key);
            found
                .and_then(|attribute| attribute.value.as_ref())
                .map(|value| text(json(value)))
                .unwrap_or_default()
        };
        Self {
            daemon: truncate_text(attribute("service.name")),
            instance: truncate_text(attribute("service.instance.id")),
        }
    }
}

impl Record {
    /// `scope` names the target when no attribute does.
    pub fn new(record: LogRecord, sender: &Sender, scope: &str, now_micros: i64) -> Self {
        let mut attributes: Map<String, Value> = record
            .attributes
            .iter()
            .filter_map(attribute)
            .map(|(key, value)| (key.to_owned(), value))
            .collect();
        let mut column = |key: &str| attributes.remove(key).map(|value| truncate_text(text(value)));
        let timestamp_nanos =
            [record.time_unix_nano, record.observed_time_unix_nano].into_iter().find(|nanos| *nanos != 0);
        Self {
            micros: timestamp_nanos
                .map_or(now_micros, |nanos| i64::try_from(nanos / 1000).unwrap_or(now_micros)),
            daemon: sender.daemon.clone(),
            instance: sender.instance.clone(),
            level: level(&record),
            target: column("target").unwrap_or_else(|| scope.to_owned()),
            message: truncate_text(record.body.as_ref().map(|body| text(json(body))).unwrap_or_default()),
            event: column("event").or(Some(record.event_name).filter(|name| !name.is_empty())),
            account: column("account"),
            character: column("character"),
            session: column("session"),
            attributes: attributes_json(&attributes),
        }
    }
}

fn attribute(pair: &KeyValue) -> Option<(&str, Value)> {
    Some((&pair.key, json(pair.value.as_ref()?)))
}

fn attributes_json(attributes: &Map<String, Value>) -> String {
    let text = Value::Object(attributes.clone()).to_string();
    if text.len() > MAX_ATTRIBUTES_BYTES { format!("{{\"left_out_bytes\":{}}}", text.len()) } else { text }
}

fn level(record: &LogRecord) -> String {
    // OpenTelemetry's severity numbers come in fours: 1 to 4 TRACE, 5 to 8 DEBUG, …
    let by_number = match record.severity_number {
        1..=4 => "TRACE",
        5..=8 => "DEBUG",
        9..=12 => "INFO",
        13..=16 => "WARN",
        17..=24 => "ERROR",
        _ => "",
    };
    if by_number.is_empty() {
        truncate_text(record.severity_text.to_ascii_uppercase())
    } else {
        by_number.to_owned()
    }
}

fn json(value: &AnyValue) -> Value {
    match &value.value {
        Some(Any::StringValue(text)) => Value::from(text.as_str()),
        Some(Any::BoolValue(flag)) => Value::from(*flag),
        Some(Any::IntValue(number)) => Value::from(*number),
        Some(Any::DoubleValue(number)) => Value::from(*number),
        Some(Any::BytesValue(bytes)) => Value::from(hex::encode(bytes)),
        Some(Any::ArrayValue(array)) => array.values.iter().map(json).collect(),
        Some(Any::KvlistValue(list)) => Value::Object(
            list.values.iter().filter_map(attribute).map(|(key, it)| (key.to_owned(), it)).collect(),
        ),
        // A string in a table of strings, which only profiles carry.
        Some(Any::StringValueStrindex(_)) | None => Value::Null,
    }
}

fn text(value: Value) -> String {
    match value {
        Value::String(text) => text,
        Value::Null => String::new(),
        other => other.to_string(),
    }
}

fn truncate_text(mut text: String) -> String {
    if text.len() > MAX_TEXT_BYTES {
        text.truncate(text.floor_char_boundary(MAX_TEXT_BYTES));
        text.push('…');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pair(key: &str, value: Any) -> KeyValue {
        KeyValue { key: key.into(), value: Some(AnyValue { value: Some(value) }), ..KeyValue::default() }
    }

    #[test]
    fn known_attributes_become_columns_and_the_rest_json() {
        let otlp = LogRecord {
            time_unix_nano: 1_000_000_000,
            severity_number: 9,
            body: Some(AnyValue { value: Some(Any::StringValue("entered".into())) }),
            attributes: vec![
                pair("event", Any::StringValue("enter".into())),
                pair("account", Any::IntValue(7)),
                pair("queue", Any::BoolValue(true)),
                pair("target", Any::StringValue("event".into())),
            ],
            ..LogRecord::default()
        };
        let sender = Sender { daemon: "world".into(), instance: "world-1".into() };
        let record = Record::new(otlp, &sender, "shardkeep", 5);
        assert_eq!(record.micros, 1_000_000);
        assert_eq!((record.level.as_str(), record.message.as_str()), ("INFO", "entered"));
        assert_eq!((record.event.as_deref(), record.account.as_deref()), (Some("enter"), Some("7")));
        assert_eq!((record.target.as_str(), record.attributes.as_str()), ("event", r#"{"queue":true}"#));
    }

    #[test]
    fn empty_record_gets_receive_time_and_scope_as_target() {
        let record = Record::new(LogRecord::default(), &Sender::default(), "scope", 42);
        assert_eq!((record.micros, record.target.as_str(), record.attributes.as_str()), (42, "scope", "{}"));
        assert_eq!(record.event, None);
    }

    #[test]
    fn long_texts_are_truncated_and_long_attributes_omitted() {
        let otlp = LogRecord {
            body: Some(AnyValue { value: Some(Any::StringValue("ä".repeat(MAX_TEXT_BYTES))) }),
            attributes: vec![pair("blob", Any::StringValue("x".repeat(MAX_ATTRIBUTES_BYTES)))],
            ..LogRecord::default()
        };
        let record = Record::new(otlp, &Sender::default(), "", 0);
        assert!(record.message.len() <= MAX_TEXT_BYTES + '…'.len_utf8());
        assert!(record.attributes.starts_with(r#"{"left_out_bytes":"#));
    }
}
