//! Whatever a player owned before the cluster was stopped is there when it starts again.

use anyhow::{Result, ensure};
use shardkeep_stories::{Actor, trade};
use shardkeep_testkit::Cluster;

#[tokio::test]
async fn belongings_survive_a_restart() -> Result<()> {
    let mut cluster = Cluster::start().await?;
    let ann = Actor::enter(&cluster, "ann").await?;
    let bob = Actor::enter(&cluster, "bob").await?;
    ann.sees(&bob).await?;
    trade(&ann, &bob).await?;
    let (anns, bobs) = (ann.belongings().await?, bob.belongings().await?);
    let names = (ann.name.clone(), bob.name.clone());
    drop((ann, bob));

    cluster.restart().await?;
    let ann = Actor::enter_as(&cluster, &names.0).await?;
    let bob = Actor::enter_as(&cluster, &names.1).await?;
    ensure!(
        ann.belongings().await? == anns && bob.belongings().await? == bobs,
        "something was lost or doubled"
    );
    ensure!(cluster.ledger().await?.holds);
    cluster.stop().await
}
