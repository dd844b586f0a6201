//! Reports a database or Redis server that does not answer before the daemons wait for it.

use super::{plan::ClusterOptions, reachable::connect};
use crate::terminal::emit;

/// Prints which server does not answer, and why. The daemons that need it wait for it.
pub async fn report_unreachable(options: &ClusterOptions) {
    let servers = [("PostgreSQL", &options.postgres, 5432), ("Redis", &options.redis, 6379)];
    for (what, url, port) in servers {
        let Some(address) = url.as_deref().and_then(|url| address(url, port)) else { continue };
        if let Err(why) = connect(&address).await {
            emit(format_args!("{what} at {address} does not answer ({why}); waiting for it"));
        }
    }
}

/// `host:port` of a URL; `None` when it names no host, as for a socket in the file system.
fn address(url: &str, default_port: u16) -> Option<String> {
    let authority = url.split_once("://")?.1.split(['/', '?']).next()?;
    let host = authority.rsplit_once('@').map_or(authority, |(_, host)| host);
    if host.is_empty() {
        return None;
    }
    let has_port = host.rsplit_once(':').is_some_and(|(_, port)| !port.contains(']'));
    Some(if has_port { host.to_owned() } else { format!("{host}:{default_port}") })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn server_address_is_parsed_from_url() {
        for (url, expected) in [
            ("postgres://me:se@cret@db.example:5433/game", Some("db.example:5433")),
            ("postgres://me@db.example/game?sslmode=require", Some("db.example:5432")),
            ("postgres://[::1]/game", Some("[::1]:5432")),
            ("postgres://[::1]:5433", Some("[::1]:5433")),
            ("postgres:///game?host=/run/postgresql", None),
        ] {
            assert_eq!(address(url, 5432).as_deref(), expected, "{url}");
        }
    }

    #[tokio::test]
    async fn connection_error_names_the_cause() {
        let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        assert!(connect(&free.to_string()).await.unwrap_err().contains("refused"));
    }
}
