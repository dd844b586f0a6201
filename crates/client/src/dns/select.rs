//! The order in which to try the targets of a service: lowest priority first, and by weight among equals (RFC 2782).

use hickory_proto::rr::Name;

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Candidate {
    pub(super) priority: u16,
    pub(super) weight: u16,
    pub(super) port: u16,
    pub(super) target: Name,
}

/// `below(n)` gives a random number from 0 to `n` − 1.
pub(super) fn order_candidates(
    mut remaining: Vec<Candidate>,
    mut below: impl FnMut(u64) -> u64,
) -> Vec<Candidate> {
    // Those of weight 0 come first among their equals, as the RFC wants it, which gives them a small chance.
    remaining.sort_by_key(|candidate| (candidate.priority, candidate.weight != 0));
    let mut ordered = Vec::with_capacity(remaining.len());
    while let Some(first) = remaining.first() {
        let equals = remaining.partition_point(|candidate| candidate.priority == first.priority);
        let total: u64 = remaining[..equals].iter().map(|candidate| u64::from(candidate.weight)).sum();
        let chosen = below(total + 1);
        let mut running = 0;
        let at = remaining[..equals].iter().position(|candidate| {
            running += u64::from(candidate.weight);
            running >= chosen
        });
        ordered.push(remaining.remove(at.unwrap_or(0)));
    }
    ordered
}

#[cfg(test)]
mod tests {
    use super::*;

    fn candidate(priority: u16, weight: u16, port: u16) -> Candidate {
        Candidate { priority, weight, port, target: Name::root() }
    }

    fn ports(candidates: &[Candidate], below: impl FnMut(u64) -> u64) -> Vec<u16> {
        order_candidates(candidates.to_vec(), below).iter().map(|candidate| candidate.port).collect()
    }

    #[test]
    fn targets_are_ordered_by_priority_before_weight() {
        let all = [candidate(2, 100, 1), candidate(1, 0, 2), candidate(1, 10, 3)];
        assert_eq!(ports(&all, |total| total - 1), [3, 2, 1]);
        assert_eq!(ports(&all, |_| 0), [2, 3, 1]);
    }

    #[test]
    fn target_probability_follows_weight() {
        let all = [candidate(1, 10, 1), candidate(1, 30, 2)];
        let mut draw = 0;
        let firsts: Vec<_> = (0..41)
            .map(|chosen| {
                draw = chosen;
                ports(&all, |total| if total == 41 { draw } else { 0 })[0]
            })
            .collect();
        assert_eq!(firsts.iter().filter(|port| **port == 1).count(), 11);
        assert_eq!(firsts.iter().filter(|port| **port == 2).count(), 30);
    }
}
