//! The whole way in, of the daemons that a player meets: login with password, world list, ticket, attach. Beside it stand
//! the three modular exponentiations that no SRP6a server can do without, in OpenSSL.

use std::sync::Arc;

use anyhow::{Context as _, Result};
use shardkeep_client::login::Door;

use crate::{
    load::per_cpu_second,
    site::{self, Site, WORLD},
    srp,
    table::{Measure, Outcome, Row},
};

/// Each has an account of its own, so that nobody takes another's place.
const CLIENTS: usize = 16;
const PASSWORD: &str = "correct horse battery staple";

pub const ENTRY: Measure = Measure {
    name: "entry",
    what: "logins with attach per CPU second of login and gateways, 16 clients",
    reach: ">= 0.9 (three exponentiations in OpenSSL)",
    run,
};

fn run() -> Result<Outcome> {
    let Some(peer) = srp::openssl()? else { return Ok(Outcome::Skipped(srp::HOW_TO_INSTALL.into())) };
    let ours = site::runtime()?.block_on(measure())?;
    Ok(Outcome::Rows(vec![Row {
        case: "",
        ours: format!("{ours:.0} /CPU s"),
        peer: format!("{peer:.0} /s OpenSSL"),
        ratio: Some(ours / peer),
    }]))
}

async fn measure() -> Result<f64> {
    let site = Site::shared().await?;
    let accounts: Arc<[String]> = (0..CLIENTS).map(|number| format!("benchentry{number}")).collect();
    for account in accounts.iter() {
        site.cluster.account(account, PASSWORD).await?;
    }
    let login = site.cluster.announced("login-1")?;
    let door = login.client.parse().context("login's address")?;
    let mut pids = vec![login.pid];
    for gateway in ["gateway-1", "gateway-2"] {
        pids.push(site.cluster.announced(gateway)?.pid);
    }
    per_cpu_second(&pids, CLIENTS, move |client| {
        let accounts = accounts.clone();
        async move {
            let config = &site.config;
            let mut select = Door::open(config, door).await?.log_in(&accounts[client], PASSWORD).await?;
            let boarding = select.select(WORLD).await?;
            site::attach(config, &boarding.gateway, &boarding.ticket).await?;
            Ok(true)
        }
    })
    .await
}
