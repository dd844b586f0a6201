//! The state of one entity and of one cell, from keyframes and deltas.

use std::{
    collections::HashSet,
    time::{Duration, Instant},
};

use shardkeep_types::{CELL_MM, CellId, EntityId, Position};
use shardkeep_wire::movement::{EntityKind, Entry, class};

/// Longest time an entity is moved on without news of it.
const MAX_EXTRAPOLATION: Duration = Duration::from_secs(2);

/// A cell whose keyframe has arrived.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CellView {
    pub tick: u32,
    /// Seen at the slower rate of the outer ring.
    pub outer: bool,
    pub entities: HashSet<EntityId>,
}

impl CellView {
    pub(super) fn new(tick: u32, message_class: u8) -> Self {
        Self { tick, outer: message_class == class::OUTER, entities: HashSet::new() }
    }
}

/// Something seen.
#[derive(Debug, Clone, PartialEq)]
pub struct Entity {
    pub id: EntityId,
    pub kind: EntityKind,
    pub template: u16,
    /// Empty where it has none, or none was said.
    pub name: String,
    pub cell: CellId,
    /// As last said.
    pub position: Position,
    /// mm/s
    pub velocity: [i16; 2],
    pub facing: u8,
    /// 0 dead to 255 full.
    pub health: u8,
    /// When the position was said.
    pub updated_at: Instant,
}

impl Entity {
    pub(super) fn new(id: EntityId, cell: CellId, updated_at: Instant) -> Self {
        let kind = match id.0 >> 60 {
            1 => EntityKind::Avatar,
            2 => EntityKind::Creature,
            _ => EntityKind::GroundItem,
        };
        let position = corner(cell);
        let (velocity, facing, health) = ([0; 2], 0, u8::MAX);
        Self {
            id,
            kind,
            template: 0,
            name: String::new(),
            cell,
            position,
            velocity,
            facing,
            health,
            updated_at,
        }
    }

    pub(super) fn apply(&mut self, cell: CellId, entry: &Entry<'_>, updated_at: Instant) {
        if let Some(appears) = entry.appears {
            self.kind = appears.kind;
            self.template = appears.template;
            appears.name.clone_into(&mut self.name);
            self.velocity = [0; 2];
        }
        if self.cell != cell || entry.velocity.is_some() || entry.offset.is_some() {
            // Moves it by its old velocity up to the time of the update.
            self.position = self.position_at(updated_at);
            self.updated_at = updated_at;
        }
        self.cell = cell;
        if let Some([x, y]) = entry.offset {
            let corner = corner(cell);
            self.position =
                Position::flat(cell.space, corner.x_mm + i32::from(x), corner.y_mm + i32::from(y));
        }
        self.velocity = entry.velocity.unwrap_or(self.velocity);
        self.facing = entry.facing.unwrap_or(self.facing);
        self.health = entry.health.unwrap_or(self.health);
    }

    /// Where it is by now, if it kept its velocity.
    pub fn position_at(&self, now: Instant) -> Position {
        let elapsed = now.saturating_duration_since(self.updated_at).min(MAX_EXTRAPOLATION);
        let moved = |v: i16| (f64::from(v) * elapsed.as_secs_f64()) as i32;
        let [x, y] = self.velocity;
        Position::flat(self.position.space, self.position.x_mm + moved(x), self.position.y_mm + moved(y))
    }
}

fn corner(cell: CellId) -> Position {
    Position::flat(cell.space, i32::from(cell.x) * CELL_MM, i32::from(cell.y) * CELL_MM)
}

#[cfg(test)]
mod tests {
    use shardkeep_types::{CharacterId, SpaceId};

    use super::*;

    #[test]
    fn entity_position_is_extrapolated_from_velocity() {
        let (cell, start) = (CellId { space: SpaceId(1), x: 2, y: 0 }, Instant::now());
        let id = EntityId::avatar(CharacterId(7));
        let mut entity = Entity::new(id, cell, start);
        let entry = Entry { offset: Some([100, 200]), velocity: Some([1_000, -200]), ..Entry::new(id) };
        entity.apply(cell, &entry, start);
        assert_eq!(entity.kind, EntityKind::Avatar);
        let later = entity.position_at(start + Duration::from_millis(500));
        assert_eq!((later.x_mm, later.y_mm), (2 * CELL_MM + 600, 100));
        let stop = Entry { velocity: Some([0, 0]), ..Entry::new(id) };
        entity.apply(cell, &stop, start + Duration::from_millis(500));
        assert_eq!(entity.position_at(start + Duration::from_secs(9)), later);
    }
}
