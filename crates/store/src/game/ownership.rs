//! The owner of a character. Every change of owner raises the epoch. Only the database decides who owns a character.

use std::sync::Arc;

use shardkeep_types::{AccountId, CharacterId, Epoch, SessionId, Term, WorldId};

use super::{
    characters::character_columns,
    leadership::check_term,
    refusal::{GameError, Refusal},
    soft::{SoftWrite, save_in},
    tables::Game,
    types::{Caller, Character, Owner, SoftState},
};
use crate::{Tx, sql, transact};

/// The most characters that one [`Game::reown`] moves, so that the answer fits into one message.
pub const REOWN_LIMIT: usize = 10_000;

/// A world gives a character to a zone, whether or not another zone owns it.
#[derive(Debug, Clone)]
pub struct Claim {
    pub character: CharacterId,
    pub account: AccountId,
    pub world: WorldId,
    pub term: Term,
    pub zone: Owner,
    pub session: SessionId,
}

/// A zone passes its character to another zone of its world.
#[derive(Debug, Clone)]
pub struct Transfer {
    pub caller: Arc<Caller>,
    pub character: CharacterId,
    pub epoch: Epoch,
    pub from: Owner,
    pub to: Owner,
    pub soft: Option<SoftState>,
}

/// A world gives the characters of a dead zone to another zone.
#[derive(Debug, Clone)]
pub struct Reown {
    pub world: WorldId,
    pub term: Term,
    /// This incarnation and every earlier one is dead.
    pub from: Owner,
    pub to: Owner,
}

/// A character that moved to another zone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Reowned {
    pub character: CharacterId,
    pub epoch: Epoch,
    pub session: Option<SessionId>,
}

/// Removes the owner of a character.
#[derive(Debug, Clone)]
pub struct Release {
    pub caller: Arc<Caller>,
    pub character: CharacterId,
    pub epoch: Epoch,
    pub soft: Option<SoftState>,
}

impl Game {
    pub async fn claim(&self, claim: &Claim) -> Result<Character, GameError> {
        transact!(self.database(), |tx| self.claim_in(&mut tx, claim))
    }

    async fn claim_in(&self, tx: &mut Tx, claim: &Claim) -> Result<Character, GameError> {
        check_term(tx, claim.world, claim.term).await?;
        let query = sql(concat!(
            "UPDATE characters SET owner = $1, owner_incarnation = $2, epoch = epoch + 1, session = $3,
                 soft_sequence = 0
             WHERE id = $4 AND account = $5 AND world = $6 RETURNING ",
            character_columns!()
        ));
        let query = query.bind(&claim.zone.zone).bind(claim.zone.incarnation).bind(claim.session.as_bytes());
        let rows =
            tx.fetch_all(query.bind(claim.character.0).bind(claim.account.0).bind(claim.world.0)).await?;
        self.with_holdings(tx, rows).await?.pop().ok_or(Refusal::NoSuchCharacter(claim.character).into())
    }

    /// Returns the new epoch. A repeat of a transfer that took effect gets the same answer.
    pub async fn transfer(&self, transfer: &Transfer) -> Result<Epoch, GameError> {
        transact!(self.database(), |tx| transfer_in(&mut tx, transfer))
    }

    /// Moves at most [`REOWN_LIMIT`] characters in one statement. Repeat it until it moves fewer.
    pub async fn reown(&self, reown: &Reown) -> Result<Vec<Reowned>, GameError> {
        transact!(self.database(), |tx| reown_in(&mut tx, reown))
    }

    /// Removes the owner and raises the epoch, so that no commit of the zone can take effect later.
    pub async fn release(&self, release: &Release) -> Result<(), GameError> {
        transact!(self.database(), |tx| release_in(&mut tx, release))
    }
}

async fn reown_in(tx: &mut Tx, reown: &Reown) -> Result<Vec<Reowned>, GameError> {
    check_term(tx, reown.world, reown.term).await?;
    // Locks in key order, as hard actions do, so that the two cannot deadlock.
    let query = sql("WITH orphans AS (SELECT id FROM characters
             WHERE world = $1 AND owner = $2 AND owner_incarnation <= $3 ORDER BY id LIMIT $6 {for_update})
         UPDATE characters SET owner = $4, owner_incarnation = $5, epoch = epoch + 1, soft_sequence = 0
         WHERE id IN (SELECT id FROM orphans) AND owner = $2 AND owner_incarnation <= $3
         RETURNING id, epoch, session");
    let query = query.bind(reown.world.0).bind(&reown.from.zone).bind(reown.from.incarnation);
    let query = query.bind(&reown.to.zone).bind(reown.to.incarnation).bind(REOWN_LIMIT as u64);
    let mut moved = Vec::new();
    for mut row in tx.fetch_all(query).await? {
        let (character, epoch) = (CharacterId(row.take()?), Epoch(row.take()?));
        let session: Vec<u8> = row.take()?;
        moved.push(Reowned { character, epoch, session: SessionId::try_from(&session[..]).ok() });
    }
    Ok(moved)
}

async fn transfer_in(tx: &mut Tx, transfer: &Transfer) -> Result<Epoch, GameError> {
    save_last(tx, &transfer.caller, transfer.soft).await?;
    let query =
        sql("UPDATE characters SET owner = $1, owner_incarnation = $2, epoch = epoch + 1, soft_sequence = 0
         WHERE id = $3 AND epoch = $4 AND owner = $5 AND owner_incarnation = $6 AND world = $7");
    let query = query.bind(&transfer.to.zone).bind(transfer.to.incarnation).bind(transfer.character.0);
    let query = query.bind(transfer.epoch.0).bind(&transfer.from.zone).bind(transfer.from.incarnation);
    if tx.execute(query.bind(transfer.caller.world().0)).await? == 1 {
        return Ok(transfer.epoch.next());
    }
    let (owner, epoch) = owner_of(tx, &transfer.caller, transfer.character).await?;
    if epoch == transfer.epoch.next() && owner.as_ref() == Some(&transfer.to) {
        return Ok(epoch);
    }
    Err(refusal(&transfer.caller, transfer.character, (transfer.epoch, epoch), owner.as_ref()))
}

async fn release_in(tx: &mut Tx, release: &Release) -> Result<(), GameError> {
    save_last(tx, &release.caller, release.soft).await?;
    let query =
        sql("UPDATE characters SET owner = '', owner_incarnation = 0, epoch = epoch + 1, soft_sequence = 0
         WHERE id = $1 AND epoch = $2 AND owner <> '' AND world = $3 AND (owner = $4 OR $4 = '')");
    let query = query.bind(release.character.0).bind(release.epoch.0);
    let query = query.bind(release.caller.world().0).bind(release.caller.zone());
    if tx.execute(query).await? == 1 {
        return Ok(());
    }
    let (owner, epoch) = owner_of(tx, &release.caller, release.character).await?;
    if epoch == release.epoch.next() && owner.is_none() {
        return Ok(());
    }
    Err(refusal(&release.caller, release.character, (release.epoch, epoch), owner.as_ref()))
}

/// The last soft state of an owner. If the database refuses it, it also refuses the change of owner that follows.
async fn save_last(tx: &mut Tx, caller: &Arc<Caller>, soft: Option<SoftState>) -> Result<(), GameError> {
    if let Some(state) = soft {
        save_in(tx, &[SoftWrite { caller: caller.clone(), state }]).await?;
    }
    Ok(())
}

/// The owner and epoch of a character, for callers of its world.
async fn owner_of(
    tx: &mut Tx,
    caller: &Caller,
    character: CharacterId,
) -> Result<(Option<Owner>, Epoch), GameError> {
    let query = sql("SELECT world, owner, owner_incarnation, epoch FROM characters WHERE id = $1");
    let row = tx.fetch_optional(query.bind(character.0)).await?;
    let mut row = row.ok_or(Refusal::NoSuchCharacter(character))?;
    if WorldId(row.take()?) != caller.world() {
        return Err(Refusal::Forbidden(format!("character {character} belongs to another world")).into());
    }
    let owner = Owner { zone: row.take()?, incarnation: row.take()? };
    Ok(((!owner.zone.is_empty()).then_some(owner), Epoch(row.take()?)))
}

/// Why a character was not passed on. `epochs` are the caller's and the present one.
fn refusal(
    caller: &Caller,
    character: CharacterId,
    epochs: (Epoch, Epoch),
    owner: Option<&Owner>,
) -> GameError {
    let (expected, epoch) = epochs;
    if expected == epoch && owner.is_some() && !caller.owns(owner) {
        return Refusal::Forbidden(format!("another zone owns character {character}")).into();
    }
    Refusal::StaleEpoch { character, epoch }.into()
}
