//! Watchers of presence: chat and the operators' console.

use shardkeep_rpc::world::{Presence, PresenceReport};
use tokio::sync::mpsc;
use tonic::Status;

use crate::metrics::WATCHERS_LOST;

/// How many changes a watcher may be behind. Overflow: its stream ends, and it starts again with a complete report;
/// counter WATCHERS_LOST.
const WATCHER_QUEUE: usize = 1024;

/// Characters in one report, so that a report stays below the limit of a message.
const REPORT_CHARACTERS: usize = 10_000;

#[derive(Default)]
pub(crate) struct Watchers(Vec<mpsc::Sender<Result<PresenceReport, Status>>>);

impl Watchers {
    /// The stream of a new watcher. It begins with all present characters: a complete report, and further reports if one
    /// message cannot hold all.
    pub(crate) fn add(&mut self, present: &[Presence]) -> mpsc::Receiver<Result<PresenceReport, Status>> {
        let (sender, receiver) = mpsc::channel(WATCHER_QUEUE);
        let (first, rest) = present.split_at(present.len().min(REPORT_CHARACTERS));
        let report = |complete, present: &[Presence]| PresenceReport {
            complete,
            present: present.to_vec(),
            ..PresenceReport::default()
        };
        let mut reports = std::iter::once(report(true, first))
            .chain(rest.chunks(REPORT_CHARACTERS).map(|part| report(false, part)));
        if reports.all(|report| sender.try_send(Ok(report)).is_ok()) {
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
        let _slow = watchers.add(&[]);
        let mut quick = watchers.add(&[]);
        assert!(quick.try_recv().unwrap().unwrap().complete);
        for _ in 0..WATCHER_QUEUE {
            watchers.publish(&PresenceReport::default());
            quick.try_recv().unwrap().unwrap();
        }
        assert_eq!(watchers.0.len(), 1);
        watchers.close_all();
        assert!(matches!(quick.try_recv(), Err(mpsc::error::TryRecvError::Disconnected)));
    }

    #[test]
    fn many_characters_are_reported_in_parts() {
        let present: Vec<_> =
            (1..=25_000).map(|character| Presence { character, ..Presence::default() }).collect();
        let mut watcher = Watchers::default().add(&present);
        let mut parts = Vec::new();
        while let Ok(report) = watcher.try_recv() {
            let report = report.unwrap();
            parts.push((report.complete, report.present.len()));
        }
        assert_eq!(parts, [(true, 10_000), (false, 10_000), (false, 5_000)]);
    }
}
