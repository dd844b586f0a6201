//! The update service (`docs/protocol.md`, section 19): sends the published release, piece by piece, to clients that are
//! too old to log in. Its slots, bandwidth and disk reads are its own, so that downloads never starve logins, and its
//! memory does not grow with the size of a release.

mod config;
mod error;
mod metrics;
mod patches;
mod piece;
mod serve;
mod slots;
mod standalone;
mod store;
mod throttle;

pub use config::Config;
pub use error::UpdateError;
pub use patches::Patches;
pub use serve::serve;
pub use standalone::{StandaloneConfig, serve_standalone};
