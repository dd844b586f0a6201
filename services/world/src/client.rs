//! What clients ask: opcodes to requests. A message that is not what its opcode says is refused, never more.

use std::time::Instant;

use prost::Message;
use shardkeep_link::{ClientMessage, GatewayId, MessageKind};
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
    /// Messages of one client. Of a session that was not presented (yet), or is another gateway's, only to be refused.
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
                Ok(decoded) => match checked_name(&decoded.name) {
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
                    Err(why) => self.refuse(id, request, ErrorCode::Refused, why),
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

/// Names: 3 to 16 ASCII letters, kept as written, compared without regard to case.
fn checked_name(name: &str) -> Result<String, &'static str> {
    if !(3..=16).contains(&name.len()) || !name.bytes().all(|byte| byte.is_ascii_alphabetic()) {
        return Err("a name has 3 to 16 letters from a to z");
    }
    Ok(name.to_owned())
}

/// Where a new character stands first: near the middle of the map, a little west of it, so that those who begin
/// meet; each account some metres from the next.
fn start_position(account: u64, map_cells: u16) -> Position {
    let middle = i32::from(map_cells) * shardkeep_types::CELL_MM / 2;
    let spread = |number: u64| i32::try_from(number % 17).unwrap_or(0) * 1000 - 8000;
    let west = 12_000.min(middle);
    Position::new(MEADOW, (middle - west + spread(account)).max(0), (middle + spread(account / 17)).max(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn character_name_must_be_ascii_letters() {
        assert_eq!(checked_name("Ann"), Ok("Ann".to_owned()));
        for wrong in ["", "Al", "Seventeenletterss", "Ann1", "An n", "Ånn", "../x", "Ann\n"] {
            assert!(checked_name(wrong).is_err(), "{wrong:?}");
        }
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
