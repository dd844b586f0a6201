//! What messages cost the gateways.

use std::fmt;

use serde_json::json;
use shardkeep_rpc::gm;

use super::{CommandContext, OperatorCommand, Outcome};
use crate::{
    costs::{self, bytes, seconds},
    error::CommandError,
    role::Right,
};

pub(crate) struct Messages;

impl TryFrom<gm::Messages> for Messages {
    type Error = CommandError;

    fn try_from(_: gm::Messages) -> Result<Self, CommandError> {
        Ok(Self)
    }
}

impl fmt::Display for Messages {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("look what messages cost")
    }
}

impl OperatorCommand for Messages {
    const NAME: &'static str = "messages";
    const RIGHT: Right = Right::SeeCluster;
    const CHANGES: bool = false;

    async fn execute(&self, context: &CommandContext<'_>) -> Result<Outcome, CommandError> {
        let (costs, gateways) = costs::fetch_totals(context.peers()).await;
        let mut text = format!(
            "{:<18} {:>10} {:>10} {:>10} {:>10} {:>10}   of {gateways} gateways\n",
            "message", "received", "", "sent", "", "time"
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
        Ok(Outcome { text, json: json!({ "gateways": gateways, "messages": listed }) })
    }
}
