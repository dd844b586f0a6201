//! Loads, lists, counts and creates characters.

use std::collections::HashMap;

use shardkeep_types::{AccountId, CharacterId, Epoch, Layer, Position, SessionId, SpaceId, WorldId};

use super::{
    holder::Holder,
    holdings::Holdings,
    ids::Sequence,
    refusal::{GameError, Refusal},
    tables::Game,
    types::{Caller, Character, Owner},
};
use crate::{Error, Row, Rows, Tx, sql, transact};

const MAX_NAME: usize = 64;
/// The health of a new avatar, until its zone saves another value.
const START_HEALTH: u32 = 100;
const STARTER: &str = "starter";

/// A row of `characters`. Items and coins are in other tables.
#[derive(Debug, Clone)]
pub(super) struct CharacterRow {
    pub(super) id: CharacterId,
    pub(super) account: AccountId,
    pub(super) world: WorldId,
    pub(super) name: String,
    pub(super) owner: Option<Owner>,
    pub(super) epoch: Epoch,
    pub(super) session: Option<SessionId>,
    pub(super) position: Position,
    pub(super) facing: u32,
    pub(super) health: u32,
    pub(super) experience: u64,
    pub(super) last_action: u64,
    pub(super) version: u64,
}

/// The columns of [`CharacterRow::read`], in its order. It is a macro because statements are literals.
macro_rules! character_columns {
    () => {
        "characters.id, characters.account, characters.world, characters.name, characters.owner,
         characters.owner_incarnation, characters.epoch, characters.session, characters.space, characters.layer,
         characters.x_mm, characters.y_mm, characters.z_mm, characters.facing, characters.health, characters.experience, characters.last_action,
         characters.version"
    };
}
pub(super) use character_columns;

/// Reads the columns space, layer, x_mm, y_mm and z_mm.
pub(super) fn read_position(row: &mut Row) -> Result<Position, Error> {
    Ok(Position {
        space: SpaceId(row.take()?),
        layer: Layer(row.take()?),
        x_mm: row.take()?,
        y_mm: row.take()?,
        z_mm: row.take()?,
    })
}

impl CharacterRow {
    pub(super) fn read(mut row: Row) -> Result<Self, Error> {
        let (id, account, world) = (CharacterId(row.take()?), AccountId(row.take()?), WorldId(row.take()?));
        let name = row.take()?;
        let owner = Owner { zone: row.take()?, incarnation: row.take()? };
        let epoch = Epoch(row.take()?);
        let session: Vec<u8> = row.take()?;
        Ok(Self {
            id,
            account,
            world,
            name,
            owner: (!owner.zone.is_empty()).then_some(owner),
            epoch,
            session: SessionId::try_from(&session[..]).ok(),
            position: read_position(&mut row)?,
            facing: row.take()?,
            health: row.take()?,
            experience: row.take()?,
            last_action: row.take()?,
            version: row.take()?,
        })
    }

    pub(super) fn with(&self, holdings: &Holdings) -> Character {
        Character {
            id: self.id,
            account: self.account,
            world: self.world,
            name: self.name.clone(),
            owner: self.owner.clone(),
            epoch: self.epoch,
            session: self.session,
            position: self.position,
            facing: self.facing,
            health: self.health,
            experience: self.experience,
            last_action: self.last_action,
            coins: holdings.coins,
            items: holdings.items.values().copied().collect(),
        }
    }
}

/// A character to create.
#[derive(Debug, Clone)]
pub struct NewCharacter {
    pub account: AccountId,
    pub world: WorldId,
    /// Unique in the world. Upper and lower case count as equal.
    pub name: String,
    pub start: Position,
    /// (template, count) of the stacks that are minted with the character.
    pub items: Vec<(u32, u32)>,
    pub coins: i64,
    /// How many characters an account may have in a world.
    pub limit: u32,
}

impl Game {
    /// The character as the database has it now, for callers of its world.
    pub async fn load(&self, id: CharacterId, caller: &Caller) -> Result<Character, GameError> {
        let mut tx = self.database().snapshot().await?;
        let character = self.load_in(&mut tx, id).await?;
        tx.commit().await?;
        if character.world != caller.world() {
            return Err(Refusal::Forbidden(format!("character {id} belongs to another world")).into());
        }
        Ok(character)
    }

    pub(super) async fn load_in(&self, tx: &mut Tx, id: CharacterId) -> Result<Character, GameError> {
        let query =
            sql(concat!("SELECT ", character_columns!(), " FROM characters WHERE id = $1")).bind(id.0);
        let rows = tx.fetch_all(query).await?;
        self.with_holdings(tx, rows).await?.pop().ok_or(Refusal::NoSuchCharacter(id).into())
    }

    /// An account's characters in a world, oldest first, without their items and coins.
    pub async fn list(&self, account: AccountId, world: WorldId) -> Result<Vec<Character>, GameError> {
        let query = sql(concat!(
            "SELECT ",
            character_columns!(),
            " FROM characters WHERE account = $1 AND world = $2 ORDER BY id"
        ));
        let rows = self.database().fetch_all(query.bind(account.0).bind(world.0)).await?;
        let bare = Holdings::default();
        rows.into_iter().map(|row| Ok(CharacterRow::read(row)?.with(&bare))).collect()
    }

    /// How many characters each of the accounts has, by world. Accounts without any are left out.
    pub async fn count(
        &self,
        accounts: &[AccountId],
    ) -> Result<HashMap<AccountId, Vec<(WorldId, u32)>>, GameError> {
        let query = sql("SELECT account, world, COUNT(*) FROM characters \
             WHERE account IN (SELECT r.account FROM {rows}) GROUP BY account, world");
        let rows = Rows::new().ints("account", accounts.iter().map(|account| account.0));
        let mut counts: HashMap<_, Vec<_>> = HashMap::new();
        for mut row in self.database().fetch_all(query.rows(rows)).await? {
            let account = AccountId(row.take()?);
            counts.entry(account).or_default().push((WorldId(row.take()?), row.take()?));
        }
        Ok(counts)
    }

    /// Adds the holdings to rows that `tx` has read.
    pub(super) async fn with_holdings(&self, tx: &mut Tx, rows: Vec<Row>) -> Result<Vec<Character>, Error> {
        let rows = rows.into_iter().map(CharacterRow::read).collect::<Result<Vec<_>, _>>()?;
        let versions: Vec<_> = rows.iter().map(|row| (row.id, row.version)).collect();
        let holdings = self.holdings(tx, &versions).await?;
        let characters = rows.iter().filter_map(|row| Some(row.with(holdings.get(&row.id)?))).collect();
        self.cache_holdings(holdings);
        Ok(characters)
    }

    /// Creates a character, and mints its starter items in the same transaction.
    pub async fn create(&self, new: &NewCharacter) -> Result<Character, GameError> {
        let invalid = |reason: &str| Err(GameError::Refused(Refusal::Invalid(reason.to_owned())));
        if new.name.is_empty() || new.name.len() > MAX_NAME {
            let message = format!("a character name must have 1 to {MAX_NAME} bytes");
            return Err(Refusal::Invalid(message).into());
        }
        if new.coins < 0 || new.items.iter().any(|(_, count)| *count == 0) {
            return invalid(
                "starter stacks need a count of at least 1, and starter coins must not be negative",
            );
        }
        let ids = NewIds {
            character: self.take_one(Sequence::Character).await?,
            entry: self.take_one(Sequence::Entry).await?,
            items: self.ids().take(self.database(), Sequence::Item, new.items.len()).await?,
        };
        let created: Result<(), GameError> = transact!(self.database(), |tx| create_in(&mut tx, new, &ids));
        match created {
            Err(GameError::Store(error)) if error.is_duplicate() => Err(Refusal::NameTaken.into()),
            Err(error) => Err(error),
            Ok(()) => self.load(CharacterId(ids.character), &Caller::World(new.world)).await,
        }
    }

    async fn take_one(&self, sequence: Sequence) -> Result<u64, Error> {
        let ids = self.ids().take(self.database(), sequence, 1).await?;
        ids.first().copied().ok_or_else(|| Error::Corrupt("a sequence returned no id".to_owned()))
    }
}

struct NewIds {
    character: u64,
    entry: u64,
    items: Vec<u64>,
}

async fn create_in(tx: &mut Tx, new: &NewCharacter, ids: &NewIds) -> Result<(), GameError> {
    // The lock makes two concurrent creations of an account count one after the other.
    tx.fetch_all(sql("SELECT term FROM leadership WHERE world = $1 {for_update}").bind(new.world.0)).await?;
    let count = sql("SELECT id FROM characters WHERE account = $1 AND world = $2");
    let count = tx.fetch_all(count.bind(new.account.0).bind(new.world.0)).await?.len();
    if count >= new.limit as usize {
        return Err(Refusal::TooManyCharacters(new.limit).into());
    }
    let insert = sql(
        "INSERT INTO characters (id, account, world, name, name_key, created_ms, owner, owner_incarnation,
         epoch, session, space, layer, x_mm, y_mm, z_mm, facing, health, experience, last_action, version,
         soft_sequence)
         VALUES ($1, $2, $3, $4, $5, {now_ms}, '', 0, 0, $6, $7, $8, $9, $10, $11, 0, $12, 0, 0, 1, 0)",
    );
    let insert = insert.bind(ids.character).bind(new.account.0).bind(new.world.0).bind(&new.name);
    // Names that look alike have the same key, so that a world has only one of them.
    let Position { space, layer, x_mm, y_mm, z_mm } = new.start;
    let insert = insert.bind(shardkeep_names::confusable_key(&new.name)).bind(Vec::new());
    let insert = insert.bind(space.0).bind(layer.0).bind(x_mm).bind(y_mm).bind(z_mm);
    tx.execute(insert.bind(START_HEALTH)).await?;
    mint_starter(tx, new, ids).await?;
    Ok(())
}

async fn mint_starter(tx: &mut Tx, new: &NewCharacter, ids: &NewIds) -> Result<(), Error> {
    let holder = Holder::Character(CharacterId(ids.character)).to_string();
    let origin = Holder::Mint(STARTER.to_owned()).to_string();
    let stacks = || {
        Rows::new()
            .ints("id", ids.items.iter().copied())
            .ints("template", new.items.iter().map(|(template, _)| *template))
            .ints("count", new.items.iter().map(|(_, count)| *count))
    };
    if !ids.items.is_empty() {
        let items = sql("INSERT INTO items (id, holder, template, count, hop)
             SELECT r.id, $1, r.template, r.count, 1 FROM {rows}");
        tx.execute(items.bind(&holder).rows(stacks())).await?;
        let journal =
            sql("INSERT INTO item_journal (item, hop, at_ms, reason, source, target, template, count)
             SELECT r.id, 1, {now_ms}, $1, $2, $3, r.template, r.count FROM {rows}");
        tx.execute(journal.bind(STARTER).bind(&origin).bind(&holder).rows(stacks())).await?;
    }
    let balance = sql("INSERT INTO balances (holder, coins) VALUES ($1, $2)");
    tx.execute(balance.bind(&holder).bind(new.coins)).await?;
    if new.coins > 0 {
        let journal = sql("INSERT INTO coin_journal (id, at_ms, reason, source, target, amount)
             VALUES ($1, {now_ms}, $2, $3, $4, $5)");
        tx.execute(journal.bind(ids.entry).bind(STARTER).bind(origin).bind(holder).bind(new.coins)).await?;
    }
    Ok(())
}
