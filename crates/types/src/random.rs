//! A small source of random numbers with the seed as an argument, so that a run can be replayed. It is unfit for secrets.

use serde::{Deserialize, Serialize};

/// SplitMix64 (Steele, Lea, Flood: "Fast splittable pseudorandom number generators", 2014).
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Random(u64);

impl Random {
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub fn draw(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// A uniform number in `low..=high`; `low` when the range is empty.
    pub fn between(&mut self, low: i32, high: i32) -> i32 {
        let width = i64::from(high) - i64::from(low) + 1;
        if width <= 1 {
            return low;
        }
        // Scales the upper 32 bits to the width. The bias is negligible for widths of millimetres.
        let offset = (i64::from((self.draw() >> 32) as u32) * width) >> 32;
        i32::try_from(i64::from(low) + offset).unwrap_or(low)
    }

    /// A number in `low..=high`; `low` when the range is empty.
    pub fn within(&mut self, low: u32, high: u32) -> u32 {
        let span = u64::from(high.saturating_sub(low)) + 1;
        low + (self.draw() % span) as u32
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn same_seed_gives_same_numbers() {
        let (mut one, mut other) = (Random::new(7), Random::new(7));
        assert!((0..100).all(|_| one.draw() == other.draw()));
        assert_ne!(Random::new(7).draw(), Random::new(8).draw());
        assert!((0..1_000).map(|_| one.within(3, 5)).all(|number| (3..=5).contains(&number)));
    }

    #[test]
    fn between_covers_range_and_stays_inside() {
        let mut random = Random::new(1);
        let drawn: Vec<i32> = (0..1000).map(|_| random.between(-3, 3)).collect();
        assert!(drawn.iter().all(|number| (-3..=3).contains(number)));
        assert!((-3..=3).all(|number| drawn.contains(&number)));
        assert_eq!(random.between(5, 5), 5);
        assert_eq!(random.between(5, 4), 5);
        assert!(random.between(i32::MIN, i32::MAX) != random.between(i32::MIN, i32::MAX));
    }
}
