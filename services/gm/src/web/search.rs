//! The search among all characters and accounts, online or not. It finds names that begin with the searched text.

use futures::future::{join, join_all};
use maud::{Markup, html};
use shardkeep_daemon::unix_millis;
use shardkeep_rpc::{
    accounts::{Account, ListRequest, ShowRequest, show_request::Selector},
    dbcache::{CharacterName, FindCharactersRequest},
};
use shardkeep_types::DaemonKind;

use super::{
    account_forms::account_forms,
    caller::Caller,
    elements::{bad_notice, empty_hint, encoded, state, time_element},
    layout::collapsible,
    live_part::table,
    site::Site,
};
use crate::{
    error::CommandError,
    peers::{peer_error, with_deadline},
};

/// Characters and accounts shown at most.
const LIMIT: u32 = 50;

/// The characters and the accounts whose names begin with `text`.
pub(crate) async fn results(site: &Site, caller: &Caller, text: &str) -> Markup {
    let (characters, accounts) = join(find_characters(site, text), find_accounts(site, text)).await;
    let back = format!("/players?q={}", encoded(text));
    html! {
        h2 { "Characters" }
        (section(characters, "character", text, |found| characters_table(site, found)))
        h2 { "Accounts" }
        (section(accounts, "account", text, |found| accounts_table(caller, found, &back)))
    }
}

fn section<T>(
    found: Result<Vec<T>, CommandError>,
    noun: &str,
    text: &str,
    table: impl FnOnce(&[T]) -> Markup,
) -> Markup {
    match found {
        Err(error) => bad_notice(&error.to_string()),
        Ok(found) if found.is_empty() => {
            empty_hint(&format!("There is no {noun} whose name begins with {text:?}."))
        }
        Ok(found) => html! {
            (table(&found))
            @if found.len() == LIMIT as usize {
                p.hint { "These are the first " (LIMIT) ". Enter more of the name to find others." }
            }
        },
    }
}

/// A character and the name of its account, if login knows it.
struct FoundCharacter {
    character: CharacterName,
    account: Option<String>,
}

async fn find_characters(site: &Site, text: &str) -> Result<Vec<FoundCharacter>, CommandError> {
    let peers = site.console().peers();
    let daemon = peers.any(DaemonKind::Dbcache)?;
    let request = FindCharactersRequest { name_prefix: text.to_owned(), limit: LIMIT };
    let mut client = peers.dbcache_client(&daemon);
    let reply = client.find_characters(with_deadline(request)).await.map_err(peer_error(&daemon))?;
    let found = reply.into_inner().characters.into_iter().map(async |character| {
        let account = account_name(site, character.account).await;
        FoundCharacter { character, account }
    });
    Ok(join_all(found).await)
}

async fn account_name(site: &Site, id: u64) -> Option<String> {
    let (mut client, _) = site.console().peers().accounts().ok()?;
    let request = ShowRequest { selector: Some(Selector::Id(id)) };
    Some(client.show(with_deadline(request)).await.ok()?.into_inner().name)
}

async fn find_accounts(site: &Site, text: &str) -> Result<Vec<Account>, CommandError> {
    let (mut client, login) = site.console().peers().accounts()?;
    let request = ListRequest { prefix: text.to_owned(), after: String::new(), limit: LIMIT };
    let reply = client.list(with_deadline(request)).await.map_err(peer_error(&login))?;
    Ok(reply.into_inner().accounts)
}

fn characters_table(site: &Site, found: &[FoundCharacter]) -> Markup {
    let players = site.console().players();
    let rows = html! {
        tbody {
            @for FoundCharacter { character, account } in found {
                tr {
                    th scope="row" { (character.name) }
                    td data-label="World" { (character.world) }
                    td data-label="State" {
                        @if players.is_online(character.world, character.id) { (state("up", "online")) }
                        @else { (state("", "offline")) }
                    }
                    td data-label="Account" {
                        @match account {
                            Some(name) => { a href={ "/players?q=" (encoded(name)) } { (name) } },
                            None => { "#" (character.account) },
                        }
                    }
                }
            }
        }
    };
    table(&["Character", "World", "State", "Account"], &rows)
}

fn accounts_table(caller: &Caller, found: &[Account], back: &str) -> Markup {
    let now_ms = unix_millis();
    let rows = html! {
        tbody {
            @for account in found {
                tr {
                    th scope="row" { (account.name) @if account.staff { " " small { "staff" } } }
                    td data-label="State" { (account_state(account, now_ms)) }
                    td data-label="Created" { (time_element(account.created_ms)) }
                    td data-label="Last login" {
                        @if account.last_login_ms == 0 { "never" } @else { (time_element(account.last_login_ms)) }
                    }
                    td.actions { (collapsible("Act…", account_forms(caller, &account.name, back))) }
                }
            }
        }
    };
    table(&["Account", "State", "Created", "Last login", "Actions"], &rows)
}

fn account_state(account: &Account, now_ms: u64) -> Markup {
    let bans = [
        ("banned", account.banned_until_ms, &account.ban_reason),
        ("banned in all regions", account.banned_everywhere_until_ms, &account.ban_everywhere_reason),
    ];
    let bans: Vec<_> = bans.into_iter().filter(|(_, until_ms, _)| *until_ms > now_ms).collect();
    html! {
        @if bans.is_empty() { (state("up", "may log in")) }
        @for (label, until_ms, reason) in bans {
            (state("offline", label)) " "
            @if until_ms == u64::MAX { "permanently" } @else { "until " (time_element(until_ms)) }
            ": " (reason) " "
        }
    }
}
