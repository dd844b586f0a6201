//! The order of the stages in a tick.

use crate::{
    event::Event,
    rules::{MAX_STEPS, TICK_MS},
    sim::Sim,
    stage,
};

/// The parts of a tick, in order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stage {
    Movement,
    Interest,
    Combat,
    Intents,
    Encode,
}

impl Sim {
    /// Simulates one step. `now` is in milliseconds and rises. It is the same on all zones of a world as far as their
    /// clocks agree. A late tick moves entities by up to [`MAX_STEPS`] steps.
    pub fn tick(&mut self, now: u64) -> Vec<Event> {
        self.tick_observed(now, &mut |_| {})
    }

    /// The same. `ended` is called after each stage, so that stages can be timed.
    pub fn tick_observed(&mut self, now: u64, ended: &mut dyn FnMut(Stage)) -> Vec<Event> {
        let late = (now / TICK_MS).saturating_sub(self.tick).clamp(1, MAX_STEPS);
        self.steps = late as i32;
        (self.now, self.tick) = (now, now / TICK_MS);

        self.retry_pending_pickups();
        stage::movement::run(self);
        ended(Stage::Movement);
        stage::interest::run(self);
        ended(Stage::Interest);
        stage::combat::run(self);
        ended(Stage::Combat);
        stage::intents::run(self);
        ended(Stage::Intents);
        stage::encode::run(self);
        ended(Stage::Encode);
        std::mem::take(&mut self.events)
    }
}
