//! What operators did, newest first.

use axum::{
    extract::{Query, State},
    response::Html,
};
use serde::Deserialize;
use shardkeep_store::audit::{self, Entry};

use super::{
    Site,
    caller::Caller,
    error::WebError,
    html::{Markup, html},
    layout::{self, Flash, time_element},
};
use crate::role::Right;

const PER_PAGE: u32 = 50;

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Search {
    operator: String,
    before: u64,
}

pub(crate) async fn page(
    State(site): State<Site>,
    caller: Caller,
    Query(search): Query<Search>,
) -> Result<Html<String>, WebError> {
    caller.require(Right::SeeAudit)?;
    let operator = search.operator.trim();
    let entries = audit::page(&site.console.database, search.before, operator, PER_PAGE).await?;
    let rows: Markup = entries.iter().map(row).collect();
    let empty = entries.is_empty().then(|| html!("<p class=\"empty\">No entries.</p>"));
    let more = entries.last().filter(|last| last.id > 1 && entries.len() == PER_PAGE as usize).map(|last| {
        html!(
            "<p class=\"pages\"><a class=\"button\" href=\"/audit?operator={}&amp;before={}\">Older</a></p>";
            operator, last.id,
        )
    });
    let body = html!(
        "<form class=\"bar\" method=\"get\"><label>Operator <input type=\"search\" name=\"operator\" value=\"{}\">"
        "</label><button>Show</button></form>{}<div class=\"scroll\"><table class=\"audit\"><thead><tr><th>#<th>Time"
        "<th>Operator, from<th>Command<th>Reason<th>Result</tr></thead><tbody>{}</tbody></table></div>{}";
        operator, empty, rows, more,
    );
    Ok(layout::page(&site, &caller, "/audit", &Flash::default(), body).await)
}

fn row(entry: &Entry) -> Markup {
    let invocation = &entry.invocation;
    html!(
        "<tr><td>{}<td>{}<th scope=\"row\">{} <small>{}</small><td>{}<td>{}<td>{}</tr>";
        entry.id, time_element(invocation.at_ms), invocation.operator, invocation.origin, invocation.command, invocation.reason, result(entry),
    )
}

/// What a look at something answered is a list: its first line, and the rest for who wants it.
fn result(entry: &Entry) -> Markup {
    let state = html!("<span class=\"state {}\">{}</span>"; entry.outcome, entry.outcome);
    match entry.result.trim_end().split_once('\n') {
        None => html!("{} {}"; state, entry.result.trim_end()),
        Some((first, rest)) => html!(
            "{} <details class=\"more\"><summary>{} <small>and {} more</small></summary><pre>{}</pre></details>";
            state, first, rest.lines().count(), rest,
        ),
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
            command: "look".into(),
            reason: String::new(),
        };
        result(&Entry { id: 1, invocation, outcome: "done".into(), result: answer.into() }).into_string()
    }

    #[test]
    fn long_result_is_collapsed_to_its_first_line() {
        assert!(!shown("draining\n").contains("<details"));
        let list = shown("2 online\nAnn\nBob\n");
        assert!(
            list.contains("<summary>2 online <small>and 2 more</small></summary><pre>Ann\nBob</pre>"),
            "{list}"
        );
    }
}
