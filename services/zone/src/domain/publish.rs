//! The groups of cells, and the encoding of cell messages.

use bytes::BytesMut;
use shardkeep_link::{PublishKind, ServerMessage};
use shardkeep_sim::{CellForm, CellUpdate, Kind, Ring};
use shardkeep_types::{CellId, GroupKey, WorldId, group_kind};
use shardkeep_wire::{
    message::Head,
    movement::{self, Appearance, EntityKind, Entry, Form, RemovalReason},
    opcode,
};

pub(crate) fn group(world: WorldId, cell: CellId, ring: Ring) -> GroupKey {
    let kind = match ring {
        Ring::Near => group_kind::CELL,
        Ring::Outer => group_kind::OUTER_CELL,
    };
    GroupKey::new(kind, world.0.into(), cell.number())
}

/// The cell of a group of this world. `None` for other groups.
pub(crate) fn cell_of(group: GroupKey, world: WorldId) -> Option<(CellId, Ring)> {
    let ring = match group.kind() {
        group_kind::CELL => Ring::Near,
        group_kind::OUTER_CELL => Ring::Outer,
        _ => return None,
    };
    (group.namespace() == u64::from(world.0)).then(|| (CellId::from_number(group.number()), ring))
}

/// The groups that an avatar sees: near cells at the full rate, the cells around them at a slower rate.
pub(crate) fn view(world: WorldId, from: CellId, width: u16, height: u16) -> Vec<GroupKey> {
    let near = from.around(1, width, height).map(|cell| group(world, cell, Ring::Near));
    let ring = from.around(2, width, height).filter(|cell| cell.distance(from) == Some(2));
    near.chain(ring.map(|cell| group(world, cell, Ring::Outer))).collect()
}

pub(crate) fn kind(form: CellForm) -> PublishKind {
    match form {
        CellForm::Keyframe => PublishKind::Keyframe,
        CellForm::Part => PublishKind::Part,
        CellForm::Delta => PublishKind::Delta,
    }
}

/// Encodes a cell update for clients.
pub fn encode(update: &CellUpdate) -> ServerMessage {
    let mut out = BytesMut::with_capacity(movement::Cell::MAX_HEADER + update.entries.len() * 24);
    // A client applies a part like a delta.
    let form = if update.form == CellForm::Keyframe { Form::Keyframe } else { Form::Delta };
    movement::encode_cell(&mut out, form, update.tick, update.cell, update.entries.iter().map(entry));
    let Head::State { class, key } = movement::cell_head(update.cell.number(), update.ring == Ring::Outer)
    else {
        unreachable!("cells are state messages");
    };
    ServerMessage::state(opcode::CELL, class, key, out.freeze())
}

fn entry(entry: &shardkeep_sim::Entry) -> Entry<'_> {
    let kind = |kind| match kind {
        Kind::Avatar => EntityKind::Avatar,
        Kind::Creature => EntityKind::Creature,
        Kind::Item => EntityKind::GroundItem,
    };
    let gone = |gone| match gone {
        shardkeep_sim::RemovalReason::ToOtherCell => RemovalReason::Moved,
        shardkeep_sim::RemovalReason::Left => RemovalReason::Left,
        shardkeep_sim::RemovalReason::Died => RemovalReason::Died,
    };
    Entry {
        id: entry.entity,
        appears: entry.appears.as_ref().map(|what| Appearance {
            kind: kind(what.kind),
            template: what.template,
            name: &what.name,
        }),
        offset: entry.position.map(Into::into),
        velocity: entry.velocity.map(Into::into),
        facing: entry.facing,
        health: entry.health,
        gone: entry.gone.map(gone),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use shardkeep_types::{EntityId, SpaceId};

    use super::*;

    const CELL: CellId = CellId { space: SpaceId(1), x: 3, y: 4 };

    #[test]
    fn group_maps_to_cell_of_same_world_only() {
        let outer = group(WorldId(2), CELL, Ring::Outer);
        assert_eq!(cell_of(outer, WorldId(2)), Some((CELL, Ring::Outer)));
        assert_eq!(cell_of(outer, WorldId(3)), None);
    }

    #[test]
    fn view_has_nine_near_and_sixteen_outer_cells() {
        let view = view(WorldId(1), CELL, 32, 32);
        let near = view.iter().filter(|group| group.kind() == group_kind::CELL).count();
        assert_eq!((near, view.len()), (9, 25));
    }

    #[test]
    fn encoded_cell_decodes_to_same_update() {
        let update = CellUpdate {
            cell: CELL,
            ring: Ring::Near,
            form: CellForm::Keyframe,
            tick: 9,
            entries: vec![shardkeep_sim::Entry {
                entity: EntityId(5),
                appears: Some(shardkeep_sim::Appearance {
                    kind: Kind::Avatar,
                    template: 0,
                    name: Arc::from("Ann"),
                }),
                position: Some((1, 2)),
                velocity: Some((-20, 40)),
                facing: Some(3),
                health: Some(255),
                gone: None,
            }],
        };
        let message = encode(&update);
        let cell = movement::Cell::decode(&message.payload).unwrap();
        assert_eq!((cell.form, cell.tick, cell.cell), (Form::Keyframe, 9, CELL));
        assert_eq!(message.key, CELL.number());
    }
}
