//! Follows those that take players, and looks up their addresses. A task of its own: where addresses are names, looking
//! them up may take a second, and a switch of pools must not wait for that.

use shardkeep_cluster::Node;
use shardkeep_types::DaemonKind;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::view::{Service, Target, targets};

/// What the registries say, with addresses.
#[derive(Debug, Clone, Default)]
pub(crate) struct Replicas {
    /// Whether any registry has told of both kinds that players need: before that, an empty list is no fact.
    pub(crate) registry_answered: bool,
    targets: [Vec<Target>; Service::ALL.len()],
}

impl Replicas {
    pub(crate) fn targets_of(&self, service: Service) -> &[Target] {
        &self.targets[service as usize]
    }
}

/// Tells of each change, until `stop`.
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
