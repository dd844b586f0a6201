//! The description of a backend, and the events that its links bring.

use std::sync::Arc;

use shardkeep_rpc::{Malformed, link as proto};
use shardkeep_types::{AccountId, BackendKind, Epoch, GroupKey, SessionId, WorldId};

use crate::message::{ClientMessage, SessionEvent};

/// Instance name of a gateway.
pub type GatewayId = Arc<str>;

/// Opcodes that a kind of backend serves, `last` inclusive, with their limits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Route {
    pub first: u16,
    pub last: u16,
    pub max_payload: u32,
    /// Messages per second that a session may send in this range.
    pub rate: u32,
    pub burst: u32,
}

impl From<Route> for proto::Route {
    fn from(route: Route) -> Self {
        Self {
            first_opcode: route.first.into(),
            last_opcode: route.last.into(),
            max_payload: route.max_payload,
            rate: route.rate,
            burst: route.burst,
        }
    }
}

impl TryFrom<proto::Route> for Route {
    type Error = Malformed;

    fn try_from(route: proto::Route) -> Result<Self, Malformed> {
        let opcode = |field, value: u32| u16::try_from(value).map_err(|error| Malformed::new(field, error));
        let (first, last) =
            (opcode("first_opcode", route.first_opcode)?, opcode("last_opcode", route.last_opcode)?);
        if first > last {
            return Err(Malformed::new("route", "the first opcode lies behind the last"));
        }
        Ok(Self { first, last, max_payload: route.max_payload, rate: route.rate, burst: route.burst })
    }
}

#[derive(Debug, Clone)]
pub struct BackendSpec {
    pub kind: BackendKind,
    /// 0: the backend serves every world.
    pub world: WorldId,
    pub routes: Vec<Route>,
    /// Any replica may serve any session, so gateways bind sessions without being told.
    pub auto_bind: bool,
}

/// An event of a link. The table in [the crate's page](crate) tells what a backend does on each.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LinkEvent {
    Up {
        gateway: GatewayId,
        fresh: bool,
    },
    Down {
        gateway: GatewayId,
    },
    Deliver {
        gateway: GatewayId,
        session: SessionId,
        session_epoch: Epoch,
        messages: Vec<ClientMessage>,
    },
    Session {
        gateway: GatewayId,
        event: SessionEvent,
    },
    Watched {
        gateway: GatewayId,
        group: GroupKey,
    },
    Unwatched {
        gateway: GatewayId,
        group: GroupKey,
    },
    KeyframeWanted {
        group: GroupKey,
    },
    Bound {
        gateway: GatewayId,
        session: SessionId,
        session_epoch: Epoch,
        bind_epoch: Epoch,
        account: AccountId,
        link_dead: bool,
    },
}
