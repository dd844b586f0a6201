//! The overview: all daemons that the registries know, and totals of the cluster.

use axum::extract::{Query, State};
use maud::{Markup, html};
use shardkeep_cluster::{Instance, STORES_ATTRIBUTE, State as DaemonState};
use shardkeep_rpc::accounts::Closure;
use shardkeep_types::DaemonKind;

use super::{
    caller::Caller,
    elements::{age_element, hidden, meter, state},
    error::WebError,
    layout::{self, Flash, collapsible, command},
    live_part::LivePart,
    site::Site,
};
use crate::{error::CommandError, role::Right, worlds};

const HEADINGS: [&str; 10] =
    ["Daemon", "State", "Load", "World", "Running", "Version", "gRPC", "Players", "Admin", "Actions"];

pub(crate) async fn page(
    State(site): State<Site>,
    caller: Caller,
    Query(flash): Query<Flash>,
) -> Result<Markup, WebError> {
    let parts = parts(&site, &caller).await?;
    let body = html! {
        (parts[0].in_div("tiles"))
        (parts[1].in_table(&HEADINGS, "No registry has answered yet."))
    };
    Ok(layout::page(&site, &caller, "/", &flash, Some("/live/overview"), body).await)
}

pub(crate) async fn parts(site: &Site, caller: &Caller) -> Result<Vec<LivePart>, WebError> {
    caller.require(Right::SeeCluster)?;
    let (peers, players) = (site.console().peers(), site.console().players());
    let daemons = peers.all();
    let tiles = tiles(&daemons, players.count(), worlds::closures(peers).await);
    let rows = daemons.iter().map(|daemon| {
        let key = format!("{}/{}", daemon.id.kind, daemon.id.name);
        let row = row(caller, daemon, &key);
        (key, row)
    });
    Ok(vec![LivePart::new("tiles", tiles), LivePart::new("daemons", rows)])
}

/// The totals. If login does not answer, the tile of missing daemons shows it, and the closed worlds are left out.
fn tiles(
    daemons: &[Instance],
    online: usize,
    closed: Result<Vec<Closure>, CommandError>,
) -> Vec<(String, Markup)> {
    let in_state = |state: DaemonState| daemons.iter().filter(|daemon| daemon.state == state).count();
    let is_up = |kind: &&DaemonKind| {
        daemons.iter().any(|daemon| daemon.id.kind == **kind && daemon.state == DaemonState::Up)
    };
    let kinds = DaemonKind::DAEMONS;
    let missing: Vec<&str> = kinds.iter().filter(|kind| !is_up(kind)).map(|kind| kind.as_str()).collect();
    let mut tiles = vec![
        tile("online", "", online, &html! { "players online" }),
        tile("up", "", in_state(DaemonState::Up), &html! { "daemons up" }),
        tile("draining", "", in_state(DaemonState::Draining), &html! { "draining" }),
        tile("offline", "", in_state(DaemonState::Offline), &html! { "offline" }),
        if missing.is_empty() {
            tile("missing", "good", kinds.len(), &html! { "kinds of daemons, all up" })
        } else {
            tile(
                "missing",
                "bad",
                missing.len(),
                &html! { "kinds of daemons without a daemon up: " (missing.join(", ")) },
            )
        },
    ];
    let closed = closed.unwrap_or_default().len();
    if closed > 0 {
        let text = if closed == 1 { "world is closed to players" } else { "worlds are closed to players" };
        tiles.push(tile("closed", "warn", closed, &html! { a href="/worlds" { (text) } }));
    }
    tiles
}

fn tile(key: &str, class: &str, number: usize, text: &Markup) -> (String, Markup) {
    (key.to_owned(), html! { div class={ "tile " (class) } data-key=(key) { b { (number) } " " (text) } })
}

fn row(caller: &Caller, daemon: &Instance, key: &str) -> Markup {
    let running = !matches!(daemon.state, DaemonState::Offline | DaemonState::Left);
    let load = format!("{:.0} %", daemon.load * 100.0);
    let leadership = Some(daemon.leadership.as_str()).filter(|text| !text.is_empty()).map(str::to_owned);
    let facts = daemon.attributes.iter().filter_map(|(key, value)| attribute_text(key, value));
    let attributes: Vec<String> = leadership.into_iter().chain(facts).collect();
    html! {
        tr data-key=(key) {
            th scope="row" {
                (daemon.id.name) " " small { (daemon.id.kind) }
                @if !attributes.is_empty() { div.facts { (attributes.join(" · ")) } }
            }
            td data-label="State" { (state(daemon.state.as_str(), daemon.state.as_str())) }
            td.load data-label="Load" { (meter(daemon.load, &load)) }
            td data-label="World" { @if daemon.world.0 == 0 { "–" } @else { (daemon.world) } }
            // The incarnation of a daemon is the time of its start.
            td data-label="Running" { @if running { (age_element(daemon.id.incarnation)) } @else { "–" } }
            td data-label="Version" { (daemon.version) }
            td data-label="gRPC" { code { (daemon.grpc_address) } }
            td data-label="Players" { code { (daemon.client_address) } }
            td data-label="Admin" { code { (daemon.admin_address) } }
            td.actions { (actions(caller, daemon)) }
        }
    }
}

/// An attribute of a registration as text. The value of `pool` begins with a time that only DNS daemons use, and the
/// identities of stores are for replicas only.
fn attribute_text(key: &str, value: &str) -> Option<String> {
    match (key, value.split_once(' ')) {
        (STORES_ATTRIBUTE, _) => None,
        ("pool", Some((_, pool))) => Some(format!("pool {pool}")),
        _ => Some(format!("{key} {value}")),
    }
}

fn actions(caller: &Caller, daemon: &Instance) -> Markup {
    let fields = html! { (hidden("kind", daemon.id.kind.as_str())) (hidden("name", &daemon.id.name)) };
    match daemon.state {
        DaemonState::Starting | DaemonState::Up => {
            collapsible("Drain…", [command(caller, Right::Drain, "drain", "/", &fields, "Drain")])
        }
        DaemonState::Offline => {
            collapsible("Remove…", [command(caller, Right::RemoveDaemon, "remove", "/", &fields, "Remove")])
        }
        DaemonState::Draining | DaemonState::Left => Markup::default(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attributes_are_formatted_and_store_identities_hidden() {
        assert_eq!(attribute_text("pool", "1795729265732 live").as_deref(), Some("pool live"));
        assert_eq!(attribute_text("term", "3").as_deref(), Some("term 3"));
        assert_eq!(attribute_text(STORES_ATTRIBUTE, "game/alone/00c803c5448d9c236c01cb49ce77b269"), None);
    }
}
