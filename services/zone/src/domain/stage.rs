//! The parts of a tick of a space, which are timed.

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stage {
    /// A stage of the simulation.
    Sim(shardkeep_sim::Stage),
    /// The events of the simulation become messages.
    Events,
    /// Hand-overs, releases, spawns, snapshots, saves.
    Upkeep,
    /// Answers, and news for neighbours, the world and the AI.
    News,
    /// The effects are carried out.
    Execute,
}

impl Stage {
    pub(crate) fn label(self) -> &'static str {
        match self {
            Self::Sim(shardkeep_sim::Stage::Movement) => "movement",
            Self::Sim(shardkeep_sim::Stage::Interest) => "interest",
            Self::Sim(shardkeep_sim::Stage::Combat) => "combat",
            Self::Sim(shardkeep_sim::Stage::Intents) => "intents",
            Self::Sim(shardkeep_sim::Stage::Encode) => "encode",
            Self::Events => "events",
            Self::Upkeep => "upkeep",
            Self::News => "news",
            Self::Execute => "execute",
        }
    }
}
