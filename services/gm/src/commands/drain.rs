//! Drains a daemon: it admits nothing new, finishes its work and exits.

use std::fmt;

use shardkeep_rpc::{control, gm};
use shardkeep_types::DaemonKind;

use super::command::{CommandContext, OperatorCommand, Outcome, checked_daemon};
use crate::{error::CommandError, peers::peer_error, role::Right};

pub(crate) struct Drain {
    kind: DaemonKind,
    name: String,
}

impl TryFrom<gm::Drain> for Drain {
    type Error = CommandError;

    fn try_from(drain: gm::Drain) -> Result<Self, CommandError> {
        let (kind, name) = checked_daemon(&drain.kind, &drain.name)?;
        Ok(Self { kind, name })
    }
}

impl fmt::Display for Drain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "drain {} {}", self.kind, self.name)
    }
}

impl OperatorCommand for Drain {
    const NAME: &'static str = "drain";
    const RIGHT: Right = Right::Drain;

    async fn execute(&self, context: &CommandContext<'_>) -> Result<Outcome, CommandError> {
        let daemon = context.peers().find(self.kind, &self.name)?;
        let reason = format!("{} (operator {})", context.reason(), context.operator());
        let request = context.request(control::DrainRequest { reason });
        context.peers().control_client(&daemon).drain(request).await.map_err(peer_error(&daemon))?;
        Ok(Outcome::text_only(format!("{} is draining", self.name)))
    }
}
