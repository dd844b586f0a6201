//! What every connection shares: settings, store, pool, limits, and the views of the cluster.

use std::time::Duration;

use shardkeep_auth::Key;
use shardkeep_cluster::{Directory, Node};
use shardkeep_daemon::Daemon;
use shardkeep_rpc::billing::{ShowRequest, billing_client::BillingClient};
use shardkeep_store::{
    Database,
    accounts::{self, Raised},
};
use shardkeep_types::{AccountId, DaemonKind, Generation};
use shardkeep_wire::{
    payload::ErrorCode,
    preface::{self, Preface},
};
use tonic::Request;

use crate::{
    Config, bounds::Bounds, gateways::Gateways, groups::Groups, limits::Limits, pool::Pool, puzzle::Puzzles,
    random, worlds::Worlds,
};

/// How long a welcome waits for billing; without an answer it says nothing of play time.
const BILLING_DEADLINE: Duration = Duration::from_millis(300);

pub(crate) struct Door {
    pub(crate) config: Config,
    pub(crate) preface: Preface,
    pub(crate) database: Database,
    /// Makes the challenges of accounts that do not exist; the same on all replicas.
    pub(crate) decoy_seed: Key,
    /// Which groups those have.
    pub(crate) groups: Groups,
    pub(crate) bounds: Bounds,
    pub(crate) pool: Pool,
    pub(crate) puzzles: Puzzles,
    pub(crate) limits: Limits,
    pub(crate) worlds: Worlds,
    pub(crate) gateways: Gateways,
    billing: Directory,
    node: Node,
    daemon: Daemon,
}

impl Door {
    pub(crate) async fn new(
        config: Config,
        deployment: &str,
        database: Database,
        worlds: Worlds,
        node: Node,
        daemon: Daemon,
    ) -> anyhow::Result<Self> {
        let (fresh, fresh_puzzle) = (random::key()?, random::key()?);
        let puzzle_seed = accounts::shared_secret(&database, "puzzle seed", &fresh_puzzle).await?;
        Ok(Self {
            preface: Preface::new(preface::Service::Login, preface::deployment_tag(deployment)),
            decoy_seed: accounts::shared_secret(&database, "decoy seed", &fresh).await?,
            database,
            groups: Groups::default(),
            bounds: Bounds::new(&config),
            pool: Pool::new(&config),
            puzzles: Puzzles::new(config.puzzle.clone(), puzzle_seed),
            limits: Limits::new(config.limits.clone()),
            worlds,
            gateways: Gateways::new(&node),
            billing: node.directory(DaemonKind::Billing),
            config,
            node,
            daemon,
        })
    }

    pub(crate) fn ticket_lives_ms(&self) -> u32 {
        u32::try_from(self.config.ticket_lives.as_millis()).unwrap_or(u32::MAX)
    }

    /// Ends what the account ran before, behind the player's back: the welcome does not wait for gateways.
    /// One task per login, so no more of them than connections.
    pub(crate) fn displace(&self, id: AccountId, generation: Generation) {
        let gateways = self.gateways.clone();
        self.daemon.tasks().spawn(async move {
            let account = Raised { id, generation };
            gateways.revoke_account(account, ErrorCode::Displaced, "logged in elsewhere").await
        });
    }

    /// `None`: the account's plan does not meter, or billing does not answer.
    pub(crate) async fn play_time_left(&self, account: AccountId) -> Option<u64> {
        let billing = self.billing.lightest()?;
        let mut client = BillingClient::new(self.node.channel(DaemonKind::Billing, &billing.grpc_address));
        let mut request = Request::new(ShowRequest { account: account.0 });
        request.set_timeout(BILLING_DEADLINE);
        let answer = tokio::time::timeout(BILLING_DEADLINE, client.show(request)).await;
        match answer {
            Ok(Ok(reply)) => reply.into_inner().left_ms,
            Ok(Err(status)) => {
                tracing::warn!(%status, "billing does not tell the play time left");
                None
            }
            Err(_) => {
                tracing::warn!("billing does not answer in time");
                None
            }
        }
    }
}
