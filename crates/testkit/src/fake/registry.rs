//! A registry for the tests of one daemon. It accepts every registration, and a test can mark an instance as offline.

use std::{collections::BTreeMap, pin::Pin, sync::Arc};

use futures::{Stream, StreamExt, stream};
use parking_lot::Mutex;
use shardkeep_rpc::registry::{
    HeartbeatReply, HeartbeatRequest, Instance, LeaveReply, LeaveRequest, ListReply, ListRequest,
    RegisterReply, RegisterRequest, RemoveReply, RemoveRequest, State, WatchEvent, WatchRequest,
    registry_server::Registry, watch_event::Event,
};
use tokio::sync::broadcast;
use tokio_stream::wrappers::BroadcastStream;
use tonic::{Request, Response, Status};

/// Changes that a watcher may be behind.
const CHANGE_QUEUE: usize = 1024;

/// Instances by their names. Clones share what they know.
#[derive(Clone)]
pub struct FakeRegistry {
    instances: Arc<Mutex<BTreeMap<String, Instance>>>,
    changes: broadcast::Sender<Instance>,
}

impl Default for FakeRegistry {
    fn default() -> Self {
        Self { instances: Arc::default(), changes: broadcast::channel(CHANGE_QUEUE).0 }
    }
}

impl FakeRegistry {
    /// Waits until the instance is up, and returns its registration.
    pub async fn wait_until_up(&self, name: &str) -> Instance {
        let mut changes = self.changes.subscribe();
        loop {
            let known = self.instances.lock().get(name).cloned();
            if let Some(instance) = known.filter(|it| it.state == i32::from(State::Up)) {
                return instance;
            }
            // Whether it was this instance or the channel overflowed: look again.
            let _ = changes.recv().await;
        }
    }

    /// Registers an instance in this state without a daemon.
    pub fn announce(&self, instance: Instance) {
        let name = instance.id.clone().expect("an instance has an id").name;
        self.instances.lock().insert(name, instance.clone());
        self.publish(instance);
    }

    /// Publishes the instance as offline, as a registry does when the lease has run out.
    pub fn mark_offline(&self, name: &str) {
        self.change(name, |instance| instance.state = State::Offline.into());
    }

    fn change(&self, name: &str, change: impl FnOnce(&mut Instance)) -> bool {
        let mut instances = self.instances.lock();
        let Some(instance) = instances.get_mut(name) else { return false };
        let before = instance.clone();
        // A lost instance stays lost: its heartbeats come too late.
        if !is_lost(instance) {
            change(instance);
        }
        if *instance != before {
            self.publish(instance.clone());
        }
        true
    }

    fn publish(&self, instance: Instance) {
        // Fails when there is no watcher yet.
        let _ = self.changes.send(instance);
    }
}

fn is_lost(instance: &Instance) -> bool {
    [State::Offline, State::Left].map(i32::from).contains(&instance.state)
}

fn missing(field: &'static str) -> impl FnOnce() -> Status {
    move || Status::invalid_argument(format!("{field} is missing"))
}

#[tonic::async_trait]
impl Registry for FakeRegistry {
    type WatchStream = Pin<Box<dyn Stream<Item = Result<WatchEvent, Status>> + Send>>;

    async fn register(&self, request: Request<RegisterRequest>) -> Result<Response<RegisterReply>, Status> {
        let instance = request.into_inner().instance.ok_or_else(missing("instance"))?;
        let id = instance.id.clone().ok_or_else(missing("id"))?;
        let mut instances = self.instances.lock();
        // Of the same incarnation, that is: a daemon that was restarted is another.
        let lost = |known: &Instance| is_lost(known) && known.id == instance.id;
        if !instances.get(&id.name).is_some_and(lost) {
            instances.insert(id.name, instance.clone());
            self.publish(instance);
        }
        Ok(Response::new(RegisterReply {}))
    }

    async fn heartbeat(
        &self,
        request: Request<HeartbeatRequest>,
    ) -> Result<Response<HeartbeatReply>, Status> {
        let HeartbeatRequest { id, state, load, attributes, leadership, .. } = request.into_inner();
        let known = self.change(&id.ok_or_else(missing("id"))?.name, |instance| {
            *instance = Instance { state, load, attributes, leadership, ..instance.clone() };
        });
        Ok(Response::new(HeartbeatReply { known }))
    }

    async fn leave(&self, request: Request<LeaveRequest>) -> Result<Response<LeaveReply>, Status> {
        let LeaveRequest { id, failed, .. } = request.into_inner();
        let state = if failed { State::Offline } else { State::Left };
        self.change(&id.ok_or_else(missing("id"))?.name, |instance| instance.state = state.into());
        Ok(Response::new(LeaveReply {}))
    }

    async fn watch(&self, request: Request<WatchRequest>) -> Result<Response<Self::WatchStream>, Status> {
        let kinds = request.into_inner().kinds;
        let wanted = move |instance: &Instance| {
            kinds.is_empty() || instance.id.as_ref().is_some_and(|id| kinds.contains(&id.kind))
        };
        let event = |event| Ok(WatchEvent { event: Some(event) });
        let instances = self.instances.lock();
        let changes = BroadcastStream::new(self.changes.subscribe());
        let now: Vec<Instance> = instances.values().filter(|instance| wanted(instance)).cloned().collect();
        let first = now.into_iter().map(Event::Changed).chain([Event::Synced(true)]).map(event);
        let later = changes.filter_map(move |change| {
            let change = change.ok().filter(&wanted).map(Event::Changed).map(event);
            async { change }
        });
        Ok(Response::new(Box::pin(stream::iter(first).chain(later))))
    }

    async fn list(&self, _: Request<ListRequest>) -> Result<Response<ListReply>, Status> {
        let instances = self.instances.lock();
        Ok(Response::new(ListReply { instances: instances.values().cloned().collect() }))
    }

    async fn remove(&self, request: Request<RemoveRequest>) -> Result<Response<RemoveReply>, Status> {
        let removed = self.instances.lock().remove(&request.into_inner().name);
        removed.map(|_| Response::new(RemoveReply {})).ok_or_else(|| Status::not_found("no such instance"))
    }
}
