//! The data that commands and effects carry.

use std::{sync::Arc, time::Instant};

use shardkeep_link::{ClientMessage, GatewayId};
use shardkeep_sim::{EffectResult, EnteringAvatar, EntityView, HardChange};
use shardkeep_types::{
    AccountId, CellId, CharacterId, EntityId, Epoch, InstanceId, Position, SessionId, SpaceId,
};

/// Names a caller that waits for an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct ReplyTo(pub(crate) u64);

/// An avatar that this zone owns in the database.
#[derive(Debug)]
pub(crate) struct Admission {
    pub(crate) session: SessionId,
    pub(crate) session_epoch: Epoch,
    pub(crate) account: AccountId,
    pub(crate) entering: EnteringAvatar,
}

/// An avatar that a neighbour offers.
#[derive(Debug)]
pub(crate) struct OfferedAvatar {
    pub(crate) from: String,
    pub(crate) gateway: Option<GatewayId>,
    pub(crate) admission: Admission,
}

/// The outcome of a neighbour's hand-over.
#[derive(Debug, Clone)]
pub(crate) struct Settlement {
    pub(crate) character: CharacterId,
    /// The epoch before the hand-over.
    pub(crate) epoch: Epoch,
    pub(crate) committed: bool,
    pub(crate) inputs: Vec<ClientMessage>,
    /// How many inputs were forwarded before these.
    pub(crate) from: u32,
    /// The state at the moment of the hand-over. It is newer than that of the offer.
    pub(crate) latest: Option<LatestState>,
}

/// The soft state that may change between the offer and the hand-over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct LatestState {
    pub(crate) position: Position,
    pub(crate) velocity: (i32, i32),
    pub(crate) facing: u8,
    pub(crate) health: u32,
    pub(crate) last_input: u32,
    pub(crate) cooldown_ms: u64,
}

impl LatestState {
    pub(crate) fn update(&self, entering: &mut EnteringAvatar) {
        let Self { position, velocity, facing, health, last_input, cooldown_ms } = *self;
        (entering.position, entering.velocity, entering.facing) = (position, velocity, facing);
        (entering.health, entering.last_input, entering.cooldown_ms) = (health, last_input, cooldown_ms);
    }
}

/// A character as the database has it.
#[derive(Debug)]
pub(crate) struct StoredAvatar {
    /// The zone that owns it, with its incarnation. Empty: no zone.
    pub(crate) owner: (String, u64),
    pub(crate) account: AccountId,
    /// `None` when no session has ever owned it.
    pub(crate) session: Option<SessionId>,
    pub(crate) entering: EnteringAvatar,
}

impl StoredAvatar {
    pub(crate) fn is_owned_by(&self, zone: &InstanceId) -> bool {
        self.owner.0 == zone.name && self.owner.1 == zone.incarnation
    }
}

/// A commit in progress.
#[derive(Debug, Clone)]
pub(crate) struct Job {
    pub(crate) number: u64,
    pub(crate) change: HardChange,
    pub(crate) since: Instant,
}

/// Characters with the ownership epochs that a transaction requires.
pub(crate) type Fences = Vec<(CharacterId, Epoch)>;

/// State of an avatar that is written behind.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct SoftState {
    pub(crate) character: CharacterId,
    pub(crate) epoch: Epoch,
    /// Rises with every state that is written.
    pub(crate) sequence: u64,
    pub(crate) position: Position,
    pub(crate) facing: u8,
    pub(crate) health: u32,
}

/// The target of a hand-over: a space of a zone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Destination {
    pub(crate) space: SpaceId,
    pub(crate) name: String,
    pub(crate) incarnation: u64,
    pub(crate) grpc_address: String,
}

/// News for a neighbouring zone, or from one.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Frame {
    pub(crate) ghosts: Vec<EntityView>,
    pub(crate) gone: Vec<EntityId>,
    pub(crate) effects: Vec<shardkeep_sim::Effect>,
    pub(crate) results: Vec<EffectResult>,
    /// Items that avatars of the sender have taken from the receiver's ground.
    pub(crate) taken: Vec<EntityId>,
    /// Avatars of the receiver that the database has rewarded for a kill in the sender's zone.
    pub(crate) rewarded: Vec<CharacterId>,
    /// Cells of the receiver where the sender has avatars or creatures. The sender needs to know what is around them.
    pub(crate) interest: Vec<CellId>,
    /// Cells of the receiver whose ground the sender has changed.
    pub(crate) stale: Vec<CellId>,
}

impl Frame {
    /// The news that later frames do not contain. Ghosts, effects and interest repeat themselves.
    pub(crate) fn unrepeated(&self) -> Self {
        let (taken, rewarded) = (self.taken.clone(), self.rewarded.clone());
        Self { taken, rewarded, stale: self.stale.clone(), ..Self::default() }
    }
}

/// A report to the world: all avatars of a space in this zone, or the changes since the last report.
#[derive(Debug)]
pub(crate) struct PresenceReport {
    pub(crate) space: SpaceId,
    pub(crate) complete: bool,
    pub(crate) present: Vec<Present>,
    pub(crate) gone: Vec<CharacterId>,
}

#[derive(Debug)]
pub(crate) struct Present {
    pub(crate) character: CharacterId,
    pub(crate) name: Arc<str>,
    pub(crate) session: SessionId,
    pub(crate) account: AccountId,
    pub(crate) cell: CellId,
    pub(crate) epoch: Epoch,
}
