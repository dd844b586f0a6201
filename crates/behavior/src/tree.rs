//! Behaviour trees: constants, looked through from the top in every interval, so that a creature drops what it is
//! doing as soon as something more pressing comes up.

/// One node. Evaluating it gives what to do, or nothing, and then the parent looks further.
#[derive(Debug)]
pub enum Node {
    /// The first child that finds something to do.
    First(&'static [Node]),
    /// The child, while the condition holds.
    When(Condition, &'static Node),
    Do(Behaviour),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Condition {
    /// Beyond its leash, or still on the way back from there.
    BeyondLeash,
    /// Somebody worth running from is near.
    Threatened,
    /// Somebody hurt it, or came too close, and can be reached within the leash.
    Provoked,
    LowHealth,
    InReach,
}

/// What a creature does; the names appear in intents, metrics and on the live map.
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

/// Runs from everybody, never fights.
pub(crate) const PREY: Node = First(&[When(Threatened, &Do(Flee)), When(BeyondLeash, &Do(Return)), IDLE]);

/// Fights back when hurt, runs when it goes badly.
pub(crate) const DEFENSIVE: Node = First(&[
    When(BeyondLeash, &Do(Return)),
    When(Threatened, &When(LowHealth, &Do(Flee))),
    When(Provoked, &FIGHT),
    IDLE,
]);

/// Attacks who comes near, to the end.
pub(crate) const AGGRESSIVE: Node = First(&[When(BeyondLeash, &Do(Return)), When(Provoked, &FIGHT), IDLE]);
