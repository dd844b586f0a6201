//! Daemons are killed with SIGKILL while people play: sessions go on, and nothing is lost or doubled.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use shardkeep_client::game::{Happening, View};
use shardkeep_stories::{Actor, Backing, SOON, trade};
use shardkeep_testkit::Cluster;

/// Two players in a cluster of their own.
struct Scene {
    cluster: Cluster,
    ann: Actor,
    bob: Actor,
}

impl Scene {
    async fn open(cluster: Cluster) -> Result<Self> {
        let ann = Actor::enter(&cluster, "ann").await?;
        let bob = Actor::enter(&cluster, "bob").await?;
        ann.sees(&bob).await?;
        Ok(Self { cluster, ann, bob })
    }

    /// Play goes on: they see each other move, and trade; the books are in order.
    async fn plays_on(&mut self) -> Result<()> {
        self.ann.sees(&self.bob).await?;
        self.bob.sees(&self.ann).await?;
        let ann = self.ann.entity()?;
        for speed in [1_200, 1_400] {
            self.ann.player.walk(0, speed).await?;
            let moves = |view: &View| view.entity(ann).filter(|it| it.velocity == [0, speed]).map(drop);
            self.bob.player.until(SOON, moves).await.context("bob does not see ann move")?;
        }
        self.ann.player.stop().await?;
        let (anns, bobs) = (self.ann.belongings().await?, self.bob.belongings().await?);
        // Back and forth, so that nobody runs out of gifts.
        let (giver, taker) =
            if anns.1.len() >= bobs.1.len() { (&self.ann, &self.bob) } else { (&self.bob, &self.ann) };
        trade(giver, taker).await?;
        let (anns_now, bobs_now) = (self.ann.belongings().await?, self.bob.belongings().await?);
        ensure!(
            anns.1.len() + bobs.1.len() == anns_now.1.len() + bobs_now.1.len(),
            "items were lost or doubled"
        );
        ensure!(anns.0 + bobs.0 == anns_now.0 + bobs_now.0, "coins were lost or doubled");
        self.books().await
    }

    async fn books(&self) -> Result<()> {
        let ledger = self.cluster.ledger().await?;
        ensure!(ledger.holds, "{:?}", ledger.faults);
        Ok(())
    }

    /// Nobody had to log in again.
    fn sessions_live(&mut self) -> Result<()> {
        for actor in [&mut self.ann, &mut self.bob] {
            while let Some(happening) = actor.happenings.try_next() {
                if let Happening::Ended(end) = happening {
                    anyhow::bail!("{}: the session ended: {end}", actor.name);
                }
            }
        }
        Ok(())
    }
}

/// Every daemon once, play going on after each.
async fn each_is_killed(cluster: Cluster) -> Result<()> {
    let mut scene = Scene::open(cluster).await?;
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
        scene.cluster.kill_and_heal(daemon).await?;
        scene.plays_on().await.with_context(|| format!("after {daemon} was killed"))?;
        scene.sessions_live().with_context(|| format!("after {daemon} was killed"))?;
    }
    // And newcomers still find in.
    let carol = Actor::enter(&scene.cluster, "carol").await?;
    carol.sees(&scene.ann).await?;
    scene.cluster.stop().await
}

#[tokio::test]
async fn every_daemon_is_killed_once() -> Result<()> {
    each_is_killed(Cluster::start().await?).await
}

#[tokio::test]
async fn every_daemon_is_killed_once_on_postgres_and_redis() -> Result<()> {
    let backing = Backing::servers().await;
    each_is_killed(Cluster::start_with(backing.stores(), None).await?).await
}

/// Trades go on while dbcache is killed again and again, so that some kill falls between a commit and its answer.
/// Whatever the moment, each gift ends with exactly one of the two.
#[tokio::test]
async fn dbcache_dies_in_the_middle_of_trades() -> Result<()> {
    let scene = Scene::open(Cluster::start().await?).await?;
    let before = scene.ann.belongings().await?.1.len() + scene.bob.belongings().await?.1.len();
    for round in 0..4 {
        let (giver, taker) = if round % 2 == 0 { (&scene.ann, &scene.bob) } else { (&scene.bob, &scene.ann) };
        let killing = async {
            // Different moments of the trade, not a wait for something to happen.
            tokio::time::sleep(Duration::from_millis(60 + 70 * round)).await;
            scene.cluster.kill_and_heal("dbcache-1").await
        };
        let (traded, healed) = tokio::join!(trade(giver, taker), killing);
        healed?;
        let gift = traded.context("the trade was not repeated to its end")?;
        let (givers, takers) = (giver.belongings().await?.1, taker.belongings().await?.1);
        ensure!(
            !givers.contains(&gift) && takers.contains(&gift),
            "item {gift} is not where the trade put it"
        );
    }
    let after = scene.ann.belongings().await?.1.len() + scene.bob.belongings().await?.1.len();
    ensure!(before == after, "{before} items became {after}");
    scene.books().await?;
    scene.cluster.stop().await
}
