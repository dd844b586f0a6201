//! The whole way in, of the daemons that a player meets: login with password, world list, ticket, attach. Beside it stand
//! the three modular exponentiations that no SRP6a server can do without, in OpenSSL.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering::Relaxed},
};

use anyhow::{Context as _, Result};
use shardkeep_client::login::LoginConnection;

use crate::{
    fixture::{self, Fixture, WORLD},
    load::per_cpu_second,
    srp,
    table::{Benchmark, Outcome, Row},
};

/// Clients that log in at once, each with another account.
const CLIENTS: usize = 64;
/// At most so many, more than the storm's seconds are enough for.
const ACCOUNTS: usize = 6_000;
const PASSWORD: &str = "correct horse battery staple";

pub const ENTRY: Benchmark = Benchmark {
    name: "entry",
    label: "logins with attach per CPU second of login and gateways, 64 clients",
    target: ">= 0.9 (three exponentiations in OpenSSL)",
    run,
};

fn run() -> Result<Outcome> {
    let Some(peer) = srp::openssl()? else { return Ok(Outcome::Skipped(srp::HOW_TO_INSTALL.into())) };
    let ours = fixture::runtime()?.block_on(measure())?;
    Ok(Outcome::Rows(vec![Row {
        case: "",
        ours: format!("{ours:.0} /CPU s"),
        peer: format!("{peer:.0} /s OpenSSL"),
        ratio: Some(ours / peer),
    }]))
}

async fn measure() -> Result<f64> {
    let fixture = Fixture::shared().await?;
    let accounts: Arc<[String]> = (0..ACCOUNTS).map(|number| format!("benchentry{number}")).collect();
    fixture.accounts(&accounts, PASSWORD).await?;
    let next = Arc::new(AtomicUsize::new(0));
    let login = fixture.cluster.announcement("login-1")?;
    let address = login.client.parse().context("login's address")?;
    let mut pids = vec![login.pid];
    for gateway in ["gateway-1", "gateway-2"] {
        pids.push(fixture.cluster.announcement(gateway)?.pid);
    }
    per_cpu_second(&pids, CLIENTS, move |_| {
        let (accounts, next) = (accounts.clone(), next.clone());
        async move {
            let Some(account) = accounts.get(next.fetch_add(1, Relaxed)) else { return Ok(false) };
            let config = &fixture.config;
            let mut select = LoginConnection::open(config, address).await?.log_in(account, PASSWORD).await?;
            let gateway_ticket = select.select(WORLD).await?;
            fixture::attach(config, &gateway_ticket.gateway, &gateway_ticket.ticket).await?;
            Ok(true)
        }
    })
    .await
}
