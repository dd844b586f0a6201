//! Lists the operators.

use serde_json::{Value, json};
use shardkeep_store::operators;

use super::command::{CommandContext, OperatorCommand, Outcome, command_without_arguments};
use crate::{error::CommandError, role::Right};

command_without_arguments!(Operators, "list the operators");

impl OperatorCommand for Operators {
    const NAME: &'static str = "operators";
    const RIGHT: Right = Right::SeeOperators;
    const CHANGES: bool = false;

    async fn execute(&self, context: &CommandContext<'_>) -> Result<Outcome, CommandError> {
        let all = operators::list(context.database()).await?;
        let lines: Vec<String> = all
            .iter()
            .map(|it| format!("{:<16} {:<12} signs in with {}", it.name, it.role, sign_in_method(it)))
            .collect();
        let listed: Vec<Value> = all
            .iter()
            .map(|it| {
                let password = it.password.is_some();
                json!({ "name": it.name, "role": it.role, "password": password, "created_ms": it.created_ms })
            })
            .collect();
        Ok(Outcome::new(lines.join("\n"), json!({ "operators": listed })))
    }
}

/// How an operator signs in, as text.
pub(crate) fn sign_in_method(operator: &operators::Operator) -> &'static str {
    if operator.password.is_some() { "a password" } else { "a one-time link" }
}
