//! The load that `benches` measures, here only for its plausibility.

use shardkeep_sim::load::{Load, Shape};

use super::*;

#[test]
fn everybody_moves_and_everybody_is_told() {
    for shape in [Shape::Spread, Shape::Crowd] {
        let mut load = Load::new(200, shape);
        let events = load.tick();
        assert!(events.iter().any(|event| matches!(event, Event::Cell(_))), "{shape:?}");
        let own = load.tick().iter().filter(|event| matches!(event, Event::Own { .. })).count();
        assert_eq!(own, 200);
    }
}
