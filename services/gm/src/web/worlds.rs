//! The worlds: whether players may enter, how full they are, who waits, and which zone owns which sector.

use axum::{
    extract::{Query, State},
    response::Html,
};
use shardkeep_cluster::Instance;
use shardkeep_rpc::{
    accounts::Closure,
    world::{Sector, StatusReply},
};

use super::{
    Site,
    caller::Caller,
    error::WebError,
    html::{Markup, html},
    layout::{self, Flash, command, duration_text, hidden, meter},
};
use crate::{
    role::Right,
    worlds::{self, World},
};

pub(crate) async fn page(
    State(site): State<Site>,
    caller: Caller,
    Query(flash): Query<Flash>,
) -> Result<Html<String>, WebError> {
    caller.require(Right::SeeCluster)?;
    let (worlds, unknown) = worlds::fetch_all(&site.console.peers).await;
    let unknown = unknown.map(|error| {
        html!("<p class=\"notice bad\">Which worlds are closed to players is not known: {}</p>"; error.to_string())
    });
    let cards: Markup = worlds.iter().map(|world| card(&caller, world)).collect();
    let empty = worlds.is_empty().then(|| html!("<p class=\"empty\">No world is up.</p>"));
    let body = html!("<div data-live=\"worlds\">{}{}{}</div>"; unknown, empty, cards);
    Ok(layout::page(&site, &caller, "/worlds", &flash, body).await)
}

fn card(caller: &Caller, world: &World) -> Markup {
    let (title, details) = match &world.leadership {
        Some((leader, Ok(status))) => (html!("{}"; status.name), leadership(caller, leader, status)),
        Some((_, Err(error))) => {
            (html!("World {}"; world.number), html!("<p class=\"notice bad\">{}</p>"; error.to_string()))
        }
        None => (
            html!("World {}"; world.number),
            html!("<p class=\"notice bad\">No daemon leads this world.</p>"),
        ),
    };
    html!(
        "<section class=\"card\"><h2>{} {}</h2>{}{}{}</section>";
        title, state(world.closed.as_ref()), world.closed.as_ref().map(closed), details,
        maintenance(caller, world),
    )
}

fn state(closed: Option<&Closure>) -> Markup {
    match closed {
        Some(_) => html!("<span class=\"state draining\">closed to players</span>"),
        None => html!("<span class=\"state up\">open to players</span>"),
    }
}

fn closed(closed: &Closure) -> Markup {
    let details = match closed.left_ms {
        0 => "Who was inside has been sent home; staff stay.".to_owned(),
        left => format!("Who is inside may stay {} more; staff stay.", duration_text(left)),
    };
    let reason = if closed.note.is_empty() { "no reason given" } else { closed.note.as_str() };
    html!("<p class=\"notice warn\"><strong>Players read:</strong> {}<br>{}</p>"; reason, details)
}

fn leadership(caller: &Caller, leader: &Instance, status: &StatusReply) -> Markup {
    let full = f64::from(status.online) / f64::from(status.capacity.max(1));
    let online = format!("{} of {}", status.online, status.capacity);
    let partition = status.partition.clone().unwrap_or_default();
    let rows: Markup = partition.sectors.iter().map(sector).collect();
    html!(
        "<dl class=\"figures\"><dt>World<dd>{}, led by {}, term {}<dt>Online<dd class=\"load\">{}<dt>In the queue<dd>{}"
        "<dt>Partition<dd>epoch {}</dl>"
        "<div class=\"scroll\"><table><thead><tr><th>Sector (cells)<th>Map<th>Zone<th>Epoch<th>gRPC</tr></thead>"
        "<tbody>{}</tbody></table></div>{}";
        status.world, leader.id.name, status.term, meter(full, &online), status.queue, partition.epoch, rows,
        broadcast(caller, status.world),
    )
}

fn sector(sector: &Sector) -> Markup {
    let cells = sector.cells.unwrap_or_default();
    let area = format!("x {}–{}, y {}–{}", cells.x0, cells.x1, cells.y0, cells.y1);
    let zone = match sector.zone.as_str() {
        "" => html!("<span class=\"state offline\">nobody</span>"),
        zone => html!("{}"; zone),
    };
    html!(
        "<tr><td>{}<td>{}<td>{}<td>{}<td><code>{}</code></tr>";
        area, cells.map, zone, sector.epoch, sector.grpc_address,
    )
}

fn broadcast(caller: &Caller, world: u32) -> Option<Markup> {
    let fields = html!(
        "{}<label class=\"grow\">Line to everybody in this world <input name=\"text\" required maxlength=\"500\">"
        "</label>"; hidden("world", &world.to_string()),
    );
    command(caller, Right::Broadcast, "broadcast", "/worlds", &fields, "Broadcast")
}

/// A closed world can be opened; closing it again changes the reason and the time.
fn maintenance(caller: &Caller, world: &World) -> Option<Markup> {
    let number = hidden("world", &world.number.to_string());
    let close = html!(
        "{}{}<label>Who is inside may stay, seconds <input name=\"seconds\" type=\"number\" min=\"0\" max=\"86400\" "
        "value=\"60\" required></label>"; number, hidden("mode", "closed"),
    );
    let form_for = |fields: &Markup, button: &str| {
        command(caller, Right::Maintenance, "maintenance", "/worlds", fields, button)
    };
    if world.closed.is_none() {
        let form = form_for(&close, "Close to players")?;
        return Some(html!("{}<p class=\"hint\">Players are told the reason.</p>"; form));
    }
    let open = form_for(&html!("{}{}"; number, hidden("mode", "open")), "Open to players")?;
    Some(html!("{}{}"; open, form_for(&close, "Close with another reason or time")))
}
