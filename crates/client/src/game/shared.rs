//! The picture of the world, shared by the session's task and the player.

use parking_lot::Mutex;
use tokio::sync::watch;

use super::view::View;

/// The view that the session's task changes and the player reads.
#[derive(Debug)]
pub(crate) struct Shared {
    view: Mutex<View>,
    /// Counts changes of the view.
    version: watch::Sender<u64>,
}

impl Shared {
    pub(super) fn new(version: watch::Sender<u64>) -> Self {
        Self { view: Mutex::default(), version }
    }

    pub(super) fn look<R>(&self, look: impl FnOnce(&View) -> R) -> R {
        look(&self.view.lock())
    }

    pub(crate) fn change(&self, change: impl FnOnce(&mut View)) {
        change(&mut self.view.lock());
        self.version.send_modify(|version| *version += 1);
    }
}
