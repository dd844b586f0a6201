//! Chooses replicas for one answer: a weighted draw without putting back, so that the lightly loaded come more often
//! and come first.

use crate::{random::Random, view::Target};

/// At most `most` of the targets that `fits` accepts, in the order drawn.
pub(crate) fn choose<'a>(
    targets: &'a [Target],
    most: usize,
    random: &mut Random,
    fits: impl Fn(&Target) -> bool,
) -> Vec<&'a Target> {
    let mut left: Vec<&Target> = targets.iter().filter(|target| fits(target)).collect();
    let mut total: u32 = left.iter().map(|target| u32::from(target.weight)).sum();
    let mut chosen = Vec::with_capacity(most.min(left.len()));
    while chosen.len() < most && !left.is_empty() {
        let mut ticket = random.below(total);
        let at = left.iter().position(|target| {
            let weight = u32::from(target.weight);
            let hit = ticket < weight;
            ticket = ticket.saturating_sub(weight);
            hit
        });
        let target = left.swap_remove(at.unwrap_or(0));
        total -= u32::from(target.weight);
        chosen.push(target);
    }
    chosen
}

#[cfg(test)]
mod tests {
    use super::*;

    fn target(name: &str, weight: u16) -> Target {
        Target { name: name.into(), addresses: vec![], port: 1, weight }
    }

    #[test]
    fn each_is_drawn_by_its_weight() {
        let targets = [target("light", 90), target("heavy", 10)];
        let mut random = Random::new(42);
        let draws = 10_000;
        let light =
            (0..draws).filter(|_| choose(&targets, 1, &mut random, |_| true)[0].name == "light").count();
        assert!((8_800..9_200).contains(&light), "{light} of {draws}");
    }

    #[test]
    fn nobody_is_drawn_twice_and_bounds_hold() {
        let targets: Vec<_> = (1..=5).map(|n| target(&n.to_string(), n)).collect();
        let mut random = Random::new(1);
        for _ in 0..100 {
            let mut names: Vec<_> =
                choose(&targets, 9, &mut random, |t| t.weight > 1).iter().map(|t| t.name.clone()).collect();
            names.sort();
            assert_eq!(names, ["2", "3", "4", "5"]);
            assert_eq!(choose(&targets, 2, &mut random, |_| true).len(), 2);
        }
        assert!(choose(&[], 2, &mut random, |_| true).is_empty());
    }
}
