//! Lists the worlds: players, capacity, queue, and whether players may enter.

use serde_json::{Value, json};

use super::command::{CommandContext, OperatorCommand, Outcome, command_without_arguments};
use crate::{
    error::CommandError,
    role::Right,
    worlds::{self, AccessStatus, World},
};

command_without_arguments!(Worlds, "list the worlds");

impl OperatorCommand for Worlds {
    const NAME: &'static str = "worlds";
    const RIGHT: Right = Right::SeeCluster;
    const CHANGES: bool = false;

    async fn execute(&self, context: &CommandContext<'_>) -> Result<Outcome, CommandError> {
        let (all, unknown) = worlds::fetch_all(context.peers()).await;
        if let Some(error) = unknown {
            return Err(error);
        }
        let lines: Vec<String> = all.iter().map(line).collect();
        let text = if lines.is_empty() { "no world is up".to_owned() } else { lines.join("\n") };
        let listed: Vec<Value> = all.iter().map(listed).collect();
        Ok(Outcome::new(text, json!({ "worlds": listed })))
    }
}

fn line(world: &World) -> String {
    let access = AccessStatus(world.closed.as_ref());
    let status_text = match &world.leadership {
        Some((_, Ok(status))) => format!(
            "{}  {} of {} online, {} in the queue",
            status.name, status.online, status.capacity, status.queue
        ),
        Some((leader, Err(error))) => format!("{}: {error}", leader.id.name),
        None => "no world daemon leads it".to_owned(),
    };
    format!("world {}  {status_text}  {access}", world.number)
}

fn listed(world: &World) -> Value {
    let status = world.leadership.as_ref().and_then(|(_, status)| status.as_ref().ok());
    json!({
        "world": world.number,
        "leader": world.leadership.as_ref().map(|(leader, _)| &leader.id.name),
        "name": status.map(|status| &status.name),
        "online": status.map(|status| status.online),
        "capacity": status.map(|status| status.capacity),
        "queue": status.map(|status| status.queue),
        "closed": world.closed.as_ref().map(|closed| json!({
            "reason": closed.note,
            "ends_ms": closed.ends_ms,
            "left_ms": closed.left_ms,
        })),
    })
}
