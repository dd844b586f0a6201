//! Who is online, with what can be done about them.

use std::collections::HashMap;

use axum::{
    extract::{Query, State},
    response::Html,
};
use futures::future::join_all;
use serde::Deserialize;
use shardkeep_rpc::gateway::{ListSessionsRequest, SessionInfo};
use shardkeep_types::DaemonKind;

use super::{
    Site,
    caller::Caller,
    error::WebError,
    html::{Markup, html},
    layout::{self, Flash, collapsible, command, duration_text, hidden},
};
use crate::{peers::with_deadline, players::Player, role::Right, token::Token};

const PER_PAGE: usize = 100;

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Search {
    q: String,
    page: usize,
}

pub(crate) async fn page(
    State(site): State<Site>,
    caller: Caller,
    Query(search): Query<Search>,
    Query(flash): Query<Flash>,
) -> Result<Html<String>, WebError> {
    caller.require(Right::SeePlayers)?;
    let skip = search.page.saturating_mul(PER_PAGE);
    let (players, total) = site.console.players.search(search.q.trim(), skip, PER_PAGE);
    let sessions = sessions(&site).await;
    let rows: Markup =
        players.iter().map(|player| row(&caller, player, sessions.get(&player.session))).collect();
    let empty = players.is_empty().then(|| {
        html!("<p class=\"empty\">Nobody {}.</p>"; match search.q.as_str() {
            "" => "is online".to_owned(),
            part => format!("online is called {part:?}"),
        })
    });
    let body = html!(
        "<form class=\"bar\" method=\"get\"><label>Name <input type=\"search\" name=\"q\" value=\"{}\"></label>"
        "<button>Search</button><span class=\"hint\" data-live=\"count\">{} online</span></form>{}"
        "<div data-live=\"players\">{}<div class=\"scroll\"><table><thead><tr><th>Character<th>Account<th>World<th>Zone"
        "<th>Cell<th>Address<th>Session<th><span class=\"unseen\">Actions</span></tr></thead><tbody>{}</tbody></table>"
        "</div></div>{}";
        search.q, total, accounts(&caller), empty, rows, pages(&search, skip + players.len(), total),
    );
    Ok(layout::page(&site, &caller, "/players", &flash, body).await)
}

/// What the gateways know, by session; a gateway that does not answer is left out.
async fn sessions(site: &Site) -> HashMap<Vec<u8>, SessionInfo> {
    let gateways = site.console.peers.alive(DaemonKind::Gateway);
    let lists = join_all(gateways.iter().map(async |gateway| {
        let mut client = site.console.peers.gateway_client(gateway);
        client
            .list_sessions(with_deadline(ListSessionsRequest::default()))
            .await
            .map(|reply| reply.into_inner().sessions)
    }));
    let lists = lists.await.into_iter().filter_map(Result::ok).flatten();
    lists.map(|session| (session.session.clone(), session)).collect()
}

fn row(caller: &Caller, player: &Player, session: Option<&SessionInfo>) -> Markup {
    let address = match session {
        Some(session) if caller.may(Right::SeeAddresses) => session.address.as_str(),
        _ => "–",
    };
    let age = session.map_or("–".to_owned(), |session| duration_text(session.age_ms));
    let dead = session.is_some_and(|session| session.link_dead);
    let dead = dead.then(|| html!(" <span class=\"state draining\">link lost</span>"));
    let account =
        session.map_or_else(|| format!("#{}", player.account), |session| session.account_name.clone());
    let cell = format!("{}, {}", player.cell.0, player.cell.1);
    html!(
        "<tr><th scope=\"row\">{}<td>{}<td>{}<td>{}<td>{}<td><code>{}</code><td>{}{}<td class=\"actions\">{}</tr>";
        player.name, account, player.world, player.zone, cell, address, age, dead,
        actions(caller, player, session.map(|session| session.account_name.as_str())),
    )
}

fn actions(caller: &Caller, player: &Player, account: Option<&str>) -> Option<Markup> {
    let character = || hidden("character", &player.name);
    let mute = html!(
        "{}<label>Minutes <input name=\"minutes\" type=\"number\" min=\"0\" value=\"10\"></label>"; character(),
    );
    let teleport = html!(
        "{}{}<label>x (m) <input name=\"x\" type=\"number\" min=\"0\" step=\"any\" required></label>"
        "<label>y (m) <input name=\"y\" type=\"number\" min=\"0\" step=\"any\" required></label>";
        character(), hidden("world", &player.world.to_string()),
    );
    let ban = account.map(|account| {
        html!(
            "{}<label>Hours (0: for ever) <input name=\"hours\" type=\"number\" min=\"0\" value=\"24\"></label>";
            hidden("account", account),
        )
    });
    collapsible(
        "Act…",
        [
            command(caller, Right::Kick, "kick", "/players", &character(), "Kick"),
            command(caller, Right::Mute, "mute", "/players", &mute, "Mute"),
            command(caller, Right::Teleport, "teleport", "/players", &teleport, "Teleport"),
            ban.and_then(|ban| command(caller, Right::Ban, "ban", "/players", &ban, "Ban account")),
        ],
    )
}

/// Commands for accounts that need not be online.
fn accounts(caller: &Caller) -> Option<Markup> {
    let account = || html!("<label>Account <input name=\"account\" required autocomplete=\"off\"></label>");
    let ban = html!(
        "{}<label>Hours (0: for ever) <input name=\"hours\" type=\"number\" min=\"0\" value=\"24\"></label>"; account(),
    );
    // The same form sent twice credits once.
    let key = Token::new().map(|token| token.expose().to_owned()).unwrap_or_default();
    let credit = html!(
        "{}{}<label>Hours (prepaid from then on) <input name=\"hours\" type=\"number\" min=\"1\" value=\"10\"></label>";
        account(), hidden("key", &key),
    );
    collapsible(
        "Accounts…",
        [
            command(caller, Right::Kick, "kick", "/players", &account(), "Kick account"),
            command(
                caller,
                Right::SeeAddresses,
                "sessions",
                "/players",
                &account(),
                "Where is it logged in?",
            ),
            command(caller, Right::Kick, "log-out", "/players", &account(), "Log out everywhere"),
            command(caller, Right::Ban, "ban", "/players", &ban, "Ban"),
            command(caller, Right::Unban, "unban", "/players", &account(), "Lift ban"),
            command(caller, Right::Credit, "credit", "/players", &credit, "Credit play time"),
        ],
    )
}

fn pages(search: &Search, shown: usize, total: usize) -> Markup {
    let link = |page: usize, text: &str| html!("<a class=\"button\" href=\"/players?q={}&amp;page={}\">{}</a>"; encoded(&search.q), page, text);
    let before = (search.page > 0).then(|| link(search.page - 1, "Before"));
    let after = (shown < total).then(|| link(search.page + 1, "More"));
    html!("<p class=\"pages\">{}{}</p>"; before, after)
}

fn encoded(text: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
    text.bytes()
        .map(|byte| if plain(byte) { char::from(byte).to_string() } else { format!("%{byte:02X}") })
        .collect()
}
