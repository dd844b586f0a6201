//! Hand-over of an avatar between two zones: the two state machines, and the state that each zone keeps meanwhile.

mod arrival;
mod handed_over;
mod state;

pub(crate) use arrival::{Arrival, new_inputs};
pub(crate) use handed_over::HandedOver;
pub(crate) use state::{
    Ownership, Source, SourceEvent, SourceStep, TargetEvent, TargetStep, decide_target_step,
};
