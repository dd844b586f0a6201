//! The order of the stages in a tick.

use crate::{
    event::Event,
    rules::{MAX_STEPS, TICK_MS},
    sim::Sim,
    stage,
};

impl Sim {
    /// Simulates one step. `now` is in milliseconds and rises. It is the same on all zones of a world as far as their
    /// clocks agree. A late tick moves entities by up to [`MAX_STEPS`] steps.
    pub fn tick(&mut self, now: u64) -> Vec<Event> {
        let late = (now / TICK_MS).saturating_sub(self.tick).clamp(1, MAX_STEPS);
        self.steps = late as i32;
        (self.now, self.tick) = (now, now / TICK_MS);

        self.retry_pending_pickups();
        stage::movement::run(self);
        stage::interest::run(self);
        stage::combat::run(self);
        stage::intents::run(self);
        stage::encode::run(self);
        std::mem::take(&mut self.events)
    }
}
