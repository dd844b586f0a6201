//! Signing in and out. The sign-in form has no session yet, so its token is tied to a cookie of its own.

use axum::{
    extract::{FromRequestParts, Path, Request, State},
    http::{HeaderMap, HeaderValue, StatusCode, header},
    response::{IntoResponse, Redirect, Response},
};
use shardkeep_types::Secret;

use super::{
    Site,
    caller::{AnyCaller, Fields, VerifiedForm, cookie, origin, read_form, session_cookie, set_cookie},
    error::WebError,
    html::{Markup, html},
    layout,
};
use crate::{
    signin::{Origin, SignInError},
    token::{Token, constant_time_eq},
};

/// Holds the token of the sign-in form.
const FORM_COOKIE: &str = "shardkeep-form";

pub(crate) async fn page(State(site): State<Site>, request: Request) -> Result<Response, WebError> {
    let (mut parts, _) = request.into_parts();
    if AnyCaller::from_request_parts(&mut parts, &site).await.is_ok() {
        return Ok(Redirect::to("/").into_response());
    }
    form(&site, "", None, StatusCode::OK)
}

fn form(
    site: &Site,
    operator: &str,
    error: Option<&SignInError>,
    status: StatusCode,
) -> Result<Response, WebError> {
    let error = error.map(|error| html!("<p class=\"notice bad\" role=\"alert\">{}</p>"; error.to_string()));
    let fields = |token: &str| {
        html!(
            "<section class=\"card narrow\"><h1>Sign in</h1>{}<form method=\"post\" action=\"/sign-in\">"
            "<input type=\"hidden\" name=\"csrf\" value=\"{}\">"
            "<label>Operator <input name=\"operator\" value=\"{}\" required autofocus autocomplete=\"username\"></label>"
            "<label>Password <input name=\"password\" type=\"password\" required "
            "autocomplete=\"current-password\"></label><button class=\"primary\">Sign in</button></form>"
            "<p class=\"hint\">The first time, <code>shardkeep gm link</code> on this machine makes a one-time sign-in \
             link.</p></section>";
            error, token, operator,
        )
    };
    with_form_token(site, "Sign in", status, fields)
}

/// Renders a form whose token is also in a cookie, which other sites can neither read nor set.
fn with_form_token(
    site: &Site,
    title: &str,
    status: StatusCode,
    body: impl FnOnce(&str) -> Markup,
) -> Result<Response, WebError> {
    let token = Token::new().map_err(crate::sessions::SessionError::from)?;
    let cookie = set_cookie(FORM_COOKIE, Some(token.expose()), site.console.config.behind_tls_proxy);
    Ok((
        status,
        [(header::SET_COOKIE, cookie)],
        layout::page_without_navigation(title, &body(token.expose())),
    )
        .into_response())
}

/// The fields of such a form, and where it came from.
async fn read_sign_in_form(site: &Site, request: Request) -> Result<(Fields, Origin), WebError> {
    let (parts, body) = request.into_parts();
    let from = origin(&parts, site.console.config.behind_tls_proxy);
    let expected = cookie(&parts.headers, FORM_COOKIE).unwrap_or_default().to_owned();
    let fields = read_form(Request::from_parts(parts, body)).await?;
    if expected.is_empty() || !constant_time_eq(&expected, fields.get("csrf")) {
        return Err(WebError::Csrf);
    }
    Ok((fields, from))
}

pub(crate) async fn submit(State(site): State<Site>, request: Request) -> Result<Response, WebError> {
    let (fields, from) = read_sign_in_form(&site, request).await?;
    let operator = fields.get("operator").trim();
    let password = Secret::new(fields.get("password").to_owned());
    match site.console.sign_in(operator, password, from).await {
        Ok((token, _)) => Ok(signed_in(&site, &token, "/")),
        Err(
            error @ (SignInError::WrongCredentials | SignInError::Throttled(_) | SignInError::Password(_)),
        ) => {
            let throttled = matches!(error, SignInError::Throttled(_));
            let status = if throttled { StatusCode::TOO_MANY_REQUESTS } else { StatusCode::UNAUTHORIZED };
            form(&site, operator, Some(&error), status)
        }
        Err(error) => Err(error.into()),
    }
}

/// A link asks before it is used up: mail scanners and previews only look.
pub(crate) async fn link_page(
    State(site): State<Site>,
    Path(token): Path<String>,
) -> Result<Response, WebError> {
    let token = Token::parse(&token).ok_or(SignInError::LinkUsed)?;
    with_form_token(&site, "One-time sign-in", StatusCode::OK, |csrf| {
        html!(
            "<section class=\"card narrow\"><h1>One-time sign-in</h1><p>This link signs you in once. You will set a \
             password for next time.</p><form method=\"post\" action=\"/link/{}\">"
            "<input type=\"hidden\" name=\"csrf\" value=\"{}\"><button class=\"primary\" autofocus>Sign in</button>"
            "</form></section>";
            token.expose(), csrf,
        )
    })
}

pub(crate) async fn follow_link(
    State(site): State<Site>,
    Path(token): Path<String>,
    request: Request,
) -> Result<Response, WebError> {
    let (_, from) = read_sign_in_form(&site, request).await?;
    let session = site.console.follow_link(&token, from).await?;
    Ok(signed_in(&site, &session, "/password"))
}

/// Goes on to a page with the cookie of a new session.
pub(crate) fn signed_in(site: &Site, token: &Token, to: &str) -> Response {
    let secure = site.console.config.behind_tls_proxy;
    let mut response = Redirect::to(to).into_response();
    add_cookie(response.headers_mut(), &set_cookie(session_cookie(secure), Some(token.expose()), secure));
    add_cookie(response.headers_mut(), &set_cookie(FORM_COOKIE, None, secure));
    response
}

pub(crate) async fn sign_out(
    State(site): State<Site>,
    VerifiedForm { caller, .. }: VerifiedForm,
) -> Result<Response, WebError> {
    site.console.sessions.close(&caller.session).await?;
    let secure = site.console.config.behind_tls_proxy;
    let mut response = Redirect::to("/sign-in").into_response();
    add_cookie(response.headers_mut(), &set_cookie(session_cookie(secure), None, secure));
    Ok(response)
}

fn add_cookie(headers: &mut HeaderMap, cookie: &str) {
    if let Ok(value) = HeaderValue::from_str(cookie) {
        headers.append(header::SET_COOKIE, value);
    }
}
