//! Honest players: they enter, play a little, leave and enter again during the attack. A visit is the whole path from the DNS
//! look-up to the world and back. It succeeds only if every step succeeds at the first attempt.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use anyhow::{Result, ensure};
use parking_lot::Mutex;
use tokio::{task::JoinSet, time::sleep};
use tokio_util::sync::CancellationToken;

use shardkeep_cli::demo::{
    player::{Bot, Credentials, PlayTarget},
    stats::{Stats, Step},
};

/// Questions asked in the world during a visit, and the pause after each.
const ROUNDS: usize = 5;
const PAUSE: Duration = Duration::from_millis(150);
/// Between two players' first visits.
const ARRIVAL: Duration = Duration::from_millis(25);
/// Failures kept in full; more are counted.
const SHOWN: usize = 5;

/// The visits of one phase.
#[derive(Default)]
pub struct Visits {
    pub stats: Arc<Stats>,
    succeeded: AtomicU64,
    failed: AtomicU64,
    failure_samples: Mutex<Vec<String>>,
}

impl Visits {
    pub fn total(&self) -> u64 {
        self.succeeded.load(Ordering::Relaxed) + self.failed()
    }

    pub fn failed(&self) -> u64 {
        self.failed.load(Ordering::Relaxed)
    }

    /// Share of visits that succeeded, 0.0 to 1.0; 0.0 for a phase without visits.
    pub fn success(&self) -> f64 {
        let total = self.total();
        if total == 0 { 0.0 } else { self.succeeded.load(Ordering::Relaxed) as f64 / total as f64 }
    }

    pub fn failure_samples(&self) -> Vec<String> {
        self.failure_samples.lock().clone()
    }

    fn count(&self, account: &str, visit: Result<()>) {
        match visit {
            Ok(()) => {
                self.succeeded.fetch_add(1, Ordering::Relaxed);
            }
            Err(error) => {
                self.failed.fetch_add(1, Ordering::Relaxed);
                let mut failure_samples = self.failure_samples.lock();
                if failure_samples.len() < SHOWN {
                    failure_samples.push(format!("{account}: {error:#}"));
                }
            }
        }
    }
}

/// Each player visits once, which creates its character and makes its address known to the login servers.
pub async fn first_visits(play_target: &PlayTarget, players: &[Credentials]) -> Result<()> {
    let visits = Arc::new(Visits::default());
    let mut coming = JoinSet::new();
    for player in players {
        sleep(ARRIVAL).await;
        coming.spawn(visit(play_target.clone(), player.clone(), visits.clone()));
    }
    for came in coming.join_all().await {
        came?;
    }
    Ok(())
}

/// Players come and go until `stop`; the visits that have begun are finished.
pub async fn play(
    play_target: &PlayTarget,
    players: &[Credentials],
    stop: &CancellationToken,
) -> Arc<Visits> {
    let visits = Arc::new(Visits::default());
    let mut playing = JoinSet::new();
    for player in players {
        let (play_target, player, visits, stop) =
            (play_target.clone(), player.clone(), visits.clone(), stop.clone());
        playing.spawn(async move {
            while !stop.is_cancelled() {
                let visited = Box::pin(visit(play_target.clone(), player.clone(), visits.clone())).await;
                let failed = visited.is_err();
                visits.count(&player.account, visited);
                if failed {
                    // A player pauses after a failed visit.
                    sleep(PAUSE).await;
                }
            }
        });
        sleep(ARRIVAL).await;
    }
    playing.join_all().await;
    visits
}

async fn visit(play_target: PlayTarget, player: Credentials, visits: Arc<Visits>) -> Result<()> {
    let stats = &visits.stats;
    let bot = Bot::enter(&play_target, &player, stats).await?;
    for _ in 0..ROUNDS {
        stats.measure(Step::RoundTrip, bot.player.inventory()).await?;
        sleep(PAUSE).await;
    }
    let ended = bot.observer.ended();
    ensure!(ended.is_none(), "the session ended: {ended:?}");
    let counts = bot.player.session().counts();
    ensure!(counts.losses == 0, "the connection was lost {} times", counts.losses);
    bot.player.logout().await;
    Ok(())
}
