//! Adds, changes or removes an operator.

use std::fmt;

use serde_json::json;
use shardkeep_rpc::gm;
use shardkeep_store::operators;
use shardkeep_types::Secret;

use super::command::{CommandContext, OperatorCommand, Outcome};
use crate::{
    error::CommandError,
    password::PasswordError,
    role::{Right, Role},
    sign_in::SignInError,
};

const MAX_NAME_BYTES: usize = 32;

pub(crate) struct Operator {
    name: String,
    /// None: the operator is removed.
    role: Option<Role>,
    password: Option<Secret<String>>,
}

impl TryFrom<gm::Operator> for Operator {
    type Error = CommandError;

    fn try_from(operator: gm::Operator) -> Result<Self, CommandError> {
        let allowed = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || "-_.".contains(c);
        let name = operator.name.trim().to_owned();
        if name.is_empty() || name.len() > MAX_NAME_BYTES || !name.chars().all(allowed) {
            return Err(CommandError::Malformed(format!(
                "name: {name:?} is not 1 to {MAX_NAME_BYTES} of the characters a-z, 0-9, `-`, `_` and `.`"
            )));
        }
        let role = match operator.role.as_str() {
            "" => None,
            role => Some(role.parse().map_err(|error| CommandError::Malformed(format!("role: {error}")))?),
        };
        let password = Some(operator.password).filter(|password| !password.is_empty()).map(Secret::new);
        Ok(Self { name, role, password })
    }
}

impl fmt::Display for Operator {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.role, &self.password) {
            (None, _) => write!(f, "remove operator {}", self.name),
            (Some(role), None) => write!(f, "set operator {} to {role}", self.name),
            (Some(role), Some(_)) => write!(f, "set operator {} to {role} with a new password", self.name),
        }
    }
}

impl OperatorCommand for Operator {
    const NAME: &'static str = "operator";
    const RIGHT: Right = Right::ManageOperators;

    async fn execute(&self, context: &CommandContext<'_>) -> Result<Outcome, CommandError> {
        if self.name == context.operator() && self.role != Some(Role::Admin) {
            let message = "you cannot remove your own role admin; another admin must do it";
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
        if operators::remove(context.database(), &self.name).await? {
            Ok(Outcome::text_only(format!("{} was removed; all sessions ended", self.name)))
        } else {
            Err(CommandError::NotFound(format!("there is no operator {}", self.name)))
        }
    }

    /// Adds or changes the operator. An operator without a password gets a one-time link to set one. The link is in
    /// the answer but not in the audit.
    async fn put(&self, context: &CommandContext<'_>, role: Role) -> Result<Outcome, CommandError> {
        let (database, name) = (context.database(), self.name.as_str());
        let hash = match &self.password {
            None => None,
            Some(password) => Some(context.sign_in().hash(password.clone()).await?),
        };
        operators::put(database, name, role.as_str(), hash.as_deref(), context.now_ms()).await?;
        let known = operators::get(database, name).await?;
        if known.is_none_or(|known| known.password.is_some()) {
            return Ok(Outcome::text_only(format!("{name} has the role {role}")));
        }
        let link = context.sign_in().one_time_link(name).await?;
        let text = format!("{name} has the role {role} and signs in with a one-time link");
        Ok(Outcome::new(text, json!({ "link": link })))
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
