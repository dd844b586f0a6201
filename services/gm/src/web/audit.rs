//! The audit, newest entries first.

use axum::extract::{Query, State};
use maud::{Markup, html};
use serde::Deserialize;
use shardkeep_store::audit::Entry;

use super::{
    caller::Caller,
    elements::{empty_hint, encoded, state, time_element},
    error::WebError,
    layout::{self, Flash},
    live_part::table,
    site::Site,
};
use crate::role::Right;

const PER_PAGE: u32 = 50;

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct AuditQuery {
    operator: String,
    before: u64,
}

pub(crate) async fn page(
    State(site): State<Site>,
    caller: Caller,
    Query(query): Query<AuditQuery>,
) -> Result<Markup, WebError> {
    caller.require(Right::SeeAudit)?;
    let operator = query.operator.trim();
    let entries = site.console().audit().page(query.before, operator, PER_PAGE).await?;
    let older = entries.last().filter(|last| last.id > 1 && entries.len() == PER_PAGE as usize);
    let rows = html! { tbody { @for entry in &entries { (row(entry)) } } };
    let body = html! {
        form.bar method="get" {
            label { "Operator" input type="search" name="operator" value=(operator); }
            button { "Show" }
        }
        @if entries.is_empty() { (empty_hint("There are no entries.")) }
        div.audit { (table(&["Number", "Time", "Operator, origin", "Command", "Reason", "Result"], &rows)) }
        @if let Some(last) = older {
            p.pages {
                a.button href={ "/audit?operator=" (encoded(operator)) "&before=" (last.id) } { "Older" }
            }
        }
    };
    Ok(layout::page(&site, &caller, "/audit", &Flash::default(), None, body).await)
}

fn row(entry: &Entry) -> Markup {
    let invocation = &entry.invocation;
    html! {
        tr {
            td data-label="Number" { (entry.id) }
            td data-label="Time" { (time_element(invocation.at_ms)) }
            th scope="row" { (invocation.operator) " " small { (invocation.origin) } }
            td data-label="Command" { (invocation.command) }
            td data-label="Reason" { (invocation.reason) }
            td data-label="Result" { (result(entry)) }
        }
    }
}

/// The result of a command. Only the first line of a long result is visible at first.
fn result(entry: &Entry) -> Markup {
    html! {
        (state(&entry.outcome, &entry.outcome)) " "
        @match entry.result.trim_end().split_once('\n') {
            None => (entry.result.trim_end()),
            Some((first, rest)) => {
                details.more {
                    summary { (first) " " small { "and " (rest.lines().count()) " more lines" } }
                    pre { (rest) }
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use shardkeep_store::audit::Invocation;

    use super::*;

    fn shown(answer: &str) -> String {
        let invocation = Invocation {
            at_ms: 0,
            operator: "ann".into(),
            origin: "web".into(),
            command: "list the players online".into(),
            reason: String::new(),
        };
        result(&Entry { id: 1, invocation, outcome: "done".into(), result: answer.into() }).into_string()
    }

    #[test]
    fn long_result_is_collapsed_to_its_first_line() {
        assert!(!shown("gateway-1 is draining\n").contains("<details"));
        let list = shown("2 online\nAnn\nBob\n");
        let expected = "<summary>2 online <small>and 2 more lines</small></summary><pre>Ann\nBob</pre>";
        assert!(list.contains(expected), "{list}");
    }
}
