//! Setting one's own password: after a one-time link without the old one, otherwise with it.

use axum::{
    extract::State,
    response::{Html, Response},
};
use shardkeep_store::operators;
use shardkeep_types::Secret;

use super::{
    Site,
    error::WebError,
    html::html,
    layout::{self, csrf},
    sign_in::signed_in,
    visitor::{Newcomer, Posted, Visitor},
};
use crate::{clock::now_ms, password::SHORTEST, signin::SignInError};

pub(crate) async fn page(Newcomer(visitor): Newcomer) -> Html<String> {
    form(&visitor)
}

fn form(visitor: &Visitor) -> Html<String> {
    let present = (!visitor.signed.by_link).then(|| {
        html!(
            "<label>Present password <input name=\"present\" type=\"password\" required "
            "autocomplete=\"current-password\"></label>"
        )
    });
    let body = html!(
        "<section class=\"card narrow\"><h1>Set a password</h1><p>For the operator <strong>{}</strong>. \
         Every other session of yours ends.</p><form method=\"post\" action=\"/password\">{}{}"
        "<label>New password <input name=\"new\" type=\"password\" required autofocus minlength=\"{}\" "
        "autocomplete=\"new-password\"></label>"
        "<label>Once more <input name=\"again\" type=\"password\" required autocomplete=\"new-password\"></label>"
        "<button class=\"primary\">Set password</button></form></section>";
        visitor.signed.operator, csrf(visitor), present, SHORTEST,
    );
    layout::bare("Set a password", &body)
}

pub(crate) async fn set(
    State(site): State<Site>,
    Posted { visitor, fields }: Posted,
) -> Result<Response, WebError> {
    let console = &site.console;
    let operator = &visitor.signed.operator;
    if !visitor.signed.by_link {
        let present = Secret::new(fields.get("present").to_owned());
        // As at sign-in: throttled, and the attempt is audited.
        let (token, _) = console.sign_in(operator, present, visitor.origin.clone()).await?;
        let attempt = console.sessions.find(token, false, now_ms()).await?;
        if let Some(attempt) = attempt {
            console.sessions.close(&attempt).await?;
        }
    }
    if fields.get("new") != fields.get("again") {
        return Err(WebError::Form("the two new passwords differ".into()));
    }
    let new = Secret::new(fields.get("new").to_owned());
    let hash = console.passwords.hash(new).await.map_err(SignInError::from)?;
    operators::set_password(&console.database, operator, &hash).await?;
    console.note_password(operator, &visitor.origin).await;
    let token = console.sessions.open(operator, false, now_ms()).await?;
    Ok(signed_in(&site, &token, "/"))
}
