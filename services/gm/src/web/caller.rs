//! Who asks: the session of a request, and the forms that carry its token.

use std::{
    collections::HashMap,
    net::{IpAddr, Ipv4Addr},
};

use axum::{
    Form,
    extract::{ConnectInfo, FromRequest, FromRequestParts, Request},
    http::{HeaderMap, header, request::Parts},
};

use super::{Site, error::WebError, limited_listener::ClientAddress};
use crate::{clock::now_ms, role::Right, sessions::OperatorSession, signin::Origin, token::Token};

/// Sent by pages that refresh themselves: such a request does not keep a session alive.
const REFRESH_HEADER: &str = "x-live";

/// An operator who is signed in.
pub(crate) struct Caller {
    pub(crate) session: OperatorSession,
    pub(crate) origin: Origin,
}

impl Caller {
    pub(crate) fn may(&self, right: Right) -> bool {
        self.session.role.may(right)
    }

    pub(crate) fn require(&self, right: Right) -> Result<(), WebError> {
        if self.may(right) {
            Ok(())
        } else {
            Err(WebError::Forbidden { right, actual_role: self.session.role })
        }
    }
}

/// Like [`Caller`], also before a password is set.
pub(crate) struct AnyCaller(pub(crate) Caller);

impl FromRequestParts<Site> for AnyCaller {
    type Rejection = WebError;

    async fn from_request_parts(parts: &mut Parts, site: &Site) -> Result<Self, WebError> {
        let secure = site.console.config.behind_tls_proxy;
        let token = cookie(&parts.headers, session_cookie(secure)).and_then(Token::parse);
        let token = token.ok_or(WebError::NotSignedIn)?;
        let used = !parts.headers.contains_key(REFRESH_HEADER) && parts.uri.path() != "/map/events";
        let session = site.console.sessions.find(token, used, now_ms()).await?;
        let session = session.ok_or(WebError::NotSignedIn)?;
        Ok(Self(Caller { session, origin: origin(parts, secure) }))
    }
}

impl FromRequestParts<Site> for Caller {
    type Rejection = WebError;

    async fn from_request_parts(parts: &mut Parts, site: &Site) -> Result<Self, WebError> {
        let AnyCaller(caller) = AnyCaller::from_request_parts(parts, site).await?;
        if caller.session.by_link { Err(WebError::PasswordNotSet) } else { Ok(caller) }
    }
}

/// What a form says.
#[derive(Debug, Default)]
pub(crate) struct Fields(HashMap<String, String>);

impl Fields {
    /// Empty when the form has no such field.
    pub(crate) fn get(&self, name: &str) -> &str {
        self.0.get(name).map(String::as_str).unwrap_or_default()
    }

    /// A number; an empty field is 0.
    pub(crate) fn number<T: std::str::FromStr + Default>(&self, name: &str) -> Result<T, WebError> {
        match self.get(name).trim() {
            "" => Ok(T::default()),
            text => {
                text.parse().map_err(|_| WebError::Form(format!("{name}: {text:?} is not a fitting number")))
            }
        }
    }
}

/// A form that carries the token of the visitor's session.
pub(crate) struct VerifiedForm {
    pub(crate) caller: Caller,
    pub(crate) fields: Fields,
}

impl FromRequest<Site> for VerifiedForm {
    type Rejection = WebError;

    async fn from_request(request: Request, site: &Site) -> Result<Self, WebError> {
        let (mut parts, body) = request.into_parts();
        let AnyCaller(caller) = AnyCaller::from_request_parts(&mut parts, site).await?;
        let fields = read_form(Request::from_parts(parts, body)).await?;
        if !caller.session.csrf_matches(fields.get("csrf")) {
            return Err(WebError::Csrf);
        }
        Ok(Self { caller, fields })
    }
}

pub(crate) async fn read_form(request: Request) -> Result<Fields, WebError> {
    let form = Form::<HashMap<String, String>>::from_request(request, &()).await;
    form.map(|Form(fields)| Fields(fields)).map_err(|rejection| WebError::Form(rejection.to_string()))
}

/// Browsers accept `__Host-` cookies over TLS only, and only without a domain.
pub(crate) fn session_cookie(secure: bool) -> &'static str {
    if secure { "__Host-shardkeep-session" } else { "shardkeep-session" }
}

pub(crate) fn cookie<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    let cookies = headers.get_all(header::COOKIE).iter().filter_map(|value| value.to_str().ok());
    let mut pairs =
        cookies.flat_map(|cookies| cookies.split(';')).filter_map(|pair| pair.trim().split_once('='));
    pairs.find(|(found, _)| *found == name).map(|(_, value)| value)
}

/// A `Set-Cookie` that scripts and other sites cannot use; without a value it deletes.
pub(crate) fn set_cookie(name: &str, value: Option<&str>, secure: bool) -> String {
    let secure = if secure { "; Secure" } else { "" };
    let age = if value.is_none() { "; Max-Age=0" } else { "" };
    format!("{name}={}; Path=/; HttpOnly; SameSite=Strict{secure}{age}", value.unwrap_or_default())
}

/// Behind a proxy its own word, the last of X-Forwarded-For, counts; whatever stands before it anybody can write.
pub(crate) fn origin(parts: &Parts, behind_proxy: bool) -> Origin {
    let connected = parts
        .extensions
        .get::<ConnectInfo<ClientAddress>>()
        .map(|ConnectInfo(ClientAddress(address))| address.ip());
    let forwarded = parts.headers.get_all("x-forwarded-for").iter().next_back();
    let forwarded = forwarded.and_then(|value| value.to_str().ok()?.rsplit(',').next()?.trim().parse().ok());
    let address = forwarded.filter(|_| behind_proxy).or(connected);
    Origin { interface: "web".into(), address: address.unwrap_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED)) }
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

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
        let mut parts = request.into_parts().0;
        parts.extensions.insert(ConnectInfo(ClientAddress(SocketAddr::from(([127, 0, 0, 1], 5)))));
        assert_eq!(origin(&parts, true).address, IpAddr::from([203, 0, 113, 9]));
        assert_eq!(origin(&parts, false).address, IpAddr::from([127, 0, 0, 1]));
    }

    #[test]
    fn set_cookie_is_http_only_same_site_and_secure() {
        let cookie = set_cookie("a", Some("b"), true);
        assert!(cookie.contains("HttpOnly; SameSite=Strict; Secure"), "{cookie}");
        assert!(set_cookie("a", None, false).ends_with("Max-Age=0"));
    }
}
