//! Removes an offline daemon from the lists of all registries.

use std::fmt;

use serde_json::json;
use shardkeep_rpc::{gm, registry};
use shardkeep_types::DaemonKind;
use tonic::Code;

use super::command::{CommandContext, OperatorCommand, Outcome, checked_daemon, plural};
use crate::{error::CommandError, role::Right};

pub(crate) struct Remove {
    kind: DaemonKind,
    name: String,
}

impl TryFrom<gm::RemoveDaemon> for Remove {
    type Error = CommandError;

    fn try_from(remove: gm::RemoveDaemon) -> Result<Self, CommandError> {
        let (kind, name) = checked_daemon(&remove.kind, &remove.name)?;
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

    /// Calls every registry, because registries do not exchange their lists. A registry that is down starts with an
    /// empty list and needs no call.
    async fn execute(&self, context: &CommandContext<'_>) -> Result<Outcome, CommandError> {
        let mut removed = 0;
        let mut refused = None;
        for (address, mut client) in context.peers().registries() {
            let request = registry::RemoveRequest { kind: self.kind.to_string(), name: self.name.clone() };
            match client.remove(context.request(request)).await {
                Ok(_) => removed += 1,
                Err(status) if matches!(status.code(), Code::NotFound | Code::Unavailable) => {}
                Err(status) => {
                    let (kind, name) = (DaemonKind::Registry, address.to_owned());
                    refused = Some(CommandError::Peer { kind, name, status });
                }
            }
        }
        let Self { kind, name } = self;
        match (refused, removed) {
            (Some(error), _) => Err(error),
            (None, 0) => Err(CommandError::NotFound(format!("no registry lists {kind} {name}"))),
            (None, removed) => {
                let text = format!(
                    "{kind} {name} was removed from the lists of {}",
                    plural(removed, "registry daemon")
                );
                Ok(Outcome::new(text, json!({ "removed": removed })))
            }
        }
    }
}
