//! What was said, and how to answer it: a line to everybody, or silence for one.

use axum::{
    extract::{Query, State},
    response::Html,
};
use shardkeep_rpc::chat::{HistoryRequest, Line};
use shardkeep_types::DaemonKind;

use super::{
    Site,
    caller::Caller,
    error::WebError,
    html::{Markup, html},
    layout::{self, Flash, collapsible, command, hidden, time_element},
};
use crate::{
    error::CommandError,
    peers::{peer_error, with_deadline},
    role::Right,
};

const LINES: u32 = 200;

pub(crate) async fn page(
    State(site): State<Site>,
    caller: Caller,
    Query(flash): Query<Flash>,
) -> Result<Html<String>, WebError> {
    caller.require(Right::SeeChat)?;
    let lines = match history(&site).await {
        Ok(lines) if lines.is_empty() => html!("<p class=\"empty\">Nobody has said anything yet.</p>"),
        Ok(lines) => {
            let rows: Markup = lines.iter().rev().map(|line| row(&caller, line)).collect();
            html!(
                "<div class=\"scroll\"><table><thead><tr><th>Time<th>Channel<th>From<th>Line"
                "<th><span class=\"unseen\">Actions</span></tr></thead><tbody>{}</tbody></table></div>"; rows,
            )
        }
        Err(error) => html!("<p class=\"notice bad\">{}</p>"; error.to_string()),
    };
    let body = html!("{}<div data-live=\"chat\">{}</div>"; broadcast(&caller), lines);
    Ok(layout::page(&site, &caller, "/chat", &flash, body).await)
}

async fn history(site: &Site) -> Result<Vec<Line>, CommandError> {
    let daemon = site.console.peers.any(DaemonKind::Chat)?;
    let mut client = site.console.peers.chat_client(&daemon);
    let reply =
        client.history(with_deadline(HistoryRequest { limit: LINES })).await.map_err(peer_error(&daemon))?;
    Ok(reply.into_inner().lines)
}

fn row(caller: &Caller, line: &Line) -> Markup {
    let channel =
        if line.to.is_empty() { line.channel.clone() } else { format!("{} to {}", line.channel, line.to) };
    let minutes = html!(
        "{}<label>Minutes (0: may speak again) <input name=\"minutes\" type=\"number\" min=\"0\" value=\"10\"></label>";
        hidden("character", &line.from),
    );
    let mute = collapsible("Mute…", [command(caller, Right::Mute, "mute", "/chat", &minutes, "Mute")]);
    html!(
        "<tr><td>{}<td>{}<th scope=\"row\">{}<td class=\"said\">{}<td>{}</tr>";
        time_element(line.at_ms), channel, line.from, line.text, mute,
    )
}

fn broadcast(caller: &Caller) -> Option<Markup> {
    let fields = html!(
        "<label class=\"grow\">Line to everybody <input name=\"text\" required maxlength=\"500\"></label>"
        "<label>World (empty: all) <input name=\"world\" type=\"number\" min=\"1\"></label>"
    );
    let form = command(caller, Right::Broadcast, "broadcast", "/chat", &fields, "Broadcast")?;
    Some(html!("<section class=\"card\"><h2>Broadcast</h2>{}</section>"; form))
}
