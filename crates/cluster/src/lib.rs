//! How daemons find, prove and reach each other: certificates, registration, directories and channels.
//! A service joins once ([`Node::join`]), serves its gRPC routes through the node, and asks it for live views of
//! the kinds it needs.

mod backoff;
pub mod certs;
mod directory;
mod instance;
pub mod link;
mod node;
mod peer;

pub use backoff::Backoff;
pub use directory::Directory;
pub use instance::{Instance, State};
pub use node::Node;
pub use peer::Peer;

/// Largest gRPC message between daemons, in bytes: what generated clients and servers should set as their limit.
pub const MESSAGE_LIMIT: usize = 4 << 20;
