//! Opcode ranges that studio backends serve. A backend brings its ranges with it; they go with the last replica of its
//! kind.

use std::sync::Arc;

use parking_lot::RwLock;
use shardkeep_link::BackendInfo;
use shardkeep_types::BackendKind;
use shardkeep_wire::range::{Range, Ranges};
use tracing::warn;

#[derive(Default)]
pub(crate) struct Routes(RwLock<Arc<Ranges>>);

impl Routes {
    /// Calls `read` with the present ranges.
    pub(crate) fn with<R>(&self, read: impl FnOnce(&Ranges) -> R) -> R {
        read(&self.0.read())
    }

    pub(crate) fn add(&self, backend: &BackendInfo) {
        if backend.kind < BackendKind::FIRST_CUSTOM {
            return;
        }
        self.change(|ranges| {
            for route in &backend.routes {
                let range = Range {
                    first: route.first,
                    last: route.last,
                    max_payload: usize::try_from(route.max_payload).unwrap_or(usize::MAX),
                    per_second: route.rate,
                    burst: route.burst,
                    backend: backend.kind,
                };
                if let Err(error) = ranges.insert(range) {
                    warn!(backend = %backend.id, %error, "route refused");
                }
            }
        });
    }

    /// No replica of the kind is left.
    pub(crate) fn remove(&self, kind: BackendKind) {
        self.change(|ranges| ranges.remove(kind));
    }

    fn change(&self, change: impl FnOnce(&mut Ranges)) {
        let mut ranges = self.0.write();
        let mut changed = (**ranges).clone();
        change(&mut changed);
        *ranges = Arc::new(changed);
    }
}
