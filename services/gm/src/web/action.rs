//! Sends the forms of the pages as commands. Afterwards the browser returns to the page of the form, which shows the
//! result from the audit.

use axum::{
    extract::{Path, State},
    response::{IntoResponse, Redirect, Response},
};
use maud::html;
use shardkeep_rpc::gm::{self, command::Command, target::Selector};

use super::{
    caller::{Caller, Fields, VerifiedForm},
    error::WebError,
    layout::{self, Flash},
    site::Site,
};

pub(crate) async fn execute(
    State(site): State<Site>,
    Path(name): Path<String>,
    VerifiedForm(caller, fields): VerifiedForm,
) -> Result<Response, WebError> {
    if caller.session().is_by_link() {
        return Err(WebError::PasswordNotSet);
    }
    let command = Some(command(&name, &fields)?);
    let command = gm::Command { reason: fields.get("reason").to_owned(), command };
    let entry = match site.console().execute(caller.session(), command, caller.origin()).await {
        Ok(executed) => {
            if let Some(link) = executed.outcome.link() {
                return Ok(show_link(&site, &caller, executed.outcome.text(), link).await);
            }
            executed.audit_entry
        }
        Err(failed) => failed.audit_entry.ok_or(failed.error)?,
    };
    Ok(Redirect::to(&redirect_target(fields.get("back"), entry)).into_response())
}

fn command(name: &str, fields: &Fields) -> Result<Command, WebError> {
    let text = |name: &str| fields.get(name).to_owned();
    Ok(match name {
        "kick" => Command::Kick(target(fields)),
        "ban" => Command::Ban(gm::Ban { account: text("account"), hours: fields.number("hours")? }),
        "unban" => Command::Unban(target(fields)),
        "log-out" => Command::LogOut(target(fields)),
        "sessions" => Command::Sessions(gm::AccountSessions { account: text("account") }),
        "maintenance" => Command::Maintenance(gm::Maintenance {
            world: fields.number("world")?,
            closed: text("mode") == "closed",
            seconds: Some(fields.number("seconds")?),
        }),
        "broadcast" => {
            Command::Broadcast(gm::Broadcast { world: fields.number("world")?, text: text("text") })
        }
        "teleport" => Command::Teleport(gm::Teleport {
            world: fields.number("world")?,
            character: text("character"),
            x_mm: millimetres(fields, "x")?,
            y_mm: millimetres(fields, "y")?,
            space: fields.number("space")?,
        }),
        "drain" => Command::Drain(gm::Drain { kind: text("kind"), name: text("name") }),
        "remove" => Command::Remove(gm::RemoveDaemon { kind: text("kind"), name: text("name") }),
        "mute" => {
            Command::Mute(gm::Mute { character: text("character"), minutes: fields.number("minutes")? })
        }
        "credit" => Command::Credit(gm::Credit {
            account: text("account"),
            hours: fields.number("hours")?,
            key: text("key"),
        }),
        "operator" => Command::Operator(gm::Operator {
            name: text("name"),
            role: text("role"),
            password: text("password"),
        }),
        _ => return Err(WebError::NotFound),
    })
}

fn target(fields: &Fields) -> gm::Target {
    let (character, account) = (fields.get("character"), fields.get("account"));
    let selector = match (character, account) {
        ("", "") => None,
        ("", account) => Some(Selector::Account(account.to_owned())),
        (character, _) => Some(Selector::Character(character.to_owned())),
    };
    gm::Target { selector }
}

/// Reads a coordinate, which operators enter in metres.
fn millimetres(fields: &Fields, name: &str) -> Result<i32, WebError> {
    let metres: f64 = fields.number(name)?;
    let millimetres = metres * 1000.0;
    let fits = (0.0..f64::from(i32::MAX)).contains(&millimetres);
    if fits {
        Ok(millimetres as i32)
    } else {
        Err(WebError::Form(format!("{name}: {metres} m is outside of every map")))
    }
}

/// The page to return to, with the number of the audit entry. Only paths of the console are accepted.
fn redirect_target(back: &str, entry: u64) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "/?&=%+-_.".contains(c);
    let is_local = back.starts_with('/') && !back.starts_with("//") && back.chars().all(plain);
    let back = if is_local { back } else { "/" };
    let separator = if back.contains('?') { '&' } else { '?' };
    format!("{back}{separator}done={entry}")
}

/// Shows a one-time link. It is stored nowhere, so it cannot be shown again.
async fn show_link(site: &Site, caller: &Caller, text: &str, link: &str) -> Response {
    let body = html! {
        section.card {
            p { (text) "." }
            p {
                "Send this link to the operator through a channel that you trust. It works once, expires soon, and is "
                "not shown again."
            }
            p { input.wide readonly value=(link) aria-label="One-time link"; }
            p { a.button href="/operators" { "Operators" } }
        }
    };
    layout::page(site, caller, "/operators", &Flash::default(), None, body).await.into_response()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn redirect_target_accepts_only_local_paths() {
        assert_eq!(redirect_target("/players?q=ann", 7), "/players?q=ann&done=7");
        assert_eq!(redirect_target("/", 7), "/?done=7");
        for elsewhere in
            ["", "//evil.example", "https://evil.example", "/\\evil.example", "/x\r\nSet-Cookie: a=b"]
        {
            assert_eq!(redirect_target(elsewhere, 7), "/?done=7");
        }
    }
}
