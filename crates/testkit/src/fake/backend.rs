//! A backend of gateways, such as a zone, that sends what the test tells it.

use bytes::Bytes;
use shardkeep_cluster::Node;
use shardkeep_link::{
    BackendSpec, ClientMessage, GatewayId, LinkEvent, LinkHub, PublishKind, ServerMessage, SessionChange,
};
use shardkeep_types::{Epoch, GroupKey, SessionId};
use tokio::{sync::mpsc, time::timeout};

use crate::wait::TIMEOUT;

pub struct FakeBackend {
    pub hub: LinkHub,
    pub events: mpsc::Receiver<LinkEvent>,
}

impl FakeBackend {
    pub fn new(node: &Node, spec: BackendSpec) -> Self {
        let (hub, events) = LinkHub::new(node, spec);
        Self { hub, events }
    }

    /// The next event that `wanted` takes; those before it are forgotten.
    pub async fn until<T>(&mut self, kind: &str, mut wanted: impl FnMut(LinkEvent) -> Option<T>) -> T {
        let found = async {
            loop {
                if let Some(found) = wanted(self.events.recv().await.expect("the hub lives")) {
                    return found;
                }
            }
        };
        timeout(TIMEOUT, found).await.unwrap_or_else(|_| panic!("no {kind} came"))
    }

    /// The gateway whose session has changed so.
    pub async fn session(&mut self, session: SessionId, kind: SessionChange) -> GatewayId {
        self.until(&format!("{kind:?}"), |event| match event {
            LinkEvent::Session { gateway, event } if (event.session, event.kind) == (session, kind) => {
                Some(gateway)
            }
            _ => None,
        })
        .await
    }

    pub async fn delivered(&mut self, session: SessionId) -> Vec<ClientMessage> {
        self.until("message", |event| match event {
            LinkEvent::Deliver { session: of, messages, .. } if of == session => Some(messages),
            _ => None,
        })
        .await
    }

    /// Waits for the bind, and says that it is ready.
    pub async fn bound(&mut self, session: SessionId) -> (GatewayId, Epoch) {
        let bound = self
            .until("bound", |event| match event {
                LinkEvent::Bound { gateway, session: of, bind_epoch, .. } if of == session => {
                    Some((gateway, bind_epoch))
                }
                _ => None,
            })
            .await;
        self.hub.ready(&bound.0, session, bound.1);
        bound
    }

    pub async fn watched(&mut self, group: GroupKey) {
        self.until("watch", |event| {
            matches!(event, LinkEvent::Watched { group: of, .. } if of == group).then_some(())
        })
        .await;
    }

    pub fn publish(&self, group: GroupKey, kind: PublishKind, text: &'static str) {
        let message = match kind {
            PublishKind::Event => ServerMessage::event(0x1040, text),
            _ => ServerMessage::state(0x1081, 1, group.number(), text),
        };
        self.hub.publish(group, Epoch(1), kind, message);
    }

    pub fn event(&self, gateway: &GatewayId, session: SessionId, opcode: u16, text: &str) {
        let text = Bytes::copy_from_slice(text.as_bytes());
        self.hub.send(gateway, &[session], vec![ServerMessage::event(opcode, text)]);
    }
}
