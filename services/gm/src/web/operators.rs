//! The operators, for admins.

use axum::{
    extract::{Query, State},
    response::Html,
};
use shardkeep_store::operators::{self, Operator};

use super::{
    Site,
    caller::Caller,
    error::WebError,
    html::{Markup, html},
    layout::{self, Flash, collapsible, command, hidden, time_element},
};
use crate::{
    commands::operators::sign_in_method,
    role::{Right, Role},
};

pub(crate) async fn page(
    State(site): State<Site>,
    caller: Caller,
    Query(flash): Query<Flash>,
) -> Result<Html<String>, WebError> {
    caller.require(Right::SeeOperators)?;
    let operators = operators::list(&site.console.database).await?;
    let rows: Markup = operators.iter().map(|operator| row(&caller, operator)).collect();
    let body = html!(
        "<div class=\"scroll\"><table><thead><tr><th>Operator<th>Role<th>Since<th>Signs in by"
        "<th><span class=\"unseen\">Actions</span></tr></thead><tbody>{}</tbody></table></div>{}{}";
        rows, add(&caller), rights(),
    );
    Ok(layout::page(&site, &caller, "/operators", &flash, body).await)
}

fn row(caller: &Caller, operator: &Operator) -> Markup {
    let name = || hidden("name", &operator.name);
    let change = html!("{}{}"; name(), roles(&operator.role));
    let actions = collapsible(
        "Act…",
        [
            command(caller, Right::ManageOperators, "operator", "/operators", &change, "Change role"),
            command(caller, Right::ManageOperators, "operator", "/operators", &name(), "Remove"),
        ],
    );
    html!(
        "<tr><th scope=\"row\">{}<td>{}<td>{}<td>{}<td class=\"actions\">{}</tr>";
        operator.name, operator.role, time_element(operator.created_ms), sign_in_method(operator), actions,
    )
}

fn add(caller: &Caller) -> Option<Markup> {
    let fields = html!(
        "<label>Name <input name=\"name\" required pattern=\"[a-z0-9_.\\-]{{1,32}}\" autocomplete=\"off\"></label>{}";
        roles("viewer"),
    );
    let form = command(caller, Right::ManageOperators, "operator", "/operators", &fields, "Add")?;
    Some(html!(
        "<section class=\"card\"><h2>Add an operator</h2>{}<p class=\"hint\">You get a one-time link for them, by which \
         they set their password.</p></section>"; form,
    ))
}

fn roles(chosen: &str) -> Markup {
    let options: Markup = Role::ALL
        .into_iter()
        .map(|role| match role.as_str() == chosen {
            true => html!("<option selected>{}</option>"; role),
            false => html!("<option>{}</option>"; role),
        })
        .collect();
    html!("<label>Role <select name=\"role\">{}</select></label>"; options)
}

/// The table of `role.rs`, for people.
fn rights() -> Markup {
    let rows: Markup = [
        (Role::Viewer, "sees daemons, worlds, players and the live map"),
        (
            Role::Moderator,
            "and sees addresses, chat, logs and the audit; kicks, mutes, logs out everywhere, broadcasts",
        ),
        (Role::GameMaster, "and teleports, bans, lifts bans, closes worlds to players and opens them"),
        (Role::Admin, "and drains and removes daemons, credits play time, manages operators"),
    ]
    .into_iter()
    .map(|(role, may)| html!("<dt>{}<dd>{}"; role, may))
    .collect();
    html!("<section class=\"card\"><h2>Roles</h2><dl class=\"figures\">{}</dl></section>"; rows)
}
