//! The characters that are online, and the search for characters and accounts.

use std::collections::{BTreeMap, HashMap};

use axum::extract::{Query, State};
use futures::future::join_all;
use maud::{Markup, html};
use serde::Deserialize;
use shardkeep_daemon::unix_millis;
use shardkeep_rpc::gateway::{ListSessionsRequest, SessionInfo};
use shardkeep_types::DaemonKind;

use super::{
    account_forms::ban_form,
    caller::Caller,
    elements::{age_element, encoded, hidden, number_input, state},
    error::WebError,
    layout::{self, Flash, collapsible, command},
    live_part::LivePart,
    search,
    site::Site,
};
use crate::{peers::with_deadline, players::Player, role::Right};

const PER_PAGE: usize = 100;
/// The start of a session is computed from its age, which varies with the duration of the call. It is rounded, so
/// that a row does not change each time.
const START_ROUNDING_MS: u64 = 10_000;
const HEADINGS: [&str; 8] =
    ["Character", "Account", "World", "Zone", "Cell", "Address", "Session", "Actions"];

#[derive(Debug, Default, Clone, Deserialize)]
#[serde(default)]
pub(crate) struct PlayerQuery {
    q: String,
    page: usize,
}

impl PlayerQuery {
    fn text(&self) -> &str {
        self.q.trim()
    }

    fn skip(&self) -> usize {
        self.page.saturating_mul(PER_PAGE)
    }

    /// The address of a page of this search, or of its stream.
    fn url(&self, path: &str, page: usize) -> String {
        format!("{path}?q={}&page={page}", encoded(self.text()))
    }
}

pub(crate) async fn page(
    State(site): State<Site>,
    caller: Caller,
    Query(query): Query<PlayerQuery>,
    Query(flash): Query<Flash>,
) -> Result<Markup, WebError> {
    let parts = parts(&site, &caller, &query).await?;
    let text = query.text();
    let found = if text.is_empty() { None } else { Some(search::results(&site, &caller, text).await) };
    let body = html! {
        form.bar method="get" {
            label.grow {
                "Name of a character or account"
                input type="search" name="q" value=(text) autocomplete="off";
            }
            button { "Search" }
            @if found.is_some() { a.button href="/players" { "Show all" } }
        }
        @if found.is_some() { h2 { "Online" } }
        (parts[0].in_div(""))
        (parts[1].in_table(&HEADINGS, "No character is online."))
        (parts[2].in_div("pages"))
        (found.unwrap_or_default())
    };
    let stream = query.url("/live/players", query.page);
    Ok(layout::page(&site, &caller, "/players", &flash, Some(&stream), body).await)
}

pub(crate) async fn parts(
    site: &Site,
    caller: &Caller,
    query: &PlayerQuery,
) -> Result<Vec<LivePart>, WebError> {
    caller.require(Right::SeePlayers)?;
    let (players, total) = site.console().players().search(query.text(), query.skip(), PER_PAGE);
    let sessions = sessions(site, &players).await;
    let count = html! { p.hint data-key="count" { (total) " online" } };
    let rows = players.iter().map(|player| {
        let key = format!("{}/{}", player.world, player.character);
        let row = row(caller, player, sessions.get(&player.session), &key);
        (key, row)
    });
    Ok(vec![
        LivePart::new("count", [("count".to_owned(), count)]),
        LivePart::new("players", rows),
        LivePart::new("pages", page_links(query, query.skip() + players.len(), total)),
    ])
}

/// The data of these sessions from the gateways. A gateway that does not answer is left out.
async fn sessions(site: &Site, players: &[Player]) -> HashMap<Vec<u8>, SessionInfo> {
    if players.is_empty() {
        return HashMap::new();
    }
    let peers = site.console().peers();
    let ids: Vec<Vec<u8>> = players.iter().map(|player| player.session.clone()).collect();
    let gateways = peers.alive(DaemonKind::Gateway);
    let lists = join_all(gateways.iter().map(async |gateway| {
        let request = ListSessionsRequest { sessions: ids.clone(), ..ListSessionsRequest::default() };
        peers.gateway_client(gateway).list_sessions(with_deadline(request)).await
    }));
    let lists = lists.await.into_iter().filter_map(|reply| Some(reply.ok()?.into_inner().sessions));
    lists.flatten().map(|session| (session.session.clone(), session)).collect()
}

fn row(caller: &Caller, player: &Player, session: Option<&SessionInfo>, key: &str) -> Markup {
    let account = session.map(|session| session.account_name.as_str());
    let address = session.filter(|_| caller.may(Right::SeeAddresses)).map(|session| session.address.as_str());
    html! {
        tr data-key=(key) {
            th scope="row" { (player.name) }
            td data-label="Account" { @if let Some(name) = account { (name) } @else { "#" (player.account) } }
            td data-label="World" { (player.world) }
            td data-label="Zone" { (player.zone) }
            td data-label="Cell" { (player.cell.0) ", " (player.cell.1) }
            td data-label="Address" { code { (address.unwrap_or("–")) } }
            td data-label="Session" {
                @if let Some(session) = session {
                    (age_element(started_ms(session.age_ms)))
                    @if session.link_dead { " " (state("draining", "connection lost")) }
                } @else { "–" }
            }
            td.actions { (collapsible("Act…", actions(caller, player, account))) }
        }
    }
}

fn started_ms(age_ms: u64) -> u64 {
    let started = unix_millis().saturating_sub(age_ms) + START_ROUNDING_MS / 2;
    started - started % START_ROUNDING_MS
}

fn actions(caller: &Caller, player: &Player, account: Option<&str>) -> Vec<Option<Markup>> {
    let character = hidden("character", &player.name);
    let mute = html! { (character) (number_input("Minutes (0: unmute)", "minutes", 0, 10)) };
    let teleport = html! {
        (character)
        (hidden("world", &player.world.to_string()))
        @for axis in ["x", "y"] {
            label { (axis) " (m)" input name=(axis) type="number" min="0" step="any" required; }
        }
    };
    let mut forms = vec![
        command(caller, Right::Kick, "kick", "/players", &character, "Kick"),
        command(caller, Right::Mute, "mute", "/players", &mute, "Mute"),
        command(caller, Right::Teleport, "teleport", "/players", &teleport, "Teleport"),
    ];
    forms.push(account.and_then(|account| ban_form(caller, account, "/players")));
    forms
}

fn page_links(query: &PlayerQuery, shown: usize, total: usize) -> BTreeMap<String, Markup> {
    let link = |key: &str, page: usize, text: &str| {
        let markup = html! { a.button data-key=(key) href=(query.url("/players", page)) { (text) } };
        (key.to_owned(), markup)
    };
    let previous = query.page.checked_sub(1).map(|page| link("1", page, "Previous"));
    let next = (shown < total).then(|| link("2", query.page + 1, "Next"));
    previous.into_iter().chain(next).collect()
}
