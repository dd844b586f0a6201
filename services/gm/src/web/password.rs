//! The page on which operators set their own password.

use axum::{
    extract::State,
    http::StatusCode,
    response::{IntoResponse, Response},
};
use maud::html;
use shardkeep_types::Secret;

use super::{
    caller::{AnyCaller, Caller, Fields, VerifiedForm},
    document::plain_page,
    error::WebError,
    layout::csrf,
    sign_in::signed_in,
    site::Site,
};
use crate::password::MIN_CHARS;

const TITLE: &str = "Set a password";

pub(crate) async fn page(AnyCaller(caller): AnyCaller) -> Response {
    form(&caller, None, StatusCode::OK)
}

fn form(caller: &Caller, error: Option<&str>, status: StatusCode) -> Response {
    let body = html! {
        section.card.narrow {
            h1 { (TITLE) }
            @if let Some(error) = error { p.notice.bad role="alert" { (error) } }
            p { "Operator: " strong { (caller.session().operator()) } ". All your other sessions end." }
            form method="post" action="/password" {
                (csrf(caller))
                @if !caller.session().is_by_link() {
                    label {
                        "Current password"
                        input name="current" type="password" required autocomplete="current-password";
                    }
                }
                label {
                    "New password"
                    input name="new" type="password" required autofocus minlength=(MIN_CHARS)
                        autocomplete="new-password";
                }
                label {
                    "New password again"
                    input name="again" type="password" required autocomplete="new-password";
                }
                button.primary { (TITLE) }
            }
        }
    };
    (status, plain_page(TITLE, &body)).into_response()
}

/// Sets the password. The form comes back with an error that the operator can correct.
pub(crate) async fn set(
    State(site): State<Site>,
    VerifiedForm(caller, fields): VerifiedForm,
) -> Result<Response, WebError> {
    match change(&site, &caller, &fields).await {
        Err(error) if error.status().is_client_error() => {
            Ok(form(&caller, Some(&error.to_string()), error.status()))
        }
        changed => changed,
    }
}

async fn change(site: &Site, caller: &Caller, fields: &Fields) -> Result<Response, WebError> {
    if fields.get("new") != fields.get("again") {
        return Err(WebError::Form("the two new passwords differ".into()));
    }
    let secret = |field| Secret::new(fields.get(field).to_owned());
    let (current, new) = (secret("current"), secret("new"));
    let changed = site.console().sign_in().change_password(caller.session(), current, new, caller.origin());
    Ok(signed_in(site, &changed.await?, "/"))
}
