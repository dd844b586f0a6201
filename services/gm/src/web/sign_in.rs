//! The pages to sign in and out. The sign-in form has no session yet, so its token is also in a cookie.

use axum::{
    extract::{FromRequestParts, Path, Request, State},
    http::{HeaderMap, HeaderValue, StatusCode, header},
    response::{IntoResponse, Redirect, Response},
};
use maud::{Markup, html};
use shardkeep_types::Secret;

use super::{
    caller::{AnyCaller, Fields, VerifiedForm, cookie, origin, read_form, session_cookie, set_cookie},
    document::plain_page,
    elements::hidden,
    error::WebError,
    site::Site,
};
use crate::{
    origin::Origin,
    sessions::SessionError,
    sign_in::SignInError,
    token::{Token, constant_time_eq},
};

/// The cookie with the token of the sign-in form.
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
    let body = |csrf: &str| {
        html! {
            section.card.narrow {
                h1 { "Sign in" }
                @if let Some(error) = error { p.notice.bad role="alert" { (error) } }
                form method="post" action="/sign-in" {
                    (hidden("csrf", csrf))
                    label {
                        "Operator"
                        input name="operator" value=(operator) required autofocus autocomplete="username";
                    }
                    label {
                        "Password"
                        input name="password" type="password" required autocomplete="current-password";
                    }
                    button.primary { "Sign in" }
                }
                p.hint {
                    "If you have no password yet, run " code { "shardkeep gm link" } " on a machine with the certificate "
                    "of the command line. It prints a one-time link."
                }
            }
        }
    };
    with_form_token(site, "Sign in", status, body)
}

/// Renders a form whose token is also in a cookie. Other sites can neither read nor set that cookie.
fn with_form_token(
    site: &Site,
    title: &str,
    status: StatusCode,
    body: impl FnOnce(&str) -> Markup,
) -> Result<Response, WebError> {
    let token = Token::new().map_err(SessionError::from)?;
    let cookie = set_cookie(FORM_COOKIE, Some(token.expose()), site.is_behind_tls_proxy());
    let page = plain_page(title, &body(token.expose()));
    Ok((status, [(header::SET_COOKIE, cookie)], page).into_response())
}

/// The fields of such a form and the origin of the request.
async fn read_sign_in_form(site: &Site, request: Request) -> Result<(Fields, Origin), WebError> {
    let (parts, body) = request.into_parts();
    let from = origin(&parts, site.is_behind_tls_proxy());
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
    match site.console().sign_in().by_password(operator, password, &from).await {
        Ok(opened) => Ok(signed_in(&site, &opened.token, "/")),
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

/// Asks for a click before the link is used up, because mail scanners and previews open links too.
pub(crate) async fn link_page(
    State(site): State<Site>,
    Path(token): Path<String>,
) -> Result<Response, WebError> {
    let token = Token::parse(&token).ok_or(SignInError::LinkUsed)?;
    let body = |csrf: &str| {
        html! {
            section.card.narrow {
                h1 { "One-time sign-in" }
                p { "This link signs you in once. You set a password in the next step." }
                form method="post" action={ "/link/" (token.expose()) } {
                    (hidden("csrf", csrf))
                    button.primary autofocus { "Sign in" }
                }
            }
        }
    };
    with_form_token(&site, "One-time sign-in", StatusCode::OK, body)
}

pub(crate) async fn follow_link(
    State(site): State<Site>,
    Path(token): Path<String>,
    request: Request,
) -> Result<Response, WebError> {
    let (_, from) = read_sign_in_form(&site, request).await?;
    let session = site.console().sign_in().by_link(&token, &from).await?;
    Ok(signed_in(&site, &session, "/password"))
}

/// Redirects to a page and sets the cookie of a new session.
pub(crate) fn signed_in(site: &Site, token: &Token, to: &str) -> Response {
    let secure = site.is_behind_tls_proxy();
    let mut response = Redirect::to(to).into_response();
    add_cookie(response.headers_mut(), &set_cookie(session_cookie(secure), Some(token.expose()), secure));
    add_cookie(response.headers_mut(), &set_cookie(FORM_COOKIE, None, secure));
    response
}

pub(crate) async fn sign_out(
    State(site): State<Site>,
    VerifiedForm(caller, _): VerifiedForm,
) -> Result<Response, WebError> {
    site.console().sessions().close(caller.session()).await?;
    let secure = site.is_behind_tls_proxy();
    let mut response = Redirect::to("/sign-in").into_response();
    add_cookie(response.headers_mut(), &set_cookie(session_cookie(secure), None, secure));
    Ok(response)
}

fn add_cookie(headers: &mut HeaderMap, cookie: &str) {
    if let Ok(value) = HeaderValue::from_str(cookie) {
        headers.append(header::SET_COOKIE, value);
    }
}
