//! Lists all daemons that the registries know, with state and load.

use serde_json::json;

use super::command::{CommandContext, OperatorCommand, Outcome, command_without_arguments};
use crate::{error::CommandError, role::Right};

command_without_arguments!(Daemons, "list the daemons");

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
