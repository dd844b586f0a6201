//! Questions to the log collector, in SQL or by a few words.

use axum::{
    extract::{Query, State},
    response::Html,
};
use serde::Deserialize;
use serde_json::Value;
use shardkeep_rpc::logs::{QueryReply, QueryRequest};
use shardkeep_types::DaemonKind;

use super::{
    Site,
    caller::Caller,
    error::WebError,
    html::{Markup, html},
    layout::{self, Flash},
};
use crate::{
    error::CommandError,
    peers::{peer_error, with_deadline},
    role::Right,
};

const ROWS: u32 = 500;
const LATEST: &str =
    "SELECT time, instance, level, event, account, message, attributes FROM log ORDER BY time DESC LIMIT 100";

/// Starting points.
const EXAMPLES: [(&str, &str); 4] = [
    ("Latest", LATEST),
    (
        "Warnings",
        "SELECT time, instance, level, target, message FROM log WHERE level IN ('WARN', 'ERROR') ORDER BY time DESC",
    ),
    (
        "Player events",
        "SELECT time, event, account, character, session, attributes FROM log WHERE event IS NOT NULL \
         ORDER BY time DESC",
    ),
    (
        "Per daemon",
        "SELECT instance, level, count(*) AS records FROM log GROUP BY instance, level ORDER BY 3 DESC",
    ),
];

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct LogQuery {
    sql: String,
    search: String,
    days: String,
}

pub(crate) async fn page(
    State(site): State<Site>,
    caller: Caller,
    Query(query): Query<LogQuery>,
) -> Result<Html<String>, WebError> {
    caller.require(Right::SeeLogs)?;
    let sql = if query.sql.trim().is_empty() { LATEST } else { query.sql.as_str() };
    let answer = match run_query(&site, sql, &query).await {
        Ok(reply) => table(&reply),
        Err(CommandError::Peer { status, .. }) => html!("<p class=\"notice bad\">{}</p>"; status.message()),
        Err(error) => html!("<p class=\"notice bad\">{}</p>"; error.to_string()),
    };
    let examples: Markup = EXAMPLES
        .iter()
        .map(|(name, sql)| {
            html!(
                "<form method=\"get\"><input type=\"hidden\" name=\"sql\" value=\"{}\"><button class=\"quiet\">{}"
                "</button></form>"; sql, name,
            )
        })
        .collect();
    let body = html!(
        "<div class=\"bar\">{}</div><form class=\"query\" method=\"get\"><label><span>SQL over the view <code>log</code> \
         (time, daemon, instance, level, target, message, event, account, character, session, attributes)</span>"
        "<textarea name=\"sql\" rows=\"4\" spellcheck=\"false\">{}</textarea></label><div class=\"bar\">"
        "<label>Words <input type=\"search\" name=\"search\" value=\"{}\" placeholder=\"full text\"></label>"
        "<label>Days <input name=\"days\" value=\"{}\" placeholder=\"today and yesterday\" "
        "title=\"YYYY-MM-DD, several separated by spaces\"></label><button class=\"primary\">Ask</button></div></form>{}";
        examples, sql, query.search, query.days, answer,
    );
    Ok(layout::page(&site, &caller, "/logs", &Flash::default(), body).await)
}

async fn run_query(site: &Site, sql: &str, query: &LogQuery) -> Result<QueryReply, CommandError> {
    let daemon = site.console.peers.any(DaemonKind::Logs)?;
    let days = query.days.split([' ', ',']).filter(|day| !day.is_empty()).map(str::to_owned).collect();
    let search = query.search.trim().to_owned();
    let request = QueryRequest { sql: sql.to_owned(), days, limit: ROWS, search };
    let reply = site
        .console
        .peers
        .logs_client(&daemon)
        .query(with_deadline(request))
        .await
        .map_err(peer_error(&daemon))?;
    Ok(reply.into_inner())
}

fn table(reply: &QueryReply) -> Markup {
    let heads: Markup = reply.columns.iter().map(|column| html!("<th>{}"; column)).collect();
    let rows: Markup = reply
        .rows
        .iter()
        .map(|row| {
            let cells: Markup = row.values.iter().map(|value| html!("<td>{}"; cell_text(value))).collect();
            html!("<tr>{}</tr>"; cells)
        })
        .collect();
    let more = if reply.truncated { ", and there are more" } else { "" };
    html!(
        "<p class=\"hint\">{} rows{}</p><div class=\"scroll\"><table class=\"log\"><thead><tr>{}</tr></thead>"
        "<tbody>{}</tbody></table></div>"; reply.rows.len(), more, heads, rows,
    )
}

/// Values come as JSON.
fn cell_text(value: &str) -> String {
    match serde_json::from_str(value) {
        Ok(Value::String(text)) => text,
        Ok(Value::Null) => "–".into(),
        _ => value.to_owned(),
    }
}
