//! Daemons are killed with SIGKILL while players play. Sessions survive, and no item is lost or duplicated.

use anyhow::{Context as _, Result, ensure};
use shardkeep_client::game::{GameEvent, View};
use shardkeep_stories::{Actor, StoreBackend, TIMEOUT, trade};
use shardkeep_testkit::Cluster;

/// A cluster with two players.
struct Scenario {
    cluster: Cluster,
    ann: Actor,
    bob: Actor,
}

impl Scenario {
    async fn open(cluster: Cluster) -> Result<Self> {
        let ann = Actor::enter(&cluster, "ann").await?;
        let bob = Actor::enter(&cluster, "bob").await?;
        ann.sees(&bob).await?;
        Ok(Self { cluster, ann, bob })
    }

    /// The players see each other move, trade, and conservation holds.
    async fn assert_play_continues(&mut self) -> Result<()> {
        self.ann.sees(&self.bob).await?;
        self.bob.sees(&self.ann).await?;
        let ann = self.ann.entity()?;
        for speed in [1_200, 1_400] {
            self.ann.player.walk(0, speed).await?;
            let moves = |view: &View| view.entity(ann).filter(|it| it.velocity == [0, speed]).map(drop);
            self.bob.player.wait_until(TIMEOUT, moves).await.context("bob does not see ann move")?;
        }
        self.ann.player.stop().await?;
        let (anns, bobs) = (self.ann.coins_and_items().await?, self.bob.coins_and_items().await?);
        // The player with more items gives one.
        let (giver, taker) =
            if anns.1.len() >= bobs.1.len() { (&self.ann, &self.bob) } else { (&self.bob, &self.ann) };
        trade(giver, taker).await?;
        let (anns_now, bobs_now) = (self.ann.coins_and_items().await?, self.bob.coins_and_items().await?);
        ensure!(
            anns.1.len() + bobs.1.len() == anns_now.1.len() + bobs_now.1.len(),
            "items were lost or doubled"
        );
        ensure!(anns.0 + bobs.0 == anns_now.0 + bobs_now.0, "coins were lost or doubled");
        self.assert_ledger_holds().await
    }

    async fn assert_ledger_holds(&self) -> Result<()> {
        let ledger = self.cluster.ledger().await?;
        ensure!(ledger.holds, "{:?}", ledger.faults);
        Ok(())
    }

    /// No session has ended.
    fn assert_sessions_alive(&mut self) -> Result<()> {
        for actor in [&mut self.ann, &mut self.bob] {
            while let Some(event) = actor.events.try_next() {
                if let GameEvent::Ended(end) = event {
                    anyhow::bail!("{}: the session ended: {end}", actor.name);
                }
            }
        }
        Ok(())
    }
}

/// Every daemon once, play going on after each.
async fn kill_each_daemon(cluster: Cluster) -> Result<()> {
    let mut scenario = Scenario::open(cluster).await?;
    for daemon in [
        "registry-1",
        "logs-1",
        "dbcache-1",
        "world-1",
        "ai-1",
        "zone-1",
        "zone-2",
        "chat-1",
        "billing-1",
        "gateway-1",
        "gateway-2",
        "login-1",
        "dns-1",
        "gm-1",
    ] {
        scenario.cluster.kill_and_wait_for_restart(daemon).await?;
        scenario.assert_play_continues().await.with_context(|| format!("after {daemon} was killed"))?;
        scenario.assert_sessions_alive().with_context(|| format!("after {daemon} was killed"))?;
    }
    // New players can enter.
    let carol = Actor::enter(&scenario.cluster, "carol").await?;
    carol.sees(&scenario.ann).await?;
    scenario.cluster.stop().await
}

#[tokio::test]
async fn every_daemon_is_killed_once() -> Result<()> {
    kill_each_daemon(Cluster::start().await?).await
}

#[tokio::test]
async fn every_daemon_is_killed_once_on_postgres_and_redis() -> Result<()> {
    let backing = StoreBackend::servers().await;
    kill_each_daemon(Cluster::start_with(backing.stores(), None).await?).await
}

/// dbcache dies between the commit of a trade and its answer. The zone repeats the action, and the trade completes once.
#[tokio::test]
async fn trade_completes_once_when_dbcache_dies_between_commit_and_answer() -> Result<()> {
    let scenario = Scenario::open(Cluster::start().await?).await?;
    // Arms the fault in dbcache; see `services/dbcache/src/fault_point.rs`.
    let fault = scenario.cluster.data_dir().join("db/fault-after-commit");
    let before =
        scenario.ann.coins_and_items().await?.1.len() + scenario.bob.coins_and_items().await?.1.len();
    for round in 0..2 {
        let (giver, taker) =
            if round == 0 { (&scenario.ann, &scenario.bob) } else { (&scenario.bob, &scenario.ann) };
        let dying = scenario.cluster.announcement("dbcache-1")?;
        std::fs::write(&fault, "trade")?;
        let item = trade(giver, taker).await.context("the trade was not repeated to its end")?;
        ensure!(!fault.exists(), "dbcache did not die at the commit of the trade; is it a release build?");
        scenario.cluster.wait_for_restart(&dying).await?;
        let (givers, takers) = (giver.coins_and_items().await?.1, taker.coins_and_items().await?.1);
        ensure!(
            !givers.contains(&item) && takers.contains(&item),
            "item {item} is not where the trade put it"
        );
    }
    let after = scenario.ann.coins_and_items().await?.1.len() + scenario.bob.coins_and_items().await?.1.len();
    ensure!(before == after, "{before} items became {after}");
    scenario.assert_ledger_holds().await?;
    scenario.cluster.stop().await
}
