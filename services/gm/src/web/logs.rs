//! Queries to the log collector, in SQL and by words.

use axum::extract::{Query, State};
use maud::{Markup, html};
use serde::Deserialize;
use serde_json::Value;
use shardkeep_rpc::logs::{QueryReply, QueryRequest};
use shardkeep_types::DaemonKind;

use super::{
    caller::Caller,
    elements::{bad_notice, hidden},
    error::WebError,
    layout::{self, Flash},
    site::Site,
};
use crate::{
    error::CommandError,
    peers::{peer_error, with_deadline},
    role::Right,
};

const ROWS: u32 = 500;
const LATEST: &str =
    "SELECT time, instance, level, event, account, message, attributes FROM log ORDER BY time DESC LIMIT 100";

/// Queries to start from.
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
        "Records per daemon",
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
) -> Result<Markup, WebError> {
    caller.require(Right::SeeLogs)?;
    let sql = if query.sql.trim().is_empty() { LATEST } else { query.sql.as_str() };
    let answer = match run_query(&site, sql, &query).await {
        Ok(reply) => result_table(&reply),
        Err(CommandError::Peer { status, .. }) => bad_notice(status.message()),
        Err(error) => bad_notice(&error.to_string()),
    };
    let body = html! {
        div.bar {
            @for (name, sql) in EXAMPLES {
                form method="get" { (hidden("sql", sql)) button.quiet { (name) } }
            }
        }
        form.query method="get" {
            label {
                span {
                    "SQL query of the view " code { "log" } ", with the columns time, daemon, instance, level, target, "
                    "message, event, account, character, session and attributes"
                }
                textarea name="sql" rows="4" spellcheck="false" { (sql) }
            }
            div.bar {
                label { "Words" input type="search" name="search" value=(query.search) placeholder="full text"; }
                label {
                    "Days"
                    input name="days" value=(query.days) placeholder="today and yesterday"
                        title="Days as YYYY-MM-DD, separated by spaces";
                }
                button.primary { "Run the query" }
            }
        }
        (answer)
    };
    Ok(layout::page(&site, &caller, "/logs", &Flash::default(), None, body).await)
}

async fn run_query(site: &Site, sql: &str, query: &LogQuery) -> Result<QueryReply, CommandError> {
    let peers = site.console().peers();
    let daemon = peers.any(DaemonKind::Logs)?;
    let days = query.days.split([' ', ',']).filter(|day| !day.is_empty()).map(str::to_owned).collect();
    let search = query.search.trim().to_owned();
    let request = QueryRequest { sql: sql.to_owned(), days, limit: ROWS, search };
    let reply = peers.logs_client(&daemon).query(with_deadline(request)).await;
    Ok(reply.map_err(peer_error(&daemon))?.into_inner())
}

fn result_table(reply: &QueryReply) -> Markup {
    html! {
        p.hint { (reply.rows.len()) " rows" @if reply.truncated { ". The query has more; they are not shown." } }
        div.scroll {
            table.log {
                thead { tr { @for column in &reply.columns { th { (column) } } } }
                tbody {
                    @for row in &reply.rows {
                        tr {
                            @for (value, column) in row.values.iter().zip(&reply.columns) {
                                td data-label=(column) { (cell_text(value)) }
                            }
                        }
                    }
                }
            }
        }
    }
}

/// The text of a value. Values are JSON.
fn cell_text(value: &str) -> String {
    match serde_json::from_str(value) {
        Ok(Value::String(text)) => text,
        Ok(Value::Null) => "–".into(),
        _ => value.to_owned(),
    }
}
