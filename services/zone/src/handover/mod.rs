//! Hand-over of an avatar between two zones: the state machine, the source, and the target.

mod arrival;
mod handed_over;
mod source;
mod state;
mod target;

pub(crate) use arrival::Arrival;
pub(crate) use handed_over::HandedOver;
pub(crate) use state::{Source, SourceEvent};
