//! A hash map without an order: it cannot be iterated, so its random order cannot affect an outcome.

#![expect(clippy::disallowed_types, reason = "this type has no method that shows the order")]

use std::{collections::HashMap, hash::Hash};

#[derive(Debug, Clone)]
pub(crate) struct Lookup<K, V>(HashMap<K, V>);

impl<K, V> Default for Lookup<K, V> {
    fn default() -> Self {
        Self(HashMap::new())
    }
}

impl<K: Hash + Eq, V: Copy> Lookup<K, V> {
    pub(crate) fn get(&self, key: &K) -> Option<V> {
        self.0.get(key).copied()
    }

    /// Returns the value before.
    pub(crate) fn insert(&mut self, key: K, value: V) -> Option<V> {
        self.0.insert(key, value)
    }

    pub(crate) fn remove(&mut self, key: &K) -> Option<V> {
        self.0.remove(key)
    }
}
