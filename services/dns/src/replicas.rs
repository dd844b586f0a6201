//! Follows the replicas of login, gateway and dns in the registries, and resolves their addresses. It is a separate task
//! because resolving a host name may take a second, and a switch of pools must not wait for that.

use shardkeep_cluster::Node;
use shardkeep_types::DaemonKind;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::view::{Service, Target, targets};

/// The replicas in the registries, with their addresses.
#[derive(Debug, Clone, Default)]
pub(crate) struct Replicas {
    /// Whether a registry has answered for login and for gateway. Before that, an empty list means "unknown".
    pub(crate) registry_answered: bool,
    targets: [Vec<Target>; Service::ALL.len()],
}

impl Replicas {
    pub(crate) fn targets_of(&self, service: Service) -> &[Target] {
        &self.targets[service as usize]
    }
}

/// Sends each change, until `stop`.
pub(crate) async fn follow_registries(
    node: Node,
    sender: watch::Sender<Replicas>,
    stop: CancellationToken,
) -> anyhow::Result<()> {
    let mut login = node.directory(DaemonKind::Login);
    let mut gateway = node.directory(DaemonKind::Gateway);
    let mut name_server = node.directory(DaemonKind::Dns);
    loop {
        let registry_answered = login.registry_answered() && gateway.registry_answered();
        let seen = [login.snapshot(), gateway.snapshot(), name_server.snapshot()];
        let looked_up = async { tokio::join!(targets(&seen[0]), targets(&seen[1]), targets(&seen[2])) };
        tokio::select! {
            (login, gateway, name_server) = looked_up => {
                sender.send_replace(Replicas { registry_answered, targets: [login, gateway, name_server] });
            }
            () = stop.cancelled() => return Ok(()),
        }
        tokio::select! {
            () = login.changed() => {}
            () = gateway.changed() => {}
            () = name_server.changed() => {}
            () = stop.cancelled() => return Ok(()),
        }
    }
}
