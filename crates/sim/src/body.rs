//! Avatars, creatures and ghosts in dense arrays: the fields that every tick uses, and beside them the details.

use std::sync::Arc;

use serde::{Deserialize, Serialize};
use shardkeep_types::{CharacterId, EntityId, Epoch, Point};

use crate::{
    event::{Kind, OwnState},
    input::{Goal, Possessions},
    lookup::Lookup,
};

/// Changes that watchers have not received yet. The bits are those of the cell entries in the protocol.
pub(crate) mod dirty {
    pub(crate) const APPEARS: u8 = 1;
    pub(crate) const POSITION: u8 = 2;
    pub(crate) const VELOCITY: u8 = 4;
    pub(crate) const FACING: u8 = 8;
    pub(crate) const HEALTH: u8 = 16;
    pub(crate) const MOVEMENT: u8 = POSITION | VELOCITY;
    pub(crate) const ALL: u8 = APPEARS | POSITION | VELOCITY | FACING | HEALTH;

    pub(crate) fn all() -> u8 {
        ALL
    }
}

/// How much an avatar takes part while it leaves its zone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub(crate) enum Hold {
    #[default]
    Free,
    /// It moves and can be hurt, but begins nothing.
    Suspended,
    /// It does not change.
    Frozen,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Body {
    pub(crate) id: EntityId,
    pub(crate) x: i32,
    pub(crate) y: i32,
    /// The fractions of `x` and `y`, in parts of a millimetre.
    pub(crate) parts: (i32, i32),
    pub(crate) vx: i32,
    pub(crate) vy: i32,
    pub(crate) health: u32,
    pub(crate) max_health: u32,
    /// Index of the cell.
    pub(crate) cell: u32,
    pub(crate) template: u16,
    pub(crate) facing: u8,
    pub(crate) kind: Kind,
    pub(crate) hold: Hold,
    /// Changes for the near and for the outer watchers; see [`dirty`]. After a restart, watchers know nothing.
    #[serde(skip, default = "dirty::all")]
    pub(crate) near: u8,
    #[serde(skip, default = "dirty::all")]
    pub(crate) outer: u8,
}

impl Body {
    pub(crate) fn point(&self) -> Point {
        Point::flat(self.x, self.y)
    }

    pub(crate) fn touch(&mut self, bits: u8) {
        self.near |= bits;
        self.outer |= bits;
    }

    pub(crate) fn is_frozen(&self) -> bool {
        self.hold == Hold::Frozen
    }

    /// The avatar leaves its zone, and begins nothing.
    pub(crate) fn is_held(&self) -> bool {
        self.hold != Hold::Free
    }

    pub(crate) fn alive(&self) -> bool {
        self.health > 0
    }

    pub(crate) fn within(&self, other: &Body, distance: i32) -> bool {
        let (dx, dy) = (i64::from(self.x - other.x), i64::from(self.y - other.y));
        dx * dx + dy * dy <= i64::from(distance) * i64::from(distance)
    }

    /// Sets the velocity. Only a different velocity is a change for watchers.
    pub(crate) fn set_velocity(&mut self, vx: i32, vy: i32) {
        if (self.vx, self.vy) != (vx, vy) {
            (self.vx, self.vy) = (vx, vy);
            self.touch(dirty::MOVEMENT);
        }
    }
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) enum EntityDetails {
    Avatar(Box<Avatar>),
    Creature(Creature),
    Ghost(Ghost),
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Avatar {
    pub(crate) character: CharacterId,
    pub(crate) name: Arc<str>,
    pub(crate) epoch: Epoch,
    pub(crate) desired_velocity: (i32, i32),
    pub(crate) last_input: u32,
    pub(crate) next_attack_at: u64,
    pub(crate) last_hurt_at: u64,
    pub(crate) respawns_at: Option<u64>,
    pub(crate) outside_since: Option<u64>,
    pub(crate) possessions: Possessions,
    pub(crate) trade: Option<u64>,
    /// The cell of the last [`Event::View`](crate::Event::View).
    #[serde(skip)]
    pub(crate) view: Option<u32>,
    #[serde(skip)]
    pub(crate) published: Option<OwnState>,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Creature {
    /// Index into the map's spawn points.
    pub(crate) spawn: usize,
    pub(crate) goal: Goal,
    pub(crate) goal_until: u64,
    pub(crate) next_attack_at: u64,
    pub(crate) attacker: Option<EntityId>,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Ghost {
    pub(crate) name: Arc<str>,
    pub(crate) seen_at: u64,
}

#[derive(Debug, Default, Clone, Serialize, Deserialize)]
pub(crate) struct Bodies {
    pub(crate) hot: Vec<Body>,
    pub(crate) details: Vec<EntityDetails>,
    #[serde(skip)]
    places: Lookup<EntityId, usize>,
}

impl Bodies {
    /// Finds the places of restored bodies. Returns false if two bodies have the same id, or a body has no details.
    pub(crate) fn index(&mut self) -> bool {
        self.places = Lookup::default();
        let bodies = self.hot.iter().zip(0..);
        let mut is_unique = true;
        for (body, at) in bodies {
            is_unique &= self.places.insert(body.id, at).is_none();
        }
        is_unique && self.details.len() == self.hot.len()
    }

    pub(crate) fn insert(&mut self, body: Body, details: EntityDetails) -> usize {
        if let Some(at) = self.find(body.id) {
            self.hot[at] = body;
            self.details[at] = details;
            return at;
        }
        self.places.insert(body.id, self.hot.len());
        self.hot.push(body);
        self.details.push(details);
        self.hot.len() - 1
    }

    pub(crate) fn remove(&mut self, id: EntityId) -> Option<(Body, EntityDetails)> {
        let at = self.places.remove(&id)?;
        let removed = (self.hot.swap_remove(at), self.details.swap_remove(at));
        if let Some(moved) = self.hot.get(at) {
            self.places.insert(moved.id, at);
        }
        Some(removed)
    }

    pub(crate) fn find(&self, id: EntityId) -> Option<usize> {
        self.places.get(&id)
    }

    pub(crate) fn avatar(&self, character: CharacterId) -> Option<(&Body, &Avatar)> {
        let at = self.find(EntityId::avatar(character))?;
        match &self.details[at] {
            EntityDetails::Avatar(avatar) => Some((&self.hot[at], avatar)),
            _ => None,
        }
    }

    pub(crate) fn avatar_mut(&mut self, character: CharacterId) -> Option<(&mut Body, &mut Avatar)> {
        let at = self.find(EntityId::avatar(character))?;
        match &mut self.details[at] {
            EntityDetails::Avatar(avatar) => Some((&mut self.hot[at], avatar)),
            _ => None,
        }
    }

    pub(crate) fn avatars(&self) -> impl Iterator<Item = (&Body, &Avatar)> {
        self.hot.iter().zip(&self.details).filter_map(|(body, details)| match details {
            EntityDetails::Avatar(avatar) => Some((body, &**avatar)),
            _ => None,
        })
    }
}
