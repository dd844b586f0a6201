//! An operator moves players away from flooded addresses: after one command the next DNS answer names other addresses.

use anyhow::{Context as _, Result, ensure};
use shardkeep_client::dns::Resolver;
use shardkeep_testkit::{Cluster, Stores};

const SETTINGS: &str = "[dns.pools.shelter]\nlogin = [\"198.51.100.9:3724\"]\n";
const LOGIN: &str = "login.shardkeep.test";

#[tokio::test]
async fn dns_pool_switch_is_in_the_next_answer() -> Result<()> {
    let cluster = Cluster::start_with(Stores::default(), Some(SETTINGS)).await?;
    let resolver = Resolver::new(cluster.dns()?.parse().context("the DNS server's address")?);
    let live = resolver.service(LOGIN).await?;
    let shelter = vec!["198.51.100.9:3724".parse()?];
    ensure!(live != shelter);
    for (pool, addresses) in [("shelter", shelter), ("live", live)] {
        let output = cluster.run_cli(&["dns", "switch", pool], "").await?;
        ensure!(output.contains(&format!("dns-1: answering from {pool}")), "{output}");
        ensure!(resolver.service(LOGIN).await? == addresses, "{pool} is not in the answer after it");
    }
    cluster.stop().await
}
