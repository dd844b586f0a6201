//! After a restart of the cluster a player owns the same as before.

use anyhow::{Result, ensure};
use shardkeep_stories::{Actor, trade};
use shardkeep_testkit::Cluster;

#[tokio::test]
async fn inventory_survives_cluster_restart() -> Result<()> {
    let mut cluster = Cluster::start().await?;
    let ann = Actor::enter(&cluster, "ann").await?;
    let bob = Actor::enter(&cluster, "bob").await?;
    ann.sees(&bob).await?;
    trade(&ann, &bob).await?;
    let (anns, bobs) = (ann.coins_and_items().await?, bob.coins_and_items().await?);
    let names = (ann.name.clone(), bob.name.clone());
    drop((ann, bob));

    cluster.restart().await?;
    let ann = Actor::enter_as(&cluster, &names.0).await?;
    let bob = Actor::enter_as(&cluster, &names.1).await?;
    ensure!(
        ann.coins_and_items().await? == anns && bob.coins_and_items().await? == bobs,
        "something was lost or doubled"
    );
    ensure!(cluster.ledger().await?.holds);
    cluster.stop().await
}
