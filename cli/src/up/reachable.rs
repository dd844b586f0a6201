//! Whether a daemon can be reached at the addresses that it advertises. A cluster whose players are sent to addresses where
//! nothing answers is not ready.

use std::time::Duration;

use anyhow::{Result, bail};
use tokio::{net::TcpStream, time::timeout};
use toml::Table;

use super::plan::{Child, client_setting};
use crate::data_dir::Announcement;

const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);

/// # Errors
/// When nothing accepts a connection at an advertised address. An address for clients that the settings file names is not
/// tried: it may lead through a router that does not serve this machine.
pub async fn check(child: &Child, announced: &Announcement, overrides: &Table) -> Result<()> {
    let service = overrides.get(child.kind.as_str());
    let configured = service.is_some_and(|it| it.get("advertise").is_some());
    let clients = if configured { "" } else { announced.client.as_str() };
    for (whom, address) in [("daemons", announced.grpc.as_str()), ("clients", clients)] {
        if address.is_empty() {
            continue;
        }
        if let Err(why) = connect(address).await {
            let setting = client_setting(child.kind);
            bail!(
                "{} advertises {address} to {whom}, and no connection to it is possible ({why}): give --advertise the host \
                 under which others reach this machine, and --bind an address of this machine; `advertise` in [{}] of \
                 --config names another address than that of `{setting}`",
                child.name,
                child.kind
            );
        }
    }
    Ok(())
}

/// Connects, or says why that is not possible.
pub async fn connect(address: &str) -> Result<(), String> {
    match timeout(CONNECT_TIMEOUT, TcpStream::connect(address)).await {
        Ok(Ok(_)) => Ok(()),
        Ok(Err(error)) => Err(error.to_string()),
        Err(_) => Err(format!("no connection within {CONNECT_TIMEOUT:?}")),
    }
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;
    use crate::up::plan;

    fn announced(client: &str, grpc: &str) -> Announcement {
        let (name, kind) = ("gateway-1".to_owned(), "gateway".to_owned());
        Announcement { name, kind, pid: 1, grpc: grpc.into(), admin: grpc.into(), client: client.into() }
    }

    #[tokio::test]
    async fn unreachable_client_address_is_refused() {
        let child = plan::children(0).into_iter().find(|child| child.name == "gateway-1").unwrap();
        let open = TcpListener::bind("127.0.0.1:0").unwrap();
        let open = open.local_addr().map(|address| (open, address.to_string())).unwrap();
        let closed = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
        check(&child, &announced(&open.1, &open.1), &Table::new()).await.unwrap();
        let refused = check(&child, &announced(&closed, &open.1), &Table::new()).await.unwrap_err();
        assert!(refused.to_string().contains(&format!("gateway-1 advertises {closed}")), "{refused}");
        let refused = check(&child, &announced(&open.1, &closed), &Table::new()).await.unwrap_err();
        assert!(refused.to_string().contains("to daemons"), "{refused}");
        let configured = "[gateway]\nadvertise = \"game.example:7200\"".parse().unwrap();
        check(&child, &announced(&closed, &open.1), &configured).await.unwrap();
    }
}
