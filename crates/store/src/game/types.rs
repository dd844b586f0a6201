//! The words of game state.

use shardkeep_types::{AccountId, CharacterId, Epoch, ItemId, Position, SessionId, WorldId};

use super::{Holder, Refusal};

/// Results of this many actions back are kept per character; older action ids are refused.
pub const ACTION_WINDOW: u64 = 256;
/// Parts of one action, of each sort.
const MAX_PARTS: usize = 256;
const MAX_REASON: usize = 64;

/// A zone as the owner of characters. A later incarnation of the same zone is another owner.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Owner {
    pub zone: String,
    pub incarnation: u64,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Character {
    pub id: CharacterId,
    pub account: AccountId,
    pub world: WorldId,
    pub name: String,
    pub owner: Option<Owner>,
    pub epoch: Epoch,
    /// Session that plays it, from the last claim on.
    pub session: Option<SessionId>,
    pub position: Position,
    pub facing: u32,
    pub health: u32,
    pub experience: u64,
    pub last_action: u64,
    pub coins: i64,
    pub items: Vec<Item>,
}

/// A stack of items.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Item {
    pub id: ItemId,
    pub template: u32,
    pub count: u32,
}

/// State that may be lost for a few seconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SoftState {
    pub character: CharacterId,
    pub epoch: Epoch,
    pub position: Position,
    pub facing: u32,
    pub health: u32,
}

/// An action of a client: a counter of the character, and a digest of what was asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ActionId {
    pub character: CharacterId,
    pub id: u64,
    pub digest: [u8; 16],
}

/// The epoch by which the caller acts for a character.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fence {
    pub character: CharacterId,
    pub epoch: Epoch,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MoveItem {
    pub item: ItemId,
    pub from: Holder,
    pub to: Holder,
    /// Where it lies, if it goes to the ground.
    pub at: Option<Position>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MintItem {
    pub template: u32,
    pub count: u32,
    pub to: Holder,
    /// Where it lies, if it goes to the ground.
    pub at: Option<Position>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MoveCoins {
    pub from: Holder,
    pub to: Holder,
    pub amount: i64,
}

/// Loot of a spawn's generation: minted once, whoever asks. Generations of a spawn only rise.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OnceKey {
    pub world: WorldId,
    pub spawn: u64,
    pub generation: u64,
}

/// One hard transaction: all of it happens, once, or nothing.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct HardAction {
    pub action: Option<ActionId>,
    /// The other action ids it answers: the partner's confirmation of a trade.
    pub other_actions: Vec<ActionId>,
    pub once: Option<OnceKey>,
    /// Of every character the action names.
    pub fences: Vec<Fence>,
    pub items: Vec<MoveItem>,
    pub mints: Vec<MintItem>,
    pub coins: Vec<MoveCoins>,
    pub experience: Vec<(CharacterId, u64)>,
    /// In the journal: pickup, drop, trade, loot …
    pub reason: String,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HardResult {
    /// False: a repeat, answered from the stored result.
    pub applied: bool,
    pub minted: Vec<ItemId>,
    /// The characters of the fences, as they are now.
    pub characters: Vec<Character>,
}

impl HardAction {
    pub fn actions(&self) -> impl Iterator<Item = &ActionId> {
        self.action.iter().chain(&self.other_actions)
    }

    /// What can be said about an action without asking the database.
    ///
    /// # Errors
    /// [`Refusal::Invalid`] with what is wrong.
    pub fn check(&self) -> Result<(), Refusal> {
        let invalid = |reason: &str| Err(Refusal::Invalid(reason.to_owned()));
        if self.action.is_none() && self.once.is_none() {
            return invalid("neither an action id nor a once key: a repeat could not be told");
        }
        if self.action.is_none() && !self.other_actions.is_empty() {
            return invalid("other action ids without one's own");
        }
        if self.actions().any(|action| action.id == 0) {
            return invalid("action ids start at 1");
        }
        if self.reason.is_empty() || self.reason.len() > MAX_REASON {
            return invalid("the reason is empty or too long");
        }
        let parts = [
            self.other_actions.len(),
            self.fences.len(),
            self.items.len(),
            self.mints.len(),
            self.coins.len(),
        ];
        if parts.into_iter().chain([self.experience.len()]).any(|count| count > MAX_PARTS) {
            return invalid("too many parts");
        }
        if let Some(character) =
            self.characters().find(|id| !self.fences.iter().any(|fence| fence.character == *id))
        {
            return Err(Refusal::Invalid(format!("character {character} is named without a fence")));
        }
        self.check_unique()?;
        self.check_moves()
    }

    fn check_unique(&self) -> Result<(), Refusal> {
        let repeats = |mut keys: Vec<u64>| {
            keys.sort_unstable();
            keys.windows(2).any(|pair| pair[0] == pair[1])
        };
        if repeats(self.items.iter().map(|part| part.item.0).collect()) {
            return Err(Refusal::Invalid("an item is moved twice".to_owned()));
        }
        if repeats(self.fences.iter().map(|fence| fence.character.0).collect()) {
            return Err(Refusal::Invalid("a character is fenced twice".to_owned()));
        }
        if repeats(self.actions().map(|action| action.character.0).collect()) {
            return Err(Refusal::Invalid("two action ids of one character".to_owned()));
        }
        Ok(())
    }

    fn check_moves(&self) -> Result<(), Refusal> {
        let invalid = |reason: &str| Err(Refusal::Invalid(reason.to_owned()));
        for part in &self.items {
            if part.from == part.to || !part.from.holds() || matches!(part.to, Holder::Mint(_)) {
                return invalid("an item moves from a holder to another, or is burned");
            }
            part.to.check_position(part.at)?;
        }
        for part in &self.mints {
            if part.count == 0 || !part.to.holds() {
                return invalid("a minted stack is not empty and goes to a holder");
            }
            part.to.check_position(part.at)?;
        }
        for part in &self.coins {
            let origin = matches!(part.from, Holder::Burn(_)) || matches!(part.to, Holder::Mint(_));
            if part.amount <= 0 || part.from == part.to || origin || !(part.from.holds() || part.to.holds()) {
                return invalid("coins move, more than none, from a holder or a mint to a holder or an end");
            }
        }
        Ok(())
    }

    /// Every character named by a part, with repeats.
    fn characters(&self) -> impl Iterator<Item = CharacterId> {
        let holders = self
            .items
            .iter()
            .flat_map(|part| [&part.from, &part.to])
            .chain(self.mints.iter().map(|part| &part.to))
            .chain(self.coins.iter().flat_map(|part| [&part.from, &part.to]));
        holders
            .filter_map(Holder::character)
            .chain(self.actions().map(|action| action.character))
            .chain(self.experience.iter().map(|(character, _)| *character))
    }

    /// The worlds of every cell of ground and spawn it names.
    pub fn worlds(&self) -> impl Iterator<Item = WorldId> {
        let holders = self
            .items
            .iter()
            .flat_map(|part| [&part.from, &part.to])
            .chain(self.mints.iter().map(|part| &part.to))
            .chain(self.coins.iter().flat_map(|part| [&part.from, &part.to]));
        holders.filter_map(Holder::world).chain(self.once.map(|once| once.world))
    }
}
