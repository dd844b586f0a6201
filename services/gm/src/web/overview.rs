//! Every daemon the registries know: how it is, and its buttons.

use axum::{
    extract::{Query, State},
    response::Html,
};
use shardkeep_cluster::{Instance, STORES_ATTRIBUTE, State as DaemonState};
use shardkeep_rpc::accounts::Closure;
use shardkeep_types::DaemonKind;

use super::{
    Site,
    caller::Caller,
    error::WebError,
    html::{Markup, html},
    layout::{self, Flash, collapsible, command, duration_text, hidden, meter},
};
use crate::{clock::now_ms, error::CommandError, role::Right, worlds};

pub(crate) async fn page(
    State(site): State<Site>,
    caller: Caller,
    Query(flash): Query<Flash>,
) -> Result<Html<String>, WebError> {
    caller.require(Right::SeeCluster)?;
    let daemons = site.console.peers.all();
    let rows: Markup = daemons.iter().map(|daemon| row(&caller, daemon, now_ms())).collect();
    let closed = worlds::closures(&site.console.peers).await;
    let empty = daemons.is_empty().then(|| html!("<p class=\"empty\">No registry answers yet.</p>"));
    let body = html!(
        "{}<div data-live=\"daemons\">{}<div class=\"scroll\"><table><thead><tr><th>Daemon<th>State<th>Load<th>World"
        "<th>Running for<th>Version<th>gRPC<th>Players<th>Admin<th><span class=\"unseen\">Actions</span></tr></thead>"
        "<tbody>{}</tbody></table></div></div>";
        tiles(&daemons, site.console.players.count(), closed), empty, rows,
    );
    Ok(layout::page(&site, &caller, "/", &flash, body).await)
}

/// A look at the closed worlds that failed is told by the tile of what is not up: only login is asked.
fn tiles(daemons: &[Instance], online: usize, closed: Result<Vec<Closure>, CommandError>) -> Markup {
    let in_state = |state: DaemonState| daemons.iter().filter(|daemon| daemon.state == state).count();
    let up = |kind: &DaemonKind| {
        daemons.iter().any(|daemon| daemon.id.kind == *kind && daemon.state == DaemonState::Up)
    };
    let kinds = DaemonKind::DAEMONS;
    let missing: Vec<&str> = kinds.iter().filter(|kind| !up(kind)).map(|kind| kind.as_str()).collect();
    let missing = match missing.is_empty() {
        true => html!("<div class=\"tile good\"><b>all</b> twelve kinds are up</div>"),
        false => {
            html!("<div class=\"tile bad\"><b>{}</b> not up: {}</div>"; missing.len(), missing.join(", "))
        }
    };
    let closed = closed.unwrap_or_default().len();
    let closed = (closed > 0).then(|| {
        let worlds = if closed == 1 { "world is" } else { "worlds are" };
        html!(
            "<div class=\"tile warn\"><b>{}</b> <a href=\"/worlds\">{} closed to players</a></div>"; closed, worlds,
        )
    });
    html!(
        "<div class=\"tiles\" data-live=\"tiles\"><div class=\"tile\"><b>{}</b> players online</div>"
        "<div class=\"tile\"><b>{}</b> daemons up</div><div class=\"tile\"><b>{}</b> draining</div>"
        "<div class=\"tile\"><b>{}</b> offline</div>{}{}</div>";
        online, in_state(DaemonState::Up), in_state(DaemonState::Draining), in_state(DaemonState::Offline), missing, closed,
    )
}

fn row(caller: &Caller, daemon: &Instance, now_ms: u64) -> Markup {
    let running = match daemon.state {
        DaemonState::Offline | DaemonState::Left => "–".to_owned(),
        _ => duration_text(now_ms.saturating_sub(daemon.id.incarnation)),
    };
    let load = format!("{:.0} %", daemon.load * 100.0);
    let world = if daemon.world.0 == 0 { "–".to_owned() } else { daemon.world.to_string() };
    html!(
        "<tr><th scope=\"row\">{} <small>{}</small>{}<td><span class=\"state {}\">{}</span><td class=\"load\">{}"
        "<td>{}<td>{}<td>{}<td><code>{}</code><td><code>{}</code><td><code>{}</code><td class=\"actions\">{}</tr>";
        daemon.id.name, daemon.id.kind, attributes(daemon), daemon.state, daemon.state, meter(daemon.load, &load),
        world, running, daemon.version, daemon.grpc_address, daemon.client_address, daemon.admin_address,
        actions(caller, daemon),
    )
}

fn attributes(daemon: &Instance) -> Option<Markup> {
    let leadership = Some(daemon.leadership.as_str()).filter(|text| !text.is_empty()).map(str::to_owned);
    let facts = daemon.attributes.iter().filter_map(|(key, value)| attribute_text(key, value));
    let attributes_text: Vec<String> = leadership.into_iter().chain(facts).collect();
    (!attributes_text.is_empty()).then(|| html!("<div class=\"facts\">{}</div>"; attributes_text.join(" · ")))
}

/// As people want to read it. Name servers say behind `pool` since when, for each other, and then which; the marks of stores
/// are for replicas alone.
fn attribute_text(key: &str, value: &str) -> Option<String> {
    match (key, value.split_once(' ')) {
        (STORES_ATTRIBUTE, _) => None,
        ("pool", Some((_, pool))) => Some(format!("pool {pool}")),
        _ => Some(format!("{key} {value}")),
    }
}

fn actions(caller: &Caller, daemon: &Instance) -> Option<Markup> {
    let daemon_fields = || -> Markup {
        [hidden("kind", daemon.id.kind.as_str()), hidden("name", &daemon.id.name)].into_iter().collect()
    };
    match daemon.state {
        DaemonState::Starting | DaemonState::Up => {
            collapsible("Drain…", [command(caller, Right::Drain, "drain", "/", &daemon_fields(), "Drain")])
        }
        DaemonState::Offline => collapsible(
            "Remove…",
            [command(caller, Right::RemoveDaemon, "remove", "/", &daemon_fields(), "Remove")],
        ),
        DaemonState::Draining | DaemonState::Left => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attributes_are_formatted_and_store_marks_hidden() {
        assert_eq!(attribute_text("pool", "1795729265732 live").as_deref(), Some("pool live"));
        assert_eq!(attribute_text("term", "3").as_deref(), Some("term 3"));
        assert_eq!(attribute_text(STORES_ATTRIBUTE, "game/alone/00c803c5448d9c236c01cb49ce77b269"), None);
    }
}
