//! A studio's backend: a table at which all players of the cluster roll dice. Gateways find it in the registry,
//! route its opcodes to it, and fan out the messages that it publishes. No other part of the cluster knows of it.
//!
//! * `0x8000` request: one byte, the sides of the die (2 to 100). Reply: one byte, the number rolled.
//! * `0x8001` event to all players at the table: one byte sides, one byte rolled.
//! * `0x8002` state: the last roll, in the same form. A player who joins later receives it at once.
//!
//! Run it beside a local cluster (see `README.md` in this folder).

use std::{
    hash::{BuildHasher as _, RandomState},
    process::ExitCode,
};

use serde::{Deserialize, Serialize};
use shardkeep_cluster::Node;
use shardkeep_daemon::{Daemon, Service, Settings, Validate};
use shardkeep_link::{
    BackendSpec, ClientMessage, GatewayId, LinkEvent, LinkHub, PublishKind, Route, ServerMessage,
    SessionChange,
};
use shardkeep_types::{BackendKind, DaemonKind, Epoch, GroupKey, SessionId, WorldId};
use tonic::service::Routes;

const ROLL: u16 = 0x8000;
const ROLLED: u16 = 0x8001;
const LAST_ROLL: u16 = 0x8002;
/// Backend kind 64, the first that is free for studios; its groups have 64 as the high byte of their kind.
const KIND: BackendKind = BackendKind::FIRST_CUSTOM;
const SIDES: std::ops::RangeInclusive<u8> = 2..=100;

fn main() -> ExitCode {
    shardkeep_daemon::main::<Dice>()
}

struct Dice;

/// It has only the common settings `[daemon]`, `[cluster]` and `[log]`.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Config {}

impl Validate for Config {}

impl Service for Dice {
    const KIND: DaemonKind = DaemonKind::Backend;
    type Config = Config;

    async fn run(settings: Settings<Config>, daemon: Daemon) -> anyhow::Result<()> {
        let node = Node::join(&settings, &daemon, Self::KIND).await?;
        let spec = BackendSpec {
            kind: KIND,
            world: WorldId(0),
            routes: vec![Route { first: ROLL, last: ROLL, max_payload: 1, rate: 5, burst: 10 }],
            // Any gateway may bind any session to this backend without asking the world.
            auto_bind: true,
        };
        let (hub, mut events) = LinkHub::new(&node, spec);
        node.serve(Routes::new(hub.service()));
        let mut table = Table { hub, last: None };
        let draining = daemon.draining();
        loop {
            tokio::select! {
                event = events.recv() => match event {
                    Some(event) => table.handle(event),
                    None => return Ok(()),
                },
                () = draining.cancelled() => return Ok(()),
            }
        }
    }
}

struct Table {
    hub: LinkHub,
    /// Sides and result.
    last: Option<[u8; 2]>,
}

impl Table {
    fn handle(&mut self, event: LinkEvent) {
        match event {
            LinkEvent::Session { gateway, event } if event.kind == SessionChange::Joined => {
                self.hub.subscribe(&gateway, event.session, &[group()], true);
            }
            LinkEvent::Deliver { gateway, session, messages, .. } => {
                for message in messages {
                    self.roll(&gateway, session, &message);
                }
            }
            // A gateway has its first player at the table, or has lost a message: send the whole state.
            LinkEvent::Watched { group: watched, .. } | LinkEvent::KeyframeWanted { group: watched }
                if watched == group() =>
            {
                self.publish_last();
            }
            _ => {}
        }
    }

    fn roll(&mut self, gateway: &GatewayId, session: SessionId, message: &ClientMessage) {
        // The gateway has checked opcode, size and rate. The backend checks the bytes.
        let Some(sides) = message.payload.first().copied().filter(|sides| SIDES.contains(sides)) else {
            let detail = error_refused("sides: one byte, 2 to 100");
            self.hub.send(gateway, &[session], vec![ServerMessage::refusal(message.request, detail)]);
            return;
        };
        let rolled = random_below(sides) + 1;
        self.last = Some([sides, rolled]);
        self.hub.send(gateway, &[session], vec![ServerMessage::reply(ROLL, message.request, vec![rolled])]);
        let event = ServerMessage::event(ROLLED, vec![sides, rolled]);
        self.hub.publish(group(), Epoch(1), PublishKind::Event, event);
        self.publish_last();
    }

    fn publish_last(&self) {
        if let Some(last) = self.last {
            let state = ServerMessage::state(LAST_ROLL, 3, 0, last.to_vec());
            self.hub.publish(group(), Epoch(1), PublishKind::Keyframe, state);
        }
    }
}

/// The one table: kind 0x4000, space 0, number 1.
fn group() -> GroupKey {
    GroupKey::new(u16::from(KIND.0) << 8, 0, 1)
}

/// The protocol's `Error` with code REFUSED (13): field 1 a varint, field 2 text.
fn error_refused(detail: &str) -> Vec<u8> {
    let mut bytes = vec![0x08, 13, 0x12, u8::try_from(detail.len()).unwrap_or(u8::MAX)];
    bytes.extend_from_slice(&detail.as_bytes()[..detail.len().min(255)]);
    bytes
}

/// Random enough for an example: the standard library's hasher keys are random.
fn random_below(limit: u8) -> u8 {
    let random = RandomState::new().hash_one(limit);
    u8::try_from(random % u64::from(limit)).unwrap_or_default()
}
