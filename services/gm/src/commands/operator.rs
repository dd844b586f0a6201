//! Adds, changes or removes an operator.

use std::fmt;

use serde_json::json;
use shardkeep_rpc::gm;
use shardkeep_store::operators;
use shardkeep_types::Secret;

use super::{CommandContext, OperatorCommand, Outcome};
use crate::{
    error::CommandError,
    password::PasswordError,
    role::{Right, Role},
    signin::SignInError,
};

pub(crate) struct Operator {
    name: String,
    /// None: removed.
    role: Option<Role>,
    password: Option<Secret<String>>,
}

impl TryFrom<gm::Operator> for Operator {
    type Error = CommandError;

    fn try_from(operator: gm::Operator) -> Result<Self, CommandError> {
        let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || "-_.".contains(c);
        let name = operator.name.trim().to_owned();
        if name.is_empty() || name.len() > 32 || !name.chars().all(plain) {
            let rule = "an operator's name: 1 to 32 lower-case letters, digits, `-`, `_`, `.`";
            return Err(CommandError::Malformed(rule.into()));
        }
        let role = match operator.role.as_str() {
            "" => None,
            role => Some(role.parse().map_err(|error| CommandError::Malformed(format!("{error}")))?),
        };
        let password = Some(operator.password).filter(|password| !password.is_empty()).map(Secret::new);
        Ok(Self { name, role, password })
    }
}

impl fmt::Display for Operator {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.role, &self.password) {
            (None, _) => write!(f, "remove operator {}", self.name),
            (Some(role), None) => write!(f, "operator {} becomes {role}", self.name),
            (Some(role), Some(_)) => write!(f, "operator {} becomes {role} with a new password", self.name),
        }
    }
}

impl OperatorCommand for Operator {
    const NAME: &'static str = "operator";
    const RIGHT: Right = Right::ManageOperators;

    async fn execute(&self, context: &CommandContext<'_>) -> Result<Outcome, CommandError> {
        if self.name == context.operator && self.role != Some(Role::Admin) {
            let message = "you cannot take the role of admin from yourself; let another admin do it";
            return Err(CommandError::Malformed(message.into()));
        }
        match self.role {
            None => self.remove(context).await,
            Some(role) => self.put(context, role).await,
        }
    }
}

impl Operator {
    async fn remove(&self, context: &CommandContext<'_>) -> Result<Outcome, CommandError> {
        if operators::remove(&context.console.database, &self.name).await? {
            Ok(Outcome::done("removed, with every session"))
        } else {
            Err(CommandError::NotFound(format!("there is no operator {}", self.name)))
        }
    }

    /// One who has no password gets a link to set it; the link is answered but never audited.
    async fn put(&self, context: &CommandContext<'_>, role: Role) -> Result<Outcome, CommandError> {
        let console = context.console;
        let hash = match &self.password {
            None => None,
            Some(password) => Some(console.passwords.hash(password.clone()).await?),
        };
        operators::put(&console.database, &self.name, role.as_str(), hash.as_deref(), context.now_ms).await?;
        let known = operators::get(&console.database, &self.name).await?;
        if known.is_none_or(|known| known.password.is_some()) {
            return Ok(Outcome::done(format!("{} is {role}", self.name)));
        }
        let link = console.one_time_link(&self.name).await?;
        let text = format!("{} is {role} and signs in by a one-time link", self.name);
        Ok(Outcome { text, json: json!({ "link": link }) })
    }
}

impl From<PasswordError> for CommandError {
    fn from(error: PasswordError) -> Self {
        match error {
            PasswordError::Busy => Self::Busy,
            other => Self::Malformed(other.to_string()),
        }
    }
}

impl From<SignInError> for CommandError {
    fn from(error: SignInError) -> Self {
        match error {
            SignInError::Store(error) => Self::Store(error),
            other => Self::Malformed(other.to_string()),
        }
    }
}
