//! State that the handles of a session share with its driver: the handles send commands, and the driver provides facts.

use std::time::Instant;

use bytes::Bytes;
use parking_lot::Mutex;
use shardkeep_lanes::Lane;
use shardkeep_types::SessionId;
use shardkeep_wire::Message;
use tokio::sync::oneshot;

use crate::{ClientError, counters::Counters};

/// The facts about a session that its handles read while the driver works.
#[derive(Debug)]
pub(super) struct Shared {
    id: SessionId,
    gateway: Mutex<String>,
    lane: Mutex<Lane>,
    counters: Counters,
}

impl Shared {
    pub(super) fn new(id: SessionId, gateway: String, lane: Lane) -> Self {
        let (gateway, lane) = (Mutex::new(gateway), Mutex::new(lane));
        Self { id, gateway, lane, counters: Counters::default() }
    }

    pub(super) fn id(&self) -> SessionId {
        self.id
    }

    pub(super) fn counters(&self) -> &Counters {
        &self.counters
    }

    pub(super) fn gateway(&self) -> String {
        self.gateway.lock().clone()
    }

    pub(super) fn set_gateway(&self, gateway: &str) {
        gateway.clone_into(&mut self.gateway.lock());
    }

    pub(super) fn lane(&self) -> Lane {
        *self.lane.lock()
    }

    pub(super) fn set_lane(&self, lane: Lane) {
        *self.lane.lock() = lane;
    }
}

/// Requests of the handles to the driver.
pub(super) enum Command {
    Request {
        opcode: u16,
        payload: Bytes,
        answer: oneshot::Sender<Result<Message, ClientError>>,
    },
    /// An event or a state message.
    Send(Message),
    DropConnection,
    UpdateKey,
}

/// The same moment for the timers of tokio.
pub(super) fn to_tokio_instant(at: Instant) -> tokio::time::Instant {
    at.into()
}
