//! The types of game state, and what can be checked about them without the database.

use shardkeep_types::{AccountId, CharacterId, Epoch, ItemId, Position, SessionId, SpawnId, WorldId};

use super::{holder::Holder, refusal::Refusal};

/// The database stores the results of this many action ids per character. It refuses lower ids.
pub const ACTION_WINDOW: u64 = 256;
/// The database refuses action ids that lie further above the last one of the character. Otherwise one id of 2⁶³ − 1
/// would use up all others.
pub const MAX_ACTION_GAP: u64 = 65_536;
/// The most stacks that a character holds, so that a character always fits into one message.
pub const MAX_STACKS: usize = 10_000;
/// The most parts of each kind in one action.
const MAX_PARTS: usize = 256;
/// The most characters in one action, so that its result fits into one message.
const MAX_FENCES: usize = 8;
const MAX_REASON: usize = 64;

/// The daemon that asks, from its certificate.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Caller {
    /// Acts for the characters of its world that it owns.
    Zone { world: WorldId, name: String },
    /// Acts for every character of its world.
    World(WorldId),
}

impl Caller {
    pub fn world(&self) -> WorldId {
        match self {
            Self::Zone { world, .. } | Self::World(world) => *world,
        }
    }

    /// The name of the zone; empty for a world.
    pub fn zone(&self) -> &str {
        match self {
            Self::Zone { name, .. } => name,
            Self::World(_) => "",
        }
    }

    /// Whether this caller acts for a character of its world with this owner.
    pub fn owns(&self, owner: Option<&Owner>) -> bool {
        match self {
            Self::Zone { name, .. } => owner.is_some_and(|owner| owner.zone == *name),
            Self::World(_) => true,
        }
    }
}

/// A zone that owns characters. A later incarnation of the same zone is another owner.
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
    /// The session that plays it, stored by the last claim.
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

/// State of which a crash may lose the last seconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SoftState {
    pub character: CharacterId,
    pub epoch: Epoch,
    /// Rises with every state that the owner sends within the epoch.
    pub sequence: u64,
    pub position: Position,
    pub facing: u32,
    pub health: u32,
}

/// An action of a client: a counter of the character, and a digest of the request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ActionId {
    pub character: CharacterId,
    pub id: u64,
    pub digest: [u8; 16],
}

/// The ownership epoch under which the caller acts for a character.
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
    /// Where it lies, for ground only.
    pub at: Option<Position>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MintItem {
    pub template: u32,
    pub count: u32,
    pub to: Holder,
    /// Where it lies, for ground only.
    pub at: Option<Position>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MoveCoins {
    pub from: Holder,
    pub to: Holder,
    pub amount: i64,
}

/// Makes loot unique: each generation of a spawn is minted once. Generations of a spawn only rise.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OnceKey {
    pub world: WorldId,
    pub spawn: SpawnId,
    pub generation: u64,
}

/// Coins and experience for the character that killed the creature of a once key. It is the only part of an action
/// that may touch a character of another zone (of the same world).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Reward {
    pub fence: Fence,
    pub coins: i64,
    pub experience: u64,
}

/// One hard transaction. All of it takes effect once, or nothing does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HardAction {
    pub caller: Caller,
    pub action: Option<ActionId>,
    /// Action ids of other characters that it answers: the partner's confirmation of a trade.
    pub other_actions: Vec<ActionId>,
    pub once: Option<OnceKey>,
    /// One for every character that a part names.
    pub fences: Vec<Fence>,
    pub items: Vec<MoveItem>,
    pub mints: Vec<MintItem>,
    pub coins: Vec<MoveCoins>,
    pub reward: Option<Reward>,
    /// Written into the journal: pickup, drop, trade, loot.
    pub reason: String,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HardResult {
    /// False for a repeat, which gets the stored result.
    pub applied: bool,
    pub minted: Vec<ItemId>,
    /// The characters of the action that the caller owns, as they are now.
    pub characters: Vec<Character>,
    /// The reward went to a character of another zone.
    pub border_reward: bool,
}

/// The stored result of an action.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ActionLookup {
    /// The items that the action minted; `None` when the database stores no result for this id.
    pub minted: Option<Vec<ItemId>>,
    /// The character as it is now.
    pub character: Character,
}

impl HardAction {
    pub fn actions(&self) -> impl Iterator<Item = &ActionId> {
        self.action.iter().chain(&self.other_actions)
    }

    /// Checks everything that does not need the database.
    ///
    /// # Errors
    /// [`Refusal::Invalid`] with the rule that the action breaks, [`Refusal::Forbidden`] for another world.
    pub fn check(&self) -> Result<(), Refusal> {
        let invalid = |reason: &str| Err(Refusal::Invalid(reason.to_owned()));
        if self.action.is_none() && self.once.is_none() {
            return invalid("an action needs an action id or a once key, so that a repeat is recognised");
        }
        if self.action.is_none() && !self.other_actions.is_empty() {
            return invalid("an action with other action ids needs an action id");
        }
        if self.actions().any(|action| action.id == 0) {
            return invalid("action ids start at 1");
        }
        if self.reason.is_empty() || self.reason.len() > MAX_REASON {
            return Err(Refusal::Invalid(format!("the reason must have 1 to {MAX_REASON} bytes")));
        }
        if self.fences.len() > MAX_FENCES {
            return Err(Refusal::Invalid(format!("an action has at most {MAX_FENCES} fences")));
        }
        let parts = [self.other_actions.len(), self.items.len(), self.mints.len(), self.coins.len()];
        if parts.into_iter().any(|count| count > MAX_PARTS) {
            return Err(Refusal::Invalid(format!("an action has at most {MAX_PARTS} parts of each kind")));
        }
        if let Some(character) =
            self.characters().find(|id| !self.fences.iter().any(|fence| fence.character == *id))
        {
            return Err(Refusal::Invalid(format!("an action names character {character} without a fence")));
        }
        if self.worlds().any(|world| world != self.caller.world()) {
            return Err(Refusal::Forbidden("the action names another world than the caller's".to_owned()));
        }
        self.check_unique()?;
        self.check_moves()?;
        self.check_reward()
    }

    fn check_reward(&self) -> Result<(), Refusal> {
        let Some(reward) = &self.reward else { return Ok(()) };
        if self.once.is_none() || self.action.is_some() {
            return Err(Refusal::Invalid("a reward needs a once key and no action id".to_owned()));
        }
        if reward.coins < 0 {
            return Err(Refusal::Invalid("a reward takes no coins away".to_owned()));
        }
        if self.fences.iter().any(|fence| fence.character == reward.fence.character) {
            return Err(Refusal::Invalid("the rewarded character needs no second fence".to_owned()));
        }
        Ok(())
    }

    fn check_unique(&self) -> Result<(), Refusal> {
        let repeats = |mut keys: Vec<u64>| {
            keys.sort_unstable();
            keys.windows(2).any(|pair| pair[0] == pair[1])
        };
        if repeats(self.items.iter().map(|part| part.item.0).collect()) {
            return Err(Refusal::Invalid("an action moves the same item twice".to_owned()));
        }
        if repeats(self.fences.iter().map(|fence| fence.character.0).collect()) {
            return Err(Refusal::Invalid("an action fences the same character twice".to_owned()));
        }
        if repeats(self.actions().map(|action| action.character.0).collect()) {
            return Err(Refusal::Invalid("an action has two action ids of the same character".to_owned()));
        }
        Ok(())
    }

    fn check_moves(&self) -> Result<(), Refusal> {
        let invalid = |reason: &str| Err(Refusal::Invalid(reason.to_owned()));
        for part in &self.items {
            if part.from == part.to || !part.from.holds() || matches!(part.to, Holder::Mint(_)) {
                return invalid("an item moves from one holder to another holder or to a burn account");
            }
            check_position(&part.to, part.at)?;
        }
        for part in &self.mints {
            if part.count == 0 || !part.to.holds() {
                return invalid("a minted stack needs a count of at least 1 and a holder");
            }
            check_position(&part.to, part.at)?;
        }
        for part in &self.coins {
            let origin = matches!(part.from, Holder::Burn(_)) || matches!(part.to, Holder::Mint(_));
            if part.amount <= 0 || part.from == part.to || origin || !(part.from.holds() || part.to.holds()) {
                return invalid(
                    "at least 1 coin moves from a holder or a mint account to a holder or a burn account",
                );
            }
        }
        Ok(())
    }

    /// The accounts of every part, with repeats.
    pub fn holders(&self) -> impl Iterator<Item = &Holder> {
        self.items
            .iter()
            .flat_map(|part| [&part.from, &part.to])
            .chain(self.mints.iter().map(|part| &part.to))
            .chain(self.coins.iter().flat_map(|part| [&part.from, &part.to]))
    }

    /// Every character that a part names, with repeats. The reward has its own fence.
    fn characters(&self) -> impl Iterator<Item = CharacterId> {
        self.holders().filter_map(Holder::character).chain(self.actions().map(|action| action.character))
    }

    /// The worlds of every cell of ground and spawn it names.
    fn worlds(&self) -> impl Iterator<Item = WorldId> {
        self.holders().filter_map(Holder::world).chain(self.once.map(|once| once.world))
    }
}

/// A ground account needs a position inside its cell. No other account has a position.
fn check_position(holder: &Holder, at: Option<Position>) -> Result<(), Refusal> {
    let fits = match holder {
        Holder::Ground(_, cell) => at.is_some_and(|at| at.x_mm >= 0 && at.y_mm >= 0 && at.cell() == *cell),
        _ => at.is_none(),
    };
    if fits { Ok(()) } else { Err(Refusal::Invalid(format!("{holder} does not contain position {at:?}"))) }
}

#[cfg(test)]
mod tests {
    use shardkeep_types::SpaceId;

    use super::*;

    #[test]
    fn position_is_required_on_ground_only() {
        let ground: Holder = "g:1:1:0:0".parse().unwrap();
        let at = |x_mm| Some(Position::flat(SpaceId(1), x_mm, 5));
        assert_eq!(check_position(&ground, at(31_999)), Ok(()));
        for wrong in [None, at(32_000), at(-1)] {
            assert!(check_position(&ground, wrong).is_err());
        }
        let hands = Holder::Character(CharacterId(1));
        assert!(check_position(&hands, at(0)).is_err());
        assert_eq!(check_position(&hands, None), Ok(()));
    }
}
