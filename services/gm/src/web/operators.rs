//! The operators, for admins.

use axum::extract::{Query, State};
use maud::{Markup, html};
use shardkeep_store::operators::{self, Operator};

use super::{
    caller::Caller,
    elements::{hidden, time_element},
    error::WebError,
    layout::{self, Flash, collapsible, command},
    live_part::table,
    site::Site,
};
use crate::{
    commands::sign_in_method,
    role::{Right, Role},
};

/// The rights of each role in words. `role.rs` has the table.
const RIGHTS: [(Role, &str); 4] = [
    (Role::Viewer, "sees daemons, worlds, players and the live map"),
    (
        Role::Moderator,
        "also sees addresses, chat, logs and the audit; kicks, mutes, logs accounts out, broadcasts",
    ),
    (Role::GameMaster, "also teleports, bans, lifts bans, closes worlds to players and opens them"),
    (Role::Admin, "also drains and removes daemons, credits play time, manages operators"),
];

pub(crate) async fn page(
    State(site): State<Site>,
    caller: Caller,
    Query(flash): Query<Flash>,
) -> Result<Markup, WebError> {
    caller.require(Right::SeeOperators)?;
    let operators = operators::list(site.console().database()).await?;
    let rows = html! { tbody { @for operator in &operators { (row(&caller, operator)) } } };
    let body = html! {
        (table(&["Operator", "Role", "Added", "Signs in with", "Actions"], &rows))
        (add(&caller).unwrap_or_default())
        section.card {
            h2 { "Roles" }
            dl.figures { @for (role, rights) in RIGHTS { dt { (role) } dd { (rights) } } }
        }
    };
    Ok(layout::page(&site, &caller, "/operators", &flash, None, body).await)
}

fn row(caller: &Caller, operator: &Operator) -> Markup {
    let name = hidden("name", &operator.name);
    let change = html! { (name) (role_input(&operator.role)) };
    let form = |fields: &Markup, button: &str| {
        command(caller, Right::ManageOperators, "operator", "/operators", fields, button)
    };
    html! {
        tr {
            th scope="row" { (operator.name) }
            td data-label="Role" { (operator.role) }
            td data-label="Added" { (time_element(operator.created_ms)) }
            td data-label="Signs in with" { (sign_in_method(operator)) }
            td.actions { (collapsible("Act…", [form(&change, "Change role"), form(&name, "Remove")])) }
        }
    }
}

fn add(caller: &Caller) -> Option<Markup> {
    let fields = html! {
        label { "Name" input name="name" required pattern="[a-z0-9_.\\-]{1,32}" autocomplete="off"; }
        (role_input(Role::Viewer.as_str()))
    };
    let form = command(caller, Right::ManageOperators, "operator", "/operators", &fields, "Add")?;
    Some(html! {
        section.card {
            h2 { "Add an operator" }
            (form)
            p.hint { "You get a one-time link. The new operator sets a password with it." }
        }
    })
}

fn role_input(chosen: &str) -> Markup {
    html! {
        label {
            "Role"
            select name="role" {
                @for role in Role::ALL { option selected[role.as_str() == chosen] { (role) } }
            }
        }
    }
}
