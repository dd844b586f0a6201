//! The worlds: players, capacity, queue, closures, and the zone that owns each sector.

use axum::extract::{Query, State};
use maud::{Markup, html};
use shardkeep_cluster::Instance;
use shardkeep_rpc::{
    accounts::Closure,
    world::{Sector, StatusReply},
};

use super::{
    caller::Caller,
    elements::{bad_notice, duration_text, hidden, meter, state},
    error::WebError,
    layout::{self, Flash, command},
    live_part::{LivePart, table},
    site::Site,
};
use crate::{
    commands::cells_text,
    role::Right,
    worlds::{self, World},
};

pub(crate) async fn page(
    State(site): State<Site>,
    caller: Caller,
    Query(flash): Query<Flash>,
) -> Result<Markup, WebError> {
    let parts = parts(&site, &caller).await?;
    let body = html! {
        (parts[0].in_div(""))
        (parts[1].in_div("cards"))
        p.empty { "No world daemon is up." }
    };
    Ok(layout::page(&site, &caller, "/worlds", &flash, Some("/live/worlds"), body).await)
}

pub(crate) async fn parts(site: &Site, caller: &Caller) -> Result<Vec<LivePart>, WebError> {
    caller.require(Right::SeeCluster)?;
    let (worlds, unknown) = worlds::fetch_all(site.console().peers()).await;
    let unknown =
        unknown.map(|error| format!("It is not known which worlds are closed to players: {error}."));
    let cards = worlds.iter().map(|world| {
        let key = world.number.to_string();
        let card = card(caller, world, &key);
        (key, card)
    });
    Ok(vec![LivePart::notices(unknown), LivePart::new("worlds", cards)])
}

fn card(caller: &Caller, world: &World, key: &str) -> Markup {
    let closed = world.closed.as_ref();
    let (title, details) = match &world.leadership {
        Some((leader, Ok(status))) => (status.name.clone(), leadership(caller, leader, status)),
        Some((_, Err(error))) => (format!("World {}", world.number), bad_notice(&error.to_string())),
        None => (format!("World {}", world.number), bad_notice("No world daemon leads this world.")),
    };
    html! {
        section.card data-key=(key) {
            h2 {
                (title) " "
                @if closed.is_some() { (state("draining", "closed to players")) }
                @else { (state("up", "open to players")) }
            }
            @if let Some(closed) = closed { (closure(closed)) }
            (details)
            (maintenance(caller, world).unwrap_or_default())
        }
    }
}

fn closure(closed: &Closure) -> Markup {
    html! {
        p.notice.warn {
            strong { "Message to players:" } " "
            @if closed.note.is_empty() { "none" } @else { (closed.note) }
            br;
            @match closed.left_ms {
                0 => "Players were disconnected. Staff may stay.",
                left => { "Players are disconnected in " (duration_text(left)) ". Staff may stay." },
            }
        }
    }
}

fn leadership(caller: &Caller, leader: &Instance, status: &StatusReply) -> Markup {
    let full = f64::from(status.online) / f64::from(status.capacity.max(1));
    let online = format!("{} of {}", status.online, status.capacity);
    let partition = status.partition.clone().unwrap_or_default();
    let sectors = html! { tbody { @for it in &partition.sectors { (sector(it)) } } };
    html! {
        dl.figures {
            dt { "World" } dd { (status.world) ", led by " (leader.id.name) ", term " (status.term) }
            dt { "Online" } dd.load { (meter(full, &online)) }
            dt { "In the queue" } dd { (status.queue) }
            dt { "Layout" } dd { "revision " (partition.epoch) }
        }
        (table(&["Sector", "Space", "Cells", "Zone", "Epoch", "Avatars", "gRPC"], &sectors))
        (broadcast(caller, status.world).unwrap_or_default())
    }
}

fn sector(sector: &Sector) -> Markup {
    html! {
        tr {
            th scope="row" { (sector.sector) }
            td data-label="Space" { (sector.cells.unwrap_or_default().space) }
            td data-label="Cells" { (cells_text(sector)) }
            td data-label="Zone" {
                @if sector.zone.is_empty() { (state("offline", "no owner")) } @else { (sector.zone) }
                @if !sector.pinned.is_empty() { ", pinned to " (sector.pinned) }
                @if !sector.moving_from.is_empty() { ", moving from " (sector.moving_from) }
            }
            td data-label="Epoch" { (sector.epoch) }
            td data-label="Avatars" { (sector.avatars) }
            td data-label="gRPC" { code { (sector.grpc_address) } }
        }
    }
}

fn broadcast(caller: &Caller, world: u32) -> Option<Markup> {
    let fields = html! {
        (hidden("world", &world.to_string()))
        label.grow { "Message to all players of this world" input name="text" required maxlength="500"; }
    };
    command(caller, Right::Broadcast, "broadcast", "/worlds", &fields, "Broadcast")
}

/// Forms that close and open the world. A closed world can be closed again with another reason and time.
fn maintenance(caller: &Caller, world: &World) -> Option<Markup> {
    let mode = |mode| html! { (hidden("world", &world.number.to_string())) (hidden("mode", mode)) };
    let close = html! {
        (mode("closed"))
        label {
            "Disconnect players after (seconds)"
            input name="seconds" type="number" min="0" max="86400" value="60" required;
        }
    };
    let form = |fields: &Markup, button: &str| {
        command(caller, Right::Maintenance, "maintenance", "/worlds", fields, button)
    };
    if world.closed.is_some() {
        let open = form(&mode("open"), "Open to players")?;
        let change = form(&close, "Change the reason or time")?;
        return Some(html! { (open) (change) });
    }
    let close = form(&close, "Close to players")?;
    Some(html! { (close) p.hint { "Players see the reason." } })
}
