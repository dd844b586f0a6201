//! Lists the sessions of an account.

use std::fmt;

use serde_json::{Value, json};
use shardkeep_rpc::{accounts, gm};

use super::command::{CommandContext, OperatorCommand, Outcome, checked_name, plural};
use crate::{error::CommandError, role::Right};

pub(crate) struct Sessions {
    account: String,
}

impl TryFrom<gm::AccountSessions> for Sessions {
    type Error = CommandError;

    fn try_from(request: gm::AccountSessions) -> Result<Self, CommandError> {
        Ok(Self { account: checked_name("account", &request.account)? })
    }
}

impl fmt::Display for Sessions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "list the sessions of account {}", self.account)
    }
}

impl OperatorCommand for Sessions {
    const NAME: &'static str = "sessions";
    /// The list contains addresses.
    const RIGHT: Right = Right::SeeAddresses;
    const CHANGES: bool = false;

    async fn execute(&self, context: &CommandContext<'_>) -> Result<Outcome, CommandError> {
        let request = accounts::SessionsRequest { name: self.account.clone() };
        let reply = context
            .call_accounts(request, |mut client, request| async move { client.sessions(request).await })
            .await?;
        let accounts::SessionsReply { sessions, unreachable_gateways } = reply;
        let mut text = plural(u32::try_from(sessions.len()).unwrap_or(u32::MAX), "session");
        for session in &sessions {
            let lost = if session.link_dead { ", connection lost" } else { "" };
            text += &format!(
                "\nworld {}, address {}, gateway {}, connected for {} s{lost}",
                session.world,
                session.address,
                session.gateway,
                session.age_ms / 1_000
            );
        }
        for gateway in &unreachable_gateways {
            text += &format!("\ngateway {gateway} does not answer; its sessions are not listed");
        }
        let sessions: Vec<Value> = sessions.iter().map(session_json).collect();
        Ok(Outcome::new(text, json!({ "sessions": sessions, "unreachable_gateways": unreachable_gateways })))
    }
}

fn session_json(session: &accounts::AccountSession) -> Value {
    json!({
        "gateway": session.gateway,
        "world": session.world,
        "address": session.address,
        "link_lost": session.link_dead,
        "age_ms": session.age_ms,
    })
}
