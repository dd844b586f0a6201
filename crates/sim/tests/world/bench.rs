//! The load that `tools/bench` measures, here only for its plausibility.

use shardkeep_sim::load::{Load, Shape};

use super::*;

#[test]
fn load_publishes_cells_and_state_of_every_avatar() {
    for shape in [Shape::Spread, Shape::Clustered] {
        let mut load = Load::new(200, shape);
        let events = load.tick();
        assert!(events.iter().any(|event| matches!(event, Event::Cell(_))), "{shape:?}");
        let own = load.tick().iter().filter(|event| matches!(event, Event::AvatarState { .. })).count();
        assert_eq!(own, 200);
    }
}
