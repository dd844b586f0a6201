//! Selects the release to install. During a roll-out, servers and mirrors publish different releases. All servers are
//! queried, and the newest release with a trusted signature is taken. An unsigned claim has no effect.

use std::{
    cmp::Reverse,
    net::SocketAddr,
    sync::Arc,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use shardkeep_patch::{ChunkId, Manifest, PublicKey, SignedManifest};
use shardkeep_wire::payload::PublishedRelease;
use tokio::{
    task::JoinSet,
    time::{sleep, timeout_at},
};

use super::{
    error::UpdateError,
    options::{Options, PAUSE},
    server::UpdateConnection,
};
use crate::{ClientError, Config, random};

const DAY_SECS: u64 = 86_400;
/// How long the other servers may take after the first answer, so that a dead server does not delay the update.
const OTHERS_TIMEOUT: Duration = Duration::from_secs(1);

/// A release with a trusted signature.
pub(super) struct TrustedRelease {
    /// Of the signed manifest.
    id: ChunkId,
    pub(super) manifest: Arc<Manifest>,
    signed_ms: u64,
}

/// The newest release with at least this sequence. Retries until the patience of the options ends.
///
/// # Errors
/// No server has such a release with a trusted signature, or the newest one is too old.
pub(super) async fn newest_release(
    config: &Config,
    servers: &[SocketAddr],
    options: &Options,
    min_sequence: u64,
) -> Result<TrustedRelease, UpdateError> {
    let (started, mut pause) = (Instant::now(), PAUSE.0);
    loop {
        match Box::pin(attempt(config, servers, options, min_sequence)).await {
            Err(failure) if failure.is_retryable && started.elapsed() < options.patience => {}
            done => return done.map_err(|failure| failure.cause.unwrap_or_else(no_address)),
        }
        sleep(random::jitter(pause)).await;
        pause = (pause * 2).min(PAUSE.1);
    }
}

async fn attempt(
    config: &Config,
    servers: &[SocketAddr],
    options: &Options,
    min_sequence: u64,
) -> Result<TrustedRelease, QueryFailure> {
    let mut query = ReleaseQuery::start(config, servers);
    loop {
        let offers = query.offers(Some(OTHERS_TIMEOUT)).await;
        if offers.is_empty() {
            return Err(query.failure);
        }
        for offer in offers {
            match offer.manifest(&options.keys).await {
                Ok(chosen) if chosen.sequence() >= min_sequence => match chosen.check_age(options) {
                    Ok(()) => return Ok(chosen),
                    Err(error) => query.failure.record(error),
                },
                Ok(chosen) => {
                    let offered = chosen.sequence();
                    query.failure.record(UpdateError::Older { installed: min_sequence, offered });
                }
                Err(error) => query.failure.record(error),
            }
        }
        // No offer is valid: a slower server may have a valid one.
    }
}

/// Whether this release is superseded: a newer one is published, or every server answers and none of them publishes it. A
/// server that does not answer may still have it.
pub(super) async fn is_replaced(
    config: &Config,
    servers: &[SocketAddr],
    keys: &[PublicKey],
    current: &TrustedRelease,
) -> bool {
    let mut query = ReleaseQuery::start(config, servers);
    let offers = query.offers(None).await;
    let withdrawn = query.failure.cause.is_none() && !offers.iter().any(|offer| offer.is_release(current));
    for offer in offers {
        if offer.is_release(current) {
            return false;
        }
        if let Ok(other) = offer.manifest(keys).await {
            return withdrawn || other.sequence() > current.sequence();
        }
    }
    false
}

impl TrustedRelease {
    fn sequence(&self) -> u64 {
        self.manifest.release().sequence
    }

    /// Time since the signature. A clock that is behind the publisher's gives zero.
    pub(super) fn age(&self) -> Duration {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        now.saturating_sub(Duration::from_millis(self.signed_ms))
    }

    fn check_age(&self, options: &Options) -> Result<(), UpdateError> {
        match options.refuse_after {
            Some(allowed) if self.age() > allowed => Err(UpdateError::Stale {
                age_days: self.age().as_secs() / DAY_SECS,
                allowed_days: allowed.as_secs() / DAY_SECS,
            }),
            _ => Ok(()),
        }
    }
}

/// The release that a server offers.
struct Offer {
    server: UpdateConnection,
    release: PublishedRelease,
}

impl Offer {
    fn is_release(&self, chosen: &TrustedRelease) -> bool {
        self.release.manifest_id == chosen.id.as_bytes()
    }

    async fn manifest(mut self, keys: &[PublicKey]) -> Result<TrustedRelease, UpdateError> {
        let bytes = self.server.manifest(&self.release).await?;
        let signed = SignedManifest::parse(&bytes)?;
        let (manifest, signed_ms) = (signed.verify_trusted(keys)?, signed.signed_ms());
        // A server could otherwise announce an old release with a high sequence, and hide a new one.
        if manifest.release().sequence != self.release.sequence {
            return Err(UpdateError::WrongManifest);
        }
        Ok(TrustedRelease { id: ChunkId::of(&bytes), manifest: Arc::new(manifest), signed_ms })
    }
}

/// Every server, being asked what it has.
struct ReleaseQuery {
    answers: JoinSet<(usize, Result<Offer, UpdateError>)>,
    failure: QueryFailure,
}

/// Why there is nothing from some of them.
#[derive(Default)]
struct QueryFailure {
    /// A permanent error is reported rather than a lost connection.
    cause: Option<UpdateError>,
    /// Asking again may do better.
    is_retryable: bool,
}

impl QueryFailure {
    fn record(&mut self, error: UpdateError) {
        self.is_retryable |= error.is_retryable();
        if self.cause.as_ref().is_none_or(UpdateError::is_retryable) {
            self.cause = Some(error);
        }
    }
}

fn no_address() -> UpdateError {
    ClientError::Timeout("an address of the update service").into()
}

impl ReleaseQuery {
    fn start(config: &Config, servers: &[SocketAddr]) -> Self {
        let mut answers = JoinSet::new();
        for (index, address) in servers.iter().copied().enumerate() {
            if !servers[..index].contains(&address) {
                let config = config.clone();
                answers.spawn(async move { (index, Box::pin(query_server(&config, address)).await) });
            }
        }
        Self { answers, failure: QueryFailure::default() }
    }

    /// The servers' offers, the newest first. After the first answer the others have `grace`, and the next call waits for
    /// the rest. Empty when no further server can answer.
    async fn offers(&mut self, grace: Option<Duration>) -> Vec<Offer> {
        let (mut offers, mut until) = (Vec::new(), None);
        loop {
            let answer = match until {
                Some(until) => timeout_at(until, self.answers.join_next()).await.unwrap_or_default(),
                None => self.answers.join_next().await,
            };
            match answer {
                Some(Ok((index, Ok(offer)))) => {
                    offers.push((index, offer));
                    until = until.or_else(|| Some(tokio::time::Instant::now() + grace?));
                }
                Some(Ok((_, Err(error)))) => self.failure.record(error),
                Some(Err(panic)) => std::panic::resume_unwind(panic.into_panic()),
                None => break,
            }
        }
        offers.sort_by_key(|(index, offer)| (Reverse(offer.release.sequence), *index));
        offers.into_iter().map(|(_, offer)| offer).collect()
    }
}

async fn query_server(config: &Config, address: SocketAddr) -> Result<Offer, UpdateError> {
    let mut server = UpdateConnection::open(config, address).await?;
    let release = server.release().await?;
    Ok(Offer { server, release })
}
