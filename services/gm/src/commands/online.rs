//! Lists the characters that are online.

use serde_json::json;

use super::command::{CommandContext, OperatorCommand, Outcome, command_without_arguments};
use crate::{error::CommandError, role::Right};

/// Characters listed at most. The total counts all.
const MAX_LISTED: usize = 2_000;

command_without_arguments!(Online, "list the players online");

impl OperatorCommand for Online {
    const NAME: &'static str = "online";
    const RIGHT: Right = Right::SeePlayers;
    const CHANGES: bool = false;

    async fn execute(&self, context: &CommandContext<'_>) -> Result<Outcome, CommandError> {
        let (players, total) = context.players().search("", 0, MAX_LISTED);
        let mut text = format!("{total} online\n");
        for player in &players {
            text += &format!("{}  world {}  {}\n", player.name, player.world, player.zone);
        }
        let listed: Vec<_> = players
            .iter()
            .map(|player| {
                json!({
                    "character": player.name,
                    "account": player.account,
                    "world": player.world,
                    "zone": player.zone,
                    "cell": [player.cell.0, player.cell.1],
                })
            })
            .collect();
        Ok(Outcome::new(text, json!({ "online": total, "players": listed })))
    }
}
