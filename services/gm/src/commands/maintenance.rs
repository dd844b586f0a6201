//! Closes a world to players, or opens it again. Players who are inside are sent home after a while; accounts of the
//! staff stay and may enter.

use std::{fmt, time::Duration};

use shardkeep_rpc::{accounts, gm};

use super::{CommandContext, OperatorCommand, Outcome};
use crate::{
    error::CommandError,
    peers::{peer_error, retry_while_unavailable},
    role::Right,
    worlds,
};

/// How long players may stay, if the operator does not say, and at most.
const DEFAULT_GRACE_SECONDS: u32 = 60;
const MAX_GRACE_SECONDS: u32 = 24 * 3_600;

pub(crate) struct Maintenance {
    world: u32,
    closed: bool,
    seconds: u32,
}

impl TryFrom<gm::Maintenance> for Maintenance {
    type Error = CommandError;

    fn try_from(command: gm::Maintenance) -> Result<Self, CommandError> {
        let gm::Maintenance { world, closed, seconds } = command;
        let seconds = seconds.unwrap_or(DEFAULT_GRACE_SECONDS);
        if world == 0 {
            return Err(CommandError::Malformed("worlds are numbered from 1: say which".into()));
        }
        if seconds > MAX_GRACE_SECONDS {
            return Err(CommandError::Malformed(format!("seconds: at most {MAX_GRACE_SECONDS}, a day")));
        }
        Ok(Self { world, closed, seconds })
    }
}

impl fmt::Display for Maintenance {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.closed {
            true => write!(f, "close world {} to players, who may stay {} s", self.world, self.seconds),
            false => write!(f, "open world {} to players", self.world),
        }
    }
}

impl OperatorCommand for Maintenance {
    const NAME: &'static str = "maintenance";
    const RIGHT: Right = Right::Maintenance;

    async fn execute(&self, context: &CommandContext<'_>) -> Result<Outcome, CommandError> {
        self.check_world(context).await?;
        let (client, login) = context.peers().accounts()?;
        let note = if self.closed { context.reason.to_owned() } else { String::new() };
        let grace_ms = Duration::from_secs(self.seconds.into()).as_millis();
        let request = accounts::SetMaintenanceRequest {
            world: self.world,
            closed: self.closed,
            note,
            grace_ms: u64::try_from(grace_ms).unwrap_or(u64::MAX),
        };
        let changed = retry_while_unavailable(&client, &request, |mut client, request| async move {
            client.set_maintenance(request).await
        });
        changed.await.map_err(peer_error(&login))?;
        Ok(Outcome::done(match (self.closed, self.seconds) {
            (true, 0) => "closed to players, who are sent home now; staff stay".to_owned(),
            (true, seconds) => format!("closed to players, who are sent home in {seconds} s; staff stay"),
            (false, _) => "open to players".to_owned(),
        }))
    }
}

impl Maintenance {
    /// A world that nobody has heard of is a slip; but one that is closed and gone may be opened, to be rid of it.
    async fn check_world(&self, context: &CommandContext<'_>) -> Result<(), CommandError> {
        let Err(unknown) = worlds::ensure_world_exists(context.peers(), self.world) else { return Ok(()) };
        if !self.closed && worlds::closures(context.peers()).await?.iter().any(|it| it.world == self.world) {
            return Ok(());
        }
        Err(unknown)
    }
}
