//! The view of the world: cells with their entities, the player's avatar, its inventory and its trades.

use std::{
    collections::{BTreeMap, HashMap},
    time::Instant,
};

use shardkeep_types::{CellId, EntityId, Position, SpaceId};
use shardkeep_wire::{
    Head, Message,
    movement::{Avatar, Cell, Entry, Form, MovementError, RemovalReason},
    payload::{Entered, Inventory, Placed, QueuePosition, Trade, TradeState, Vitals},
};

use super::entity::{CellView, Entity};

/// Cells further than this from the avatar's cell are removed from the view.
const MAX_CELL_DISTANCE: u16 = 2;

#[derive(Debug, Clone, Default)]
pub struct View {
    /// The reply to `Enter`; `None` outside the world.
    pub entered: Option<Entered>,
    /// The own avatar, as its zone last said.
    pub avatar: Option<Avatar>,
    /// Where the zone put the avatar last, and in which zone.
    pub placed: Option<Placed>,
    pub inventory: Option<Inventory>,
    pub vitals: Option<Vitals>,
    /// Place in the queue, while waiting to enter.
    pub queue: Option<QueuePosition>,
    /// Trades that are not over.
    pub trades: BTreeMap<u64, Trade>,
    pub cells: HashMap<CellId, CellView>,
    pub entities: HashMap<EntityId, Entity>,
    space: SpaceId,
}

impl View {
    /// The own avatar's entity id.
    pub fn own_id(&self) -> Option<EntityId> {
        self.entered.as_ref().map(|entered| EntityId(entered.entity_id))
    }

    /// Position of the player's avatar.
    pub fn position(&self) -> Option<Position> {
        self.avatar.map(|avatar| Position::flat(self.space, avatar.position[0], avatar.position[1]))
    }

    pub fn entity(&self, id: EntityId) -> Option<&Entity> {
        self.entities.get(&id)
    }

    /// The entity with this name, which may be the player's avatar.
    pub fn find_by_name(&self, name: &str) -> Option<&Entity> {
        self.entities.values().find(|entity| entity.name == name)
    }

    /// All entities in sight except the player's avatar.
    pub fn others(&self) -> impl Iterator<Item = &Entity> {
        let own_id = self.own_id();
        self.entities.values().filter(move |entity| Some(entity.id) != own_id)
    }

    /// The entity nearest to the player's avatar for which `wanted` holds.
    pub fn nearest(&self, wanted: impl Fn(&Entity) -> bool) -> Option<&Entity> {
        let here = self.position()?;
        let now = Instant::now();
        self.others()
            .filter(|entity| wanted(entity))
            .min_by_key(|entity| entity.position_at(now).distance_squared(here))
    }

    pub(super) fn enter(&mut self, entered: Entered) {
        self.queue = None;
        self.space = SpaceId(entered.space);
        self.entered = Some(entered);
    }

    /// The avatar stands in another place, perhaps in another space.
    pub(super) fn place(&mut self, placed: Placed) {
        if self.space.0 != placed.space {
            self.space = SpaceId(placed.space);
            self.clear_cells();
        }
        self.placed = Some(placed);
    }

    /// Outside again; nothing of the world is seen any more.
    pub(super) fn leave(&mut self) {
        *self = Self::default();
    }

    pub(super) fn clear_cells(&mut self) {
        self.cells.clear();
        self.entities.clear();
    }

    pub(super) fn apply_trade(&mut self, trade: &Trade) {
        match trade.state() {
            TradeState::TradeDone | TradeState::TradeCancelled => self.trades.remove(&trade.trade_id),
            _ => self.trades.insert(trade.trade_id, trade.clone()),
        };
    }

    pub(super) fn apply_avatar(&mut self, payload: &[u8]) -> Result<(), MovementError> {
        let avatar = Avatar::decode(payload)?;
        let before = self.position().map(Position::cell);
        self.avatar = Some(avatar);
        let here = self.position().map(Position::cell);
        if let (Some(here), true) = (here, before != here) {
            self.remove_far_cells(here);
        }
        Ok(())
    }

    pub(super) fn apply_cell(&mut self, message: &Message, now: Instant) -> Result<(), MovementError> {
        let cell = Cell::decode(&message.payload)?;
        let Head::State { class, .. } = message.head else { return Ok(()) };
        // State may arrive late, after the avatar has changed its space.
        if cell.cell.space != self.space {
            return Ok(());
        }
        let before = match cell.form {
            // An entity that the keyframe names again keeps its name. The others are removed after it has been read.
            Form::Keyframe => self.cells.insert(cell.cell, CellView::new(cell.tick, class)),
            Form::Delta => match self.cells.get_mut(&cell.cell) {
                Some(known) => {
                    known.tick = cell.tick;
                    None
                }
                // Its keyframe is on the way.
                None => return Ok(()),
            },
        };
        for entry in cell.entries() {
            match entry.gone {
                Some(why) => self.remove(cell.cell, entry.id, why),
                None => self.update(cell.cell, &entry, now),
            }
        }
        for id in before.into_iter().flat_map(|before| before.entities) {
            if !self.cell_contains(cell.cell, id) {
                self.remove(cell.cell, id, RemovalReason::Moved);
            }
        }
        Ok(())
    }

    fn cell_contains(&self, cell: CellId, id: EntityId) -> bool {
        self.cells.get(&cell).is_some_and(|known| known.entities.contains(&id))
    }

    fn update(&mut self, cell: CellId, entry: &Entry<'_>, now: Instant) {
        let entity = self.entities.entry(entry.id).or_insert_with(|| Entity::new(entry.id, cell, now));
        entity.apply(cell, entry, now);
        if let Some(known) = self.cells.get_mut(&cell) {
            known.entities.insert(entry.id);
        }
    }

    /// Cells of two zones come in any order: an entity is gone only when no cell holds it any more.
    fn remove(&mut self, cell: CellId, id: EntityId, why: RemovalReason) {
        if let Some(known) = self.cells.get_mut(&cell) {
            known.entities.remove(&id);
        }
        let elsewhere =
            self.cells.iter().find(|(_, known)| known.entities.contains(&id)).map(|(cell, _)| *cell);
        match (elsewhere, self.entities.get_mut(&id)) {
            (Some(elsewhere), Some(entity)) if why == RemovalReason::Moved => {
                if entity.cell == cell {
                    entity.cell = elsewhere;
                }
            }
            _ => {
                self.entities.remove(&id);
            }
        }
    }

    fn remove_far_cells(&mut self, here: CellId) {
        let near = |cell: &CellId| here.distance(*cell).is_some_and(|distance| distance <= MAX_CELL_DISTANCE);
        self.cells.retain(|cell, _| near(cell));
        self.entities.retain(|_, entity| near(&entity.cell));
    }
}

#[cfg(test)]
mod tests {
    use bytes::BytesMut;
    use shardkeep_types::{CharacterId, ItemId};
    use shardkeep_wire::{
        movement::{Appearance, EntityKind, OWN, cell_head, encode_cell},
        opcode,
    };

    use super::*;

    fn id(number: u64) -> EntityId {
        EntityId::avatar(CharacterId(number))
    }

    fn at(x: u16) -> CellId {
        CellId { space: SpaceId(1), x, y: 5 }
    }

    fn message(form: Form, cell: CellId, entries: &[Entry<'_>]) -> Message {
        let mut payload = BytesMut::new();
        encode_cell(&mut payload, form, 1, cell, entries.iter().copied());
        Message::new(opcode::CELL, cell_head(cell.number(), false), payload.freeze())
    }

    fn appears(number: u64, name: &str) -> Entry<'_> {
        let appears = Appearance { kind: EntityKind::Avatar, template: 0, name };
        Entry { appears: Some(appears), offset: Some([1, 2]), ..Entry::new(id(number)) }
    }

    fn view(messages: &[Message]) -> View {
        let mut view = View { space: SpaceId(1), ..View::default() };
        messages.iter().for_each(|message| view.apply_cell(message, Instant::now()).unwrap());
        view
    }

    #[test]
    fn cells_of_another_space_are_ignored_and_forgotten() {
        let other = CellId { space: SpaceId(2), ..at(3) };
        let mut seen = view(&[
            message(Form::Keyframe, other, &[appears(1, "Alice")]),
            message(Form::Keyframe, at(3), &[appears(2, "Bob")]),
        ]);
        assert!(seen.find_by_name("Alice").is_none() && seen.find_by_name("Bob").is_some());
        seen.place(Placed { space: 1, ..Placed::default() });
        assert!(seen.find_by_name("Bob").is_some());
        seen.place(Placed { space: 2, ..Placed::default() });
        assert!(seen.find_by_name("Bob").is_none());
    }

    #[test]
    fn keyframe_removes_entities_it_omits() {
        let seen = view(&[
            message(Form::Keyframe, at(3), &[appears(1, "Alice"), appears(2, "Bob")]),
            message(Form::Keyframe, at(3), &[appears(2, "Bob")]),
        ]);
        assert!(seen.find_by_name("Alice").is_none());
        assert_eq!(seen.find_by_name("Bob").unwrap().position.x_mm, 3 * 32_000 + 1);
    }

    #[test]
    fn entity_changing_cells_survives_either_message_order() {
        let gone = Entry { gone: Some(RemovalReason::Moved), ..Entry::new(id(1)) };
        let left = message(Form::Delta, at(3), &[gone]);
        let came = message(Form::Delta, at(4), &[appears(1, "Alice")]);
        let start =
            [message(Form::Keyframe, at(3), &[appears(1, "Alice")]), message(Form::Keyframe, at(4), &[])];
        for order in [[&left, &came], [&came, &left]] {
            let mut seen = view(&start);
            order.iter().for_each(|message| seen.apply_cell(message, Instant::now()).unwrap());
            assert_eq!(seen.find_by_name("Alice").unwrap().cell, at(4));
            assert!(seen.cells[&at(3)].entities.is_empty());
        }
    }

    #[test]
    fn entity_in_two_cells_survives_removal_from_one() {
        let gone = Entry { gone: Some(RemovalReason::Moved), ..Entry::new(id(1)) };
        let seen = view(&[
            message(Form::Keyframe, at(4), &[appears(1, "Alice")]),
            message(Form::Keyframe, at(3), &[appears(1, "Alice")]),
            message(Form::Delta, at(3), &[gone]),
        ]);
        assert_eq!(seen.find_by_name("Alice").unwrap().cell, at(4));
    }

    #[test]
    fn delta_before_keyframe_is_ignored() {
        assert!(view(&[message(Form::Delta, at(3), &[appears(1, "Alice")])]).entities.is_empty());
    }

    #[test]
    fn ground_item_that_left_is_removed() {
        let item = EntityId::ground_item(ItemId(9));
        let taken = Entry { gone: Some(RemovalReason::Left), ..Entry::new(item) };
        let seen = view(&[
            message(Form::Keyframe, at(3), &[Entry { offset: Some([0, 0]), ..Entry::new(item) }]),
            message(Form::Delta, at(3), &[taken]),
        ]);
        assert!(seen.entity(item).is_none());
    }

    #[test]
    fn far_cells_are_removed_when_avatar_moves() {
        let mut seen = view(&[
            message(Form::Keyframe, at(3), &[appears(1, "Alice")]),
            message(Form::Keyframe, at(6), &[appears(2, "Bob")]),
        ]);
        let mut payload = BytesMut::new();
        Avatar { position: [6 * 32_000, 5 * 32_000], ..Avatar::default() }.encode(&mut payload);
        let avatar = Message::new(opcode::AVATAR, OWN, payload.freeze());
        seen.apply_avatar(&avatar.payload).unwrap();
        assert!(seen.find_by_name("Alice").is_none() && seen.find_by_name("Bob").is_some());
        assert_eq!(seen.cells.len(), 1);
    }
}
