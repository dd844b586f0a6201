//! Converts messages to the types of the store and back.

use std::sync::Arc;

use shardkeep_rpc::{Malformed, common, dbcache as proto, session_id};
use shardkeep_store::game;
use shardkeep_types::{
    AccountId, CellId, CharacterId, Epoch, ItemId, Position, SpaceId, SpawnId, Term, WorldId,
};

fn position(field: &'static str, at: Option<common::Position>) -> Result<Position, Malformed> {
    Position::try_from(at.ok_or_else(|| Malformed::missing(field))?)
}

fn zone(field: &'static str, zone: String, incarnation: u64) -> Result<game::Owner, Malformed> {
    if zone.is_empty() { Err(Malformed::missing(field)) } else { Ok(game::Owner { zone, incarnation }) }
}

fn account(field: &'static str, account: Option<&proto::LedgerAccount>) -> Result<game::Holder, Malformed> {
    use proto::ledger_account::Account;
    let account = account.and_then(|it| it.account.as_ref()).ok_or_else(|| Malformed::missing(field))?;
    let holder = match account {
        Account::Character(id) => game::Holder::Character(CharacterId(*id)),
        Account::Ground(cell) => {
            let number = |value: u32| u16::try_from(value).map_err(|error| Malformed::new(field, error));
            let cell_id = CellId { space: SpaceId(cell.space), x: number(cell.x)?, y: number(cell.y)? };
            game::Holder::Ground(WorldId(cell.world), cell_id)
        }
        Account::Mint(reason) => game::Holder::Mint(reason.clone()),
        Account::Burn(reason) => game::Holder::Burn(reason.clone()),
    };
    holder.check().map_err(|error| Malformed::new(field, error))
}

pub(crate) fn new_character(request: proto::CreateCharacterRequest) -> Result<game::NewCharacter, Malformed> {
    Ok(game::NewCharacter {
        account: AccountId(request.account),
        world: WorldId(request.world),
        name: request.name,
        start: position("start", request.start)?,
        items: request.items.iter().map(|stack| (stack.template, stack.count)).collect(),
        coins: request.coins,
        limit: request.limit,
    })
}

pub(crate) fn claim(request: proto::ClaimRequest) -> Result<game::Claim, Malformed> {
    Ok(game::Claim {
        character: CharacterId(request.character),
        account: AccountId(request.account),
        world: WorldId(request.world),
        term: Term(request.term),
        zone: zone("zone", request.zone, request.incarnation)?,
        session: session_id(&request.session)?,
    })
}

pub(crate) fn transfer(
    caller: Arc<game::Caller>,
    request: proto::TransferRequest,
) -> Result<game::Transfer, Malformed> {
    Ok(game::Transfer {
        caller,
        character: CharacterId(request.character),
        epoch: Epoch(request.epoch),
        from: zone("from_zone", request.from_zone, request.from_incarnation)?,
        to: zone("to_zone", request.to_zone, request.to_incarnation)?,
        soft: of_character(request.character, request.soft)?,
    })
}

pub(crate) fn reown(request: proto::ReownRequest) -> Result<game::Reown, Malformed> {
    Ok(game::Reown {
        world: WorldId(request.world),
        term: Term(request.term),
        from: zone("from_zone", request.from_zone, request.from_incarnation)?,
        to: zone("to_zone", request.to_zone, request.to_incarnation)?,
    })
}

pub(crate) fn release(
    caller: Arc<game::Caller>,
    request: proto::ReleaseRequest,
) -> Result<game::Release, Malformed> {
    Ok(game::Release {
        caller,
        character: CharacterId(request.character),
        epoch: Epoch(request.epoch),
        soft: of_character(request.character, request.soft)?,
    })
}

fn of_character(
    character: u64,
    state: Option<proto::SoftState>,
) -> Result<Option<game::SoftState>, Malformed> {
    let state = state.map(soft).transpose()?;
    match state {
        Some(state) if state.character.0 != character => Err(Malformed::new("soft", "of another character")),
        state => Ok(state),
    }
}

pub(crate) fn soft(state: proto::SoftState) -> Result<game::SoftState, Malformed> {
    Ok(game::SoftState {
        character: CharacterId(state.character),
        epoch: Epoch(state.epoch),
        sequence: state.sequence,
        position: position("position", state.position)?,
        facing: state.facing,
        health: state.health,
    })
}

pub(crate) fn bid(request: proto::LeadRequest) -> Result<game::LeadershipBid, Malformed> {
    if request.holder.is_empty() {
        return Err(Malformed::missing("holder"));
    }
    Ok(game::LeadershipBid {
        world: WorldId(request.world),
        holder: request.holder,
        incarnation: request.incarnation,
        ttl_ms: request.ttl_ms,
    })
}

pub(crate) fn hard_action(
    caller: game::Caller,
    request: proto::HardAction,
) -> Result<game::HardAction, Malformed> {
    let once = |key: proto::OnceKey| game::OnceKey {
        world: WorldId(key.world),
        spawn: SpawnId { space: SpaceId(key.space), number: key.spawn },
        generation: key.generation,
    };
    let reward = |reward: proto::Reward| game::Reward {
        fence: fence(proto::Fence { character: reward.character, epoch: reward.epoch }),
        coins: reward.coins,
        experience: reward.experience,
    };
    Ok(game::HardAction {
        caller,
        action: request.action.map(action_id).transpose()?,
        other_actions: request.other_actions.into_iter().map(action_id).collect::<Result<_, _>>()?,
        once: request.once.map(once),
        fences: request.fences.into_iter().map(fence).collect(),
        items: request.items.iter().map(move_item).collect::<Result<_, _>>()?,
        mints: request.mints.iter().map(mint_item).collect::<Result<_, _>>()?,
        coins: request.coins.iter().map(move_coins).collect::<Result<_, _>>()?,
        reward: request.reward.map(reward),
        reason: request.reason,
    })
}

pub(crate) fn action_id(action: proto::ActionId) -> Result<game::ActionId, Malformed> {
    let digest = action.digest.try_into().map_err(|_| Malformed::new("digest", "not 16 bytes"))?;
    Ok(game::ActionId { character: CharacterId(action.character), id: action.id, digest })
}

fn fence(fence: proto::Fence) -> game::Fence {
    game::Fence { character: CharacterId(fence.character), epoch: Epoch(fence.epoch) }
}

fn move_item(part: &proto::MoveItem) -> Result<game::MoveItem, Malformed> {
    Ok(game::MoveItem {
        item: ItemId(part.item),
        from: account("items.from", part.from.as_ref())?,
        to: account("items.to", part.to.as_ref())?,
        at: part.at.map(Position::try_from).transpose()?,
    })
}

fn mint_item(part: &proto::MintItem) -> Result<game::MintItem, Malformed> {
    Ok(game::MintItem {
        template: part.template,
        count: part.count,
        to: account("mints.to", part.to.as_ref())?,
        at: part.at.map(Position::try_from).transpose()?,
    })
}

fn move_coins(part: &proto::MoveCoins) -> Result<game::MoveCoins, Malformed> {
    Ok(game::MoveCoins {
        from: account("coins.from", part.from.as_ref())?,
        to: account("coins.to", part.to.as_ref())?,
        amount: part.amount,
    })
}

pub(crate) fn character(character: game::Character) -> proto::Character {
    let owner = character.owner.unwrap_or(game::Owner { zone: String::new(), incarnation: 0 });
    proto::Character {
        id: character.id.0,
        account: character.account.0,
        world: character.world.0,
        name: character.name,
        owner: owner.zone,
        owner_incarnation: owner.incarnation,
        epoch: character.epoch.0,
        position: Some(character.position.into()),
        facing: character.facing,
        health: character.health,
        experience: character.experience,
        items: character.items.into_iter().map(item).collect(),
        coins: character.coins,
        last_action: character.last_action,
        session: character.session.map(|session| session.as_bytes().to_vec()).unwrap_or_default(),
    }
}

/// The ownership of a character and nothing else, for zones that do not own it.
pub(crate) fn ownership(character: game::Character) -> proto::Character {
    let owner = character.owner.unwrap_or(game::Owner { zone: String::new(), incarnation: 0 });
    proto::Character {
        id: character.id.0,
        world: character.world.0,
        owner: owner.zone,
        owner_incarnation: owner.incarnation,
        epoch: character.epoch.0,
        ..proto::Character::default()
    }
}

pub(crate) fn reowned(moved: &game::Reowned) -> proto::ReownedCharacter {
    proto::ReownedCharacter {
        character: moved.character.0,
        epoch: moved.epoch.0,
        session: moved.session.map(|session| session.as_bytes().to_vec()).unwrap_or_default(),
    }
}

fn item(item: game::Item) -> proto::Item {
    proto::Item { id: item.id.0, template: item.template, count: item.count }
}

pub(crate) fn hard_result(result: game::HardResult) -> proto::HardResult {
    proto::HardResult {
        applied: result.applied,
        minted: result.minted.into_iter().map(|id| id.0).collect(),
        characters: result.characters.into_iter().map(character).collect(),
    }
}

pub(crate) fn action_lookup(found: game::ActionLookup) -> proto::LookupActionReply {
    proto::LookupActionReply {
        found: found.minted.is_some(),
        minted: found.minted.unwrap_or_default().into_iter().map(|id| id.0).collect(),
        character: Some(character(found.character)),
    }
}

pub(crate) fn ground_cursor(cursor: proto::GroundCursor) -> Result<game::GroundCursor, Malformed> {
    use proto::ground_cursor::After;
    match cursor.after.ok_or_else(|| Malformed::missing("after"))? {
        After::Spawn(spawn) => Ok(game::GroundCursor::Spawn(spawn)),
        After::Item(place) => Ok(game::GroundCursor::Item { y_mm: place.y_mm, item: ItemId(place.item) }),
    }
}

pub(crate) fn ground(page: game::GroundPage) -> proto::LoadGroundReply {
    use proto::ground_cursor::After;
    let items = page.items.into_iter().map(|found| proto::GroundItem {
        item: Some(item(found.item)),
        position: Some(found.position.into()),
    });
    let next = page.next.map(|next| match next {
        game::GroundCursor::Spawn(spawn) => After::Spawn(spawn),
        game::GroundCursor::Item { y_mm, item } => After::Item(proto::GroundPlace { y_mm, item: item.0 }),
    });
    proto::LoadGroundReply {
        items: items.collect(),
        generations: page.generations.into_iter().collect(),
        next: next.map(|after| proto::GroundCursor { after: Some(after) }),
    }
}

pub(crate) fn lead(lead: game::Leadership) -> proto::LeadReply {
    proto::LeadReply {
        leader: lead.leader,
        term: lead.term.0,
        holder: lead.holder,
        left_ms: u32::try_from(lead.left_ms).unwrap_or(u32::MAX),
    }
}

pub(crate) fn conservation(found: game::Conservation) -> proto::CheckConservationReply {
    proto::CheckConservationReply {
        holds: found.holds(),
        items: found.items,
        items_minted: found.items_minted,
        items_burned: found.items_burned,
        coins: found.coins,
        coins_minted: found.coins_minted,
        coins_burned: found.coins_burned,
        faults: found.faults,
    }
}
