//! Behaviour trees. They are constants that a creature evaluates from the root in every interval, so that it reacts at
//! once when a more urgent condition holds.

/// One node. Its evaluation returns a behaviour or `None`; then the parent tries its next child.
#[derive(Debug)]
pub enum Node {
    /// The first child that returns a behaviour.
    First(&'static [Node]),
    /// The child, if the condition holds.
    When(Condition, &'static Node),
    Do(Behaviour),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Condition {
    /// The creature is beyond its leash, or still on the way back.
    BeyondLeash,
    /// An avatar to flee from is near.
    Threatened,
    /// An avatar hurt the creature or came too close, and is within the leash.
    Provoked,
    LowHealth,
    InReach,
}

/// A behaviour of a creature. The names appear in intents, in metrics and on the live map.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Behaviour {
    Wander,
    Rest,
    Chase,
    Strike,
    Return,
    Flee,
}

impl Behaviour {
    pub const ALL: [Self; 6] =
        [Self::Wander, Self::Rest, Self::Chase, Self::Strike, Self::Return, Self::Flee];

    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Wander => "wander",
            Self::Rest => "rest",
            Self::Chase => "chase",
            Self::Strike => "strike",
            Self::Return => "return",
            Self::Flee => "flee",
        }
    }
}

use Behaviour::{Chase, Flee, Rest, Return, Strike, Wander};
use Condition::{BeyondLeash, InReach, LowHealth, Provoked, Threatened};
use Node::{Do, First, When};

const FIGHT: Node = First(&[When(InReach, &Do(Strike)), Do(Chase)]);
const IDLE: Node = First(&[Do(Rest), Do(Wander)]);

/// Flees from every avatar and never fights.
pub(crate) const PREY: Node = First(&[When(Threatened, &Do(Flee)), When(BeyondLeash, &Do(Return)), IDLE]);

/// Fights back when it is hurt, and flees when its health is low.
pub(crate) const DEFENSIVE: Node = First(&[
    When(BeyondLeash, &Do(Return)),
    When(Threatened, &When(LowHealth, &Do(Flee))),
    When(Provoked, &FIGHT),
    IDLE,
]);

/// Attacks every avatar that comes near, and never flees.
pub(crate) const AGGRESSIVE: Node = First(&[When(BeyondLeash, &Do(Return)), When(Provoked, &FIGHT), IDLE]);
