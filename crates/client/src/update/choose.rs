//! Which release to install. While a release rolls out, and where mirrors lag, servers have published different ones:
//! all are asked, and the newest that a trusted key has signed counts. What a server merely claims decides nothing.

use std::{
    cmp::Reverse,
    net::SocketAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use shardkeep_patch::{ChunkId, Manifest, PublicKey, Signed};
use shardkeep_wire::payload::PublishedRelease;
use tokio::{
    task::JoinSet,
    time::{sleep, timeout_at},
};

use super::{Options, PAUSE, Server, UpdateError};
use crate::{ClientError, Config, random};

/// How long the others may take once one has answered: a server that is down should keep nobody waiting.
const OTHERS: Duration = Duration::from_secs(1);

/// A release that is believed.
pub(super) struct Chosen {
    /// Of the signed manifest.
    id: ChunkId,
    pub(super) manifest: Arc<Manifest>,
}

/// The newest release there is, patiently: nothing is given up before that time.
///
/// # Errors
/// No server has one that can be believed.
pub(super) async fn newest(
    config: &Config,
    servers: &[SocketAddr],
    options: &Options,
) -> Result<Chosen, UpdateError> {
    let (begun, mut pause) = (Instant::now(), PAUSE.0);
    loop {
        match Box::pin(attempt(config, servers, &options.keys)).await {
            Err(error) if error.may_pass() && begun.elapsed() < options.patience => {}
            done => return done,
        }
        sleep(random::jitter(pause)).await;
        pause = (pause * 2).min(PAUSE.1);
    }
}

async fn attempt(config: &Config, servers: &[SocketAddr], keys: &[PublicKey]) -> Result<Chosen, UpdateError> {
    let (offers, mut failed) = offers(config, servers, Some(OTHERS)).await;
    for offer in offers {
        match offer.manifest(keys).await {
            Ok(chosen) => return Ok(chosen),
            Err(error) => failed = Some(more_telling(failed, error)),
        }
    }
    Err(failed.unwrap_or_else(|| ClientError::Timeout("an address of the update service").into()))
}

/// Whether this release is not the one to install any more: a newer one is out, or all servers are here and none of them
/// has published it. A server that cannot be asked may still have it.
pub(super) async fn is_replaced(
    config: &Config,
    servers: &[SocketAddr],
    keys: &[PublicKey],
    ours: &Chosen,
) -> bool {
    let (offers, failed) = offers(config, servers, None).await;
    let taken_back = failed.is_none() && !offers.iter().any(|offer| offer.is_of(ours));
    for offer in offers {
        if offer.is_of(ours) {
            return false;
        }
        if let Ok(other) = offer.manifest(keys).await {
            return taken_back || other.sequence() > ours.sequence();
        }
    }
    false
}

impl Chosen {
    fn sequence(&self) -> u64 {
        self.manifest.release().sequence
    }
}

/// What a server says that it has published.
struct Offer {
    server: Server,
    release: PublishedRelease,
}

impl Offer {
    fn is_of(&self, chosen: &Chosen) -> bool {
        self.release.manifest_id == chosen.id.as_bytes()
    }

    async fn manifest(mut self, keys: &[PublicKey]) -> Result<Chosen, UpdateError> {
        let bytes = self.server.manifest(&self.release).await?;
        let manifest = Signed::parse(&bytes)?.trusted(keys)?;
        // Or a high number on an old release would keep players from the new one.
        if manifest.release().sequence != self.release.sequence {
            return Err(UpdateError::WrongManifest);
        }
        Ok(Chosen { id: ChunkId::of(&bytes), manifest: Arc::new(manifest) })
    }
}

/// What the servers offer, the newest first; and why one that has none did not answer. Once one has answered, the others
/// have so long.
async fn offers(
    config: &Config,
    servers: &[SocketAddr],
    others: Option<Duration>,
) -> (Vec<Offer>, Option<UpdateError>) {
    let mut asked = JoinSet::new();
    for (place, address) in servers.iter().copied().enumerate() {
        if servers[..place].contains(&address) {
            continue;
        }
        let config = config.clone();
        asked.spawn(async move { (place, Box::pin(ask(&config, address)).await) });
    }
    let (mut offers, mut failed, mut until) = (Vec::new(), None, None);
    loop {
        let answer = match until {
            Some(until) => timeout_at(until, asked.join_next()).await.unwrap_or_default(),
            None => asked.join_next().await,
        };
        match answer {
            Some(Ok((place, Ok(offer)))) => {
                offers.push((place, offer));
                until = until.or_else(|| Some(tokio::time::Instant::now() + others?));
            }
            Some(Ok((_, Err(error)))) => failed = Some(more_telling(failed, error)),
            Some(Err(panic)) => std::panic::resume_unwind(panic.into_panic()),
            None => break,
        }
    }
    offers.sort_by_key(|(place, offer)| (Reverse(offer.release.sequence), *place));
    (offers.into_iter().map(|(_, offer)| offer).collect(), failed)
}

async fn ask(config: &Config, address: SocketAddr) -> Result<Offer, UpdateError> {
    let mut server = Server::open(config, address).await?;
    let release = server.release().await?;
    Ok(Offer { server, release })
}

/// What waiting does not mend says more than a connection that was lost.
fn more_telling(before: Option<UpdateError>, error: UpdateError) -> UpdateError {
    before.filter(|before| !before.may_pass()).unwrap_or(error)
}
