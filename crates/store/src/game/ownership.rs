//! Which zone owns a character. Every change of owner raises the epoch; the database is the only judge of it.

use shardkeep_types::{AccountId, CharacterId, Epoch, SessionId, Term, WorldId};

use super::{
    Character, Game, GameError, Holdings, Owner, Refusal, SoftState,
    characters::{CharacterRow, character_columns},
    leadership::check_term,
    soft::save_in,
};
use crate::{Tx, sql, transact};

/// A world gives a character to a zone, whoever had it.
#[derive(Debug, Clone)]
pub struct Claim {
    pub character: CharacterId,
    pub account: AccountId,
    pub world: WorldId,
    pub term: Term,
    pub zone: Owner,
    pub session: SessionId,
}

/// A zone passes a character on.
#[derive(Debug, Clone)]
pub struct Transfer {
    pub character: CharacterId,
    pub epoch: Epoch,
    pub from: Owner,
    pub to: Owner,
    pub soft: Option<SoftState>,
}

/// A world gives every character of a dead zone to another one.
#[derive(Debug, Clone)]
pub struct Reown {
    pub world: WorldId,
    pub term: Term,
    /// This incarnation and every earlier one is dead.
    pub from: Owner,
    pub to: Owner,
}

/// A zone lets go of a character.
#[derive(Debug, Clone)]
pub struct Release {
    pub character: CharacterId,
    pub epoch: Epoch,
    pub soft: Option<SoftState>,
}

impl Game {
    pub async fn claim(&self, claim: &Claim) -> Result<Character, GameError> {
        transact!(self.database, |tx| self.claim_in(&mut tx, claim))
    }

    async fn claim_in(&self, tx: &mut Tx, claim: &Claim) -> Result<Character, GameError> {
        check_term(tx, claim.world, claim.term).await?;
        let query = sql(concat!(
            "UPDATE characters SET owner = $1, owner_incarnation = $2, epoch = epoch + 1, session = $3
             WHERE id = $4 AND account = $5 AND world = $6 RETURNING ",
            character_columns!()
        ));
        let query = query.bind(&claim.zone.zone).bind(claim.zone.incarnation).bind(claim.session.as_bytes());
        let rows =
            tx.fetch_all(query.bind(claim.character.0).bind(claim.account.0).bind(claim.world.0)).await?;
        self.with_holdings(tx, rows).await?.pop().ok_or(Refusal::NoSuchCharacter(claim.character).into())
    }

    /// Returns the new epoch. A transfer that has happened is answered as the first time.
    pub async fn transfer(&self, transfer: &Transfer) -> Result<Epoch, GameError> {
        transact!(self.database, |tx| transfer_in(&mut tx, transfer))
    }

    /// One statement, however many they are; which is why what they hold is left out of the answer.
    pub async fn reown(&self, reown: &Reown) -> Result<Vec<Character>, GameError> {
        transact!(self.database, |tx| reown_in(&mut tx, reown))
    }

    /// The character is nobody's; the epoch is raised, so that nothing the zone still has under way can take effect.
    pub async fn release(&self, release: &Release) -> Result<(), GameError> {
        transact!(self.database, |tx| release_in(&mut tx, release))
    }
}

async fn reown_in(tx: &mut Tx, reown: &Reown) -> Result<Vec<Character>, GameError> {
    check_term(tx, reown.world, reown.term).await?;
    // Locked in key order first, so that hard actions on the same rows cannot meet it head-on.
    let query = sql(concat!(
        "WITH orphans AS (SELECT id FROM characters WHERE world = $1 AND owner = $2 AND owner_incarnation <= $3
             ORDER BY id {for_update})
         UPDATE characters SET owner = $4, owner_incarnation = $5, epoch = epoch + 1
         WHERE id IN (SELECT id FROM orphans) AND owner = $2 AND owner_incarnation <= $3 RETURNING ",
        character_columns!()
    ));
    let query = query.bind(reown.world.0).bind(&reown.from.zone).bind(reown.from.incarnation);
    let rows = tx.fetch_all(query.bind(&reown.to.zone).bind(reown.to.incarnation)).await?;
    let bare = Holdings::default();
    rows.into_iter().map(|row| Ok(CharacterRow::read(row)?.with(&bare))).collect()
}

async fn transfer_in(tx: &mut Tx, transfer: &Transfer) -> Result<Epoch, GameError> {
    if let Some(soft) = &transfer.soft {
        save_in(tx, std::slice::from_ref(soft)).await?;
    }
    let query = sql("UPDATE characters SET owner = $1, owner_incarnation = $2, epoch = epoch + 1
         WHERE id = $3 AND epoch = $4 AND owner = $5 AND owner_incarnation = $6");
    let query = query.bind(&transfer.to.zone).bind(transfer.to.incarnation).bind(transfer.character.0);
    let query = query.bind(transfer.epoch.0).bind(&transfer.from.zone).bind(transfer.from.incarnation);
    if tx.execute(query).await? == 1 {
        return Ok(transfer.epoch.next());
    }
    let (owner, epoch) = owner_of(tx, transfer.character).await?;
    if epoch == transfer.epoch.next() && owner.as_ref() == Some(&transfer.to) {
        return Ok(epoch);
    }
    Err(Refusal::StaleEpoch { character: transfer.character, epoch }.into())
}

async fn release_in(tx: &mut Tx, release: &Release) -> Result<(), GameError> {
    if let Some(soft) = &release.soft {
        save_in(tx, std::slice::from_ref(soft)).await?;
    }
    let query = sql("UPDATE characters SET owner = '', owner_incarnation = 0, epoch = epoch + 1
         WHERE id = $1 AND epoch = $2 AND owner <> ''");
    if tx.execute(query.bind(release.character.0).bind(release.epoch.0)).await? == 1 {
        return Ok(());
    }
    let (owner, epoch) = owner_of(tx, release.character).await?;
    if epoch == release.epoch.next() && owner.is_none() {
        return Ok(());
    }
    Err(Refusal::StaleEpoch { character: release.character, epoch }.into())
}

async fn owner_of(tx: &mut Tx, character: CharacterId) -> Result<(Option<Owner>, Epoch), GameError> {
    let query = sql("SELECT owner, owner_incarnation, epoch FROM characters WHERE id = $1").bind(character.0);
    let mut row = tx.fetch_optional(query).await?.ok_or(Refusal::NoSuchCharacter(character))?;
    let owner = Owner { zone: row.take()?, incarnation: row.take()? };
    Ok(((!owner.zone.is_empty()).then_some(owner), Epoch(row.take()?)))
}
