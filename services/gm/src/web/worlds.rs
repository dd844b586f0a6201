//! The worlds: how full they are, who waits, and which zone owns which sector.

use axum::{
    extract::{Query, State},
    response::Html,
};
use futures::future::join_all;
use shardkeep_cluster::Instance;
use shardkeep_rpc::world::{Sector, StatusReply, StatusRequest};

use super::{
    Site,
    error::WebError,
    html::{Markup, html},
    layout::{self, Flash, command, hidden, meter},
    visitor::Visitor,
};
use crate::{
    error::CommandError,
    peers::{call, refusal},
    role::Right,
};

pub(crate) async fn page(
    State(site): State<Site>,
    visitor: Visitor,
    Query(flash): Query<Flash>,
) -> Result<Html<String>, WebError> {
    visitor.needs(Right::SeeCluster)?;
    let worlds = site.console.peers.worlds();
    let statuses = join_all(worlds.iter().map(|world| status(&site, world))).await;
    let cards: Markup =
        worlds.iter().zip(statuses).map(|(world, status)| card(&visitor, world, status)).collect();
    let empty = worlds.is_empty().then(|| html!("<p class=\"empty\">No world is up.</p>"));
    let body = html!("<div data-live=\"worlds\">{}{}</div>"; empty, cards);
    Ok(layout::page(&site, &visitor, "/worlds", &flash, body).await)
}

async fn status(site: &Site, world: &Instance) -> Result<StatusReply, CommandError> {
    let mut client = site.console.peers.world_client(world);
    client.status(call(StatusRequest {})).await.map(tonic::Response::into_inner).map_err(refusal(world))
}

fn card(visitor: &Visitor, world: &Instance, status: Result<StatusReply, CommandError>) -> Markup {
    let status = match status {
        Ok(status) => status,
        Err(error) => {
            return html!(
                "<section class=\"card\"><h2>World {}</h2><p class=\"notice bad\">{}</p></section>";
                world.world, error.to_string(),
            );
        }
    };
    let full = f64::from(status.online) / f64::from(status.capacity.max(1));
    let online = format!("{} of {}", status.online, status.capacity);
    let partition = status.partition.unwrap_or_default();
    let rows: Markup = partition.sectors.iter().map(sector).collect();
    html!(
        "<section class=\"card\"><h2>{} <small>world {}, led by {}, term {}</small></h2><dl class=\"figures\">"
        "<dt>Online<dd class=\"load\">{}<dt>In the queue<dd>{}<dt>Partition<dd>epoch {}</dl>"
        "<div class=\"scroll\"><table><thead><tr><th>Sector (cells)<th>Map<th>Zone<th>Epoch<th>gRPC</tr></thead>"
        "<tbody>{}</tbody></table></div>{}{}</section>";
        status.name, status.world, world.id.name, status.term, meter(full, &online), status.queue, partition.epoch,
        rows, broadcast(visitor, status.world), maintenance(visitor, status.world),
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

fn broadcast(visitor: &Visitor, world: u32) -> Option<Markup> {
    let fields = html!(
        "{}<label class=\"grow\">Line to everybody in this world <input name=\"text\" required maxlength=\"500\">"
        "</label>"; hidden("world", &world.to_string()),
    );
    command(visitor, Right::Broadcast, "broadcast", "/worlds", &fields, "Broadcast")
}

fn maintenance(visitor: &Visitor, world: u32) -> Option<Markup> {
    let fields = html!(
        "{}<label>Players <select name=\"mode\"><option value=\"closed\">stay out (the reason is shown to them)</option>"
        "<option value=\"open\">may enter</option></select></label>"
        "<label>Who is inside may stay, seconds <input name=\"seconds\" type=\"number\" min=\"0\" max=\"86400\" "
        "value=\"60\" required></label>"; hidden("world", &world.to_string()),
    );
    command(visitor, Right::Maintenance, "maintenance", "/worlds", &fields, "Maintenance")
}
