//! The task that owns the room: it passes events to the room in order, and carries out the room's effects.

use std::time::{Duration, Instant};

use prost::Message;
use shardkeep_bus::{Bus, Delivery, Subscription};
use shardkeep_cluster::{Directory, Node};
use shardkeep_daemon::{Daemon, event, unix_millis};
use shardkeep_link::{LinkEvent, LinkHub, PublishKind, SessionChange};
use shardkeep_rpc::world::PresenceReport;
use shardkeep_types::{Epoch, GroupKey, WorldId, group_kind};
use shardkeep_wire::payload::Channel;
use tokio::sync::mpsc;

use crate::{
    envelope::Envelope,
    metrics::{AVATARS, DELIVERED, LINES, MISSED, REFUSED, SESSIONS},
    room::{Effect, Now, Room},
    service::{Job, channel_name},
    single_replica,
};

/// How often the mutes are published again, for replicas that missed them.
const PUBLISH_MUTES_EVERY: Duration = Duration::from_secs(10);

pub(crate) struct Actor {
    pub(crate) room: Room,
    pub(crate) node: Node,
    pub(crate) daemon: Daemon,
    pub(crate) hub: LinkHub,
    pub(crate) bus: Bus,
    /// The bus reaches only this process, so there must be no other replica.
    pub(crate) single_replica: bool,
}

/// The channels that the actor reads.
pub(crate) struct Sources {
    pub(crate) jobs: mpsc::Receiver<Job>,
    pub(crate) links: mpsc::Receiver<LinkEvent>,
    pub(crate) presence: mpsc::Receiver<PresenceReport>,
    pub(crate) replicas: Subscription,
    pub(crate) chats: Directory,
}

impl Actor {
    /// Runs until the daemon drains. Gateways then bind the sessions to another replica.
    pub(crate) async fn run(mut self, mut from: Sources) -> anyhow::Result<()> {
        let draining = self.daemon.draining();
        let mut publish_mutes = tokio::time::interval(PUBLISH_MUTES_EVERY);
        loop {
            tokio::select! {
                Some(job) = from.jobs.recv() => job(&mut self.room, now()),
                Some(event) = from.links.recv() => self.link_event(event),
                Some(report) = from.presence.recv() => self.room.presence(report),
                Some(delivery) = from.replicas.next() => self.bus_delivery(delivery),
                _ = publish_mutes.tick() => self.room.publish_mutes(now()),
                () = from.chats.changed(), if self.single_replica => single_replica::check(&self.node, &from.chats)?,
                () = draining.cancelled() => return Ok(()),
            }
            self.perform();
        }
    }

    fn link_event(&mut self, event: LinkEvent) {
        match event {
            LinkEvent::Up { gateway, fresh: true } | LinkEvent::Down { gateway } => {
                self.room.gateway_lost(&gateway);
            }
            LinkEvent::Deliver { gateway, session, session_epoch, messages } => {
                self.room.delivered(now(), &gateway, session, session_epoch, &messages);
            }
            LinkEvent::Session { gateway, event } => match event.kind {
                SessionChange::Joined => {
                    self.room.joined(&gateway, event.session, event.session_epoch);
                }
                SessionChange::Left => self.room.left(&gateway, event.session),
                SessionChange::Resumed | SessionChange::LinkDead => {}
            },
            LinkEvent::Bound { gateway, session, session_epoch, bind_epoch, .. } => {
                self.room.joined(&gateway, session, session_epoch);
                self.hub.ready(&gateway, session, bind_epoch);
            }
            // Lines are events, and links do not keep events for a gateway that reconnects.
            LinkEvent::Up { fresh: false, .. }
            | LinkEvent::Watched { .. }
            | LinkEvent::Unwatched { .. }
            | LinkEvent::KeyframeWanted { .. } => {}
        }
    }

    fn bus_delivery(&mut self, delivery: Delivery) {
        match delivery {
            Delivery::Message(bytes) => match Envelope::decode(bytes) {
                Ok(envelope) => self.room.received(now(), envelope),
                Err(error) => {
                    metrics::counter!(MISSED).increment(1);
                    tracing::warn!(%error, "a message on the bus is not chat's");
                }
            },
            Delivery::Lost(count) => {
                metrics::counter!(MISSED).increment(count);
                tracing::warn!(count, "too slow for the bus: lines of other replicas were lost");
            }
        }
    }

    fn perform(&mut self) {
        for effect in self.room.take_effects() {
            self.perform_one(effect);
        }
        metrics::gauge!(SESSIONS).set(self.room.sessions() as f64);
        metrics::gauge!(AVATARS).set(self.room.avatars.len() as f64);
    }

    fn perform_one(&self, effect: Effect) {
        match effect {
            Effect::Send { gateway, sessions, message } => {
                metrics::counter!(DELIVERED).increment(sessions.len() as u64);
                self.hub.send(&gateway, &sessions, vec![message]);
            }
            Effect::Subscribe { gateway, session } => {
                self.hub.subscribe(&gateway, session, &[self.world_group()], true);
            }
            Effect::Unsubscribe { gateway, session } => {
                self.hub.unsubscribe(&gateway, session, &[self.world_group()]);
            }
            Effect::Broadcast(message) => {
                let epoch = Epoch(self.node.id().incarnation);
                self.hub.publish(self.world_group(), epoch, PublishKind::Event, message);
            }
            Effect::Publish(envelope) => {
                let topic = topic(self.node.world());
                if let Err(error) = self.bus.publish(&topic, envelope.encode_to_vec().into()) {
                    tracing::warn!(%error, "other replicas do not hear a line");
                }
            }
            Effect::ChatEvent { line, account, session } => {
                let channel = channel_name(line.channel);
                metrics::counter!(LINES, "channel" => channel).increment(1);
                event!(
                    "chat",
                    account = account.0,
                    character = line.from_character,
                    session = session.to_string(),
                    world = self.node.world().0,
                    channel,
                    from = line.from,
                    to = line.to,
                    text = line.text,
                );
            }
            Effect::Refused(refusal) => metrics::counter!(REFUSED, "why" => refusal.label()).increment(1),
        }
    }

    /// The group that receives the world channel from this replica.
    fn world_group(&self) -> GroupKey {
        GroupKey::new(group_kind::CHANNEL, replica_number(&self.node.id().name), Channel::World as u64)
    }
}

/// The bus topic of the replicas of a world's chat.
pub(crate) fn topic(world: WorldId) -> String {
    format!("shardkeep:chat:{world}")
}

/// The number of a replica in its group keys: FNV-1a of its name. A group key has room for 48 bits.
fn replica_number(name: &str) -> u64 {
    name.bytes()
        .fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3))
}

fn now() -> Now {
    Now { at: Instant::now(), wall_ms: unix_millis() }
}
