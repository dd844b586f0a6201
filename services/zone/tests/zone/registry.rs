//! A registry that believes everything.

use std::{
    collections::BTreeMap,
    pin::Pin,
    sync::{Arc, Mutex},
};

use futures::{Stream, StreamExt, stream};
use shardkeep_rpc::registry::{
    HeartbeatReply, HeartbeatRequest, Instance, LeaveReply, LeaveRequest, ListReply, ListRequest,
    RegisterReply, RegisterRequest, RemoveReply, RemoveRequest, State, WatchEvent, WatchRequest,
    registry_server::Registry, watch_event::Event,
};
use tokio::sync::broadcast;
use tokio_stream::wrappers::BroadcastStream;
use tonic::{Request, Response, Status};

#[derive(Clone)]
pub(crate) struct StandInRegistry {
    instances: Arc<Mutex<BTreeMap<String, Instance>>>,
    changes: broadcast::Sender<Instance>,
}

impl Default for StandInRegistry {
    fn default() -> Self {
        Self { instances: Arc::default(), changes: broadcast::channel(1024).0 }
    }
}

impl StandInRegistry {
    /// What it knows of an instance, once that is up.
    pub(crate) async fn up(&self, name: &str) -> Instance {
        let mut changes = self.changes.subscribe();
        loop {
            let known = self.instances.lock().unwrap().get(name).cloned();
            if let Some(instance) = known.filter(|it| it.state == i32::from(State::Up)) {
                return instance;
            }
            let _ = changes.recv().await;
        }
    }

    fn change(&self, name: &str, change: impl FnOnce(&mut Instance)) -> bool {
        let mut instances = self.instances.lock().unwrap();
        let Some(instance) = instances.get_mut(name) else { return false };
        let before = instance.clone();
        change(instance);
        if *instance != before {
            let _ = self.changes.send(instance.clone());
        }
        true
    }
}

#[tonic::async_trait]
impl Registry for StandInRegistry {
    type WatchStream = Pin<Box<dyn Stream<Item = Result<WatchEvent, Status>> + Send>>;

    async fn register(&self, request: Request<RegisterRequest>) -> Result<Response<RegisterReply>, Status> {
        let instance = request.into_inner().instance.unwrap();
        let id = instance.id.clone().unwrap();
        self.instances.lock().unwrap().insert(id.name, instance.clone());
        let _ = self.changes.send(instance);
        Ok(Response::new(RegisterReply {}))
    }

    async fn heartbeat(
        &self,
        request: Request<HeartbeatRequest>,
    ) -> Result<Response<HeartbeatReply>, Status> {
        let HeartbeatRequest { id, state, load, attributes } = request.into_inner();
        let known = self.change(&id.unwrap().name, |instance| {
            *instance = Instance { state, load, attributes, ..instance.clone() };
        });
        Ok(Response::new(HeartbeatReply { known }))
    }

    async fn leave(&self, request: Request<LeaveRequest>) -> Result<Response<LeaveReply>, Status> {
        let name = request.into_inner().id.unwrap().name;
        self.change(&name, |instance| instance.state = State::Offline.into());
        Ok(Response::new(LeaveReply {}))
    }

    async fn watch(&self, request: Request<WatchRequest>) -> Result<Response<Self::WatchStream>, Status> {
        let kinds = request.into_inner().kinds;
        let wanted = move |instance: &Instance| kinds.contains(&instance.id.as_ref().unwrap().kind);
        let event = |event| Ok(WatchEvent { event: Some(event) });
        let instances = self.instances.lock().unwrap();
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
        Err(Status::unimplemented("list"))
    }

    async fn remove(&self, _: Request<RemoveRequest>) -> Result<Response<RemoveReply>, Status> {
        Err(Status::unimplemented("remove"))
    }
}
