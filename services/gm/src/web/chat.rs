//! The recent chat lines, with forms to mute a character and to broadcast a message.

use std::collections::HashMap;

use axum::extract::{Query, State};
use maud::{Markup, html};
use shardkeep_rpc::chat::{HistoryRequest, Line};
use shardkeep_types::DaemonKind;

use super::{
    caller::Caller,
    elements::{hidden, number_input, time_element},
    error::WebError,
    layout::{self, Flash, collapsible, command},
    live_part::LivePart,
    site::Site,
};
use crate::{
    error::CommandError,
    peers::{peer_error, with_deadline},
    role::Right,
};

const LINES: u32 = 200;
const HEADINGS: [&str; 5] = ["Time", "Channel", "From", "Line", "Actions"];

pub(crate) async fn page(
    State(site): State<Site>,
    caller: Caller,
    Query(flash): Query<Flash>,
) -> Result<Markup, WebError> {
    let parts = parts(&site, &caller).await?;
    let body = html! {
        (broadcast(&caller).unwrap_or_default())
        (parts[0].in_div(""))
        (parts[1].in_table(&HEADINGS, "There are no chat lines."))
    };
    Ok(layout::page(&site, &caller, "/chat", &flash, Some("/live/chat"), body).await)
}

pub(crate) async fn parts(site: &Site, caller: &Caller) -> Result<Vec<LivePart>, WebError> {
    caller.require(Right::SeeChat)?;
    let (lines, error) = match history(site).await {
        Ok(lines) => (lines, None),
        Err(error) => (Vec::new(), Some(error.to_string())),
    };
    let keyed = keyed(&lines);
    let rows = keyed.into_iter().rev().map(|(key, line)| {
        let row = row(caller, line, &key);
        (key, row)
    });
    Ok(vec![LivePart::notices(error), LivePart::new("chat", rows)])
}

async fn history(site: &Site) -> Result<Vec<Line>, CommandError> {
    let peers = site.console().peers();
    let daemon = peers.any(DaemonKind::Chat)?;
    let reply = peers.chat_client(&daemon).history(with_deadline(HistoryRequest { limit: LINES })).await;
    Ok(reply.map_err(peer_error(&daemon))?.into_inner().lines)
}

/// Gives each line a key that stays the same while older lines leave the history.
fn keyed(lines: &[Line]) -> Vec<(String, &Line)> {
    let mut repetitions: HashMap<(u64, &str), u32> = HashMap::new();
    lines
        .iter()
        .map(|line| {
            let repetition = repetitions.entry((line.at_ms, line.from.as_str())).or_default();
            *repetition += 1;
            (format!("{}/{}/{repetition}", line.at_ms, line.from), line)
        })
        .collect()
}

fn row(caller: &Caller, line: &Line, key: &str) -> Markup {
    let fields = html! {
        (hidden("character", &line.from))
        (number_input("Minutes (0: unmute)", "minutes", 0, 10))
    };
    html! {
        tr data-key=(key) {
            td data-label="Time" { (time_element(line.at_ms)) }
            td data-label="Channel" { (line.channel) @if !line.to.is_empty() { " to " (line.to) } }
            th scope="row" { (line.from) }
            td.said { (line.text) }
            td.actions {
                (collapsible("Mute…", [command(caller, Right::Mute, "mute", "/chat", &fields, "Mute")]))
            }
        }
    }
}

fn broadcast(caller: &Caller) -> Option<Markup> {
    let fields = html! {
        label.grow { "Message to all players" input name="text" required maxlength="500"; }
        label { "World (empty: all)" input name="world" type="number" min="1"; }
    };
    let form = command(caller, Right::Broadcast, "broadcast", "/chat", &fields, "Broadcast")?;
    Some(html! { section.card { h2 { "Broadcast" } (form) } })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chat_lines_of_one_sender_and_time_have_different_keys() {
        let line = |at_ms, from: &str| Line { at_ms, from: from.into(), ..Line::default() };
        let lines = [line(1, "Ann"), line(1, "Ann"), line(1, "Bob"), line(2, "Ann")];
        let keys: Vec<String> = keyed(&lines).into_iter().map(|(key, _)| key).collect();
        assert_eq!(keys, ["1/Ann/1", "1/Ann/2", "1/Bob/1", "2/Ann/1"]);
    }
}
