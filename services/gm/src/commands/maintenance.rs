//! Closes a world to players, or opens it again. Accounts of the staff may enter; who is inside stays.

use std::fmt;

use shardkeep_rpc::{accounts, gm};

use super::{Act, Desk, Outcome};
use crate::{
    error::CommandError,
    peers::{patiently, refusal},
    role::Right,
};

pub(crate) struct Maintenance {
    world: u32,
    closed: bool,
}

impl TryFrom<gm::Maintenance> for Maintenance {
    type Error = CommandError;

    fn try_from(command: gm::Maintenance) -> Result<Self, CommandError> {
        let gm::Maintenance { world, closed } = command;
        if world == 0 {
            return Err(CommandError::Malformed("worlds are numbered from 1: say which".into()));
        }
        Ok(Self { world, closed })
    }
}

impl fmt::Display for Maintenance {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let change = if self.closed { "close" } else { "open" };
        write!(f, "{change} world {} to players", self.world)
    }
}

impl Act for Maintenance {
    const NAME: &'static str = "maintenance";
    const RIGHT: Right = Right::Maintenance;

    async fn execute(&self, desk: &Desk<'_>) -> Result<Outcome, CommandError> {
        let (client, login) = desk.peers().accounts()?;
        let note = if self.closed { desk.reason.to_owned() } else { String::new() };
        let request = accounts::SetMaintenanceRequest { world: self.world, closed: self.closed, note };
        let changed = patiently(&client, &request, |mut client, request| async move {
            client.set_maintenance(request).await
        });
        changed.await.map_err(refusal(&login))?;
        Ok(Outcome::done(if self.closed { "closed to players; staff may enter" } else { "open to players" }))
    }
}
