//! Publish/subscribe between the replicas of a daemon: in the memory of one process, or over Redis between processes.
//! Nothing is stored for absent subscribers, and a slow subscriber does not delay the others.
//!
//! While the bus is connected, each subscriber receives each message at least once, and the messages of one publisher in
//! order. After a reconnection a message may arrive twice. A message that waits longer than [`MAX_AGE`] is dropped and
//! counted.

mod bus;
mod error;
mod metrics;
mod redis;
mod subscription;

pub use crate::bus::Bus;
pub use crate::error::{OpenError, PublishError};
pub use crate::metrics::describe;
pub use crate::redis::{MAX_AGE, OUTGOING_QUEUE, inspect};
pub use crate::subscription::{Delivery, SUBSCRIBER_QUEUE, Subscription};
