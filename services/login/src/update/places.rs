//! How many may fetch at once, in all and from one address. Places of their own: those who patch take none from those
//! who log in.

use std::{collections::HashMap, sync::Arc};

use parking_lot::Mutex;

use shardkeep_daemon::Origin;

use crate::metrics;

/// Overflow: the newcomer is told UNAVAILABLE and counted.
#[derive(Clone)]
pub(crate) struct Places {
    all: usize,
    per_origin: usize,
    taken: Arc<Mutex<Taken>>,
}

#[derive(Default)]
struct Taken {
    all: usize,
    origins: HashMap<Origin, usize>,
}

impl Places {
    pub(crate) fn new(all: usize, per_origin: usize) -> Self {
        Self { all, per_origin, taken: Arc::default() }
    }

    /// A place, or the name of the bound that is reached.
    pub(crate) fn admit(&self, origin: Origin) -> Result<Place, &'static str> {
        let mut taken = self.taken.lock();
        if taken.all >= self.all {
            return Err("update_connections");
        }
        let here = taken.origins.get(&origin).copied().unwrap_or(0);
        if here >= self.per_origin {
            return Err("update_connections_per_address");
        }
        taken.all += 1;
        taken.origins.insert(origin, here + 1);
        metrics::update_connections(1.0);
        Ok(Place { origin, taken: self.taken.clone() })
    }
}

/// Given back when dropped.
pub(crate) struct Place {
    origin: Origin,
    taken: Arc<Mutex<Taken>>,
}

impl Drop for Place {
    fn drop(&mut self) {
        metrics::update_connections(-1.0);
        let mut taken = self.taken.lock();
        taken.all -= 1;
        if let Some(here) = taken.origins.get_mut(&self.origin) {
            *here -= 1;
            if *here == 0 {
                taken.origins.remove(&self.origin);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_given_back() {
        let places = Places::new(3, 2);
        let [here, there, elsewhere] = [1, 2, 3].map(|last| Origin::of([10, 0, 0, last].into()));
        let held = [places.admit(here), places.admit(here)].map(Result::ok);
        assert_eq!(places.admit(here).err(), Some("update_connections_per_address"));
        let third = places.admit(there).ok();
        assert_eq!(places.admit(elsewhere).err(), Some("update_connections"));
        drop((held, third));
        assert!(places.taken.lock().origins.is_empty());
        assert!(places.admit(elsewhere).is_ok());
    }
}
