//! The gRPC clients of this tool. It has a certificate of kind `cli` and finds daemons in the registry. Most commands also
//! need a signed-in operator (`gm`).

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use anyhow::{Context as _, Result, bail};
use clap::Args;
use shardkeep_cluster::{Dialer, Identity, Instance, OperatorName, State};
use shardkeep_rpc::{
    accounts::accounts_client::AccountsClient,
    dbcache::db_cache_client::DbCacheClient,
    dns::dns_client::DnsClient,
    gm::{OneTimeLinkRequest, gm_client::GmClient},
    logs::logs_client::LogsClient,
    registry::{ListRequest, registry_client::RegistryClient},
    tonic::transport::Channel,
};
use shardkeep_types::DaemonKind;

use crate::{data_dir::DataDir, program};

/// The cluster, and the certificate to use.
#[derive(Debug, Clone, Args)]
pub struct ClusterArgs {
    /// Folder of a cluster on this machine
    #[arg(long, global = true, default_value = "var", env = "SHARDKEEP_DATA_DIR")]
    pub data_dir: PathBuf,
    /// gRPC address of a registry, host:port; the local cluster's when absent
    #[arg(long, global = true, env = "SHARDKEEP_REGISTRY")]
    pub registry: Option<String>,
    /// Folder with ca.pem, cli.pem and cli.key; the local cluster's when absent
    #[arg(long, global = true, env = "SHARDKEEP_TLS_DIR")]
    pub tls_dir: Option<PathBuf>,
}

pub struct Operator {
    dialer: Dialer,
    registry: String,
}

impl Operator {
    pub async fn connect(args: &ClusterArgs) -> Result<Self> {
        let dir = DataDir::new(&args.data_dir)?;
        let registry = match &args.registry {
            Some(address) => address.clone(),
            None => registry_of(&dir)?,
        };
        let tls = args.tls_dir.clone().unwrap_or_else(|| dir.tls());
        Self::open(&tls, registry)
    }

    /// The cluster that this process itself has started.
    pub async fn local(dir: &DataDir) -> Result<Self> {
        let registry = dir.announced("registry-1").context("the registry has announced nothing")?.grpc;
        Self::open(&dir.tls(), registry)
    }

    fn open(tls: &Path, registry: String) -> Result<Self> {
        let file = |name: &str| tls.join(name);
        let identity = Identity::load(&file("ca.pem"), &file("cli.pem"), &file("cli.key"))
            .with_context(|| format!("no operator's certificate in {}", tls.display()))?;
        Ok(Self { dialer: Dialer::with_operator(Arc::new(identity), &operator_name()), registry })
    }

    /// All registered instances of these kinds, or of all kinds when empty.
    pub async fn instances(&self, kinds: &[DaemonKind]) -> Result<Vec<Instance>> {
        let mut registry = RegistryClient::new(self.dialer.channel(DaemonKind::Registry, &self.registry));
        let request = ListRequest { kinds: kinds.iter().map(ToString::to_string).collect() };
        let reply = registry
            .list(request)
            .await
            .with_context(|| format!("the registry at {} does not answer", self.registry))?;
        let instances: Result<Vec<_>, _> =
            reply.into_inner().instances.into_iter().map(Instance::try_from).collect();
        Ok(instances?)
    }

    async fn channel(&self, kind: DaemonKind) -> Result<Channel> {
        let mut up: Vec<Instance> =
            self.instances(&[kind]).await?.into_iter().filter(|it| it.state == State::Up).collect();
        up.sort_by(|a, b| a.load.total_cmp(&b.load));
        match up.first() {
            Some(instance) => Ok(self.dialer.channel(kind, &instance.grpc_address)),
            None => bail!("no {kind} daemon is up; `shardkeep status` shows all"),
        }
    }

    pub async fn accounts(&self) -> Result<AccountsClient<Channel>> {
        Ok(AccountsClient::new(self.channel(DaemonKind::Login).await?))
    }

    /// Every dbcache that is up.
    pub async fn dbcaches(&self) -> Result<Vec<(Instance, DbCacheClient<Channel>)>> {
        let instances = self.instances(&[DaemonKind::Dbcache]).await?;
        let up = instances.into_iter().filter(|it| it.state == State::Up).map(|it| {
            let channel = self.dialer.channel(DaemonKind::Dbcache, &it.grpc_address);
            (it, DbCacheClient::new(channel))
        });
        let up: Vec<_> = up.collect();
        if up.is_empty() {
            bail!("no dbcache daemon is up; `shardkeep status` shows all");
        }
        Ok(up)
    }

    pub async fn dns(&self) -> Result<DnsClient<Channel>> {
        Ok(DnsClient::new(self.channel(DaemonKind::Dns).await?))
    }

    pub async fn gm(&self) -> Result<GmClient<Channel>> {
        Ok(GmClient::new(self.channel(DaemonKind::Gm).await?))
    }

    pub async fn logs(&self) -> Result<LogsClient<Channel>> {
        Ok(LogsClient::new(self.channel(DaemonKind::Logs).await?))
    }

    pub async fn one_time_link(&self) -> Result<String> {
        Ok(self.gm().await?.one_time_link(OneTimeLinkRequest {}).await?.into_inner().url)
    }
}

/// The name under which daemons record privileged calls of this tool: `SHARDKEEP_OPERATOR`, else the user's name.
fn operator_name() -> OperatorName {
    let names = ["SHARDKEEP_OPERATOR", "SUDO_USER", "USER", "LOGNAME"].into_iter();
    let named = names.filter_map(|name| OperatorName::parse(&std::env::var(name).ok()?)).next();
    let uid = || OperatorName::parse(&format!("uid-{}", rustix::process::getuid().as_raw()));
    named.or_else(uid).unwrap_or_else(|| unreachable!("a user id consists of digits"))
}

/// The registry of the cluster that runs here. The announcement of a cluster that has ended is out of date.
fn registry_of(dir: &DataDir) -> Result<String> {
    let path = dir.path().display();
    if dir.supervisor()?.is_none() {
        bail!(
            "no cluster runs in {path}: `{}` starts one, --registry names one elsewhere",
            program::hint("up", dir.path())
        );
    }
    let registry = dir.announced("registry-1");
    Ok(registry
        .with_context(|| format!("the cluster in {path} is starting; its registry is not up yet"))?
        .grpc)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stopped_cluster_has_no_registry() {
        let folder = tempfile::tempdir().unwrap();
        let dir = DataDir::new(folder.path()).unwrap();
        dir.create().unwrap();
        let announcement = r#"{"name":"registry-1","kind":"registry","pid":1,"grpc":"127.0.0.1:7001","admin":"127.0.0.1:7401"}"#;
        std::fs::write(dir.announcement("registry-1"), announcement).unwrap();
        assert!(registry_of(&dir).unwrap_err().to_string().starts_with("no cluster runs in"));
        let _running = dir.take().unwrap();
        assert_eq!(registry_of(&dir).unwrap(), "127.0.0.1:7001");
    }
}
