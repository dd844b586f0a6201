//! Streams to neighbouring zones. Each neighbour has a separate queue, and no tick waits for one.

use std::collections::HashMap;

use shardkeep_rpc::zone::PeerFrame;
use tokio::sync::mpsc;

use crate::{edge::calls::Calls, metrics};

/// Bound of a neighbour's queue, in frames. Overflow: the frame is dropped, counted; ghosts and effects repeat.
const FRAME_QUEUE: usize = 64;

#[derive(Debug, Default)]
pub(crate) struct Neighbours(HashMap<String, mpsc::Sender<PeerFrame>>);

impl Neighbours {
    pub(crate) fn open(&mut self, calls: &Calls, zone: String, grpc_address: &str) {
        let (frames, receiver) = mpsc::channel(FRAME_QUEUE);
        calls.stream_to_neighbour(grpc_address, receiver);
        self.0.insert(zone, frames);
    }

    pub(crate) fn close(&mut self, zone: &str) {
        self.0.remove(zone);
    }

    /// Returns whether the frame was queued.
    pub(crate) fn send(&self, zone: &str, frame: PeerFrame) -> bool {
        let Some(frames) = self.0.get(zone) else { return false };
        let queued = frames.try_send(frame).is_ok();
        if queued {
            metrics::peer_frame("out");
        } else {
            metrics::dropped("neighbour");
        }
        queued
    }
}
