//! The operator behind a request, and forms that prove they come from a page of the console.

use std::collections::HashMap;

use axum::{
    Form,
    extract::{FromRequest, FromRequestParts, Request},
    http::{HeaderMap, header, request::Parts},
};

use shardkeep_daemon::{HttpConnection, unix_millis};

use super::{error::WebError, site::Site};
use crate::{origin::Origin, role::Right, sessions::OperatorSession, token::Token};

/// Streams that a page opens by itself. They do not keep a session alive.
const STREAM_PATHS: [&str; 2] = ["/live/", "/map/events"];

/// A signed-in operator.
#[derive(Clone)]
pub(crate) struct Caller {
    session: OperatorSession,
    origin: Origin,
}

impl Caller {
    pub(crate) fn session(&self) -> &OperatorSession {
        &self.session
    }

    pub(crate) fn origin(&self) -> &Origin {
        &self.origin
    }

    pub(crate) fn may(&self, right: Right) -> bool {
        self.session.role().may(right)
    }

    /// The caller with the present state of its session, or `None` when the session has ended.
    pub(crate) async fn refreshed(&self, site: &Site) -> Option<Self> {
        let session = site.console().sessions().refresh(&self.session, unix_millis()).await.ok()??;
        Some(Self { session, origin: self.origin.clone() })
    }

    pub(crate) fn require(&self, right: Right) -> Result<(), WebError> {
        if self.may(right) {
            Ok(())
        } else {
            Err(WebError::Forbidden { right, actual_role: self.session.role() })
        }
    }
}

/// Like [`Caller`], but accepts an operator who has not set a password yet.
pub(crate) struct AnyCaller(pub(crate) Caller);

impl FromRequestParts<Site> for AnyCaller {
    type Rejection = WebError;

    async fn from_request_parts(parts: &mut Parts, site: &Site) -> Result<Self, WebError> {
        let secure = site.is_behind_tls_proxy();
        let token = cookie(&parts.headers, session_cookie(secure)).and_then(Token::parse);
        let token = token.ok_or(WebError::NotSignedIn)?;
        let used = !STREAM_PATHS.iter().any(|path| parts.uri.path().starts_with(path));
        let session = site.console().sessions().find(token, used, unix_millis()).await?;
        let session = session.ok_or(WebError::NotSignedIn)?;
        if let Some(connection) = parts.extensions.get::<HttpConnection>() {
            connection.authenticated();
        }
        Ok(Self(Caller { session, origin: origin(parts, secure) }))
    }
}

impl FromRequestParts<Site> for Caller {
    type Rejection = WebError;

    async fn from_request_parts(parts: &mut Parts, site: &Site) -> Result<Self, WebError> {
        let AnyCaller(caller) = AnyCaller::from_request_parts(parts, site).await?;
        if caller.session.is_by_link() { Err(WebError::PasswordNotSet) } else { Ok(caller) }
    }
}

/// The fields of a form.
#[derive(Debug, Default)]
pub(crate) struct Fields(HashMap<String, String>);

impl Fields {
    /// A field, or an empty text if the form has none of this name.
    pub(crate) fn get(&self, name: &str) -> &str {
        self.0.get(name).map(String::as_str).unwrap_or_default()
    }

    /// A number; an empty field is 0.
    pub(crate) fn number<T: std::str::FromStr + Default>(&self, name: &str) -> Result<T, WebError> {
        match self.get(name).trim() {
            "" => Ok(T::default()),
            text => {
                text.parse().map_err(|_| WebError::Form(format!("{name}: {text:?} is not a number in range")))
            }
        }
    }
}

/// A form with the token of the operator's session.
pub(crate) struct VerifiedForm(pub(crate) Caller, pub(crate) Fields);

impl FromRequest<Site> for VerifiedForm {
    type Rejection = WebError;

    async fn from_request(request: Request, site: &Site) -> Result<Self, WebError> {
        let (mut parts, body) = request.into_parts();
        let AnyCaller(caller) = AnyCaller::from_request_parts(&mut parts, site).await?;
        let fields = read_form(Request::from_parts(parts, body)).await?;
        if !caller.session.csrf_matches(fields.get("csrf")) {
            return Err(WebError::Csrf);
        }
        Ok(Self(caller, fields))
    }
}

pub(crate) async fn read_form(request: Request) -> Result<Fields, WebError> {
    let form = Form::<HashMap<String, String>>::from_request(request, &()).await;
    form.map(|Form(fields)| Fields(fields)).map_err(|rejection| WebError::Form(rejection.to_string()))
}

/// Browsers accept a cookie with the prefix `__Host-` only over TLS and without a domain.
pub(crate) fn session_cookie(secure: bool) -> &'static str {
    if secure { "__Host-shardkeep-session" } else { "shardkeep-session" }
}

pub(crate) fn cookie<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    let cookies = headers.get_all(header::COOKIE).iter().filter_map(|value| value.to_str().ok());
    let mut pairs =
        cookies.flat_map(|cookies| cookies.split(';')).filter_map(|pair| pair.trim().split_once('='));
    pairs.find(|(found, _)| *found == name).map(|(_, value)| value)
}

/// The value of `Set-Cookie` for a cookie that scripts and other sites cannot use. No value deletes the cookie.
pub(crate) fn set_cookie(name: &str, value: Option<&str>, secure: bool) -> String {
    let secure = if secure { "; Secure" } else { "" };
    let age = if value.is_none() { "; Max-Age=0" } else { "" };
    format!("{name}={}; Path=/; HttpOnly; SameSite=Strict{secure}{age}", value.unwrap_or_default())
}

/// The origin of a request. Behind a proxy the last address of X-Forwarded-For counts, because the proxy has written
/// it. A client can forge the addresses before it.
pub(crate) fn origin(parts: &Parts, behind_proxy: bool) -> Origin {
    let connected = parts.extensions.get::<HttpConnection>().map(|connection| connection.address().ip());
    let forwarded = parts.headers.get_all("x-forwarded-for").iter().next_back();
    let forwarded = forwarded.and_then(|value| value.to_str().ok()?.rsplit(',').next()?.trim().parse().ok());
    Origin::web(forwarded.filter(|_| behind_proxy).or(connected))
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderValue;

    use super::*;

    #[test]
    fn cookie_lookup_matches_the_whole_name() {
        let mut headers = HeaderMap::new();
        headers.insert(header::COOKIE, HeaderValue::from_static("xshardkeep-session=1; shardkeep-session=2"));
        assert_eq!(cookie(&headers, "shardkeep-session"), Some("2"));
        assert_eq!(cookie(&headers, "session"), None);
    }

    #[test]
    fn forwarded_address_is_used_only_behind_a_proxy() {
        let request = Request::builder().header("x-forwarded-for", "1.2.3.4, 203.0.113.9").body(()).unwrap();
        let parts = request.into_parts().0;
        assert_eq!(origin(&parts, true).to_string(), "web 203.0.113.9");
        assert_eq!(origin(&parts, false).to_string(), "web");
    }

    #[test]
    fn set_cookie_is_http_only_same_site_and_secure() {
        let cookie = set_cookie("a", Some("b"), true);
        assert!(cookie.contains("HttpOnly; SameSite=Strict; Secure"), "{cookie}");
        assert!(set_cookie("a", None, false).ends_with("Max-Age=0"));
    }
}
