//! Opening sessions at their worlds. One call carries as many as have gathered while the one before was under way: in
//! a storm a call for each would cost more than everything else about an attach.

use std::{collections::HashMap, mem, sync::Arc, time::Duration};

use parking_lot::Mutex;
use shardkeep_cluster::{Instance, Node};
use shardkeep_rpc::world::{OpenSessionsRequest, Opened, Opening, world_client::WorldClient};
use shardkeep_types::{DaemonKind, Epoch};
use tokio::{
    sync::oneshot,
    time::{Instant, sleep_until},
};
use tonic::{Code, Status};

use super::world::{DEADLINE, deadline, within};

/// Openings in one call.
const MOST: usize = 256;
/// Least time between the beginnings of two calls to a world; after a quiet moment nothing waits.
const INTERVAL: Duration = Duration::from_millis(1);

/// Clones share their calls.
#[derive(Clone)]
pub(super) struct Opener {
    node: Node,
    /// By the leader's address, while a task works on them. Bound: each belongs to a connection in its handshake or to
    /// a session that is presented, and both are bounded; overflow: there is none.
    queues: Arc<Mutex<HashMap<String, Vec<Waiting>>>>,
}

struct Waiting {
    opening: Opening,
    answer: oneshot::Sender<Result<Epoch, Status>>,
}

impl Opener {
    pub(super) fn new(node: &Node) -> Self {
        Self { node: node.clone(), queues: Arc::default() }
    }

    /// The session's epoch, once the leader knows it.
    pub(super) async fn open(&self, leader: &Instance, opening: Opening) -> Result<Epoch, Status> {
        let (answer, answered) = oneshot::channel();
        let waiting = Waiting { opening, answer };
        let idle = {
            let mut queues = self.queues.lock();
            match queues.get_mut(&leader.grpc_address) {
                Some(queue) => {
                    queue.push(waiting);
                    false
                }
                None => queues.insert(leader.grpc_address.clone(), vec![waiting]).is_none(),
            }
        };
        if idle {
            let (opener, address) = (self.clone(), leader.grpc_address.clone());
            tokio::spawn(async move { opener.work(address).await });
        }
        // A call under way, and the own one.
        let answered = async { answered.await.unwrap_or_else(|_| Err(Status::unavailable("not asked"))) };
        within(2 * DEADLINE, answered).await
    }

    /// Calls until nothing waits.
    async fn work(&self, address: String) {
        while let Some(batch) = self.take(&address) {
            let begun = Instant::now();
            let (openings, answers): (Vec<_>, Vec<_>) =
                batch.into_iter().map(|it| (it.opening, it.answer)).unzip();
            let results = self.call(&address, openings).await;
            for (place, answer) in answers.into_iter().enumerate() {
                let result = match &results {
                    Ok(opened) => opened.get(place).map_or_else(|| Err(unanswered()), result),
                    Err(status) => Err(status.clone()),
                };
                // Fails when the connection has gone; the world hears of that like of any other loss.
                let _ = answer.send(result);
            }
            sleep_until(begun + INTERVAL).await;
        }
    }

    fn take(&self, address: &str) -> Option<Vec<Waiting>> {
        let mut queues = self.queues.lock();
        let queue = queues.get_mut(address)?;
        if queue.is_empty() {
            queues.remove(address);
            return None;
        }
        let later = queue.split_off(queue.len().min(MOST));
        Some(mem::replace(queue, later))
    }

    async fn call(&self, address: &str, openings: Vec<Opening>) -> Result<Vec<Opened>, Status> {
        let mut client = WorldClient::new(self.node.channel(DaemonKind::World, address));
        let request = OpenSessionsRequest { gateway: self.node.id().name.clone(), openings };
        Ok(within(DEADLINE, client.open_sessions(deadline(request))).await?.into_inner().opened)
    }
}

fn result(opened: &Opened) -> Result<Epoch, Status> {
    match i32::try_from(opened.code).map_or(Code::Unknown, Code::from_i32) {
        Code::Ok => Ok(Epoch(opened.session_epoch)),
        code => Err(Status::new(code, opened.detail.clone())),
    }
}

fn unanswered() -> Status {
    Status::internal("the world did not answer every opening")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_opening_has_its_own_answer() {
        let opened = |code: Code| Opened { session_epoch: 7, code: code as u32, detail: "why".into() };
        assert_eq!(result(&opened(Code::Ok)).unwrap(), Epoch(7));
        let refused = result(&opened(Code::Aborted)).unwrap_err();
        assert_eq!((refused.code(), refused.message()), (Code::Aborted, "why"));
    }
}
