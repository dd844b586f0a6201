//! Messages of clients as requests to the world. A message that does not match its opcode is refused.

use std::sync::LazyLock;

use prost::Message;
use shardkeep_link::{ClientMessage, ServerMessage};
use shardkeep_names::{CharacterName, reserved_by};
use shardkeep_sim::Map;
use shardkeep_types::{AccountId, CharacterId, Point, Position, SpaceId};
use shardkeep_wire::{
    opcode,
    payload::{self, ErrorCode},
};

use crate::domain::replies::refusal;

#[derive(Debug)]
pub(crate) enum ClientRequest {
    ListCharacters,
    CreateCharacter { name: String, start: Position },
    Enter(CharacterId),
    Leave,
}

impl ClientRequest {
    /// # Errors
    /// The reply that refuses the request.
    pub(crate) fn parse(
        message: &ClientMessage,
        account: AccountId,
        reserved_names: &[String],
    ) -> Result<Self, ServerMessage> {
        let refuse = |code, detail: &str| refusal(message.request, code, detail);
        let malformed = |_| refuse(ErrorCode::Malformed, "the payload is not what the opcode says");
        match message.opcode {
            opcode::LIST_CHARACTERS => Ok(Self::ListCharacters),
            opcode::CREATE_CHARACTER => {
                let decoded = payload::CreateCharacter::decode(&*message.payload).map_err(malformed)?;
                let name = checked_name(&decoded.name, reserved_names);
                let name = name.map_err(|why| refuse(ErrorCode::Refused, &why))?;
                Ok(Self::CreateCharacter { name, start: start_position(account.0) })
            }
            opcode::ENTER => {
                let decoded = payload::Enter::decode(&*message.payload).map_err(malformed)?;
                Ok(Self::Enter(CharacterId(decoded.character_id)))
            }
            opcode::LEAVE => Ok(Self::Leave),
            _ => Err(refuse(ErrorCode::OutOfPhase, "the world has no such request")),
        }
    }
}

/// The name of a new character in its normal form.
fn checked_name(typed: &str, reserved: &[String]) -> Result<String, String> {
    let name = CharacterName::new(typed).map_err(|error| error.to_string())?;
    if reserved_by(reserved, name.as_str()).is_some() {
        return Err(format!("the name {name} is reserved; choose another one"));
    }
    Ok(name.to_string())
}

/// The first position of a new character: at the start of the map of space 1, so that new players meet. Each account
/// starts some metres from the next.
pub(crate) fn start_position(account: u64) -> Position {
    static START: LazyLock<Point> = LazyLock::new(|| Map::meadow().start);
    let spread = |number: u64| i32::try_from(number % 17).unwrap_or(0) * 1000 - 8000;
    let (x_mm, y_mm) = (START.x_mm + spread(account), START.y_mm + spread(account / 17));
    Position::flat(SpaceId::FIRST, x_mm.max(0), y_mm.max(0))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::WorldConfig;

    #[test]
    fn character_name_is_normalised_and_checked() {
        assert_eq!(checked_name("Zoe\u{308}", &[]), Ok("Zo\u{eb}".to_owned()));
        for wrong in ["", "Al", "Seventeenletterss", "Ann1", "An n", "../x", "Ann\n", "\u{410}nn"] {
            assert!(checked_name(wrong, &[]).is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn reserved_character_name_is_refused() {
        let reserved = WorldConfig::default().reserved_names;
        for wrong in ["Admin", "Gamemaster", "Adrnin", "GAMEMASTER"] {
            let error = checked_name(wrong, &reserved).unwrap_err();
            assert!(error.contains("is reserved"), "{error}");
        }
        assert_eq!(checked_name("Gaming", &reserved), Ok("Gaming".to_owned()));
    }

    #[test]
    fn start_positions_differ_and_are_near_the_start() {
        let (a, b) = (start_position(1), start_position(2));
        assert_ne!(a, b);
        for at in [a, b, start_position(u64::MAX)] {
            assert!((490_000..=512_000).contains(&at.x_mm), "{at:?}");
            assert!((500_000..=522_000).contains(&at.y_mm), "{at:?}");
        }
    }
}
