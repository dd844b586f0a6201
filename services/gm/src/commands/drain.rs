//! Tells a daemon to admit nobody, finish and exit.

use std::fmt;

use shardkeep_rpc::{control, gm};
use shardkeep_types::DaemonKind;

use super::{Act, Desk, Outcome, instance};
use crate::{
    error::CommandError,
    peers::{call, refusal},
    role::Right,
};

pub(crate) struct Drain {
    kind: DaemonKind,
    name: String,
}

impl TryFrom<gm::Drain> for Drain {
    type Error = CommandError;

    fn try_from(drain: gm::Drain) -> Result<Self, CommandError> {
        let (kind, name) = instance(&drain.kind, &drain.name)?;
        Ok(Self { kind, name })
    }
}

impl fmt::Display for Drain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "drain {} {}", self.kind, self.name)
    }
}

impl Act for Drain {
    const NAME: &'static str = "drain";
    const RIGHT: Right = Right::Drain;

    async fn execute(&self, desk: &Desk<'_>) -> Result<Outcome, CommandError> {
        let of = desk.peers().find(self.kind, &self.name)?;
        let reason = format!("{} by {}", desk.reason, desk.operator);
        let request = call(control::DrainRequest { reason });
        desk.peers().control_client(&of).drain(request).await.map_err(refusal(&of))?;
        Ok(Outcome::done("draining"))
    }
}
