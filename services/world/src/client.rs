//! Messages of clients as requests to the core. A message that does not match its opcode is refused.

use std::time::Instant;

use prost::Message;
use shardkeep_link::{ClientMessage, GatewayId, MessageKind};
use shardkeep_names::{CharacterName, reserved_by};
use shardkeep_types::{CharacterId, Epoch, Position, SessionId};
use shardkeep_wire::{
    opcode,
    payload::{self, ErrorCode},
};

use crate::{
    core::{Core, MEADOW},
    effect::{Effect, Work},
    entry::refusal,
};

impl Core {
    /// Handles messages of one client. Messages of a session that is unknown, or that another gateway holds, are
    /// refused.
    pub(crate) fn handle_messages(
        &mut self,
        now: Instant,
        gateway: &GatewayId,
        session: SessionId,
        epoch: Epoch,
        messages: &[ClientMessage],
    ) {
        let requests = messages.iter().filter(|message| message.kind == MessageKind::Request);
        let known = self.sessions.is_held_by(session, gateway, epoch) && !self.leadership.is_standby();
        for message in requests {
            if known {
                self.handle_request(now, session, message);
            } else {
                let message = refusal(
                    message.request,
                    ErrorCode::Unavailable,
                    "the world does not know the session yet",
                );
                self.push(Effect::Send { gateway: gateway.clone(), session, message });
            }
        }
    }

    fn handle_request(&mut self, now: Instant, id: SessionId, message: &ClientMessage) {
        let request = message.request;
        let Some(account) = self.sessions.get(id).map(|session| session.account) else { return };
        match message.opcode {
            opcode::LIST_CHARACTERS => {
                self.push(Effect::Start(Work::ListCharacters { session: id, request, account }));
            }
            opcode::CREATE_CHARACTER => match payload::CreateCharacter::decode(&*message.payload) {
                Ok(decoded) => match checked_name(&decoded.name, &self.config.reserved_names) {
                    Ok(name) => {
                        let start = start_position(account.0, self.config.map_cells);
                        self.push(Effect::Start(Work::CreateCharacter {
                            session: id,
                            request,
                            account,
                            name,
                            start,
                        }));
                    }
                    Err(why) => self.refuse(id, request, ErrorCode::Refused, &why),
                },
                Err(_) => self.malformed(id, request),
            },
            opcode::ENTER => match payload::Enter::decode(&*message.payload) {
                Ok(decoded) => self.enter(now, id, request, CharacterId(decoded.character_id)),
                Err(_) => self.malformed(id, request),
            },
            opcode::LEAVE => self.leave(id, request),
            _ => self.refuse(id, request, ErrorCode::OutOfPhase, "the world has no such request"),
        }
    }

    fn malformed(&mut self, id: SessionId, request: u64) {
        self.refuse(id, request, ErrorCode::Malformed, "the payload is not what the opcode says");
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

/// The first position of a new character: a little west of the middle of the map, so that new players meet. Each
/// account starts some metres from the next.
fn start_position(account: u64, map_cells: u16) -> Position {
    let middle = i32::from(map_cells) * shardkeep_types::CELL_MM / 2;
    let spread = |number: u64| i32::try_from(number % 17).unwrap_or(0) * 1000 - 8000;
    let west = 12_000.min(middle);
    Position::new(MEADOW, (middle - west + spread(account)).max(0), (middle + spread(account / 17)).max(0))
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
    fn start_positions_differ_and_are_near_the_middle() {
        let (a, b) = (start_position(1, 32), start_position(2, 32));
        assert_ne!(a, b);
        for at in [a, b, start_position(u64::MAX, 32)] {
            assert!((490_000..=512_000).contains(&at.x_mm), "{at:?}");
            assert!((500_000..=522_000).contains(&at.y_mm), "{at:?}");
        }
        assert_eq!(start_position(3, 1).cell().x, 0);
    }
}
