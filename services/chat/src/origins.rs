//! Where each other replica is in its sequence, so that nobody hears twice what the bus repeats.

use std::{collections::HashMap, time::Instant};

/// Replicas remembered; beyond it the longest silent is forgotten.
const MOST: usize = 64;

#[derive(Debug, Default)]
pub(crate) struct Origins(HashMap<String, Origin>);

#[derive(Debug)]
struct Origin {
    incarnation: u64,
    sequence: u64,
    heard: Instant,
}

impl Origins {
    /// Notes a message of a replica; false if it, or a later one, was heard before.
    pub(crate) fn is_new(&mut self, now: Instant, name: &str, incarnation: u64, sequence: u64) -> bool {
        if let Some(known) = self.0.get_mut(name) {
            let new = (incarnation, sequence) > (known.incarnation, known.sequence);
            if new {
                *known = Origin { incarnation, sequence, heard: now };
            }
            return new;
        }
        if self.0.len() >= MOST {
            let silent = self.0.iter().min_by_key(|(_, origin)| origin.heard).map(|(name, _)| name.clone());
            silent.map(|name| self.0.remove(&name));
        }
        self.0.insert(name.to_owned(), Origin { incarnation, sequence, heard: now });
        true
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn repeats_are_old_and_a_new_incarnation_begins_again() {
        let (mut origins, now) = (Origins::default(), Instant::now());
        assert!(origins.is_new(now, "a", 1, 5));
        assert!(!origins.is_new(now, "a", 1, 5));
        assert!(!origins.is_new(now, "a", 1, 4));
        assert!(origins.is_new(now, "b", 1, 4));
        assert!(origins.is_new(now, "a", 2, 1));
        assert!(!origins.is_new(now, "a", 1, 6));
    }

    #[test]
    fn the_longest_silent_is_forgotten_first() {
        let (mut origins, start) = (Origins::default(), Instant::now());
        for number in 0..MOST as u64 {
            origins.is_new(start + Duration::from_secs(number), &number.to_string(), 1, 1);
        }
        origins.is_new(start + Duration::from_secs(999), "0", 1, 2);
        origins.is_new(start + Duration::from_secs(999), "new", 1, 1);
        assert!(!origins.is_new(start, "0", 1, 2));
        assert!(origins.is_new(start, "1", 1, 1));
    }
}
