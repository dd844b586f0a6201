//! Parts of a page that update in place. A part is a list of rows with keys. A stream sends only the rows that have
//! changed, so the browser keeps its selection, its focus and its open forms.

use std::{
    collections::HashMap,
    hash::{DefaultHasher, Hash, Hasher},
    sync::Arc,
};

use maud::{Markup, html};
use serde_json::{Map, Value, json};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::metrics;

/// Streams at once. Further pages do not update themselves and say so.
const MAX_STREAMS: usize = 64;
/// The start of the last cell of a row that has forms.
const ACTIONS: &str = "<td class=\"actions\">";
/// The end of a row whose forms the browser has already. `static/live.js` keeps its cell.
const SAME_ACTIONS: &str = "<td class=\"actions\" data-same></td></tr>";

/// A list of rows. `static/live.js` finds its container by the attribute `data-live`.
pub(crate) struct LivePart {
    name: &'static str,
    rows: Vec<(String, Markup)>,
}

impl LivePart {
    /// Each row is one element with the attribute `data-key`, whose value is the key given here. Keys are unique.
    pub(crate) fn new(name: &'static str, rows: impl IntoIterator<Item = (String, Markup)>) -> Self {
        Self { name, rows: rows.into_iter().collect() }
    }

    /// A part that shows notices, for example that a daemon does not answer.
    pub(crate) fn notices(texts: impl IntoIterator<Item = String>) -> Self {
        let row = |text: String| {
            let markup = html! { p.notice.bad data-key=(text) { (text) } };
            (text, markup)
        };
        Self::new("notices", texts.into_iter().map(row))
    }

    /// The part in a `div`.
    pub(crate) fn in_div(&self, class: &str) -> Markup {
        html! { div class=(class) data-live=(self.name) { (self.markup()) } }
    }

    /// The part as the body of a table, followed by a hint that is visible while the table is empty.
    pub(crate) fn in_table(&self, headings: &[&str], empty_hint: &str) -> Markup {
        html! {
            (table(headings, &html! { tbody data-live=(self.name) { (self.markup()) } }))
            p.empty { (empty_hint) }
        }
    }

    fn markup(&self) -> Markup {
        html! { @for (_, row) in &self.rows { (row) } }
    }
}

/// A table. The heading "Actions" is for screen readers only.
pub(crate) fn table(headings: &[&str], body: &Markup) -> Markup {
    html! {
        div.scroll {
            table {
                thead {
                    tr {
                        @for heading in headings {
                            @if *heading == "Actions" { th { span.unseen { "Actions" } } } @else { th { (heading) } }
                        }
                    }
                }
                (body)
            }
        }
    }
}

/// The content of each part that a browser has received.
#[derive(Default)]
pub(crate) struct SentParts {
    parts: HashMap<&'static str, SentPart>,
}

#[derive(Default)]
struct SentPart {
    keys: Vec<String>,
    hashes: HashMap<String, RowHashes>,
}

/// Hashes of the two pieces of a row: its data, and its last cell with the forms, which is large and seldom changes.
#[derive(Clone, Copy, PartialEq, Eq)]
struct RowHashes {
    data: u64,
    forms: u64,
}

fn hash(text: &str) -> u64 {
    let mut hasher = DefaultHasher::new();
    text.hash(&mut hasher);
    hasher.finish()
}

impl SentParts {
    /// The changes since the last call: for each changed part its rows that are new or different and, if rows were
    /// added, removed or moved, the keys of all rows in order.
    pub(crate) fn changes(&mut self, parts: &[LivePart]) -> Vec<Value> {
        parts.iter().filter_map(|part| self.parts.entry(part.name).or_default().change(part)).collect()
    }
}

impl SentPart {
    fn change(&mut self, part: &LivePart) -> Option<Value> {
        let mut changed = Map::new();
        let mut hashes = HashMap::with_capacity(part.rows.len());
        for (key, row) in &part.rows {
            let (data, forms) = row.0.split_at(row.0.find(ACTIONS).unwrap_or(row.0.len()));
            let new = RowHashes { data: hash(data), forms: hash(forms) };
            match self.hashes.get(key) {
                Some(sent) if *sent == new => {}
                Some(sent) if sent.forms == new.forms && !forms.is_empty() => {
                    changed.insert(key.clone(), format!("{data}{SAME_ACTIONS}").into());
                }
                _ => {
                    changed.insert(key.clone(), row.0.as_str().into());
                }
            }
            hashes.insert(key.clone(), new);
        }
        self.hashes = hashes;
        let keys: Vec<String> = part.rows.iter().map(|(key, _)| key.clone()).collect();
        let reordered = (keys != self.keys).then(|| json!(keys));
        self.keys = keys;
        (reordered.is_some() || !changed.is_empty())
            .then(|| json!({ "part": part.name, "keys": reordered, "rows": changed }))
    }
}

/// Bounds the number of streams.
#[derive(Clone)]
pub(crate) struct LiveStreams {
    free: Arc<Semaphore>,
}

impl Default for LiveStreams {
    fn default() -> Self {
        Self { free: Arc::new(Semaphore::new(MAX_STREAMS)) }
    }
}

impl LiveStreams {
    /// Returns `None` when there are too many streams.
    pub(crate) fn open(&self) -> Option<LiveStreamSlot> {
        let permit = Arc::clone(&self.free).try_acquire_owned().ok()?;
        metrics::live_pages(MAX_STREAMS - self.free.available_permits());
        Some(LiveStreamSlot { permit: Some(permit), free: Arc::clone(&self.free) })
    }
}

/// One stream's share of the bound. It is returned when this is dropped.
pub(crate) struct LiveStreamSlot {
    permit: Option<OwnedSemaphorePermit>,
    free: Arc<Semaphore>,
}

impl Drop for LiveStreamSlot {
    fn drop(&mut self) {
        drop(self.permit.take());
        metrics::live_pages(MAX_STREAMS - self.free.available_permits());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn part(rows: &[(&str, &str)]) -> LivePart {
        LivePart::new(
            "players",
            rows.iter().map(|(key, text)| ((*key).to_owned(), html! { tr data-key=(key) { td { (text) } } })),
        )
    }

    #[test]
    fn stream_sends_only_rows_that_changed() {
        let mut sent = SentParts::default();
        let first = sent.changes(&[part(&[("1", "Ann"), ("2", "Bob")])]);
        assert_eq!(first[0]["keys"], json!(["1", "2"]));
        assert_eq!(first[0]["rows"]["1"], "<tr data-key=\"1\"><td>Ann</td></tr>");

        assert!(sent.changes(&[part(&[("1", "Ann"), ("2", "Bob")])]).is_empty());
        let changed = sent.changes(&[part(&[("1", "Ann"), ("2", "Bobby")])]);
        assert_eq!(changed[0]["keys"], Value::Null, "the order is the same");
        assert_eq!(changed[0]["rows"].as_object().unwrap().keys().collect::<Vec<_>>(), ["2"]);

        let removed = sent.changes(&[part(&[("2", "Bobby")])]);
        assert_eq!((&removed[0]["keys"], &removed[0]["rows"]), (&json!(["2"]), &json!({})));
    }

    #[test]
    fn stream_sends_the_forms_of_a_row_only_once() {
        let part = |cell: &str, form: &str| {
            let row = html! { tr data-key="1" { td { (cell) } td.actions { form { (form) } } } };
            [LivePart::new("players", [("1".to_owned(), row)])]
        };
        let mut sent = SentParts::default();
        sent.changes(&part("zone-1", "Kick"));
        let moved = sent.changes(&part("zone-2", "Kick"));
        let expected = format!("<tr data-key=\"1\"><td>zone-2</td>{SAME_ACTIONS}");
        assert_eq!(moved[0]["rows"]["1"], expected);
        let changed = sent.changes(&part("zone-2", "Ban"));
        assert!(changed[0]["rows"]["1"].as_str().unwrap().contains("<form>Ban</form>"));
    }

    #[test]
    fn number_of_streams_is_bounded() {
        let streams = LiveStreams::default();
        let mut open: Vec<_> = (0..MAX_STREAMS).map(|_| streams.open().unwrap()).collect();
        assert!(streams.open().is_none());
        open.pop();
        assert!(streams.open().is_some());
    }
}
