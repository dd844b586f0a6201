//! An instance of a daemon as the registry knows it.

use std::collections::BTreeMap;

use shardkeep_rpc::{Malformed, registry};
use shardkeep_types::{InstanceId, WorldId};

/// The attribute that holds the region of an instance: `cluster.region` of its settings.
pub const REGION_ATTRIBUTE: &str = "region";

/// States follow each other in this order and never go back within one incarnation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum State {
    Starting,
    Up,
    /// Finishes its work and gets no new work.
    Draining,
    /// Its lease ran out, or it ended because of a fault. Visible until an operator removes it.
    Offline,
    /// Ended as intended. Visible for some minutes, so that operators see where it went.
    Left,
}

/// Whether an instance leads its world. Only a database row decides who leads; this field tells peers whom to ask.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub enum Leadership {
    /// This kind of daemon has no leader, or the instance does not know yet.
    #[default]
    None,
    Standby,
    Leader,
}

/// One running (or lost) daemon.
#[derive(Debug, Clone, PartialEq)]
pub struct Instance {
    pub id: InstanceId,
    pub state: State,
    /// 0: of the whole region.
    pub world: WorldId,
    /// `host:port` as peers should dial it.
    pub grpc_address: String,
    /// `host:port` for players; empty if no player talks to it.
    pub client_address: String,
    pub admin_address: String,
    pub version: String,
    /// 0.0 idle to 1.0 full.
    pub load: f64,
    pub leadership: Leadership,
    pub attributes: BTreeMap<String, String>,
}

impl Instance {
    /// An instance without addresses, of the whole region.
    pub fn new(id: InstanceId, state: State) -> Self {
        Self {
            id,
            state,
            world: WorldId(0),
            grpc_address: String::new(),
            client_address: String::new(),
            admin_address: String::new(),
            version: String::new(),
            load: 0.0,
            leadership: Leadership::None,
            attributes: BTreeMap::new(),
        }
    }

    /// Whether this instance leads its world. It may be draining or offline.
    pub fn leads(&self) -> bool {
        self.leadership == Leadership::Leader
    }
}

impl Leadership {
    /// Empty for kinds without a leader.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::None => "",
            Self::Standby => "standby",
            Self::Leader => "leader",
        }
    }
}

impl From<Leadership> for registry::Leadership {
    fn from(leadership: Leadership) -> Self {
        match leadership {
            Leadership::None => Self::Unspecified,
            Leadership::Standby => Self::Standby,
            Leadership::Leader => Self::Leader,
        }
    }
}

impl TryFrom<i32> for Leadership {
    type Error = Malformed;

    fn try_from(value: i32) -> Result<Self, Malformed> {
        match registry::Leadership::try_from(value) {
            Ok(registry::Leadership::Unspecified) => Ok(Self::None),
            Ok(registry::Leadership::Standby) => Ok(Self::Standby),
            Ok(registry::Leadership::Leader) => Ok(Self::Leader),
            Err(_) => Err(Malformed::new("leadership", format!("unknown: {value}"))),
        }
    }
}

impl State {
    /// Its process has ended, as far as the registry knows.
    pub fn is_down(self) -> bool {
        matches!(self, Self::Offline | Self::Left)
    }

    pub fn as_str(self) -> &'static str {
        match self {
            Self::Starting => "starting",
            Self::Up => "up",
            Self::Draining => "draining",
            Self::Offline => "offline",
            Self::Left => "left",
        }
    }
}

impl std::fmt::Display for State {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(self.as_str())
    }
}

impl From<State> for registry::State {
    fn from(state: State) -> Self {
        match state {
            State::Starting => Self::Starting,
            State::Up => Self::Up,
            State::Draining => Self::Draining,
            State::Offline => Self::Offline,
            State::Left => Self::Left,
        }
    }
}

impl TryFrom<i32> for State {
    type Error = Malformed;

    fn try_from(value: i32) -> Result<Self, Malformed> {
        match registry::State::try_from(value) {
            Ok(registry::State::Starting) => Ok(Self::Starting),
            Ok(registry::State::Up) => Ok(Self::Up),
            Ok(registry::State::Draining) => Ok(Self::Draining),
            Ok(registry::State::Offline) => Ok(Self::Offline),
            Ok(registry::State::Left) => Ok(Self::Left),
            Ok(registry::State::Unspecified) | Err(_) => {
                Err(Malformed::new("state", format!("unknown: {value}")))
            }
        }
    }
}

impl From<&Instance> for registry::Instance {
    fn from(instance: &Instance) -> Self {
        Self {
            id: Some((&instance.id).into()),
            state: registry::State::from(instance.state).into(),
            world: instance.world.0,
            grpc_address: instance.grpc_address.clone(),
            client_address: instance.client_address.clone(),
            admin_address: instance.admin_address.clone(),
            version: instance.version.clone(),
            load: instance.load,
            leadership: registry::Leadership::from(instance.leadership).into(),
            attributes: instance.attributes.clone().into_iter().collect(),
        }
    }
}

impl TryFrom<registry::Instance> for Instance {
    type Error = Malformed;

    fn try_from(instance: registry::Instance) -> Result<Self, Malformed> {
        Ok(Self {
            id: instance.id.ok_or_else(|| Malformed::missing("id"))?.try_into()?,
            state: instance.state.try_into()?,
            world: WorldId(instance.world),
            grpc_address: instance.grpc_address,
            client_address: instance.client_address,
            admin_address: instance.admin_address,
            version: instance.version,
            load: if instance.load.is_finite() { instance.load.clamp(0.0, 1.0) } else { 1.0 },
            leadership: instance.leadership.try_into()?,
            attributes: instance.attributes.into_iter().collect(),
        })
    }
}
