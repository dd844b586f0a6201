//! Setting one's own password: after a one-time link without the old one, otherwise with it.

use axum::{
    extract::State,
    http::StatusCode,
    response::{IntoResponse, Response},
};
use shardkeep_store::operators;
use shardkeep_types::Secret;

use super::{
    Site,
    caller::{AnyCaller, Caller, Fields, VerifiedForm},
    error::WebError,
    html::html,
    layout::{self, csrf},
    sign_in::signed_in,
};
use crate::{clock::now_ms, password::MIN_CHARS, signin::SignInError};

pub(crate) async fn page(AnyCaller(caller): AnyCaller) -> Response {
    form(&caller, None, StatusCode::OK)
}

fn form(caller: &Caller, error: Option<&str>, status: StatusCode) -> Response {
    let error = error.map(|error| html!("<p class=\"notice bad\" role=\"alert\">{}</p>"; error));
    let current = (!caller.session.by_link).then(|| {
        html!(
            "<label>Present password <input name=\"present\" type=\"password\" required "
            "autocomplete=\"current-password\"></label>"
        )
    });
    let body = html!(
        "<section class=\"card narrow\"><h1>Set a password</h1>{}<p>For the operator <strong>{}</strong>. \
         Every other session of yours ends.</p><form method=\"post\" action=\"/password\">{}{}"
        "<label>New password <input name=\"new\" type=\"password\" required autofocus minlength=\"{}\" "
        "autocomplete=\"new-password\"></label>"
        "<label>Once more <input name=\"again\" type=\"password\" required autocomplete=\"new-password\"></label>"
        "<button class=\"primary\">Set password</button></form></section>";
        error, caller.session.operator, csrf(caller), current, MIN_CHARS,
    );
    (status, layout::page_without_navigation("Set a password", &body)).into_response()
}

/// What the operator can put right comes back with the form.
pub(crate) async fn set(
    State(site): State<Site>,
    VerifiedForm { caller, fields }: VerifiedForm,
) -> Result<Response, WebError> {
    match change(&site, &caller, &fields).await {
        Ok(done) => Ok(done),
        Err(error) if error.status().is_client_error() => {
            Ok(form(&caller, Some(&error.to_string()), error.status()))
        }
        Err(error) => Err(error),
    }
}

async fn change(site: &Site, caller: &Caller, fields: &Fields) -> Result<Response, WebError> {
    let console = &site.console;
    let operator = &caller.session.operator;
    if fields.get("new") != fields.get("again") {
        return Err(WebError::Form("the two new passwords differ".into()));
    }
    if !caller.session.by_link {
        let current = Secret::new(fields.get("present").to_owned());
        // As at sign-in: throttled, and the attempt is audited.
        let (token, _) = match console.sign_in(operator, current, caller.origin.clone()).await {
            Err(SignInError::WrongCredentials) => return Err(WebError::WrongCurrentPassword),
            signed_in => signed_in?,
        };
        let attempt = console.sessions.find(token, false, now_ms()).await?;
        if let Some(attempt) = attempt {
            console.sessions.close(&attempt).await?;
        }
    }
    let new = Secret::new(fields.get("new").to_owned());
    let hash = console.passwords.hash(new).await.map_err(SignInError::from)?;
    operators::set_password(&console.database, operator, &hash).await?;
    console.record_password_change(operator, &caller.origin).await;
    let token = console.sessions.open(operator, false, now_ms()).await?;
    Ok(signed_in(site, &token, "/"))
}
