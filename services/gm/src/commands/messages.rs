//! Lists the messages of the client protocol with their counts, sizes and costs at the gateways.

use serde_json::json;

use super::command::{CommandContext, OperatorCommand, Outcome, command_without_arguments};
use crate::{
    costs::{self, bytes, seconds},
    error::CommandError,
    role::Right,
};

command_without_arguments!(Messages, "list the costs of messages");

impl OperatorCommand for Messages {
    const NAME: &'static str = "messages";
    const RIGHT: Right = Right::SeeCluster;
    const CHANGES: bool = false;

    async fn execute(&self, context: &CommandContext<'_>) -> Result<Outcome, CommandError> {
        let (costs, gateways) = costs::fetch_totals(context.peers()).await;
        let mut text = format!(
            "{:<18} {:>10} {:>10} {:>10} {:>10} {:>10}   sum of {gateways} gateways\n",
            "message", "received", "bytes", "sent", "bytes", "time"
        );
        for cost in &costs {
            text += &format!(
                "{:<18} {:>10} {:>10} {:>10} {:>10} {:>10}\n",
                cost.name,
                cost.received,
                bytes(cost.received_bytes),
                cost.sent,
                bytes(cost.sent_bytes),
                seconds(cost.microseconds)
            );
        }
        let listed: Vec<_> = costs
            .iter()
            .map(|cost| {
                json!({
                    "opcode": cost.opcode,
                    "message": cost.name,
                    "received": cost.received,
                    "received_bytes": cost.received_bytes,
                    "sent": cost.sent,
                    "sent_bytes": cost.sent_bytes,
                    "microseconds": cost.microseconds,
                })
            })
            .collect();
        Ok(Outcome::new(text, json!({ "gateways": gateways, "messages": listed })))
    }
}
