//! Where an account is logged in.

use std::fmt;

use serde_json::json;
use shardkeep_rpc::{accounts, gm};
use tonic::Code;

use super::{CommandContext, OperatorCommand, Outcome, name, plural};
use crate::{
    error::CommandError,
    peers::{peer_error, with_deadline},
    role::Right,
};

pub(crate) struct Sessions {
    account: String,
}

impl TryFrom<gm::AccountSessions> for Sessions {
    type Error = CommandError;

    fn try_from(request: gm::AccountSessions) -> Result<Self, CommandError> {
        Ok(Self { account: name("account", &request.account)? })
    }
}

impl fmt::Display for Sessions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "look at the sessions of account {}", self.account)
    }
}

impl OperatorCommand for Sessions {
    const NAME: &'static str = "sessions";
    /// It shows addresses.
    const RIGHT: Right = Right::SeeAddresses;
    const CHANGES: bool = false;

    async fn execute(&self, context: &CommandContext<'_>) -> Result<Outcome, CommandError> {
        let (mut client, login) = context.peers().accounts()?;
        let request = accounts::SessionsRequest { name: self.account.clone() };
        let reply = client.sessions(with_deadline(request)).await.map_err(|status| match status.code() {
            Code::NotFound => CommandError::NotFound(status.message().to_owned()),
            _ => peer_error(&login)(status),
        })?;
        let accounts::SessionsReply { sessions, unreachable_gateways } = reply.into_inner();
        let mut text = plural(u32::try_from(sessions.len()).unwrap_or(u32::MAX), "session");
        for session in &sessions {
            let lost = if session.link_dead { ", link lost" } else { "" };
            text += &format!(
                "\nworld {}  from {}  through {}  for {} s{lost}",
                session.world,
                session.address,
                session.gateway,
                session.age_ms / 1_000
            );
        }
        for gateway in &unreachable_gateways {
            text += &format!("\n{gateway} does not answer");
        }
        let listed: Vec<_> = sessions
            .iter()
            .map(|session| {
                json!({
                    "gateway": session.gateway,
                    "world": session.world,
                    "address": session.address,
                    "link_lost": session.link_dead,
                    "age_ms": session.age_ms,
                })
            })
            .collect();
        Ok(Outcome {
            text,
            json: json!({ "sessions": listed, "unreachable_gateways": unreachable_gateways }),
        })
    }
}
