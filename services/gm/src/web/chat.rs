//! What was said, and how to answer it: a line to everybody, or silence for one.

use axum::{
    extract::{Query, State},
    response::Html,
};
use shardkeep_rpc::chat::{HistoryRequest, Line};
use shardkeep_types::DaemonKind;

use super::{
    Site,
    error::WebError,
    html::{Markup, html},
    layout::{self, Flash, command, folded, hidden, moment},
    visitor::Visitor,
};
use crate::{
    error::CommandError,
    peers::{call, refusal},
    role::Right,
};

const LINES: u32 = 200;

pub(crate) async fn page(
    State(site): State<Site>,
    visitor: Visitor,
    Query(flash): Query<Flash>,
) -> Result<Html<String>, WebError> {
    visitor.needs(Right::SeeChat)?;
    let lines = match history(&site).await {
        Ok(lines) if lines.is_empty() => html!("<p class=\"empty\">Nobody has said anything yet.</p>"),
        Ok(lines) => {
            let rows: Markup = lines.iter().rev().map(|line| row(&visitor, line)).collect();
            html!(
                "<div class=\"scroll\"><table><thead><tr><th>Time<th>Channel<th>From<th>Line"
                "<th><span class=\"unseen\">Actions</span></tr></thead><tbody>{}</tbody></table></div>"; rows,
            )
        }
        Err(error) => html!("<p class=\"notice bad\">{}</p>"; error.to_string()),
    };
    let body = html!("{}<div data-live=\"chat\">{}</div>"; broadcast(&visitor), lines);
    Ok(layout::page(&site, &visitor, "/chat", &flash, body).await)
}

async fn history(site: &Site) -> Result<Vec<Line>, CommandError> {
    let of = site.console.peers.any(DaemonKind::Chat)?;
    let mut client = site.console.peers.chat_client(&of);
    let reply = client.history(call(HistoryRequest { limit: LINES })).await.map_err(refusal(&of))?;
    Ok(reply.into_inner().lines)
}

fn row(visitor: &Visitor, line: &Line) -> Markup {
    let channel =
        if line.to.is_empty() { line.channel.clone() } else { format!("{} to {}", line.channel, line.to) };
    let minutes = html!(
        "{}<label>Minutes (0: may speak again) <input name=\"minutes\" type=\"number\" min=\"0\" value=\"10\"></label>";
        hidden("character", &line.from),
    );
    let mute = folded("Mute…", [command(visitor, Right::Mute, "mute", "/chat", &minutes, "Mute")]);
    html!(
        "<tr><td>{}<td>{}<th scope=\"row\">{}<td class=\"said\">{}<td>{}</tr>";
        moment(line.at_ms), channel, line.from, line.text, mute,
    )
}

fn broadcast(visitor: &Visitor) -> Option<Markup> {
    let fields = html!(
        "<label class=\"grow\">Line to everybody <input name=\"text\" required maxlength=\"500\"></label>"
        "<label>World (empty: all) <input name=\"world\" type=\"number\" min=\"1\"></label>"
    );
    let form = command(visitor, Right::Broadcast, "broadcast", "/chat", &fields, "Broadcast")?;
    Some(html!("<section class=\"card\"><h2>Broadcast</h2>{}</section>"; form))
}
