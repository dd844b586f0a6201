//! How many connections there may be, in all and from one address.

use std::{collections::HashMap, sync::Arc};

use parking_lot::Mutex;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::{Config, limits::Origin, metrics};

/// How many connections there may be. Overflow: the newcomer is refused and counted.
pub(crate) struct Bounds {
    all: Arc<Semaphore>,
    size: usize,
    per_origin: usize,
    origins: Arc<Mutex<HashMap<Origin, usize>>>,
}

impl Bounds {
    pub(crate) fn new(config: &Config) -> Self {
        let size = config.max_connections.min(Semaphore::MAX_PERMITS);
        Self {
            all: Arc::new(Semaphore::new(size)),
            size,
            per_origin: config.max_connections_per_address,
            origins: Arc::default(),
        }
    }

    /// A place, or the name of the bound that is reached.
    pub(crate) fn admit(&self, origin: Origin) -> Result<Place, &'static str> {
        let permit = self.all.clone().try_acquire_owned().map_err(|_| "connections")?;
        let mut origins = self.origins.lock();
        let count = origins.entry(origin).or_insert(0);
        if *count >= self.per_origin {
            return Err("connections_per_address");
        }
        *count += 1;
        metrics::connections(1.0);
        Ok(Place { origin, origins: self.origins.clone(), _permit: permit })
    }

    /// 0.0 nobody is here to 1.0: the next is refused.
    pub(crate) fn load(&self) -> f64 {
        1.0 - self.all.available_permits() as f64 / self.size as f64
    }
}

/// One connection's share of the bounds; given back when dropped.
pub(crate) struct Place {
    origin: Origin,
    origins: Arc<Mutex<HashMap<Origin, usize>>>,
    _permit: OwnedSemaphorePermit,
}

impl Drop for Place {
    fn drop(&mut self) {
        metrics::connections(-1.0);
        let mut origins = self.origins.lock();
        if let Some(count) = origins.get_mut(&self.origin) {
            *count -= 1;
            if *count == 0 {
                origins.remove(&self.origin);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_given_back() {
        let bounds =
            Bounds::new(&Config { max_connections: 3, max_connections_per_address: 2, ..Config::default() });
        let [here, there] = [1, 2].map(|last| Origin::of([10, 0, 0, last].into()));
        let first = bounds.admit(here).ok();
        let second = bounds.admit(here).ok();
        assert_eq!(bounds.admit(here).err(), Some("connections_per_address"));
        let third = bounds.admit(there).ok();
        assert!(third.is_some());
        assert_eq!(bounds.admit(there).err(), Some("connections"));
        assert_eq!(bounds.load(), 1.0);
        drop((first, second, third));
        assert_eq!(bounds.load(), 0.0);
        assert!(bounds.origins.lock().is_empty());
        assert!(bounds.admit(here).is_ok());
    }
}
