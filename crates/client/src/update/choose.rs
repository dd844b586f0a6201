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

/// The newest release there is, patiently: nothing is given up before that time. None with a lower sequence than `least`.
///
/// # Errors
/// No server has one that can be believed.
pub(super) async fn newest(
    config: &Config,
    servers: &[SocketAddr],
    options: &Options,
    least: u64,
) -> Result<Chosen, UpdateError> {
    let (begun, mut pause) = (Instant::now(), PAUSE.0);
    loop {
        match Box::pin(attempt(config, servers, &options.keys, least)).await {
            Err(failed) if failed.may_pass && begun.elapsed() < options.patience => {}
            done => return done.map_err(|failed| failed.told.unwrap_or_else(nobody)),
        }
        sleep(random::jitter(pause)).await;
        pause = (pause * 2).min(PAUSE.1);
    }
}

async fn attempt(
    config: &Config,
    servers: &[SocketAddr],
    keys: &[PublicKey],
    least: u64,
) -> Result<Chosen, Failed> {
    let mut asked = Asked::all(config, servers);
    loop {
        let offers = asked.offers(Some(OTHERS)).await;
        if offers.is_empty() {
            return Err(asked.failed);
        }
        for offer in offers {
            match offer.manifest(keys).await {
                Ok(chosen) if chosen.sequence() >= least => return Ok(chosen),
                Ok(chosen) => {
                    let offered = chosen.sequence();
                    asked.failed.note(UpdateError::Older { installed: least, offered });
                }
                Err(error) => asked.failed.note(error),
            }
        }
        // Nothing of that is any good: whoever needs longer may have better.
    }
}

/// Whether this release is not the one to install any more: a newer one is out, or all servers are here and none of them
/// has published it. A server that cannot be asked may still have it.
pub(super) async fn is_replaced(
    config: &Config,
    servers: &[SocketAddr],
    keys: &[PublicKey],
    ours: &Chosen,
) -> bool {
    let mut asked = Asked::all(config, servers);
    let offers = asked.offers(None).await;
    let taken_back = asked.failed.told.is_none() && !offers.iter().any(|offer| offer.is_of(ours));
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

/// Every server, being asked what it has.
struct Asked {
    answers: JoinSet<(usize, Result<Offer, UpdateError>)>,
    failed: Failed,
}

/// Why there is nothing from some of them.
#[derive(Default)]
struct Failed {
    /// What waiting does not mend says more than a connection that was lost.
    told: Option<UpdateError>,
    /// Asking again may do better.
    may_pass: bool,
}

impl Failed {
    fn note(&mut self, error: UpdateError) {
        self.may_pass |= error.may_pass();
        if self.told.as_ref().is_none_or(UpdateError::may_pass) {
            self.told = Some(error);
        }
    }
}

fn nobody() -> UpdateError {
    ClientError::Timeout("an address of the update service").into()
}

impl Asked {
    fn all(config: &Config, servers: &[SocketAddr]) -> Self {
        let mut answers = JoinSet::new();
        for (place, address) in servers.iter().copied().enumerate() {
            if !servers[..place].contains(&address) {
                let config = config.clone();
                answers.spawn(async move { (place, Box::pin(ask(&config, address)).await) });
            }
        }
        Self { answers, failed: Failed::default() }
    }

    /// What they offer, the newest first. Once one has answered, the others have so long; who has not answered by then
    /// may be waited for by the next call. Empty: nobody else will.
    async fn offers(&mut self, others: Option<Duration>) -> Vec<Offer> {
        let (mut offers, mut until) = (Vec::new(), None);
        loop {
            let answer = match until {
                Some(until) => timeout_at(until, self.answers.join_next()).await.unwrap_or_default(),
                None => self.answers.join_next().await,
            };
            match answer {
                Some(Ok((place, Ok(offer)))) => {
                    offers.push((place, offer));
                    until = until.or_else(|| Some(tokio::time::Instant::now() + others?));
                }
                Some(Ok((_, Err(error)))) => self.failed.note(error),
                Some(Err(panic)) => std::panic::resume_unwind(panic.into_panic()),
                None => break,
            }
        }
        offers.sort_by_key(|(place, offer)| (Reverse(offer.release.sequence), *place));
        offers.into_iter().map(|(_, offer)| offer).collect()
    }
}

async fn ask(config: &Config, address: SocketAddr) -> Result<Offer, UpdateError> {
    let mut server = Server::open(config, address).await?;
    let release = server.release().await?;
    Ok(Offer { server, release })
}
