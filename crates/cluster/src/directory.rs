//! Live views of the instances of one kind.

use std::sync::Arc;

use tokio::sync::watch;

use crate::{Instance, State};

/// What the registries say about one kind, kept up to date. Clones are cheap and see the same.
#[derive(Debug, Clone)]
pub struct Directory {
    view: watch::Receiver<Arc<Vec<Instance>>>,
}

impl Directory {
    /// Every instance, ordered by name; offline ones too.
    pub fn all(&self) -> Vec<Instance> {
        self.view.borrow().to_vec()
    }

    /// Those that take new work.
    pub fn up(&self) -> Vec<Instance> {
        self.view.borrow().iter().filter(|instance| instance.state == State::Up).cloned().collect()
    }

    pub fn get(&self, name: &str) -> Option<Instance> {
        self.view.borrow().iter().find(|instance| instance.id.name == name).cloned()
    }

    /// The least loaded instance that is up.
    pub fn lightest(&self) -> Option<Instance> {
        self.up().into_iter().min_by(|a, b| a.load.total_cmp(&b.load))
    }

    /// Waits for the next change of anything in the view.
    pub async fn changed(&mut self) {
        if self.view.changed().await.is_err() {
            // The node is gone: nothing will ever change again.
            std::future::pending::<()>().await;
        }
    }
}
