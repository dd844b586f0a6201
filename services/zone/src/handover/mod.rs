//! Hand-over of an avatar between two zones: the state machine, the zone that gives, and the zone that receives.

mod source;
mod state;
mod target;

pub(crate) use source::HandedOver;
pub(crate) use state::{
    Ownership, Source, SourceEvent, SourceStep, TargetEvent, TargetStep, decide_target_step,
};
pub(crate) use target::Arrival;
