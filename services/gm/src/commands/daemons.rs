//! Lists all daemons that the registries know, with state and load.

use std::fmt;

use serde_json::json;
use shardkeep_rpc::gm;

use super::command::{CommandContext, OperatorCommand, Outcome};
use crate::{error::CommandError, role::Right};

pub(crate) struct Daemons;

impl TryFrom<gm::Daemons> for Daemons {
    type Error = CommandError;

    fn try_from(_: gm::Daemons) -> Result<Self, CommandError> {
        Ok(Self)
    }
}

impl fmt::Display for Daemons {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("list the daemons")
    }
}

impl OperatorCommand for Daemons {
    const NAME: &'static str = "daemons";
    const RIGHT: Right = Right::SeeCluster;
    const CHANGES: bool = false;

    async fn execute(&self, context: &CommandContext<'_>) -> Result<Outcome, CommandError> {
        let all = context.peers().all();
        let mut text = String::new();
        for daemon in &all {
            let (id, load) = (&daemon.id, daemon.load * 100.0);
            text += &format!(
                "{:<9} {:<14} {:<9} {load:>3.0} %  {}\n",
                id.kind, id.name, daemon.state, daemon.grpc_address
            );
        }
        let listed: Vec<_> = all
            .iter()
            .map(|daemon| {
                json!({
                    "kind": daemon.id.kind,
                    "name": daemon.id.name,
                    "state": daemon.state.as_str(),
                    "world": daemon.world,
                    "load": daemon.load,
                    "version": daemon.version,
                    "grpc": daemon.grpc_address,
                    "client": daemon.client_address,
                    "admin": daemon.admin_address,
                    "attributes": daemon.attributes,
                })
            })
            .collect();
        Ok(Outcome::new(text, json!({ "daemons": listed })))
    }
}
