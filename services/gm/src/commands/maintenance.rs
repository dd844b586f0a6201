//! Closes a world to players, or opens it again. Players inside are disconnected after a grace period. Staff accounts
//! stay and may enter.

use std::{fmt, time::Duration};

use shardkeep_rpc::{accounts, gm};

use super::command::{CommandContext, OperatorCommand, Outcome};
use crate::{error::CommandError, role::Right, worlds};

/// Time until players are disconnected: the default and the maximum.
const DEFAULT_GRACE_SECONDS: u32 = 60;
const MAX_GRACE_SECONDS: u32 = 24 * 3_600;

pub(crate) struct Maintenance {
    world: u32,
    closed: bool,
    grace_seconds: u32,
}

impl TryFrom<gm::Maintenance> for Maintenance {
    type Error = CommandError;

    fn try_from(command: gm::Maintenance) -> Result<Self, CommandError> {
        let gm::Maintenance { world, closed, seconds } = command;
        let grace_seconds = seconds.unwrap_or(DEFAULT_GRACE_SECONDS);
        if world == 0 {
            return Err(CommandError::Malformed("world: worlds are numbered from 1".into()));
        }
        if grace_seconds > MAX_GRACE_SECONDS {
            let message = format!("seconds: {grace_seconds} is more than {MAX_GRACE_SECONDS} (one day)");
            return Err(CommandError::Malformed(message));
        }
        Ok(Self { world, closed, grace_seconds })
    }
}

impl fmt::Display for Maintenance {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.closed {
            true => write!(f, "close world {} to players after {} s", self.world, self.grace_seconds),
            false => write!(f, "open world {} to players", self.world),
        }
    }
}

impl OperatorCommand for Maintenance {
    const NAME: &'static str = "maintenance";
    const RIGHT: Right = Right::Maintenance;

    async fn execute(&self, context: &CommandContext<'_>) -> Result<Outcome, CommandError> {
        self.check_world(context).await?;
        let note = if self.closed { context.reason().to_owned() } else { String::new() };
        let grace_ms = Duration::from_secs(self.grace_seconds.into()).as_millis();
        let request = accounts::SetMaintenanceRequest {
            world: self.world,
            closed: self.closed,
            note,
            grace_ms: u64::try_from(grace_ms).unwrap_or(u64::MAX),
        };
        context
            .call_accounts(
                request,
                |mut client, request| async move { client.set_maintenance(request).await },
            )
            .await?;
        let world = self.world;
        Ok(Outcome::text_only(match (self.closed, self.grace_seconds) {
            (true, 0) => format!("world {world} is closed; players are disconnected now, staff may stay"),
            (true, seconds) => {
                format!("world {world} is closed; players are disconnected in {seconds} s, staff may stay")
            }
            (false, _) => format!("world {world} is open to players"),
        }))
    }
}

impl Maintenance {
    /// Refuses a world that no registry knows, because the number is probably a typing error. A closed world that no
    /// longer exists may still be opened, so that its closure can be removed.
    async fn check_world(&self, context: &CommandContext<'_>) -> Result<(), CommandError> {
        let Err(unknown) = worlds::ensure_world_exists(context.peers(), self.world) else { return Ok(()) };
        if !self.closed && worlds::closures(context.peers()).await?.iter().any(|it| it.world == self.world) {
            return Ok(());
        }
        Err(unknown)
    }
}
