//! A session over QUIC that walks, so that state flows, and never reads its stream. The flow-control window closes while
//! datagrams go on. The server must neither keep all messages nor wake again and again.

use std::sync::Arc;

use anyhow::{Context as _, Result};
use bytes::BytesMut;
use shardkeep_client::{
    Config,
    lanes::{Connector, Lane, Trust},
    wire::{
        Message,
        movement::{self, Move},
        opcode,
        payload::{CharacterCreated, CharacterList, CreateCharacter, Enter, ListCharacters},
    },
};
use tokio::time::timeout_at;

use crate::{
    attack_plan::Account, attempt::ANSWER_TIMEOUT, context::AttackContext, insider::Insider, source,
    tally::Tally,
};

/// Bytes that the server sends before they are read; soon used up.
const WINDOW: u32 = 2_048;
/// Velocities in mm/s, one after the other.
const STEPS: [[i16; 2]; 4] = [[3_000, 0], [0, 3_000], [-3_000, 0], [0, -3_000]];

pub async fn run(ctx: Arc<AttackContext>, tally: Arc<Tally>) {
    let Some(account) = ctx.accounts().get(4) else { return };
    let connector = match Connector::with_window(&Trust::AnyCertificate, WINDOW) {
        Ok(connector) => connector,
        Err(error) => return tally.remark(&format!("no QUIC to attack by: {error}")),
    };
    let config = Config { connector, ..ctx.config.clone() };
    let mut limiter = ctx.session_limiter();
    let mut walker: Option<Walker> = None;
    while limiter.next().await {
        let mut here = match walker.take() {
            Some(here) => here,
            None => match Walker::enter(&ctx, config.clone(), account).await {
                Ok(here) => here,
                Err(error) => {
                    tally.remark(&format!("no session to attack from: {error:#}"));
                    if !limiter.pause(ANSWER_TIMEOUT / 10).await {
                        return;
                    }
                    continue;
                }
            },
        };
        tally.attempt();
        match timeout_at(ctx.until(), here.step()).await {
            Ok(Ok(())) => {
                tally.accepted("walked, unread");
                walker = Some(here);
            }
            Ok(Err(_)) => tally.refused("closed"),
            Err(_) => tally.accepted("still open"),
        }
    }
}

/// A session with an avatar in the world.
struct Walker {
    insider: Insider,
    steps: u32,
}

impl Walker {
    /// Everything up to here is read.
    async fn enter(ctx: &AttackContext, config: Config, account: &Account) -> Result<Self> {
        let mut insider = Insider::attach_session_on(ctx, Lane::Quic, config, account).await?;
        let character = character(&mut insider).await?;
        let (request, enter) = insider.request(opcode::ENTER, &Enter { character_id: character });
        insider.connection.send(&[enter]).await?;
        let entered = insider.reply(request).await?.context("no answer to Enter")?;
        anyhow::ensure!(entered.opcode == opcode::ENTER, "Enter is refused");
        Ok(Self { insider, steps: 0 })
    }

    async fn step(&mut self) -> Result<()> {
        let velocity = STEPS[self.steps as usize % STEPS.len()];
        self.steps += 1;
        let mut payload = BytesMut::with_capacity(Move::LENGTH);
        Move { sequence: self.steps, velocity, facing: 0 }.encode(&mut payload);
        let move_request = Message::new(opcode::MOVE, movement::OWN, payload.freeze());
        Ok(self.insider.connection.send(&[move_request]).await?)
    }
}

/// The account's first character, made if it has none.
async fn character(insider: &mut Insider) -> Result<u64> {
    let (request, list) = insider.request(opcode::LIST_CHARACTERS, &ListCharacters {});
    insider.connection.send(&[list]).await?;
    let listed = insider.reply(request).await?.context("no list of characters")?;
    if let Some(character) = listed.decode::<CharacterList>()?.characters.first() {
        return Ok(character.id);
    }
    let name: String = source::random::<8>().iter().map(|byte| char::from(b'a' + byte % 26)).collect();
    let (request, create) = insider.request(opcode::CREATE_CHARACTER, &CreateCharacter { name });
    insider.connection.send(&[create]).await?;
    let created = insider.reply(request).await?.context("no answer to CreateCharacter")?;
    Ok(created.decode::<CharacterCreated>()?.character.context("no character")?.id)
}
