//! From a URL to a Redis client.

use std::time::Duration;

use redis::{Client, TlsCertificates};

use crate::error::OpenError;

/// Time limit for a connection, and for the answer to a command.
pub(super) const RESPONSE_TIMEOUT: Duration = Duration::from_secs(2);

/// The query parameter of a `rediss://` URL that names a file with the trusted authority. PostgreSQL calls it the same.
const AUTHORITY: &str = "sslrootcert=";

pub(super) fn client(url: &str) -> Result<Client, OpenError> {
    if !["redis://", "rediss://"].iter().any(|scheme| url.starts_with(scheme)) {
        return Err(OpenError::Scheme(shardkeep_types::mask_url(url)));
    }
    let Some((place, query)) = url.split_once('?') else {
        return Client::open(url).map_err(OpenError::Address);
    };
    let (authority, others): (Vec<&str>, Vec<&str>) =
        query.split('&').partition(|parameter| parameter.starts_with(AUTHORITY));
    let Some(path) = authority.first().and_then(|parameter| parameter.strip_prefix(AUTHORITY)) else {
        return Client::open(url).map_err(OpenError::Address);
    };
    let root_cert =
        std::fs::read(path).map_err(|source| OpenError::Authority { path: path.to_owned(), source })?;
    let url = if others.is_empty() { place.to_owned() } else { format!("{place}?{}", others.join("&")) };
    let certificates = TlsCertificates { client_tls: None, root_cert: Some(root_cert) };
    Client::build_with_tls(url, certificates).map_err(OpenError::Address)
}
