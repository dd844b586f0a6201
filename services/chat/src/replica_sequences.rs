//! The last sequence number of each other replica, so that a message that the bus repeats is processed once.

use std::{collections::HashMap, time::Instant};

/// Bound. Overflow: the replica that was silent for the longest time is forgotten.
const MAX_REPLICAS: usize = 64;

#[derive(Debug, Default)]
pub(crate) struct ReplicaSequences(HashMap<String, ReplicaSequence>);

#[derive(Debug)]
struct ReplicaSequence {
    incarnation: u64,
    sequence: u64,
    last_seen: Instant,
}

impl ReplicaSequences {
    /// Notes a message; false if this message or a later one of the replica came before.
    pub(crate) fn is_new(&mut self, now: Instant, name: &str, incarnation: u64, sequence: u64) -> bool {
        if let Some(known) = self.0.get_mut(name) {
            let new = (incarnation, sequence) > (known.incarnation, known.sequence);
            if new {
                *known = ReplicaSequence { incarnation, sequence, last_seen: now };
            }
            return new;
        }
        if self.0.len() >= MAX_REPLICAS {
            let oldest =
                self.0.iter().min_by_key(|(_, origin)| origin.last_seen).map(|(name, _)| name.clone());
            oldest.map(|name| self.0.remove(&name));
        }
        self.0.insert(name.to_owned(), ReplicaSequence { incarnation, sequence, last_seen: now });
        true
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn repeats_are_rejected_and_new_incarnation_restarts() {
        let (mut replica_sequences, now) = (ReplicaSequences::default(), Instant::now());
        assert!(replica_sequences.is_new(now, "a", 1, 5));
        assert!(!replica_sequences.is_new(now, "a", 1, 5));
        assert!(!replica_sequences.is_new(now, "a", 1, 4));
        assert!(replica_sequences.is_new(now, "b", 1, 4));
        assert!(replica_sequences.is_new(now, "a", 2, 1));
        assert!(!replica_sequences.is_new(now, "a", 1, 6));
    }

    #[test]
    fn least_recently_seen_replica_is_evicted() {
        let (mut replica_sequences, start) = (ReplicaSequences::default(), Instant::now());
        for number in 0..MAX_REPLICAS as u64 {
            replica_sequences.is_new(start + Duration::from_secs(number), &number.to_string(), 1, 1);
        }
        replica_sequences.is_new(start + Duration::from_secs(999), "0", 1, 2);
        replica_sequences.is_new(start + Duration::from_secs(999), "new", 1, 1);
        assert!(!replica_sequences.is_new(start, "0", 1, 2));
        assert!(replica_sequences.is_new(start, "1", 1, 1));
    }
}
