//! Watchers of presence: chat and the operators' console.

use shardkeep_rpc::{
    presence_parts,
    world::{Presence, PresenceReport},
};
use tokio::sync::mpsc;
use tonic::Status;

use crate::metrics::WATCHERS_LOST;

/// How many changes a watcher may be behind. Overflow: its stream ends, and it starts again with a complete report;
/// counter WATCHERS_LOST.
const WATCHER_QUEUE: usize = 1024;

#[derive(Default)]
pub(crate) struct Watchers(Vec<mpsc::Sender<Result<PresenceReport, Status>>>);

impl Watchers {
    /// The stream of a new watcher. It begins with a complete report of all present characters.
    pub(crate) fn add(&mut self, present: Vec<Presence>) -> mpsc::Receiver<Result<PresenceReport, Status>> {
        let (sender, receiver) = mpsc::channel(WATCHER_QUEUE);
        let complete = PresenceReport { complete: true, present, ..PresenceReport::default() };
        if presence_parts(complete).into_iter().all(|part| sender.try_send(Ok(part)).is_ok()) {
            self.0.push(sender);
        }
        receiver
    }

    pub(crate) fn publish(&mut self, report: &PresenceReport) {
        self.0.retain(|watcher| match watcher.try_send(Ok(report.clone())) {
            Ok(()) => true,
            Err(mpsc::error::TrySendError::Full(_)) => {
                metrics::counter!(WATCHERS_LOST).increment(1);
                false
            }
            Err(mpsc::error::TrySendError::Closed(_)) => false,
        });
    }

    /// Ends all streams.
    pub(crate) fn close_all(&mut self) {
        self.0.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slow_watcher_is_dropped_and_others_continue() {
        let mut watchers = Watchers::default();
        let _slow = watchers.add(vec![]);
        let mut quick = watchers.add(vec![]);
        assert!(quick.try_recv().unwrap().unwrap().complete);
        for _ in 0..WATCHER_QUEUE {
            watchers.publish(&PresenceReport::default());
            quick.try_recv().unwrap().unwrap();
        }
        assert_eq!(watchers.0.len(), 1);
        watchers.close_all();
        assert!(matches!(quick.try_recv(), Err(mpsc::error::TryRecvError::Disconnected)));
    }
}
