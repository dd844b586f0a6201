//! Chooses replicas for one answer by a weighted draw without replacement: replicas with little load come more often and
//! earlier. A draw allocates nothing, because it runs for every answer.

use crate::random::Random;

/// Limit of one draw.
pub(crate) const MAX_PICKS: usize = 16;

/// Weights, prepared for drawing.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Weights {
    /// Running sums: the share of index i is the range from the sum before it to its own sum.
    cumulative: Box<[u32]>,
}

/// Indices in the order of the draw.
#[derive(Debug, Default)]
pub(crate) struct Drawn {
    picks: [u32; MAX_PICKS],
    count: usize,
}

impl Drawn {
    pub(crate) fn iter(&self) -> impl Iterator<Item = usize> + '_ {
        self.picks[..self.count].iter().map(|pick| *pick as usize)
    }
}

impl Weights {
    pub(crate) fn new(weights: impl Iterator<Item = u16>) -> Self {
        let cumulative = weights.scan(0u32, |end, weight| {
            *end = end.saturating_add(weight.max(1).into());
            Some(*end)
        });
        Self { cumulative: cumulative.collect() }
    }

    /// Draws `limit` indices, or fewer when there are fewer weights. The limit is at most [`MAX_PICKS`].
    pub(crate) fn draw(&self, limit: usize, random: &mut Random) -> Drawn {
        let mut drawn = Drawn::default();
        if self.cumulative.len() == 1 {
            drawn.count = 1;
            return drawn;
        }
        let mut remaining = self.cumulative.last().copied().unwrap_or_default();
        // The shares of earlier picks as (start, length), sorted by start.
        let mut taken = [(0, 0); MAX_PICKS];
        for count in 0..limit.min(self.cumulative.len()).min(MAX_PICKS) {
            // A random point of the remaining shares, moved past the shares of earlier picks.
            let mut point = random.below(remaining);
            let before = taken[..count].iter().take_while(|(start, length)| {
                let past = point >= *start;
                point += if past { *length } else { 0 };
                past
            });
            let before = before.count();
            let pick = self.cumulative.partition_point(|end| *end <= point);
            let start = pick.checked_sub(1).map_or(0, |previous| self.cumulative[previous]);
            let length = self.cumulative[pick] - start;
            taken.copy_within(before..count, before + 1);
            taken[before] = (start, length);
            remaining -= length;
            drawn.picks[count] = pick as u32;
            drawn.count = count + 1;
        }
        drawn
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn draw(weights: &[u16], limit: usize, random: &mut Random) -> Vec<usize> {
        Weights::new(weights.iter().copied()).draw(limit, random).iter().collect()
    }

    #[test]
    fn draw_follows_weights() {
        let mut random = Random::new(42);
        let mut firsts = [0; 3];
        let mut seconds = [0; 3];
        for _ in 0..10_000 {
            let picks = draw(&[60, 10, 30], 2, &mut random);
            firsts[picks[0]] += 1;
            seconds[picks[1]] += 1;
        }
        assert!((5_700..6_300).contains(&firsts[0]) && (850..1_150).contains(&firsts[1]), "{firsts:?}");
        // Computed by hand: 60 comes second after 10 (6/9 of 0.1) or after 30 (6/7 of 0.3).
        assert!((3_000..3_500).contains(&seconds[0]), "{seconds:?}");
    }

    #[test]
    fn draw_has_no_duplicates_and_respects_bounds() {
        let mut random = Random::new(1);
        for _ in 0..200 {
            let mut all = draw(&[1, 100, 3, 4, 5], 9, &mut random);
            all.sort_unstable();
            assert_eq!(all, [0, 1, 2, 3, 4]);
            assert_eq!(draw(&[1, 100, 3, 4, 5], 2, &mut random).len(), 2);
        }
        assert_eq!(draw(&[1; 100], 99, &mut random).len(), MAX_PICKS);
        assert_eq!(draw(&[7], 4, &mut random), [0]);
        assert!(draw(&[], 2, &mut random).is_empty());
    }
}
