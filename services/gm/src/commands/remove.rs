//! Maintenance: makes every registry forget a daemon that is offline.

use std::fmt;

use shardkeep_rpc::{gm, registry};
use shardkeep_types::DaemonKind;
use tonic::Code;

use super::{CommandContext, OperatorCommand, Outcome, instance};
use crate::{error::CommandError, peers::with_deadline, role::Right};

pub(crate) struct Remove {
    kind: DaemonKind,
    name: String,
}

impl TryFrom<gm::RemoveDaemon> for Remove {
    type Error = CommandError;

    fn try_from(remove: gm::RemoveDaemon) -> Result<Self, CommandError> {
        let (kind, name) = instance(&remove.kind, &remove.name)?;
        Ok(Self { kind, name })
    }
}

impl fmt::Display for Remove {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "remove offline {} {}", self.kind, self.name)
    }
}

impl OperatorCommand for Remove {
    const NAME: &'static str = "remove";
    const RIGHT: Right = Right::RemoveDaemon;

    /// Registries know nothing of each other. One that is away now will not know the daemon when it is back.
    async fn execute(&self, context: &CommandContext<'_>) -> Result<Outcome, CommandError> {
        let mut removed = 0;
        let mut refused = None;
        for (address, mut client) in context.peers().registries() {
            let request = registry::RemoveRequest { kind: self.kind.to_string(), name: self.name.clone() };
            match client.remove(with_deadline(request)).await {
                Ok(_) => removed += 1,
                Err(status) if matches!(status.code(), Code::NotFound | Code::Unavailable) => {}
                Err(status) => {
                    let (kind, name) = (DaemonKind::Registry, address.to_owned());
                    refused = Some(CommandError::Peer { kind, name, status });
                }
            }
        }
        match (refused, removed) {
            (Some(error), _) => Err(error),
            (None, 0) => {
                Err(CommandError::NotFound(format!("no registry knows {} {}", self.kind, self.name)))
            }
            (None, removed) => {
                Ok(Outcome::counted(format!("forgotten; registries told: {removed}"), "removed", removed))
            }
        }
    }
}
